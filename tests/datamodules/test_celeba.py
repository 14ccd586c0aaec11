"""CelebA from a small one made here: official parts, the papers' crop, one attribute, and its broken forms."""

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from PIL import Image

from datamodules import celeba, image_files
from datamodules.base import ImageData, stand_ins
from datamodules.celeba import ATTRIBUTES, FOLDER, PARTITION, AlignedCrop, CelebA
from datamodules.splits import PositiveUnlabeled
from datamodules.stored import VARIABLE

COUNTS = {"train": 8, "validation": 4, "test": 6}
N = sum(COUNTS.values())
PARTS = np.repeat([0, 1, 2], list(COUNTS.values()))
NAMES = [f"{i + 1:06}.jpg" for i in range(N)]
YOUNG, SMILING = np.arange(N) % 2, np.arange(N) // 2 % 2


def attributes(names=NAMES):
    rows = [
        f"{name}  {2 * young - 1:2} {2 * smiling - 1:2}"
        for name, young, smiling in zip(names, YOUNG, SMILING, strict=False)
    ]
    return "\n".join([str(len(names)), "Young Smiling ", *rows, ""])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """``celeba`` below a data root; image ``i`` is of grey level ``10 i`` all over."""
    monkeypatch.setattr(celeba, "COUNTS", COUNTS)
    folder = tmp_path / "celeba"
    (folder / FOLDER).mkdir(parents=True)
    for i, name in enumerate(NAMES):
        Image.new("RGB", (178, 218), (10 * i,) * 3).save(folder / FOLDER / name)
    (folder / PARTITION).write_text("".join(f"{name} {part}\n" for name, part in zip(NAMES, PARTS, strict=True)))
    (folder / ATTRIBUTES).write_text(attributes())
    return folder


def made(folder, **options):
    return CelebA(root=str(folder.parent), **options)


@pytest.mark.parametrize(("attribute", "expected"), [("Smiling", SMILING), ("Young", YOUNG)])
def test_the_parts_are_the_official_ones_and_the_class_is_the_attribute(folder, attribute, expected):
    data = made(folder, attribute=attribute)
    assert (data.shape, data.classes, data.task) == ((3, 64, 64), 2, attribute)
    for number, part in enumerate(COUNTS):
        u, y = data.images(part)
        rows = np.flatnonzero(number == PARTS)
        assert u.shape == (len(rows), 3, 64, 64)
        assert (u[:, 0, 0, 0].numpy() - 10 * rows).tolist() == [0] * len(rows)
        assert y.tolist() == expected[rows].tolist()
    assert data.splits["validation"].tolist() == np.flatnonzero(PARTS == 1).tolist()


def test_the_validation_part_is_official_whatever_the_seed(folder):
    one, other = (made(folder, split_seed=k).splits["validation"] for k in (0, 1))
    assert np.array_equal(one, other)


def test_the_crop_is_of_rows_57_to_184_and_columns_25_to_152_halved(tmp_path):
    inside = np.zeros((218, 178, 3), np.uint8)
    inside[57:185, 25:153] = 255
    Image.fromarray(inside).save(tmp_path / "a.png")
    assert (AlignedCrop()(tmp_path / "a.png") == 255).all()
    ramp = np.broadcast_to(np.arange(178)[None, :, None], (218, 178, 3)).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "b.png")
    columns = AlignedCrop()(tmp_path / "b.png")[5, :, 1].astype(float)
    assert np.abs(columns[1:-1] - (25.5 + 2 * np.arange(64))[1:-1]).max() <= 0.5


def test_pixels_are_read_once(folder, monkeypatch):
    first = made(folder).images("train")[0]
    monkeypatch.setattr(image_files, "_pixels", None)
    assert torch.equal(made(folder, attribute="Young").images("train")[0], first)


def test_positives_of_the_attribute_can_be_labeled_alone(folder):
    data = made(folder, labels=PositiveUnlabeled([1], 2))
    assert data.task == "Smiling: 1 against the rest"
    assert data.images("train")[1][data.labeled_indices].tolist() == [1, 1]


def test_the_share_of_the_validation_part_is_no_argument_and_the_attribute_is(folder):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ImageData, "data")
    arguments = {"root": str(folder.parent), "attribute": "Young", "flip": True, "batch_size": 4}
    given = {"class_path": "datamodules.celeba.CelebA", "init_args": arguments}
    data = parser.instantiate_classes(parser.parse_object({"data": given})).data
    assert (data.task, data.batch_size) == ("Young", 4)
    with pytest.raises(Exception, match="validation_fraction"):
        parser.parse_object({"data": given | {"init_args": {"validation_fraction": 0.2}}})


def test_a_stand_in_has_the_official_sizes_and_needs_no_file(tmp_path):
    with stand_ins():
        data = CelebA(root=str(tmp_path))
    assert [data.images(part)[0].shape for part in COUNTS] == [(n, 3, 64, 64) for n in (162_770, 19_867, 19_962)]


def rewritten(file, change):
    def make(folder):
        (folder / file).write_text(change((folder / file).read_text()))

    return make


BROKEN = {
    "unknown attribute": (lambda f: None, ATTRIBUTES, "no attribute Smilling in it; did you mean Smiling?"),
    "no header": (lambda f: (f / ATTRIBUTES).write_text(""), ATTRIBUTES, "no attribute Smiling in it; known are none"),
    "other attributes": (rewritten(ATTRIBUTES, lambda s: s.replace("Smiling", "Bald")), ATTRIBUTES, "Young, Bald"),
    "cut attributes": (rewritten(ATTRIBUTES, lambda s: s[:-4]), ATTRIBUTES, "line 20 is not a file name and 2 times"),
    "fewer attributes": (
        lambda f: (f / ATTRIBUTES).write_text(attributes(NAMES[:-1])),
        ATTRIBUTES,
        "no attributes of 1 images, the first is 000018.jpg; copy it anew",
    ),
    "attribute of 0": (rewritten(ATTRIBUTES, lambda s: s.replace("-1\n", "0\n")), ATTRIBUTES, "line 3 is not a file"),
    "another part": (rewritten(PARTITION, lambda s: s.replace(" 2", " 3")), PARTITION, "line 13 is not a file name"),
    "a path": (rewritten(PARTITION, lambda s: "../" + s), PARTITION, "line 1 is not a file name"),
    "a short partition": (
        rewritten(PARTITION, lambda s: s[:-13]),
        PARTITION,
        r"it lists 8 \+ 4 \+ 5 images, the official partition 8 \+ 4 \+ 6; copy it anew",
    ),
    "no image": (
        lambda f: (f / FOLDER / NAMES[3]).unlink(),
        FOLDER,
        "1 of 18 images are missing, the first is 000004.jpg; unpack it anew",
    ),
    "another size": (
        lambda f: Image.new("RGB", (178, 178)).save(f / FOLDER / NAMES[2]),
        f"{FOLDER}/{NAMES[2]}",
        "178 x 178 x 3, not 218 x 178 x 3",
    ),
    "a damaged image": (
        lambda f: (f / FOLDER / NAMES[2]).write_bytes(b"\xff\xd8\xff"),
        f"{FOLDER}/{NAMES[2]}",
        "not a",
    ),
}


@pytest.mark.parametrize(("make", "file", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_one_is_refused_in_one_line_that_names_the_file(folder, make, file, message):
    make(folder)
    with pytest.raises(ValueError, match=message) as refusal:
        made(folder, attribute="Smilling" if "Smilling" in message else "Smiling")
    assert str(refusal.value).startswith(f"{folder / file}: ")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("file", [PARTITION, ATTRIBUTES, FOLDER])
def test_what_is_not_there_is_told_with_where_it_was_looked_for(folder, file):
    (folder / file).rename(folder / "elsewhere")
    with pytest.raises(FileNotFoundError) as refusal:
        made(folder)
    text = str(refusal.value)
    assert text.startswith(f"no {file} of celeba in {folder}; set root or {VARIABLE} to")
    assert "\n" not in text
