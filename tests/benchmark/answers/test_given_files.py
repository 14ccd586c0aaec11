"""Samples as other tools leave them: read rightly, or refused in one short line that names what is wrong."""

import os
import shutil
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from benchmark.answers.given_classes import Classes
from benchmark.answers.given_samples import given_samples
from benchmark.errors import InputError
from benchmark.system.sample_files import MOST, digest_of_samples
from datamodules.digits import Digits
from datamodules.image_folder import ImageFolder

RNG = np.random.default_rng(0)


def lit(k):
    """8x8 RGB noise with cell ``k`` of a 4x4 grid lit, which tells class ``k`` of twelve."""
    image = RNG.integers(0, 60, (8, 8, 3)).astype(np.uint8)
    row, column = divmod(k, 4)
    image[2 * row : 2 * row + 2, 2 * column : 2 * column + 2] += 180
    return image


def save(image, path, kind=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, kind, **options)


def deep_png(image, path):
    """A PNG of 16 bits a channel, which Pillow does not write; its values are below 256."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in image)
    header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)))


def called(k):
    return str(k + 1)


@pytest.fixture(scope="module")
def twelve(tmp_path_factory):
    """Twelve classes of 8x8 RGB images that are called 1 to 12, and so have the numbers 0 to 11."""
    root = tmp_path_factory.mktemp("data")
    for k in range(12):
        for i in range(12):
            save(lit(k), root / "twelve" / ("train" if i else "test") / called(k) / f"{i}.png")
    return ImageFolder("twelve", root=str(root), validation_fraction=0.2)


@pytest.fixture(scope="module")
def digits():
    return Digits()


def seen(images):
    """The cell that is lit in each image, hence its true class by name."""
    return images.reshape(-1, 4, 2, 4, 2, 3).mean((2, 4, 5)).reshape(-1, 16).argmax(1)


def in_folders(path, name=called):
    for k in range(12):
        for i in range(2):
            save(lit(k), path / name(k) / f"{i}.png")
    return path


def flat(path, count=12, **options):
    for i in range(count):
        save(lit(i), path / f"{i:02}.png", **options)
    return path


@pytest.mark.parametrize("name", [called, lambda k: f"{k + 1:02}"], ids=["as they are called", "padded"])
def test_folders_called_by_the_numbers_of_classes_that_are_called_by_numbers_mean_their_names(tmp_path, twelve, name):
    given = given_samples(in_folders(tmp_path, name), twelve)
    assert given.labels.tolist() == seen(given.images).tolist()
    assert "folder 1 is the class 1, which has number 0" in given.told


def test_linked_folders_are_read_and_count_in_the_digest(tmp_path, twelve):
    folder = in_folders(tmp_path / "given")
    before = digest_of_samples(folder)
    for name in map(called, range(6)):
        shutil.move(folder / name, tmp_path / "away" / name)
        (folder / name).symlink_to(tmp_path / "away" / name)
    given = given_samples(folder, twelve)
    assert np.bincount(given.labels).tolist() == [2] * 12
    assert digest_of_samples(folder) == before
    save(lit(5), tmp_path / "away" / "3" / "0.png")
    assert digest_of_samples(folder) != before


def test_hidden_files_and_folders_are_passed_over(tmp_path, twelve):
    flat(tmp_path)
    save(lit(0), tmp_path / ".ipynb_checkpoints" / "00-checkpoint.png")
    (tmp_path / ".DS_Store").write_bytes(b"\0")
    given = given_samples(tmp_path, twelve)
    assert seen(given.images).tolist() == list(range(12))
    assert set(given.labels) == {-1}


def test_numbered_parts_of_a_large_set_are_no_classes(tmp_path, twelve):
    for i in range(12):
        save(lit(i), tmp_path / f"{i // 6 * 1000:06}" / f"{i:06}.png")
    given = given_samples(tmp_path, twelve)
    assert set(given.labels) == {-1}
    assert "folders such as 000000 are parts of one set without classes" in given.told


def test_files_in_colour_that_are_grey_are_read_as_grey(tmp_path, digits):
    u = RNG.integers(0, 17, (12, 8, 8)).astype(np.uint8)
    for i, image in enumerate(u):
        save(np.repeat(image[..., None], 3, axis=2) if i % 2 else image, tmp_path / "files" / f"{i:02}.png")
    np.savez(tmp_path / "array.npz", images=np.repeat(u[..., None], 3, axis=3))
    for name in ("files", "array.npz"):
        given = given_samples(tmp_path / name, digits)
        np.testing.assert_array_equal(given.images[..., 0], u)
        assert "three equal channels read as grey" in given.told


def test_a_file_counts_by_its_content(tmp_path, twelve):
    u = np.stack([lit(i) for i in range(12)])
    for i, kind in enumerate(("PNG", "BMP", "TIFF", "PPM") * 3):
        save(u[i], tmp_path / f"{i:02}.jpg", kind)
    np.testing.assert_array_equal(given_samples(tmp_path, twelve).images, u)


def jpegs(path):
    flat(path, kind="JPEG")


def jpegs_in_tiff(path):
    flat(path, kind="TIFF", compression="jpeg")


def pages(path):
    flat(path, kind="TIFF", save_all=True, append_images=[Image.fromarray(lit(1)), Image.fromarray(lit(2))])


def deep(path):
    flat(path)
    deep_png(lit(0), path / "00.png")


def archives(path):
    path.mkdir()
    np.savez(path / "part0.npz", images=np.zeros((12, 8, 8, 3), np.uint8))


def beside(path):
    in_folders(path)
    save(lit(0), path / "grid.png")


def below(path):
    save(lit(0), in_folders(path) / "1" / "more" / "0.png")


def dangling(path):
    flat(path)
    (path / "12.png").symlink_to("../.git/annex/objects/12")


def pipe(path):
    flat(path)
    os.mkfifo(path / "12.png")


def pipe_alone(path):
    os.mkfifo(path)


def unknown(path):
    in_folders(path, lambda k: called(k) if k < 11 else "cat")


def outside(path):
    in_folders(path, str)


def postscript(path):
    flat(path)
    (path / "00.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n")


def text(path):
    flat(path)
    (path / "readme.txt").write_text("samples of a model")


def grey(path):
    for i in range(12):
        save(lit(i)[..., 0], path / f"{i:02}.png")


def webpage(path):
    path.write_text("<html>404</html>\n")


def many_files(path):
    with zipfile.ZipFile(path, "w") as file:
        for i in range(3000):
            file.writestr(f"00000/img{i:08}.png", b"")


def arrays(**named):
    return lambda path: np.savez(path, **named)


def members(**content):
    """An archive of members that are written as they are."""

    def make(path):
        with zipfile.ZipFile(path, "w") as file:
            for name, data in content.items():
                file.writestr(f"{name}.npy", data)

    return make


def header(shape, descr="|u1"):
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", 128 - 10) + text.ljust(128 - 11) + b"\n"


def damaged(path):
    arrays(images=RNG.integers(0, 256, (12, 8, 8, 3)).astype(np.uint8))(path)
    content = bytearray(path.read_bytes())
    content[1000] ^= 255
    path.write_bytes(content)


REFUSED = {
    "JPEG": (jpegs, "00.png is a JPEG file"),
    "JPEG in TIFF": (jpegs_in_tiff, "00.png is a JPEG file or compressed alike"),
    "pages": (pages, "00.png holds 3 pictures"),
    "16 bits": (deep, "00.png: 16 bits a channel"),
    "archives": (archives, "part0.npz is a file of arrays; join the arrays"),
    "beside": (beside, "grid.png lies beside the folder 1"),
    "below": (below, "1/more lies too deep"),
    "dangling": (dangling, "12.png is a link to nothing"),
    "pipe": (pipe, "12.png is neither a file nor a folder"),
    "pipe alone": (pipe_alone, "is neither a file nor a folder"),
    "unknown": (unknown, "folder 'cat' is no class of twelve; name all folders by class (1, 2, 3, ...)"),
    "outside": (outside, "folder '0' is no class of twelve"),
    "postscript": (postscript, "00.png: not a PNG or BMP or TIFF or PPM or JPEG image"),
    "text": (text, "readme.txt: not a PNG"),
    "grey": (grey, "images are grey, twelve is in colour"),
    "web page": (webpage, "is no whole .npz file; it starts with '<html>404"),
    "zip of PNGs": (many_files, "only files such as 00000/img00000000.png (3000 in all); unpack them"),
    "channels first": (arrays(images=np.zeros((12, 3, 8, 8), np.uint8)), "channels come first"),
    "no array": (members(images=b"<html>"), "images is no array"),
    "objects": (arrays(images=np.array([None] * 12)), "images is an array of objects"),
    "text labels": (arrays(arr_0=np.zeros((12, 8, 8, 3), np.uint8), labels=np.array(["cat"] * 12)), "12 integers"),
    "labels from 1": (
        arrays(images=np.zeros((12, 8, 8, 3), np.uint8), labels=np.arange(1, 13)),
        "label 12, the classes of twelve are 0 to 11; subtract 1",
    ),
    "large header": (members(images=header((10**12, 8, 8, 3))), "array images has 128 bytes, one of shape"),
    "cut": (members(images=header((12, 8, 8, 3)) + bytes(100)), "array images has 228 bytes"),
    "damaged": (damaged, "array images cannot be read"),
    "no images": (arrays(images=np.zeros((0, 8, 8, 3), np.uint8)), "0 samples are too few"),
    "a number": (arrays(images=np.uint8(3), labels=np.int64(3)), "got"),
}


@pytest.mark.parametrize(("make", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_compared_is_refused_in_one_short_line(tmp_path, twelve, make, said):
    path = tmp_path / "given.npz"
    make(path)
    with pytest.raises(InputError) as refused:
        given_samples(path, twelve)
    told = str(refused.value).replace(str(tmp_path), "")
    assert said in told
    assert told.isprintable()
    assert len(told) < 300
    assert "pickle" not in told


def test_too_many_samples_are_refused_by_their_header_alone(tmp_path, twelve):
    """The member unpacks to 4 GiB of zeros, of which none is read."""
    path, count = tmp_path / "bomb.npz", 2**32 // 192
    body = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = body.compress(header((count, 8, 8, 3))) + body.compress(bytes(10**6)) + body.flush()
    write_member(path, b"images.npy", packed, 128 + 192 * count)
    with pytest.raises(InputError, match=f"{count} samples of 4.0 GiB; give at most {MOST}"):
        given_samples(path, twelve)


def write_member(path, name, packed, size):
    """A zip file of one deflated member that says that it has ``size`` bytes, in ZIP64 where they are many."""
    extra = struct.pack("<HHQQ", 1, 16, size, len(packed))
    fields = struct.pack("<HHHHHIIIHH", 45, 0, 8, 0, 0, 0, 2**32 - 1, 2**32 - 1, len(name), len(extra))
    local = b"PK\x03\x04" + fields + name + extra + packed
    entry = b"PK\x01\x02" + struct.pack("<H", 45) + fields + struct.pack("<HHHII", 0, 0, 0, 0, 0) + name + extra
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(entry), len(local), 0)
    path.write_bytes(local + entry + end)


CALLED = Classes("pets", {"cat": 0, "dog": 1, "fox": 2}, 3)


@pytest.mark.parametrize(
    ("classes", "folders", "numbers", "told"),
    [
        (CALLED, ["cat", "fox"], [0, 2], "class names"),
        (CALLED, ["0", "2"], [0, 2], "class numbers (0 is cat)"),
        (CALLED, ["00", "01"], [0, 1], "class numbers (0 is cat)"),
        (CALLED, ["00000", "00001"], None, "parts of one set without classes"),
        (Classes("digits", {str(k): k for k in range(10)}, 10), ["3", "07"], [3, 7], "class numbers"),
        (Classes("years", {"1990": 0, "2000": 1}, 2), ["2000"], [1], "folder 1990 is the class 1990"),
    ],
)
def test_names_of_folders_are_names_of_classes_or_else_their_numbers(tmp_path, classes, folders, numbers, told):
    found, how = classes.of_folders(tmp_path, folders)
    assert found == (None if numbers is None else dict(zip(folders, numbers, strict=True)))
    assert told in how


@pytest.mark.parametrize("folder", ["bird", "3", "cats"])
def test_a_folder_that_is_no_class_is_refused_by_its_name(tmp_path, folder):
    with pytest.raises(
        InputError, match=rf"'{folder}' is no class of pets.*\(cat, dog, fox\) or all by number \(0 to 2\)"
    ):
        CALLED.of_folders(tmp_path, ["0" if folder == "3" else "cat", folder])


def test_names_and_numbers_of_classes_are_not_mixed(tmp_path):
    with pytest.raises(InputError, match="some folders are called by number; name all folders by class"):
        CALLED.of_folders(tmp_path, ["cat", "1"])
