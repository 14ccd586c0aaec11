"""Fingerprints of data: equal for equal images wherever they lie, different for any other image, label or split."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image
from test_domains import Flat
from test_mnist import lay_out

from datamodules.base import stand_ins
from datamodules.digits import Digits
from datamodules.domains import LabeledSource, UnlabeledTarget
from datamodules.fingerprints import READ, of_arrays, of_files
from datamodules.image_folder import ImageFolder
from datamodules.imagenet import ImageNet
from datamodules.mnist import MNIST
from datamodules.splits import LabelsPerClass
from datamodules.streamed import Files
from datamodules.toys import TwoMoons

PARTS = ("train", "test")


def both(data):
    return [data.fingerprint(part) for part in PARTS]


def draw(folder, number, suffix="png"):
    """Grey images of 8 x 8 pixels of two classes."""
    rng = np.random.default_rng(number)
    for label in ("ant", "bee"):
        (folder / label).mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{i}.{suffix}", format="png")


@pytest.fixture
def root(tmp_path):
    for number, part in enumerate(PARTS):
        draw(tmp_path / "a" / "insects" / part, number)
    return tmp_path / "a"


def insects(root, **options):
    return ImageFolder("insects", str(root), **{"validation_fraction": 0.2, **options})


def test_images_in_another_folder_are_the_same_and_of_another_date_too(root, tmp_path):
    before = both(insects(root))
    shutil.copytree(root, tmp_path / "b")
    os.utime(tmp_path / "b/insects/train/ant/0.png", (1, 1))
    assert both(insects(tmp_path / "b")) == before


@pytest.mark.parametrize("part", PARTS)
def test_a_changed_pixel_or_label_changes_its_part_alone(root, part):
    before = dict(zip(PARTS, both(insects(root)), strict=True))
    folder = root / "insects" / part
    pixels = np.array(Image.open(folder / "ant" / "0.png"))
    pixels[3, 3] ^= 1
    Image.fromarray(pixels).save(folder / "ant" / "0.png")
    changed = dict(zip(PARTS, both(insects(root)), strict=True))
    assert {name for name in PARTS if changed[name] != before[name]} == {part}
    (folder / "ant" / "5.png").rename(folder / "bee" / "9.png")
    again = dict(zip(PARTS, both(insects(root)), strict=True))
    assert {name for name in PARTS if again[name] != changed[name]} == {part}


def test_which_images_are_held_out_counts_to_train_and_which_are_labeled_does_not(root):
    plain = both(insects(root))
    for options in ({"split_seed": 3}, {"validation_fraction": 0.4}):
        other = both(insects(root, **options))
        assert (other[0] != plain[0], other[1] == plain[1]) == (True, True)
    assert both(insects(root, seed=7)) == both(insects(root, labels=LabelsPerClass(2))) == plain


def test_each_data_set_tells_where_its_images_come_from(root, tmp_path):
    assert insects(root).sources == (root / "insects",)
    lay_out(tmp_path / "MNIST/raw", packed=False)
    data = MNIST(root=str(tmp_path))
    assert data.sources == (tmp_path / "mnist", tmp_path / "MNIST/raw")
    assert both(data) == both(MNIST(root=str(tmp_path)))
    assert Digits().sources == TwoMoons(count=20, test_count=20).sources == ()
    assert Flat(0).sources is None  # of a user's, who did not say


def test_drawn_data_are_known_by_what_is_drawn_and_stand_ins_by_nothing():
    first, second = (TwoMoons(count=40, test_count=20, data_seed=seed) for seed in (0, 1))
    assert both(first) == both(TwoMoons(count=40, test_count=20, seed=5))
    assert not set(both(first)) & set(both(second))
    with stand_ins():
        assert both(TwoMoons(count=40, test_count=20)) == [None, None]


@pytest.mark.parametrize("kind", [LabeledSource, UnlabeledTarget])
def test_two_domains_are_known_by_the_images_of_both(kind):
    before = both(kind(Flat(0), Flat(100)))
    assert both(kind(Flat(0), Flat(100))) == before
    assert (both(kind(Flat(1), Flat(100)))[0] != before[0], both(kind(Flat(1), Flat(100)))[1] == before[1]) == (1, 1)
    assert not set(both(kind(Flat(0), Flat(101)))) & set(before)
    assert kind(Flat(0), Flat(100)).sources is None
    moons = kind(*(TwoMoons(count=20, test_count=20, validation_fraction=0.2) for _ in range(2)))
    assert moons.sources == ()


def imagenet(root):
    return ImageNet(str(root), size=8, workers=0, validation_fraction=0.2, reference_images=2)


def test_images_that_are_streamed_are_known_by_names_sizes_and_bytes(tmp_path):
    for number, part in enumerate(("train", "val")):
        draw(tmp_path / "a" / "imagenet" / part, number, suffix="JPEG")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    data = imagenet(tmp_path / "a")
    before = both(data)
    assert data.sources == (tmp_path / "a/imagenet/train", tmp_path / "a/imagenet/val")
    assert both(imagenet(tmp_path / "b")) == before
    changed = tmp_path / "b/imagenet/train/ant/0.JPEG"
    changed.write_bytes(changed.read_bytes()[:-1] + b"x")
    assert [a == b for a, b in zip(both(imagenet(tmp_path / "b")), before, strict=True)] == [False, True]
    (tmp_path / "b/imagenet/val/ant/0.JPEG").rename(tmp_path / "b/imagenet/val/ant/7.JPEG")
    assert not set(both(imagenet(tmp_path / "b"))) & set(before)
    with stand_ins():
        assert both(ImageNet(str(tmp_path / "none"))) == [None, None]


def test_of_very_many_files_all_sizes_count_and_some_are_read(tmp_path):
    paths = [tmp_path / f"{i:05}" for i in range(2 * READ)]
    for path in paths:
        path.write_bytes(b"1")
    files = Files.at(paths, tmp_path)
    before = of_files(files)
    for path in paths[1:50]:
        path.write_bytes(b"2")
    changed = of_files(files)
    assert changed != before
    paths[-2].write_bytes(b"33")
    assert of_files(files) != changed


def test_types_and_shapes_of_arrays_count():
    array = np.arange(6, dtype=np.uint8)
    found = [of_arrays(array), of_arrays(array.reshape(2, 3)), of_arrays(array.astype(np.int64)), of_arrays(array[:0])]
    assert len(set(found)) == 4
    assert of_arrays(array.reshape(2, 3).T) == of_arrays(np.ascontiguousarray(array.reshape(2, 3).T))
