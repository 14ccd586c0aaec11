"""Seeded changes of files: bytes that flip, values of another kind or size, names that lead elsewhere, code to be run.

Every function takes ``rng``, from which all that it does follows, and ``bait``: a file that must never come to be.
"""

import copy
import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

ESCAPES = "\x1b[31m\x07red\x1b]0;title\x07\x1b[0m"
RAW_YAML = (
    "!!python/object/apply:os.system ['touch BAIT']", "!!python/name:os.system", "&a [*a, *a]", "*nowhere",
    "2001-99-99", ".nan", "-.inf", "1e999", "1" * 5000, "[" * 2000 + "]" * 2000, "!!binary abc", "!!int x",
    "12:30:45", "0o17", "0x" + "f" * 40, r'"\e[31m\a"', r'"\0"', "? [a, b]\n: c", "!unknown {a: 1}", "{a: 1, a: 2}",
    "'open", "%TAG", "\t- a", "<<: [1]",
)  # fmt: skip
RAW_JSON = (
    "NaN", "-Infinity", "1e999", "1" * 5000, "[" * 100_000 + "]" * 100_000, r'"\ud800"', r'"\u0000"', r'"\u001b[31m"',
    '{"a": 1, "a": 2}', "1.0", "-0", "0x1", "'a'", "[1, 2",
)  # fmt: skip


def values(rng, bait):
    """A value that does not belong where it is put."""
    return rng.choice((
        None, True, False, 0, 1, -1, 3, 2**31, 2**63, -(2**63) - 1, 10**30, 0.5, -0.5, 1e308, 1e-320, float("nan"),
        float("inf"), "", " ", "a", "1", "nan", "x" * 100_000, "é" * 300, "../" * 8 + "etc/passwd", "/dev/zero",
        str(bait), "~nobody/x", "$HOME/x", ESCAPES, "\u202eabc\u2028", "a\nb\r\nc", "\0", "!!x", "{{ 7 * 7 }}",
        "<script>", "|", [], {}, [1], {"a": 1}, [[[[]]]], [0] * 1000, "os.system", "methods.supervised.Supervised",
        "subprocess.Popen", {"class_path": "os.system", "init_args": {"command": f"touch {bait}"}}, "2001-01-01", "-",
        "--help", "seed0",
    ))  # fmt: skip


def of_bytes(content, rng):
    """A file's bytes, some of them others, fewer or more."""
    content, n = bytearray(content), len(content)
    at, more = rng.randrange(n + 1), rng.randrange(1, 1 + min(n, 2000))
    kind = rng.randrange(8)
    if kind == 0:
        for _ in range(rng.choice((1, 1, 1, 5, 50))):
            content[rng.randrange(n)] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del content[at:]
    elif kind == 2:
        content[at:at] = content[at : at + more]
    elif kind == 3:
        del content[at : at + more]
    elif kind == 4:
        content[at : at + 4] = rng.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", ESCAPES.encode()))
    elif kind == 5:
        content[at:at] = rng.randbytes(more)
    elif kind == 6:
        content = rng.choice((b"", b"\xef\xbb\xbf" + content, content * 2, b"<html>404</html>\n", rng.randbytes(n)))
    else:
        content = content[:at].decode("latin-1").encode("utf-16") + content[at:]
    return bytes(content)


def _places(value, found=None):
    """Every container in a value with each of its keys."""
    found = [] if found is None else found
    keys = value if isinstance(value, dict) else range(len(value))
    for key in keys:
        found.append((value, key))
        if isinstance(value[key], dict | list) and value[key]:
            _places(value[key], found)
    return found


def of_value(value, rng, bait, raw=()):
    """A value as a file of YAML or JSON holds it, one thing in it another; ``RAW`` and a number stand for a text.

    Args:
        value: Containers and leaves.
        rng, bait: See the module.
        raw: Texts that no value gives.
    """
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        places = _places(value)
        if not places:
            break
        inside, key = rng.choice(places)
        kind = rng.randrange(8)
        if kind <= 2 or (kind == 3 and not raw):
            inside[key] = values(rng, bait)
        elif kind == 3:
            inside[key] = f"RAW{rng.randrange(len(raw))}"
        elif kind == 4:
            del inside[key]
        elif kind == 5 and isinstance(inside, dict):
            other = rng.choice((str(key)[:-1], f"{key}x", ESCAPES, "x" * 1000, "../x", "", "a.b", "é", "class_path"))
            inside[other] = inside.pop(key)
        elif kind == 6:
            inside[key] = rng.choice(([inside[key]], {"a": inside[key]}, [inside[key]] * 3, str(inside[key])))
        else:
            other, place = rng.choice(places)
            there = place in other if isinstance(other, dict) else place < len(other)
            inside[key] = copy.deepcopy(other[place]) if there else None
    return value


def _unquoted(text, raw, bait):
    for number in reversed(range(len(raw))):
        for quoted in (f'"RAW{number}"', f"RAW{number}"):
            text = text.replace(quoted, raw[number].replace("BAIT", str(bait)))
    return text


def of_yaml(content, rng, bait):
    """Bytes of a YAML file."""
    if rng.random() < 0.3:
        return of_bytes(content, rng)
    changed = of_value(yaml.safe_load(content), rng, bait, RAW_YAML)
    text = yaml.safe_dump(changed, sort_keys=False, allow_unicode=True)
    return _unquoted(text, RAW_YAML, bait).encode("utf-8", "surrogatepass")


def of_json(content, rng, bait):
    """Bytes of a JSON file."""
    if rng.random() < 0.3:
        return of_bytes(content, rng)
    changed = of_value(json.loads(content), rng, bait, RAW_JSON)
    return _unquoted(json.dumps(changed, indent=1), RAW_JSON, bait).encode()


class Bomb:
    """What touches the bait when it is unpickled."""

    def __init__(self, bait):
        self.bait = bait

    def __reduce__(self):
        return os.system, (f"touch '{self.bait}'",)


def of_npz(content, rng, bait):
    """Bytes of an ``.npz``: arrays of another kind, or an archive that is none of NumPy's."""
    if rng.random() < 0.3:
        return of_bytes(content, rng)
    with np.load(io.BytesIO(content)) as file:
        arrays = dict(file)
    name, kind = rng.choice(list(arrays)), rng.randrange(12)
    array, rest = arrays[name], {}
    if kind == 0:
        arrays[name] = array.astype(rng.choice(("f4", "f8", "i8", "u2", "?", "c8", "U5", "S3", "M8[s]", "V4", "f2")))
    elif kind == 1:
        reshaped = (array[None], array[:0], array[..., None], array.reshape(-1), array[:3], array.T, array[0])
        arrays[name] = reshaped[rng.randrange(len(reshaped))]
    elif kind == 2:
        arrays.pop(name)
    elif kind == 3:
        arrays[rng.choice((ESCAPES, "x" * 300, "arr_0", "../" * 6 + "x", "é", "a/b"))] = arrays.pop(name)
    elif kind == 4:
        arrays[name] = np.array([Bomb(bait), *[None] * (len(np.atleast_1d(array)) - 1)], dtype=object)
    elif kind == 5:
        array.reshape(-1)[: array.size // 2] = (
            rng.choice((1, 255, 16)) if array.dtype == np.uint8 else rng.choice((-1, 7))
        )
    elif kind == 6:
        arrays[name] = np.full(array.shape, rng.choice((np.nan, np.inf, -1e300, 0.5)))
    elif kind == 7:
        rest[f"{name}.npy"] = _npy(rng.choice(((10**6, 10**6), (-1,), (2**70,), (10**12,), "(" * 300)), rng)
    elif kind == 8:
        rest = {rng.choice(("../" * 6 + "x.npy", "/" + "x" * 200 + ".npy", "x.npy/", ESCAPES)): b"x" * 10}
    elif kind == 9:
        rest[f"{name}.npy"] = (
            np.lib.format.MAGIC_PREFIX + bytes(rng.choice(((1, 0), (9, 9), (3, 0)))) + rng.randbytes(50)
        )
    elif kind == 10:
        return _packed({f"{name}.npy": _npy((2**33,), rng, bytes(2**27))})
    else:
        with_more = io.BytesIO()
        np.save(with_more, array)
        return rng.choice((with_more.getvalue(), pickle.dumps(Bomb(bait)), _packed({"a.png": b"x", "b/c.png": b"x"})))
    packed = io.BytesIO()
    names = {key: value for key, value in arrays.items() if f"{key}.npy" not in rest}
    np.savez(packed, allow_pickle=True, **names) if names else zipfile.ZipFile(packed, "w").close()
    with zipfile.ZipFile(packed, "a") as file:
        for key, value in rest.items():
            file.writestr(key, value)
    return packed.getvalue()


def _npy(shape, rng, content=b""):
    """An ``.npy`` whose header promises a shape."""
    kind = rng.choice(("|u1", "<i8", "<f8", "|O", "|S999999999"))
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return np.lib.format.MAGIC_PREFIX + b"\1\0" + struct.pack("<H", len(head)) + head.encode() + content


def _packed(files):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return packed.getvalue()


def of_png(content, rng):
    """Bytes of an image: a damaged PNG, one that promises other pixels, or another format."""
    kind = rng.randrange(9)
    image = Image.open(io.BytesIO(content))
    if kind <= 1:
        return of_bytes(content, rng)
    if kind == 2:  # a header that is whole and not true
        head = bytearray(content[16:29])
        at = rng.choice((0, 4, 8, 9, 10, 11, 12))
        head[at : at + (4 if at < 8 else 1)] = (
            struct.pack(">I", rng.choice((0, 1, 9, 2**16, 2**31 - 1, 2**32 - 1))) if at < 8 else rng.randbytes(1)
        )
        return content[:16] + bytes(head) + struct.pack(">I", zlib.crc32(b"IHDR" + head)) + content[33:]
    if kind == 3:
        text = zlib.compress(bytes(2**27) if rng.random() < 0.5 else ESCAPES.encode())
        body = b"zTXtname\0\0" + text
        chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        return content[:33] + chunk + content[33:]
    out = io.BytesIO()
    if kind == 4:
        image.save(out, rng.choice(("JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO")))
    elif kind == 5:
        image.convert(rng.choice(("RGB", "1", "P", "RGBA", "LA", "I;16"))).save(out, "PNG")
    elif kind == 6:
        image.save(out, rng.choice(("PNG", "TIFF", "GIF")), save_all=True, append_images=[image.rotate(90)])
    elif kind == 7:
        image.resize(rng.choice(((1, 1), (9, 8), (8, 9), (500, 500), (1, 4000)))).save(out, "PNG")
    else:
        return rng.choice(
            (b"", b"<html>404</html>", b"../../../objects/1", b"version https://git-lfs.github.com/spec/v1\n")
        )
    return out.getvalue()


def of_checkpoint(content, rng, bait):
    """Bytes of a file of weights: damaged, of other objects, or with values of another kind, size or name."""
    kind = rng.randrange(10)
    if kind <= 2:
        return of_bytes(content, rng)
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    out = io.BytesIO()
    if kind == 3:
        return pickle.dumps(rng.choice((Bomb(bait), {"state_dict": Bomb(bait)}, state)), protocol=rng.choice((2, 4)))
    if kind == 4:
        state = rng.choice((Bomb(bait), {"state_dict": {"a": Bomb(bait)}}, [state, Bomb(bait)]))
    elif kind == 5:
        state = rng.choice(
            (None, 3, ESCAPES, [], {}, [1], {"state_dict": 3}, {"state_dict": {}}, {"model": []}, [[]] * 3)
        )
    elif kind <= 7:
        weights = _weights(state)
        name = rng.choice(list(weights))
        weights[name] = _tensor(weights[name], rng)
        if rng.random() < 0.3:
            weights[rng.choice((ESCAPES, "x" * 1000, "", "a.b", 3))] = weights.pop(name)
    else:
        state = of_value(state, rng, bait)
    torch.save(state, out, _use_new_zipfile_serialization=rng.random() < 0.8)
    return out.getvalue()


def _weights(state):
    """The first mapping in a state that holds tensors by name."""
    if isinstance(state, dict):
        if any(isinstance(value, torch.Tensor) for value in state.values()):
            return state
        return next(filter(None, (_weights(value) for value in state.values())), None)
    return None


def _tensor(value, rng):
    """A tensor of another kind in the place of one."""
    kind = rng.randrange(9)
    if kind == 0:
        return torch.full_like(value, float("nan") if value.is_floating_point() else 7)
    if kind == 1:
        return torch.zeros(1).expand(2**40) if rng.random() < 0.5 else value.new_zeros(1).expand(10**6, 10**6)
    if kind == 2:
        return value.to(rng.choice((torch.float64, torch.bfloat16, torch.int8, torch.bool, torch.complex64)))
    if kind == 3:
        return value[None] if rng.random() < 0.5 else value.reshape(-1)[:1]
    if kind == 4:
        return torch.empty(value.shape, device="meta")
    if kind == 5:
        return value.reshape(-1).to_sparse()
    if kind == 6:
        return value.reshape(-1)[:0]
    if kind == 7:
        return rng.choice((None, 3.0, "text", [1.0], {"a": value}))
    return value * float("inf") if value.is_floating_point() else value


def of_path(path: Path, rng, bait):
    """Something else in the place of a file: a link that leads elsewhere or nowhere, a folder, a pipe, or nothing."""
    kind = rng.randrange(7)
    path.unlink()
    if kind <= 3:
        path.symlink_to((path.name, "nowhere", "/dev/zero", bait.parent / "canary")[kind])
    elif kind == 4:
        path.mkdir()
        (path / "inside").write_text("x")
    elif kind == 5:
        os.mkfifo(path)
