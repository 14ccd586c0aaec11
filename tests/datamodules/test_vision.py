"""USPS, SVHN and CIFAR from files in torchvision's layouts, made here with checksums of their own."""

import bz2
import hashlib
import io
import pickle
import shutil
import tarfile

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torchvision import datasets

from datamodules.base import stand_ins
from datamodules.stored import VARIABLE
from datamodules.vision import CIFAR10, CIFAR100, SVHN, USPS

N = 40


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def made(shape, classes):
    """Random grey levels ``(N, *shape)`` and each class equally often."""
    images = np.random.default_rng(0).integers(0, 256, (classes * N // 10, *shape)).astype(np.uint8)
    return images, np.arange(len(images)) % classes


def usps(root, monkeypatch):
    images, y = made((1, 16, 16), 10)
    values = images.reshape(len(y), -1) / 127.5 - 1
    lines = [
        f"{k + 1} " + " ".join(f"{i + 1}:{v:.6f}" for i, v in enumerate(row)) for k, row in zip(y, values, strict=True)
    ]
    split_list = {}
    for part, file in (("train", "usps.bz2"), ("test", "usps.t.bz2")):
        (root / file).write_bytes(bz2.compress("\n".join(lines).encode()))
        split_list[part] = ["nowhere", file, md5(root / file)]
    monkeypatch.setattr(datasets.USPS, "split_list", split_list)
    return images, y


def svhn(root, monkeypatch):
    images, y = made((3, 32, 32), 10)
    split_list = {}
    for part in ("train", "test"):
        file = f"{part}_32x32.mat"
        savemat(root / file, {"X": images.transpose(2, 3, 1, 0), "y": np.where(y == 0, 10, y)[:, None]})
        split_list[part] = ["nowhere", file, md5(root / file)]
    monkeypatch.setattr(datasets.SVHN, "split_list", split_list)
    return images, y


def cifar(kind, labels, classes):
    def lay_out(root, monkeypatch):
        images, y = made((3, 32, 32), classes)
        folder = root / kind.base_folder
        folder.mkdir()
        train, test = [name for name, _ in kind.train_list], [name for name, _ in kind.test_list]
        for name in test:
            (folder / name).write_bytes(pickle.dumps({"data": images.reshape(len(y), -1), labels: y.tolist()}))
        for name, rows in zip(train, np.array_split(np.arange(len(y)), len(train)), strict=True):
            batch = {"data": images[rows].reshape(len(rows), -1), labels: y[rows].tolist()}
            (folder / name).write_bytes(pickle.dumps(batch))
        meta = folder / kind.meta["filename"]
        meta.write_bytes(pickle.dumps({kind.meta["key"]: [str(k) for k in range(classes)]}))
        monkeypatch.setattr(kind, "train_list", [[name, md5(folder / name)] for name in train])
        monkeypatch.setattr(kind, "test_list", [[name, md5(folder / name)] for name in test])
        monkeypatch.setattr(kind, "meta", kind.meta | {"md5": md5(meta)})
        return images, y

    return lay_out


SETS = {
    "usps": (USPS, usps, "usps.bz2"),
    "svhn": (SVHN, svhn, "train_32x32.mat"),
    "cifar10": (CIFAR10, cifar(datasets.CIFAR10, "labels", 10), "cifar-10-batches-py/data_batch_3"),
    "cifar100": (CIFAR100, cifar(datasets.CIFAR100, "fine_labels", 100), "cifar-100-python/train"),
}
EACH = pytest.mark.parametrize(("data_set", "lay_out", "file"), SETS.values(), ids=SETS)


@EACH
@pytest.mark.parametrize("own_folder", [False, True], ids=["in the root", "in a folder of its name"])
def test_every_image_comes_out_with_its_label(tmp_path, monkeypatch, data_set, lay_out, file, own_folder):
    folder = tmp_path / data_set.name if own_folder else tmp_path
    folder.mkdir(exist_ok=True)
    images, y = lay_out(folder, monkeypatch)
    data = data_set(root=str(tmp_path), validation_fraction=0.25)
    assert data.classes == len(np.unique(y))
    u, labels = data.images("test")
    assert u.shape[1:] == data.shape
    assert np.abs(u.numpy().astype(int) - images).max() <= (data_set is USPS)  # USPS is stored in decimals
    assert np.array_equal(labels, y)
    train, held_out = data.images("train"), data.images("validation")
    order = np.concatenate([data.splits["train"], data.splits["validation"]])
    assert torch.equal(torch.cat([train[0], held_out[0]])[np.argsort(order)], u)
    assert np.array_equal(torch.cat([train[1], held_out[1]])[np.argsort(order)], y)


@EACH
def test_a_changed_file_is_refused_before_it_is_read(tmp_path, monkeypatch, data_set, lay_out, file):
    lay_out(tmp_path, monkeypatch)
    path = tmp_path / file
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="its checksum is not the published one; delete it and") as refusal:
        data_set(root=str(tmp_path))
    assert str(refusal.value).startswith(f"{path} is damaged")


@EACH
def test_without_files_the_error_says_where_it_looked_and_what_to_do(tmp_path, data_set, lay_out, file):
    with pytest.raises(FileNotFoundError) as refusal:
        data_set(root=str(tmp_path))
    text = str(refusal.value)
    assert "\n" not in text
    assert all(part in text for part in (data_set.name, str(tmp_path), VARIABLE, "download: true"))


@EACH
def test_a_download_goes_to_the_root(tmp_path, monkeypatch, data_set, lay_out, file):
    """The server is played by a folder that is copied when torchvision is told to download."""
    server, root = tmp_path / "server", tmp_path / "new"
    server.mkdir()
    lay_out(server, monkeypatch)
    kind = getattr(datasets, data_set.__name__)
    genuine = kind.__init__

    def served(self, root, download=False, **options):
        if download:
            shutil.copytree(server, root, dirs_exist_ok=True)
        genuine(self, root, **options)

    monkeypatch.setattr(kind, "__init__", served)
    data_set(root=str(root), download=True, validation_fraction=0.25)
    assert (root / file).read_bytes() == (server / file).read_bytes()


@pytest.mark.parametrize("kind", [USPS, SVHN, CIFAR10, CIFAR100])
def test_a_stand_in_has_shape_sizes_and_classes_of_the_published_images_without_their_files(kind, tmp_path):
    with stand_ins():
        data = kind(root=str(tmp_path), resize=8, rgb=True)
    parts = {part: data.images(part) for part in ("train", "validation", "test")}
    assert all(u.shape[1:] == (3, 8, 8) == data.shape and u.max() == 0 for u, _ in parts.values())
    sizes = {part: len(y) for part, (_, y) in parts.items()}
    assert sizes["train"] + sizes["validation"] == kind.sizes["train"]
    assert sizes["test"] == kind.sizes["test"]
    assert torch.equal(parts["test"][1].unique(), torch.arange(kind.data_classes))


def test_files_are_asked_for_again_after_the_stand_ins(tmp_path):
    with stand_ins():
        CIFAR10(root=str(tmp_path))
    with pytest.raises((FileNotFoundError, RuntimeError)):
        CIFAR10(root=str(tmp_path))


LEADING_OUT = {
    "a parent folder": tarfile.TarInfo("../outside"),
    "a parent folder on the way": tarfile.TarInfo("cifar-10-batches-py/../../outside"),
    "a path from the top": tarfile.TarInfo("/TOP/outside"),
    "a link": tarfile.TarInfo("cifar-10-batches-py/link"),
    "a device": tarfile.TarInfo("cifar-10-batches-py/device"),
}


@pytest.fixture
def crafted(tmp_path, monkeypatch):
    """Write an archive of CIFAR-10's name with one bad member; the root that it lies in."""

    def crafted(case):
        root = tmp_path / "root"
        root.mkdir()
        member = tarfile.TarInfo.frombuf(LEADING_OUT[case].tobuf(), "utf-8", "strict")
        member.name = member.name.replace("/TOP", str(tmp_path))
        kinds = {"a link": tarfile.SYMTYPE, "a device": tarfile.CHRTYPE}
        member.type, member.linkname = kinds.get(case, tarfile.REGTYPE), str(tmp_path)
        member.size = 5 if case not in kinds else 0
        path = root / datasets.CIFAR10.filename
        with tarfile.open(path, "w:gz") as archive:
            archive.addfile(member, io.BytesIO(b"hello"[: member.size]))
        monkeypatch.setattr(datasets.CIFAR10, "url", "http://127.0.0.1:9/nobody-listens-here")
        return root, md5(path)

    return crafted


def spilt(tmp_path):
    """What lies anywhere but in torchvision's folder."""
    there = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    return there - {"root", "root/cifar-10-python.tar.gz", "root/cifar-10-batches-py", "root/.cifar10.lock"}


@pytest.mark.parametrize("case", LEADING_OUT)
def test_an_archive_of_another_checksum_is_not_unpacked(crafted, tmp_path, case):
    root, _ = crafted(case)
    with pytest.raises(ConnectionError, match="cifar10 could not be downloaded"):
        CIFAR10(root=str(root), download=True)
    assert spilt(tmp_path) == set()


@pytest.mark.parametrize("case", LEADING_OUT)
def test_a_member_that_leads_out_of_an_archive_is_written_nowhere_though_the_checksum_be_right(
    crafted, tmp_path, monkeypatch, case
):
    """We rely on torchvision here, which unpacks with ``filter="data"``."""
    root, checksum = crafted(case)
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", checksum)
    refusals = (tarfile.FilterError, ConnectionError, FileNotFoundError)  # a path from the top is made one from here
    with pytest.raises(refusals):
        CIFAR10(root=str(root), download=True)
    assert {path for path in spilt(tmp_path) if not path.startswith("root/")} == set()
    assert not any(path.is_symlink() or path.is_char_device() for path in tmp_path.rglob("*"))
