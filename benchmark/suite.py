"""Suite files: which cells to run, what each needs from others, and the protocol they are measured by."""

import dataclasses
import difflib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from benchmark.errors import InputError

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True)
class Protocol:
    """How every cell is measured.

    Attributes:
        samples: Generated images a cell and guidance scale, balanced over the classes.
        seed: Seed of noise levels, noise and generation; not a run's seed.
        noisy_draws: Noise levels drawn for each test image in ``accuracy/noisy``.
        levels: Noise levels of the accuracy curve, the midpoints of so many equal parts of [0, 1].
        middle: The levels of the curve whose sigma / alpha lies between these bounds make ``accuracy/middle``.
        batch: Images evaluated at once.
        neighbours: ``k`` of precision and recall.
    """

    samples: int = 1000
    seed: int = 0
    noisy_draws: int = 4
    levels: int = 20
    middle: tuple[float, float] = (0.5, 1.25)
    batch: int = 500
    neighbours: int = 3


@dataclass(frozen=True)
class Cell:
    """One row of work: a method on its data, or plain images as a floor.

    Attributes:
        name: Name in tables and folders.
        config: Path of the method's configuration.
        images: Instead of a method, the images of this part as if they were samples.
        seed: A fixed seed, where the cell must not vary with the suite's seeds.
        trains_with: Configuration keys that get the trained weights of other cells, by cell name.
        samples_with: The same for keys that training does not use.
        set: Overrides of the configuration, by dotted key.
        guidance_scales: Scales to sample at; empty for unconditional samples.
        floor: Whether the row is a floor for comparison rather than a method.
    """

    name: str
    config: str | None = None
    images: Literal["train", "test"] | None = None
    seed: int | None = None
    trains_with: dict[str, str] = field(default_factory=dict)
    samples_with: dict[str, str] = field(default_factory=dict)
    set: dict[str, Any] = field(default_factory=dict)
    guidance_scales: list[float] = field(default_factory=list)
    floor: bool = False

    @property
    def needs(self) -> dict[str, str]:
        """All configuration keys that get trained weights."""
        return {**self.trains_with, **self.samples_with}


@dataclass(frozen=True)
class Suite:
    """A suite file.

    Attributes:
        name: The file's name.
        reference: Cell whose classifier judges samples and gives the features of fidelity.
        protocol: How cells are measured.
        cells: By name, in the order of the table.
        seeds: Seeds to run unless told otherwise.
    """

    name: str
    reference: str
    protocol: Protocol
    cells: dict[str, Cell]
    seeds: list[int]


def suites() -> list[str]:
    """Names of the suites that ship."""
    return sorted(path.stem for path in (CONFIGS / "suites").glob("*.yaml"))


def load_suite(name: str) -> Suite:
    """Read and check ``configs/suites/<name>.yaml``, or the suite file at a path that ends in ``.yaml``.

    The configurations of a suite's cells are looked for beside the suite file, then below ``configs``.

    Raises:
        InputError: Naming file, key and remedy.
    """
    own = name.endswith((".yaml", ".yml"))
    path = Path(name) if own else CONFIGS / "suites" / f"{name}.yaml"
    if own and not path.is_file():
        raise InputError(f"no suite file at {path}")
    if not NAME.fullmatch(path.stem) or not path.is_file():
        close = difflib.get_close_matches(name, suites(), n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise InputError(f"no suite named {name!r}; {hint}there are: {', '.join(suites())}")
    raw = read_yaml(path)
    _check_keys(raw, {"reference", "protocol", "cells", "seeds"}, f"{path.name}")
    cells = _mapping(raw.get("cells"), f"{path.name}: cells")
    suite = Suite(
        name=path.stem,
        reference=str(raw.get("reference")),
        protocol=_build(Protocol, raw.get("protocol") or {}, f"{path.name}: protocol"),
        cells={cell: _cell(cell, spec, path) for cell, spec in cells.items()},
        seeds=check_seeds(raw.get("seeds", [0]), f"{path.name}: seeds"),
    )
    _check_links(suite, path.name)
    return suite


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice, where the plain loader lets the second win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        given = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        keys = [self.construct_object(key, deep=True) for key in given]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                mark = given[number].start_mark
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", mark)
        return super().construct_mapping(node, deep)


def parse_yaml(path: Path) -> Any:
    """The value in a YAML file.

    Raises:
        InputError: If it cannot be read, naming the line.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except RecursionError:
        raise InputError(f"{path} is nested too deeply") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}{where}: {getattr(error, 'problem', None) or error}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping.

    Raises:
        InputError: If it cannot be read, naming the line.
    """
    return _mapping(parse_yaml(path), str(path))


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        raise InputError(f"{where}: expected keys and values, got {value!r}")
    return value


def _check_keys(raw: dict[str, Any], known: set[str], where: str) -> None:
    for key in raw:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known keys are {', '.join(sorted(known))}"
            raise InputError(f"{where}: unknown key {key!r}; {hint}")


def _cell(name: str, spec: Any, file: Path) -> Cell:
    where = f"{file.name}: cell {name}"
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InputError(
            f"{file.name}: cell name {name!r} must be 1 to 64 letters, digits, dots, dashes or underscores"
        )
    cell = _build(Cell, {"name": name, **_mapping(spec, where)}, where)
    if (cell.config is None) == (cell.images is None):
        raise InputError(f"{where}: give either config or images")
    if cell.images not in (None, "train", "test"):
        raise InputError(f"{where}: images must be train or test, got {cell.images!r}")
    if cell.config is not None:
        found = [path for path in (file.parent / cell.config, CONFIGS / cell.config) if path.is_file()]
        if not found:
            raise InputError(f"{where}: no file {cell.config} beside the suite file or below configs")
        cell = dataclasses.replace(cell, config=str(found[0].resolve()))
    for scale in cell.guidance_scales:
        if not isinstance(scale, int | float) or scale < 0:
            raise InputError(f"{where}: guidance_scales must be numbers >= 0, got {scale!r}")
    return cell


def _build(kind: type, raw: Any, where: str) -> Any:
    """A dataclass from a mapping, each value of the type that its field declares."""
    fields = {f.name: f for f in dataclasses.fields(kind)}
    _check_keys(_mapping(raw, where) if raw else {}, set(fields), where)
    for key, value in raw.items():
        default = fields[key].default if fields[key].default is not dataclasses.MISSING else None
        declared = str(fields[key].type)
        expected = {"dict": dict, "list": list, "str": str, "bool": bool, "int": int, "tuple": list}
        base = next((t for n, t in expected.items() if re.match(rf"(<class ')?{n}\b", declared)), None)
        if value is None and default is None:
            continue
        if base is not None and (not isinstance(value, base) or (base is int and isinstance(value, bool))):
            raise InputError(f"{where}: {key} must be a {base.__name__}, got {value!r}")
        if base is int and value < 0:
            raise InputError(f"{where}: {key} must be >= 0, got {value}")
    if "middle" in raw:
        raw = {**raw, "middle": tuple(raw["middle"])}
    return kind(**raw)


def check_seeds(seeds: Any, where: str) -> list[int]:
    """Seeds as a list of distinct integers in 0 .. 2^32 - 1.

    Raises:
        InputError: If they are anything else.
    """
    valid = isinstance(seeds, list) and seeds and all(type(s) is int and 0 <= s < 2**32 for s in seeds)
    if not valid or len(set(seeds)) != len(seeds):
        raise InputError(f"{where}: seeds must be distinct integers from 0 to 2^32 - 1, got {seeds!r}")
    return seeds


def _check_links(suite: Suite, file: str) -> None:
    if suite.reference not in suite.cells or suite.cells[suite.reference].config is None:
        raise InputError(f"{file}: reference must name a cell with a config, got {suite.reference!r}")
    for cell in suite.cells.values():
        for key, needed in cell.needs.items():
            if needed not in suite.cells or suite.cells[needed].config is None:
                raise InputError(f"{file}: cell {cell.name}: {key} needs {needed!r}, which is no cell with a config")
    order(suite)


def order(suite: Suite) -> list[str]:
    """Cells such that each comes after those whose weights it needs.

    Raises:
        InputError: If cells need one another in a circle.
    """
    placed: list[str] = []

    def place(name: str, trail: tuple[str, ...]) -> None:
        if name in trail:
            raise InputError(f"suite {suite.name}: cells need one another in a circle: {' -> '.join((*trail, name))}")
        if name not in placed:
            for needed in suite.cells[name].needs.values():
                place(needed, (*trail, name))
            placed.append(name)

    for name in suite.cells:
        place(name, ())
    return placed
