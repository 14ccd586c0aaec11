"""Folders of images: read exactly, kept, split where asked, and refused in one line that names the file."""

import os

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from PIL import Image

from datamodules import image_files
from datamodules.base import ImageData
from datamodules.image_folder import ImageFolder
from datamodules.stored import VARIABLE

RNG = np.random.default_rng(0)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def fill(folder, classes=("ant", "bee"), count=10, shape=(5, 6, 3)):
    """Random PNG files; their pixels by class and number."""
    pixels = {k: RNG.integers(0, 256, (count, *shape)).astype(np.uint8) for k in classes}
    for name, images in pixels.items():
        for i, image in enumerate(images):
            save(folder / name / f"{i:02}.png", image)
    return pixels


@pytest.fixture
def root(tmp_path):
    """A data root with the official parts of ``insects``."""
    fill(tmp_path / "insects" / "train")
    fill(tmp_path / "insects" / "test", count=4)
    return tmp_path


def folder_of(root, **options):
    return ImageFolder("insects", root=str(root), **options)


def keys(u):
    return sorted(image.numpy().tobytes() for image in u)


def test_png_files_come_out_as_they_are_with_the_class_of_their_folder(tmp_path):
    train = fill(tmp_path / "insects" / "train", classes=("bee", "ant", "cat"))
    test = fill(tmp_path / "insects" / "test", classes=("bee", "ant", "cat"), count=4)
    data = folder_of(tmp_path)
    assert data.name == "insects"
    assert data.class_names == ["ant", "bee", "cat"]
    assert (data.shape, data.classes) == ((3, 5, 6), 3)
    u, y = data.images("test")
    assert y.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert np.array_equal(u, np.concatenate([test[k] for k in data.class_names]).transpose(0, 3, 1, 2))
    for k, name in enumerate(data.class_names):
        found = torch.cat([data.images(part)[0][data.images(part)[1] == k] for part in ("train", "validation")])
        assert keys(found) == keys(torch.from_numpy(train[name].transpose(0, 3, 1, 2).copy()))


def test_grey_images_have_one_channel_and_three_where_one_image_has_colours(tmp_path):
    grey = fill(tmp_path / "insects" / "train", shape=(5, 6))
    fill(tmp_path / "insects" / "test", shape=(5, 6))
    assert folder_of(tmp_path).shape == (1, 5, 6)
    assert folder_of(tmp_path, rgb=True, pad_to=8).shape == (3, 8, 8)
    save(tmp_path / "insects" / "test" / "ant" / "99.png", np.zeros((5, 6, 3), np.uint8))
    data = folder_of(tmp_path)
    assert data.shape == (3, 5, 6)
    u, _ = data.images("train")
    assert keys(u[:, :1]) == keys(u[:, 2:])
    assert set(keys(u[:, :1])) <= {image.tobytes() for images in grey.values() for image in images}


def test_jpeg_files_are_read_and_hidden_files_are_passed_over(root):
    save(root / "insects" / "train" / "ant" / "flat.JPEG", np.full((5, 6, 3), 200, np.uint8))
    (root / "insects" / "train" / ".thumbnails").write_bytes(b"no folder")
    (root / "insects" / "train" / "ant" / ".hidden.png").write_bytes(b"no image")
    data = folder_of(root)
    assert len(data.images("train")[1]) + len(data.images("validation")[1]) == 21
    whole = torch.cat([data.images("train")[0], data.images("validation")[0]])
    assert ((whole.int() - 200).abs() <= 1).all(dim=(1, 2, 3)).sum() == 1


def test_images_of_several_sizes_are_scaled_to_one(root):
    save(root / "insects" / "train" / "ant" / "large.png", np.full((40, 20, 3), 9, np.uint8))
    data = folder_of(root, resize=7)
    assert data.shape == (3, 7, 7)
    assert (torch.cat([data.images(p)[0] for p in ("train", "validation")]) == 9).all(dim=(1, 2, 3)).sum() == 1


def test_pixels_are_read_once_and_again_when_a_file_changes(root, monkeypatch):
    opened = []
    genuine = image_files.decode
    monkeypatch.setattr(image_files, "decode", lambda *given: opened.append(given[0]) or genuine(*given))
    first, again = folder_of(root), folder_of(root)
    assert len(opened) == 28
    assert torch.equal(first.images("train")[0], again.images("train")[0])
    changed = root / "insects" / "train" / "ant" / "00.png"
    save(changed, np.full((5, 6, 3), 7, np.uint8))
    os.utime(changed, ns=(1, 1))
    data = folder_of(root)
    assert len(opened) == 56
    assert (torch.cat([data.images(p)[0] for p in ("train", "validation")]) == 7).all(dim=(1, 2, 3)).any()
    folder_of(root, resize=3)
    assert len(opened) == 84


def test_pixels_are_read_again_when_all_files_are_replaced_by_others_of_equal_size_and_date(tmp_path):
    def unpacked():
        for part in ("train", "test"):
            for path in [tmp_path / "insects" / part / name / f"{i}.png" for name in ("ant", "bee") for i in range(10)]:
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = RNG.integers(0, 256, (5, 6, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(path, compress_level=0)
                os.utime(path, ns=(10**18, 10**18))
        found = folder_of(tmp_path)
        return found.fingerprint("train"), found.fingerprint("test")

    before = unpacked()
    (tmp_path / "insects").rename(tmp_path / "old")
    after = unpacked()
    assert [one == two for one, two in zip(before, after, strict=True)] == [False, False]


def test_a_damaged_cache_is_made_anew(root):
    before = folder_of(root).images("test")[0].clone()  # the pixels lie in the file
    (kept,) = (root / ".diffclass-cache").iterdir()
    for content in (kept.read_bytes()[:200], b"", b"\x80\x04N."):
        kept.write_bytes(content)
        assert torch.equal(folder_of(root).images("test")[0], before)
        assert [file.name for file in kept.parent.iterdir()] == [kept.name]


def test_a_root_that_cannot_be_written_is_read_with_a_warning(root):
    (root / ".diffclass-cache").write_bytes(b"in the way")
    with pytest.warns(UserWarning, match="28 images will be read again next time"):
        assert len(folder_of(root).images("test")[1]) == 8


def test_a_single_folder_is_split_by_its_own_seed_in_the_proportions_of_the_classes(tmp_path):
    pixels = fill(tmp_path / "insects", count=20)
    fill(tmp_path / "insects", classes=("bee",), count=40)
    one = folder_of(tmp_path, test_fraction=0.1)
    same = folder_of(tmp_path, test_fraction=0.1, seed=5, split_seed=6)
    other = folder_of(tmp_path, test_fraction=0.1, test_seed=1)
    u, y = one.images("test")
    assert y.tolist() == [0] * 2 + [1] * 4
    assert torch.equal(u, same.images("test")[0])
    assert not torch.equal(u, other.images("test")[0])
    parts = [one.images(part)[0] for part in ("train", "validation", "test")]
    assert len(set(keys(torch.cat(parts)))) == sum(map(len, parts)) == 60
    assert keys(torch.from_numpy(pixels["ant"].transpose(0, 3, 1, 2).copy())) == keys(
        torch.cat([one.images(p)[0][one.images(p)[1] == 0] for p in ("train", "validation", "test")])
    )


def test_every_argument_can_be_given_in_a_config(root):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ImageData, "data")
    arguments = {"name": "insects", "root": str(root), "resize": 8, "pad_to": 10, "flip": True, "crop_padding": 1}
    given = {
        "class_path": "datamodules.image_folder.ImageFolder",
        "init_args": arguments | {"batch_size": 4, "seed": 3},
    }
    data = parser.instantiate_classes(parser.parse_object({"data": given})).data
    assert (data.shape, data.batch_size, data.seed) == ((3, 10, 10), 4, 3)
    published = {"class_path": "datamodules.vision.CIFAR10", "init_args": {"download": True, "pad_to": 40, "seed": 3}}
    assert parser.parse_object({"data": published}).data.init_args.validation_fraction == 0.1


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev"])
def test_a_folder_of_validation_images_is_the_validation_part(root, name):
    before = folder_of(root)
    pixels = fill(root / "insects" / name, count=3)
    data = folder_of(root)
    u, y = data.images("validation")
    assert y.tolist() == [0] * 3 + [1] * 3
    assert np.array_equal(u, np.concatenate([pixels["ant"], pixels["bee"]]).transpose(0, 3, 1, 2))
    assert len(data.images("train")[1]) == 20
    whole = torch.cat([before.images(part)[0] for part in ("train", "validation")])
    assert keys(data.images("train")[0]) == keys(whole)
    assert torch.equal(data.images("test")[0], before.images("test")[0])
    assert data.validation_fraction == 6 / 26


def test_the_validation_folder_may_lack_a_class(root):
    fill(root / "insects" / "val", classes=("bee",), count=3)
    assert folder_of(root).images("validation")[1].tolist() == [1] * 3


def test_a_long_tail_is_held_out_from_as_far_as_it_has_images(tmp_path):
    sizes = {"ant": 90, "bee": 9, "cat": 2, "dog": 1}
    for name, count in sizes.items():
        fill(tmp_path / "insects" / "train", classes=(name,), count=count)
        fill(tmp_path / "insects" / "test", classes=(name,), count=2)
    data = folder_of(tmp_path)
    assert np.bincount(data.images("validation")[1], minlength=4).tolist() == [9, 1, 1, 0]
    assert np.bincount(data.images("train")[1], minlength=4).tolist() == [81, 8, 1, 1]
    assert np.bincount(data.some_images("train", 10, [0])[1], minlength=4).tolist() == [9, 1, 0, 0]


def test_one_image_a_class_is_refused_by_the_name_of_the_setting_and_works_with_a_validation_folder(tmp_path):
    for part in ("train", "test"):
        fill(tmp_path / "insects" / part, count=1)
    with pytest.raises(ValueError, match=r"^validation_fraction 0\.1 of 2 images leaves a class without an example"):
        folder_of(tmp_path)
    fill(tmp_path / "insects" / "val", count=1)
    assert folder_of(tmp_path).images("train")[1].tolist() == [0, 1]


def test_classes_that_are_numbers_are_in_the_order_of_the_numbers(tmp_path):
    names = [str(k) for k in range(12)]
    train = fill(tmp_path / "insects" / "train", classes=names)
    test = fill(tmp_path / "insects" / "test", classes=names, count=1)
    fill(tmp_path / "insects" / "val", classes=("10", "2"), count=1)
    data = folder_of(tmp_path)
    assert data.class_names == names
    assert np.array_equal(data.images("test")[0], np.concatenate([test[k] for k in names]).transpose(0, 3, 1, 2))
    assert data.images("validation")[1].tolist() == [2, 10]
    u, y = data.images("train")
    assert keys(u[y == 10]) == keys(torch.from_numpy(train["10"].transpose(0, 3, 1, 2).copy()))


def empty(*names):
    def make(folder):
        for name in names:
            (folder / name).mkdir(parents=True)

    return make


UNUSABLE_FOLDERS = {
    "no classes": (empty("train", "test"), {}, "insects/train: no folders of classes in it"),
    "an empty class": (empty("train/ant", "test"), {}, "insects/train/ant: the folder of this class has no image"),
    "no test": (empty("train"), {}, "insects: it has a folder train but no test"),
    "no train": (empty("test"), {}, "insects: it has a folder test but no train"),
    "one folder and no fraction": (empty("ant"), {}, "insects: .* give test_fraction to set images apart"),
    "a fraction of nothing": (empty(), {"test_fraction": 0.5}, "insects: no folders of classes in it"),
    "other classes": (lambda f: (fill(f / "train"), fill(f / "test", ("ant", "fly"))), {}, "class bee is in one of"),
    "two validation parts": (
        lambda f: [fill(f / part) for part in ("train", "test", "val", "dev")],
        {},
        "it has folders val and dev; leave",
    ),
    "an unknown class to validate": (
        lambda f: (fill(f / "train"), fill(f / "test"), fill(f / "val", ("fly",))),
        {},
        "val: class fly is not in train",
    ),
    "two tests": (lambda f: (fill(f / "train"), fill(f / "test")), {"test_fraction": 0.1}, "leave out test_fraction"),
    "a fraction that starves": (fill, {"test_fraction": 0.01}, "test_fraction 0.01: 0 images were asked for"),
    "a fraction of nearly all": (fill, {"test_fraction": 0.99}, "test_fraction 0.99 leaves a class without training"),
    "a stray file": (
        lambda f: (fill(f), (f / "a.png").touch()),
        {"test_fraction": 0.1},
        "insects/a.png: a file among",
    ),
    "a name that is no text": (
        lambda f: (fill(f), fill(f, classes=("caf\udce9",))),  # a byte of Latin-1
        {"test_fraction": 0.1},
        "insects/caf.: the name of this class is not UTF-8 text; rename the folder",
    ),
    "wide crop": (fill, {"test_fraction": 0.2, "crop_padding": 5}, r"crop_padding must lie in 0\.\.4, got 5"),
    "narrow padding": (
        fill,
        {"test_fraction": 0.2, "pad_to": 5},
        "pad_to must be at least the image's 6 pixels, got 5",
    ),
}


@pytest.mark.parametrize(("make", "options", "message"), UNUSABLE_FOLDERS.values(), ids=UNUSABLE_FOLDERS)
def test_an_unusable_folder_is_refused_with_one_line(tmp_path, make, options, message):
    (tmp_path / "insects").mkdir()
    make(tmp_path / "insects")
    with pytest.raises(ValueError, match=message) as refusal:
        folder_of(tmp_path, **options)
    assert "\n" not in str(refusal.value)


def test_a_folder_that_is_not_there_is_told_with_where_it_was_looked_for(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=rf"no folder of images insects in {tmp_path}; set root or {VARIABLE} to"
    ):
        folder_of(tmp_path)


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "../up", "/etc", "a b", "a\n", ".hidden", "x" * 65])
def test_a_name_that_is_no_plain_folder_name_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="name must be up to 64 letters"):
        ImageFolder(name, root=str(tmp_path))
