"""Image files: read without loss, or refused in one line that names the file."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from datamodules.image_files import AsStored, decode, kept_images, opened, plain, read_images
from datamodules.image_folder import ImageFolder
from runs import peak_memory

RNG = np.random.default_rng(0)


def png(width, height, depth, colour, data):
    """A PNG file by hand, of depths that Pillow does not write."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


COLOURS = Image.fromarray(RNG.integers(0, 256, (5, 6, 3)).astype(np.uint8))
GREY = COLOURS.convert("L")
CLEAR = Image.new("L", (6, 5), 254)


def with_alpha(image, alpha):
    image = image.copy()
    image.putalpha(alpha)
    return image


LOSSLESS = {
    "black and white": (Image.fromarray(np.eye(5, 6) > 0), 255 * np.eye(5, 6)),
    "palette": (COLOURS.quantize(16), np.asarray(COLOURS.quantize(16).convert("RGB"))),
    "opaque colours": (with_alpha(COLOURS, 255), np.asarray(COLOURS)),
    "opaque grey": (with_alpha(GREY, 255), np.asarray(GREY)),
}


@pytest.mark.parametrize(("image", "pixels"), LOSSLESS.values(), ids=LOSSLESS)
def test_what_is_grey_or_rgb_in_other_words_keeps_its_pixels(tmp_path, image, pixels):
    image.save(tmp_path / "image.png")
    assert np.array_equal(decode(tmp_path / "image.png"), pixels)


DEEP = {
    "TIFF": lambda path: Image.fromarray(np.full((5, 6), 700, np.uint16)).save(path, "TIFF"),
    "PNG": lambda path: path.write_bytes(png(6, 5, 16, 2, bytes(185))),
    "PPM": lambda path: path.write_bytes(b"P6\n6 5\n1023\n" + bytes(180)),
}


@pytest.mark.parametrize("kind", DEEP)
def test_more_than_8_bits_a_channel_are_seen_in_every_format(tmp_path, kind):
    DEEP[kind](tmp_path / "deep")
    found = opened(tmp_path / "deep", (kind,))
    assert found.deep
    with pytest.raises(ValueError, match="16 bits a channel"):
        plain(tmp_path / "deep", found)
    COLOURS.save(tmp_path / "plain", kind)
    assert np.array_equal(plain(tmp_path / "plain", opened(tmp_path / "plain", (kind,))), COLOURS)


def test_pictures_of_a_file_are_counted_and_its_format_is_that_of_its_content(tmp_path):
    COLOURS.save(tmp_path / "a.png", "TIFF", save_all=True, append_images=[COLOURS, COLOURS])
    found = opened(tmp_path / "a.png", ("PNG", "TIFF"))
    assert (found.format, found.pictures, found.deep) == ("TIFF", 3, False)


UNUSABLE = {
    "text": ("a.png", lambda p: p.write_text("no image"), "not a PNG or JPEG image"),
    "empty": ("a.jpg", lambda p: p.write_bytes(b""), "not a PNG or JPEG image"),
    "another format": ("a.png", lambda p: COLOURS.save(p, format="GIF"), "not a PNG or JPEG image"),
    "cut": ("a.png", lambda p: p.write_bytes(png(6, 5, 8, 0, bytes(35))[:-20]), "a damaged image"),
    "cut jpeg": ("a.jpg", lambda p: (COLOURS.save(p), p.write_bytes(p.read_bytes()[:-99])), "a damaged image"),
    "a folder": ("a.png", lambda p: p.mkdir(), "not a file but"),
    "a pipe": ("a.png", lambda p: os.mkfifo(p), "not a file but"),
    "postscript": ("a.png", lambda p: p.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 5\n"), "not a PNG"),
    "16-bit grey": ("a.png", lambda p: p.write_bytes(png(6, 5, 16, 0, bytes(65))), "16 bits a channel"),
    "16-bit colours": ("a.png", lambda p: p.write_bytes(png(6, 5, 16, 2, bytes(185))), "16 bits a channel"),
    "cmyk": ("a.jpg", lambda p: COLOURS.convert("CMYK").save(p), "colours of mode CMYK"),
    "see-through": ("a.png", lambda p: with_alpha(COLOURS, CLEAR).save(p), "transparent pixels"),
    "see-through grey": ("a.png", lambda p: with_alpha(GREY, CLEAR).save(p), "transparent pixels"),
    "see-through palette": ("a.png", lambda p: COLOURS.quantize(4).save(p, transparency=0), "transparent pixels"),
    "see-through colour": ("a.png", lambda p: COLOURS.save(p, transparency=COLOURS.getpixel((0, 0))), "transparent"),
    "huge": ("a.png", lambda p: p.write_bytes(png(10**5, 10**5, 8, 0, b"")), "more than 89478485 pixels"),
    "large": ("a.png", lambda p: p.write_bytes(png(10**4, 10**4, 8, 0, b"")), "more than 89478485 pixels"),
    "another size": ("z.png", lambda p: Image.new("RGB", (7, 5)).save(p), "5 x 7 pixels, but 5 x 6 in .*00.png"),
    "another name": ("Thumbs.db", lambda p: p.write_bytes(b""), r"not named as an image \(.png, .jpg, .jpeg\)"),
}


@pytest.mark.parametrize(("name", "make", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_image_is_refused_with_one_line_that_names_it(tmp_path, name, make, message):
    for part in ("train", "test"):
        for k in ("ant", "bee"):
            (tmp_path / "insects" / part / k).mkdir(parents=True)
            COLOURS.save(tmp_path / "insects" / part / k / "00.png")
    path = tmp_path / "insects" / "train" / "bee" / name
    make(path)
    with pytest.raises(ValueError, match=message) as refusal:
        ImageFolder("insects", root=str(tmp_path))
    assert str(refusal.value).startswith(f"{path}: ")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / ".diffclass-cache").exists()


@pytest.mark.parametrize("kinds", ["ggg", "ccc", "ggcg", "cgc"])
def test_kept_pixels_are_those_read_into_memory(tmp_path, kinds):
    files = [tmp_path / f"{i}.png" for i in range(len(kinds))]
    for file, kind in zip(files, kinds, strict=True):
        {"g": GREY, "c": COLOURS}[kind].save(file)
    kept = kept_images(files, tmp_path, tmp_path / "kept", AsStored())
    assert kept.dtype == np.uint8
    assert np.array_equal(kept, read_images(files, AsStored()))
    assert np.array_equal(kept, kept_images(files, tmp_path, tmp_path / "kept", AsStored()))
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_one_image_is_in_memory_at_a_time(tmp_path):
    for i in range(64):
        Image.fromarray(np.full((256, 256, 3), i, np.uint8)).save(tmp_path / f"{i:02}.png")
    files = sorted(tmp_path.iterdir())
    peak = peak_memory(lambda: kept_images(files, tmp_path, tmp_path / "kept", AsStored()))
    kept = kept_images(files, tmp_path, tmp_path / "kept", AsStored())
    assert kept[:, 0, 0, 0].tolist() == list(range(64))
    assert peak < kept.nbytes / 8
