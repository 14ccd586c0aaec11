"""Files of weights of any content: read as what they hold, or refused in one line that names the file."""

import os
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from methods.weight_files import check_plain, read_weights

WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3), "a.count": torch.tensor(3)}


class Malicious:
    def __reduce__(self):
        return (pytest.fail, ("code of a file was run",))


def packed(path):
    """A file of torch whose zeros are compressed to a thousandth."""
    torch.save({"a": torch.zeros(2**20)}, path.with_name("plain"))
    with zipfile.ZipFile(path.with_name("plain")) as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as small:
        for entry in plain.infolist():
            small.writestr(entry.filename, plain.read(entry))


def flipped(path):
    """A file of torch in which a bit of a number is another."""
    torch.save(WEIGHTS, path)
    content = bytearray(path.read_bytes())
    content[content.index(WEIGHTS["a.weight"].numpy().tobytes()) + 5] ^= 1
    path.write_bytes(content)


def sparse(path):
    with open(path, "wb") as file:
        file.truncate(2**42)


DAMAGED = "cannot be read as weights alone: it is damaged or holds other objects"
REFUSED = {
    "empty": (lambda path: path.write_bytes(b""), DAMAGED),
    "page": (lambda path: path.write_text("<!DOCTYPE html><html>quota exceeded</html>\n"), DAMAGED),
    "start of an archive": (lambda path: path.write_bytes(b"PK\3\4" + bytes(99)), DAMAGED),
    "objects": (lambda path: torch.save({"a": Malicious()}, path), DAMAGED),
    "pickle": (lambda path: path.write_bytes(b"\x80\x04cos\nsystem\n."), DAMAGED),
    "pipe": (os.mkfifo, "is no regular file"),
    "folder": (lambda path: path.mkdir(), "is no regular file"),
    "bomb": (packed, "is compressed, which files of weights are not"),
    "flipped bit": (flipped, "is damaged: it is not what was written"),
    "huge": (sparse, r"has 4.1e\+03 GiB, and this machine .* GiB of memory"),
}


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
@pytest.mark.parametrize(("make", "why"), REFUSED.values(), ids=REFUSED)
def test_what_holds_no_weights_is_refused_in_one_line(make, why, suffix, tmp_path):
    path = tmp_path / f"weights.{suffix}"
    make(path)
    with pytest.raises(ValueError, match=rf"^{path} {why}; name another$") as error:
        read_weights(path, "name another")
    assert error.value.__cause__ is None


@pytest.mark.parametrize("save", [torch.save, save_file])
def test_weights_come_out_as_they_went_in(save, tmp_path):
    path = tmp_path / ("weights.pt" if save is torch.save else "weights.safetensors")
    save(WEIGHTS, path)
    found = read_weights(path, "")
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(value, WEIGHTS[name]) for name, value in found.items())
    check_plain(found)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (torch.tensor([1, float("nan")]), "a is not finite"),
        (torch.tensor([1, -float("inf")], dtype=torch.bfloat16), "a is not finite"),
        (torch.ones(2, dtype=torch.complex64), "a is no plain tensor of real numbers, but of complex64"),
        (torch.ones(2).to_sparse(), "a is no plain tensor"),
        (torch.ones(2, device="meta"), "a is no plain tensor"),
        (torch.ones(1).expand(10**12), "a has more numbers than are stored"),
        (3, "a is no tensor"),
    ],
)
def test_weights_that_no_network_can_take_are_named(value, why):
    with pytest.raises(ValueError, match=f"^{why}"):
        check_plain({"b": torch.ones(2), "a": value})


def test_weights_without_data_are_taken_where_tensors_have_none():
    with torch.device("meta"):
        check_plain({"a": torch.ones(2)})


def test_a_long_or_unprintable_name_is_cut_and_escaped():
    with pytest.raises(ValueError, match=r"^'x\\x1b\[2J\\n") as error:
        check_plain({"x\x1b[2J\n" + "y" * 10**6: 3})
    assert len(str(error.value)) < 120
