"""Files and words of a command line, read early to refuse unusable ones and to locate errors."""

import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.errors import InputError, shortened
from benchmark.suite.cells import CONFIGS
from benchmark.suite.class_paths import modules_by_class, refused
from benchmark.system.gpus import visible_gpus
from benchmark.system.surroundings import absolute
from benchmark.system.yaml_files import file_named, parse_text, parse_yaml, read_yaml

OPTION = ("--config", "-c")
LINKED = {"data.init_args.seed": "seed_everything"}
"""Settings linked to another."""
LARGEST = 2**63 - 1
"""Largest whole number of the libraries."""
LEAST = {
    **{"trainer.accumulate_grad_batches": 1, "trainer.check_val_every_n_epoch": 1, "trainer.log_every_n_steps": 1},
    "trainer.gradient_clip_val": 0,
}
"""Least values of settings; the trainer accepts smaller ones and later divides by zero or ignores them."""


def located(arguments: Sequence[str]) -> list[str]:
    """Command line with full paths of shipped configurations, such as ``--config digits/joint.yaml``."""
    found = []
    for before, word in zip(["", *arguments], arguments, strict=False):
        key, given, value = word.partition("=")
        if given and key in OPTION:
            word = f"{key}={_located(value)}"
        found.append(_located(word) if before in OPTION else word)
    return found


def _located(config: str) -> str:
    """Path of a file, or else of the shipped one of that name, with ``configs`` or without."""
    shipped = (os.path.join(folder, config) for folder in (CONFIGS, CONFIGS.parent))
    return next((path for path in (config, *shipped) if os.path.isfile(path)), config)


class Settings:
    """Settings of a command line: those of its configuration files and its own words.

    Args:
        arguments: The command line.
        here: Whether it is for this machine's devices.

    Attributes:
        texts: All texts in it and in included files.

    Raises:
        InputError: If a configuration file is no UTF-8 YAML or repeats a key, a whole number needs more than 64 bits, a
            setting is less than ``LEAST``, or without GPUs more devices than cores are requested.
    """

    def __init__(self, arguments: Sequence[str], here: bool = True) -> None:
        self.words: dict[str, str] = {}
        self.files: list[Path] = []
        for word, following in zip(arguments, [*arguments[1:], ""], strict=False):
            key, given, value = word.partition("=")
            key = "--config" if key in OPTION else key
            if not key.startswith("--"):
                continue
            value = value if given else following
            self.words[key.removeprefix("--")] = value
            if key == "--config":
                self._add_configuration(value)
        self.contents = [read_yaml(file) for file in self.files]
        self.texts = _texts([_structured(value) for value in self.words.values()], Path())
        for file, content in zip(self.files, self.contents, strict=True):
            self.texts += _texts(content, file)
        for key, value in self.words.items():
            if re.fullmatch(r"[+-]?\d+", value):
                _check_number(_integer(value), f"command line: {key}")
        if here:
            self._check_devices()
        for key, least in LEAST.items():
            value = self._last(key)
            if isinstance(value, int | float) and not value >= least:
                raise InputError(f"{self.origin(key)}: {key} must be at least {least}, got {value}")

    def _add_configuration(self, value: str) -> None:
        """Add a configuration file, or check one given as text."""
        if not value.strip():
            raise InputError("--config needs the path of a file")
        if value.lstrip().startswith("{"):
            parse_text(value, "command line: config")
        else:
            self.files.append(absolute(value))

    def _check_devices(self) -> None:
        """Refuse more CPU devices than cores: Lightning would start a process for each.

        The trainer itself refuses more GPUs than there are.
        """
        devices, accelerator = self._last("trainer.devices"), self._last("trainer.accelerator") or "auto"
        cores = len(os.sched_getaffinity(0))
        if accelerator in ("auto", "cpu") and not visible_gpus() and isinstance(devices, int) and devices > cores:
            raise InputError(f"trainer.devices: {devices} were asked for, there are no GPUs and {cores} CPU cores")

    def _last(self, key: str) -> Any:
        """Last value of a key; None if it is not set."""
        for word, value in reversed(self.words.items()):
            if _plain(word) == _plain(key):
                return parse_text(value, f"command line: {key}")
        for content in reversed(self.contents):
            value: Any = content
            for part in key.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if value is not None:
                return value
        return None

    def origin(self, key: str) -> str | None:
        """Place that sets a dotted key: the command line or a file; None if it is not set."""
        if any(_plain(word) == _plain(key) for word in self.words):
            return "command line"
        for file in reversed(self.files):
            found = _search(read_yaml(file), key.split("."), file)
            if found is not None:
                return str(found)
        return None

    def explain(self, message: str) -> str:
        """Shorten a parser's message to one line: place of the setting, its key, and the expected value."""
        key, reason = _condensed(message)
        origin = self.origin(key)
        if origin is None and key in LINKED:
            key = LINKED[key]
            origin = self.origin(key)
        if origin is None and len(self.files) == 1 and (key or "required" in reason):
            origin = str(self.files[0])
        return ": ".join(part for part in (origin, key, reason) if part)


def _plain(key: str) -> str:
    """A key without ``init_args``, as on the command line."""
    return ".".join(part for part in key.rstrip("+").split(".") if part != "init_args")


def _structured(word: str) -> Any:
    """Mapping or list in a word of the command line; else the word itself."""
    if word.lstrip()[:1] not in ("{", "["):
        return word
    try:
        return parse_text(word, "command line")
    except InputError:  # the parser reports it with the key
        return word


def _texts(value: Any, file: Path, trail: tuple[Path, ...] = ()) -> list[str]:
    """All texts of a configuration and of included files, which are read and checked."""
    if isinstance(value, dict | list):
        items = value.values() if isinstance(value, dict) else value
        return [text for item in items for text in _texts(item, file, trail)]
    if isinstance(value, int):
        _check_number(value, str(file))
    if not isinstance(value, str):
        return []
    named = file_named(value, file)
    if named is None or named.resolve() in trail:
        return [value]
    return _texts(parse_yaml(named), named, (*trail, named.resolve()))


def _integer(text: str) -> int:
    return int(text) if len(text) < 100 else 10**99 * (-1 if text.startswith("-") else 1)


def _check_number(number: int, where: str) -> None:
    if abs(number) > LARGEST:
        raise InputError(f"{where}: {shortened(number)} is too large for a whole number, which has at most 64 bits")


def _search(value: Any, parts: list[str], file: Path) -> Path | None:
    """File that sets the key of ``parts``, included files searched too."""
    named = file_named(value, file)
    if named is not None:
        return _search(parse_yaml(named), parts, named)
    if not parts:
        return file
    if not isinstance(value, dict):
        return None
    if parts[0] in value:
        return _search(value[parts[0]], parts[1:], file)
    if parts[0] == "init_args":
        return _search(value, parts[1:], file)
    return None


def _condensed(message: str) -> tuple[str, str]:
    """Full dotted key of a parser's message, and the reason on one line."""
    keys = re.findall(r'Parser key "([^"]+)"', message)
    reason = re.split(r'Parser key "[^"]+":?', message)[-1]
    unknown = re.search(r"option '([\w.+]+)'(?:.*?(did you mean \S+))?", reason, re.IGNORECASE)
    unknown = unknown or re.search(r"unrecognized arguments: --([\w.+]+)(?:.*?(did you mean \S+))?", reason)
    if unknown:
        group = re.search(r"Group '([\w.]+)'", reason)
        keys += [unknown[1]] if group is None else [f"{group[1]}.{unknown[1]}"]
        return ".init_args.".join(keys), f"unknown key{'; ' + unknown[2] if unknown[2] else ''}"
    missing = re.search(r"(?:Importing '|Unexpected import path format: )([^'\n]+\.ya?ml)\b", reason)
    if missing:
        return ".init_args.".join(keys), f"there is no file {missing[1]}, looked for beside the file that names it"
    denied = re.search(r"Importing '([\w.]+)' is not allowed", reason)
    if denied:
        return ".init_args.".join(keys), refused(denied[1])
    lines = [line.strip(" -") for line in reason.replace("<class '", "").replace("'>", "").splitlines()]
    text = " or ".join(dict.fromkeys(line for line in lines if _informs(line)))
    text = re.sub(r"\b(or )?(?:Expected an?|Not of type) ", lambda found: found[1] or "expected ", text)
    text = re.sub(r"\. Got value: ", ", got ", text)
    short = next((line.rpartition(": ")[2] for line in lines if line.startswith("Expected a dot import path")), None)
    given = next((line.partition(": ")[2] for line in lines if line.startswith("Given value: ")), "{")
    if not text and short:
        longer = [name for name in modules_by_class() if name.startswith(short)]
        close = difflib.get_close_matches(short, modules_by_class(), n=2, cutoff=0.75)
        other = next((name for name in longer + close if name != short), None)
        text = f"no class named {short}" + (f"; did you mean {other}?" if other else "")
    elif not given.startswith(("{", "NestedArg(", "Namespace(")):  # else the whole block around the setting
        text += f", got {given}"
    return ".init_args.".join(keys), re.sub(r"\s+", " ", text)


def _informs(line: str) -> bool:
    """Tell whether a line of a parser's message helps a user."""
    noise = (
        *("Does not validate against", "Subtypes:", "Errors:", "Given value", "Expected a NoneType"),
        *("Expected a path but", "Expected a dot import path"),
    )
    return bool(line) and not line.startswith(noise)
