"""Data that cannot be used: exit code 2 and one line that names the file and says what to do, for every kind of it."""

import gzip
from pathlib import Path

import pytest
from PIL import Image

from benchmark import cli
from datamodules.celeba import ATTRIBUTES, FOLDER, PARTITION

CONFIG = Path(__file__).parents[2] / "configs" / "digits" / "supervised.yaml"
INSECTS = ("--data=datamodules.image_folder.ImageFolder", "--data.name=insects")


def save(path, size=(6, 5)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


def insects(root, add=lambda folder: None):
    """A folder of images of two classes, and what ``add`` does to it."""
    for part in ("train", "test"):
        for name in ("ant/0.png", "ant/1.png", "bee/0.png", "bee/1.png"):
            save(root / "insects" / part / name)
    add(root / "insects")


def no_classes(root):
    for part in ("train", "test"):
        (root / "insects" / part).mkdir(parents=True)


def cut_archive(root):
    (root / "mnist").mkdir()
    (root / "mnist/train-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(10**4))[:-12])


def changed_archive(root):
    (root / "cifar-10-batches-py").mkdir()
    for name in [*(f"data_batch_{i + 1}" for i in range(5)), "test_batch", "batches.meta"]:
        (root / "cifar-10-batches-py" / name).write_bytes(b"not what was published")


def celeba_without(what):
    def make(root):
        save(root / "celeba" / FOLDER / "000001.jpg", (178, 218))
        (root / "celeba" / PARTITION).write_text("000001.jpg 0\n")
        (root / "celeba" / ATTRIBUTES).write_text("1\nSmiling\n000001.jpg 1\n")
        if (root / "celeba" / what).is_file():
            (root / "celeba" / what).unlink()

    return make


def flat_imagenet(root):
    save(root / "imagenet/train/n01/a.JPEG")
    save(root / "imagenet/val/a.JPEG")


CIFAR10, CELEBA = ("--data=datamodules.vision.CIFAR10",), ("--data=datamodules.celeba.CelebA",)
CASES = {
    "no archive": (lambda root: None, CIFAR10, "cifar-10-batches-py/data_batch_1", "set download: true"),
    "a cut archive": (
        cut_archive,
        ("--data=datamodules.mnist.MNIST",),
        "mnist/train-images-idx3-ubyte.gz",
        "delete it and set download: true",
    ),
    "another checksum": (changed_archive, CIFAR10, "cifar-10-batches-py/data_batch_1", "its checksum is not"),
    "no classes": (no_classes, INSECTS, "insects/train", "put the images of each class in a folder of its name"),
    "an empty class": (
        lambda root: insects(root, lambda folder: (folder / "train/cat").mkdir()),
        INSECTS,
        "insects/train/cat",
        "add some or remove it",
    ),
    "no image by name": (
        lambda root: insects(root, lambda folder: (folder / "train/ant/a.txt").touch()),
        INSECTS,
        "insects/train/ant/a.txt",
        "remove it or convert it",
    ),
    "no image inside": (
        lambda root: insects(root, lambda folder: (folder / "train/ant/a.png").write_text("text")),
        INSECTS,
        "insects/train/ant/a.png",
        "remove it or convert it",
    ),
    "several sizes": (
        lambda root: insects(root, lambda folder: save(folder / "train/bee/z.png", (9, 9))),
        INSECTS,
        "insects/train/bee/z.png",
        "give resize to scale all",
    ),
    "faces without attributes": (celeba_without(ATTRIBUTES), CELEBA, ATTRIBUTES, "set root or DIFFCLASS_DATA"),
    "faces without parts": (celeba_without(PARTITION), CELEBA, PARTITION, "set root or DIFFCLASS_DATA"),
    "some of the faces": (celeba_without("nothing"), CELEBA, f"celeba/{PARTITION}", "copy it anew"),
    "photographs without classes": (
        flat_imagenet,
        ("--data=datamodules.imagenet.ImageNet",),
        "imagenet/val",
        "move each into a folder of the name of its class",
    ),
}


@pytest.mark.parametrize(("make", "data", "file", "remedy"), CASES.values(), ids=CASES)
def test_unusable_data_are_refused_in_one_line_with_file_and_remedy(tmp_path, capsys, make, data, file, remedy):
    root = tmp_path / "data"
    root.mkdir()
    make(root)
    with pytest.raises(SystemExit) as end:
        cli.main(["fit", f"--config={CONFIG}", *data, f"--data.root={root}", f"--trainer.default_root_dir={tmp_path}"])
    told = capsys.readouterr().err
    assert end.value.code == 2
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert all(part in told for part in (str(root), file, remedy))
