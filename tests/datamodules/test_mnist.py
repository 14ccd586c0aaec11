"""MNIST's files: found in each place, checked against their header, and refused in one line where damaged."""

import gzip
import os
import struct
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import downloads
from datamodules.idx import read_idx
from datamodules.mnist import MNIST, FashionMNIST
from datamodules.stored import VARIABLE, data_root

PIXELS = np.arange(3 * 2 * 2, dtype=np.uint8).reshape(3, 2, 2)


def idx(values, magic=0x0800):
    return struct.pack(f">{values.ndim + 1}I", magic + values.ndim, *values.shape) + values.tobytes()


@cache
def published(part):
    """Files of MNIST's sizes whose images are flat, of level 20 times their class."""
    n = {"train": 60_000, "t10k": 10_000}[part]
    y = (np.arange(n) % 10).astype(np.uint8)
    images = np.broadcast_to((20 * y)[:, None, None], (n, 28, 28))
    return {f"{part}-images-idx3-ubyte": idx(images), f"{part}-labels-idx1-ubyte": idx(y)}


def lay_out(folder, packed, parts=("train", "t10k")):
    folder.mkdir(parents=True)
    for file, content in (item for part in parts for item in published(part).items()):
        if packed:
            (folder / f"{file}.gz").write_bytes(gzip.compress(content, 1))
        else:
            (folder / file).write_bytes(content)


@pytest.mark.parametrize(("folder", "packed"), [("mnist", True), ("MNIST/raw", False)])
def test_mnist_is_found_in_either_folder_packed_or_not(tmp_path, folder, packed):
    lay_out(tmp_path / folder, packed)
    data = MNIST(root=str(tmp_path))
    assert [len(data.images(part)[1]) for part in ("train", "validation", "test")] == [54_000, 6_000, 10_000]
    for part in ("train", "validation", "test"):
        u, y = data.images(part)
        assert torch.equal(u, (20 * y).to(torch.uint8)[:, None, None, None].expand(-1, 1, 28, 28))
    assert torch.bincount(data.images("validation")[1]).tolist() == [600] * 10


def test_padding_and_rgb_change_the_shape_of_the_data_and_of_its_batches(tmp_path):
    lay_out(tmp_path / "mnist", packed=False, parts=["train"])
    data = MNIST(root=str(tmp_path), pad_to=32, rgb=True, batch_size=8, flip=True, crop_padding=4)
    assert data.shape == (3, 32, 32)
    x, _ = data.train_dataloader().batch(0)["labeled"]
    assert x.shape == (8, 3, 32, 32)
    assert MNIST.native == (1, 28, 28)


def test_the_root_is_the_argument_else_the_environment_else_the_working_folder(monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "there"))
    assert data_root("here").name == "here"
    assert data_root(None) == tmp_path / "there"
    monkeypatch.delenv(VARIABLE)
    assert data_root(None) == Path.cwd() / "data"


def test_without_files_the_error_says_where_it_looked_and_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError) as refusal:
        MNIST(root=str(tmp_path))
    text = str(refusal.value)
    assert "\n" not in text
    for part in ("train-images-idx3-ubyte[.gz]", str(tmp_path / "mnist"), VARIABLE, "root", "download: true"):
        assert part in text


def test_a_missing_file_of_labels_is_named(tmp_path):
    lay_out(tmp_path / "mnist", packed=False)
    (tmp_path / "mnist" / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="no train-labels-idx1-ubyte"):
        MNIST(root=str(tmp_path))


def test_what_is_there_is_not_downloaded_and_what_is_not_there_is(tmp_path, monkeypatch):
    asked = []

    def fetch(name, root):
        asked.append(name)
        lay_out(root / "MNIST/raw", packed=False)

    monkeypatch.setattr(downloads, "idx_files", fetch)
    for _ in range(2):
        assert len(MNIST(root=str(tmp_path), download=True).images("test")[1]) == 10_000
    assert asked == ["mnist"]


def test_a_failed_download_is_told_in_one_line(tmp_path, monkeypatch):
    def offline(root, download):
        raise RuntimeError("Error downloading train-images:\nTried a mirror, got:\nno route")

    monkeypatch.setitem(downloads.IDX, "mnist", offline)
    with pytest.raises(ConnectionError, match=r"^mnist could not be downloaded to .*: Error downloading.* no route$"):
        MNIST(root=str(tmp_path / "new"), download=True)


def test_fashion_mnist_of_another_content_is_refused(tmp_path):
    lay_out(tmp_path / "fashion-mnist", packed=False, parts=["train"])
    with pytest.raises(
        ValueError, match=r"train-images-idx3-ubyte is damaged: its sha256 is not the published one; del"
    ):
        FashionMNIST(root=str(tmp_path))


@pytest.mark.skipif(not os.path.isdir(data_root(None) / "fashion-mnist"), reason="no Fashion-MNIST in the data root")
def test_fashion_mnist_as_published_is_read():
    data = FashionMNIST()
    assert torch.bincount(data.images("test")[1]).tolist() == [1000] * 10


def test_a_label_beyond_the_classes_is_refused(tmp_path):
    lay_out(tmp_path / "mnist", packed=False, parts=["train"])
    path = tmp_path / "mnist" / "train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x0a")
    with pytest.raises(
        ValueError, match=r"labels-idx1-ubyte is damaged: it holds the label 10, the classes are 0\.\.9"
    ):
        MNIST(root=str(tmp_path))


@pytest.mark.parametrize(("suffix", "packed"), [("", False), (".gz", True), (".gz", False), ("", True)])
def test_an_idx_file_is_read_back_packed_or_not_whatever_its_name(tmp_path, suffix, packed):
    path = tmp_path / f"images{suffix}"
    path.write_bytes(gzip.compress(idx(PIXELS)) if packed else idx(PIXELS))
    assert np.array_equal(read_idx(path, PIXELS.shape), PIXELS)


GOOD, PACKED = idx(PIXELS), gzip.compress(idx(PIXELS))
DAMAGED = {
    "empty": ("f", b"", "starts with nothing"),
    "a web page": ("f", b"<html>not found</html>", "starts with 3c68746d, an idx file of this kind with 00000803"),
    "floats": ("f", idx(PIXELS, 0x0D00), "starts with 00000d03"),
    "labels for images": ("f", idx(PIXELS[:, 0, 0]), "starts with 00000801"),
    "no sizes": ("f", GOOD[:9], "does not state the sizes 3 x 2 x 2"),
    "other sizes": ("f", idx(PIXELS[:2]), "does not state the sizes 3 x 2 x 2"),
    "cut": ("f", GOOD[:-1], "fewer than 28 bytes"),
    "longer": ("f", GOOD + b"\0", "more than 28 bytes"),
    "cut at once": ("f.gz", PACKED[:2], "gzip cannot unpack it"),
    "cut while packed": ("f.gz", PACKED[:-12], "gzip cannot unpack it"),
    "a byte changed while packed": ("f.gz", PACKED[:-6] + b"\x55" + PACKED[-5:], "gzip cannot unpack it"),
    "unpacks to much more": ("f.gz", gzip.compress(GOOD + bytes(10**6)), "more than 28 bytes"),
}


@pytest.mark.parametrize(("name", "content", "message"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_idx_file_is_refused_with_one_line_that_names_it(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as refusal:
        read_idx(path, PIXELS.shape)
    text = str(refusal.value)
    assert text.startswith(f"{path} is damaged: ")
    assert "delete it and set download: true" in text
    assert "\n" not in text


def test_a_file_of_another_digest_is_refused(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(GOOD)
    with pytest.raises(ValueError, match="its sha256 is not the published one"):
        read_idx(path, PIXELS.shape, sha256="0" * 64)
