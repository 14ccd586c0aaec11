"""From a suite to jobs: every stage's key is the hash of its configuration, its code and what it builds on."""

import ast
import functools
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmark.files import digest, digest_file
from benchmark.given_listing import digest_of_samples
from benchmark.stages import Stage, read_manifest, scale_tag
from benchmark.suite import CONFIGS, Cell, Suite, order

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("benchmark", "methods", "datamodules")
WITHOUT_EFFECT = {
    f"benchmark.{name}"
    for name in (
        *("errors", "files", "kept_config", "memory", "ownership", "predictions", "progress_bar", "protocol"),
        *("samples_file", "screen", "stages", "trial", "yaml_files"),
    )
}
"""Modules that no number depends on but through what keys name anyway."""
SAMPLING = ("sampler", "guidance_rule", "guides")
NOT_TRAINING = (*SAMPLING, "likelihood", "guidance_scale")
"""Parts of a method that its weights do not depend on."""
TRAINING = (
    *("max_steps", "max_epochs", "max_time", "precision", "accumulate_grad_batches", "devices", "gradient_clip_val"),
    *("gradient_clip_algorithm", "limit_train_batches", "overfit_batches", "deterministic", "callbacks"),
)
"""Trainer settings that weights depend on."""


@dataclass(frozen=True)
class Job:
    """The training, or the evaluation, of one cell with one seed.

    Attributes:
        cell: The cell.
        seed: Its seed.
        part: ``train`` or ``evaluate``.
        folder: Where its files go.
        stages: What is to be done, in order.
        trained: Folder of the training whose weights it uses: its own, or that of an earlier cell that trains alike.
        arguments: Command line that builds the method.
        needs: Jobs that must be finished first.
        after: Jobs that are better done first, for it can take over some of their stages.
        reference: Folder of the reference classifier's cell.
        sampler: What the sampler is, for the protocol of records.
        method: Module name of the method.
    """

    cell: Cell
    seed: int
    part: str
    folder: Path
    stages: tuple[Stage, ...]
    trained: Path | None = None
    arguments: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    reference: Path | None = None
    reference_arguments: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict, compare=False)
    steps: int = 0

    @property
    def name(self) -> str:
        """``<cell>/seed<k>/<part>``."""
        return f"{self.cell.name}/seed{self.seed}/{self.part}"

    @property
    def method(self) -> str:
        """Module name of the method, or what kind of images there are in its place."""
        if self.cell.config is None:
            return "given_samples" if self.cell.images is None else f"images_{self.cell.images}"
        return self.config["model"]["class_path"].split(".")[-2]

    @property
    def finished(self) -> bool:
        """Whether every stage is."""
        return all(stage.completed(self.folder) is not None for stage in self.stages)


def arguments(cell: Cell, seed: int | str, folder: Path, needed: dict[str, Path]) -> tuple[str, ...]:
    """Command line of a cell; ``needed`` are the folders of the weights it needs, by configuration key."""
    words = [f"--config={cell.config}", f"--seed_everything={seed}", f"--trainer.default_root_dir={folder}"]
    words += [f"--{key}={v if isinstance(v, str) else json.dumps(v)}" for key, v in cell.set.items()]
    words += [f"--{key}={needed[key] / 'checkpoints' / 'final.ckpt'}" for key in cell.needs]
    return tuple(words)


def plan(suite: Suite, resolved: dict[str, dict[str, Any]], out: Path, seeds: list[int]) -> list[Job]:
    """All jobs of a suite, each after those that it needs.

    Args:
        suite: The suite.
        resolved: Each cell's configuration with every default filled in, needed weights by cell name.
        out: Folder of the suite's runs.
        seeds: Seeds of the cells that have no fixed one.
    """
    trainings: dict[tuple[str, int], Job] = {}
    protocol = asdict(suite.protocol)
    names = order(suite)
    judging = {suite.reference, *_ancestors(suite, suite.reference)}
    names.sort(key=lambda name: name not in judging)

    def seeds_of(name: str, asked: list[int] = seeds) -> list[int]:
        fixed = suite.cells[name].seed
        return asked if fixed is None else [fixed]

    def training_of(name: str, seed: int) -> Job:
        fixed = suite.cells[name].seed
        return trainings[name, seed if fixed is None else fixed]

    # One judge, whichever seeds are asked for: rows of all seeds are measured alike.
    reference_folder = out / suite.reference / f"seed{seeds_of(suite.reference, suite.seeds)[0]}"
    alike: dict[str, Job] = {}
    evaluations: list[Job] = []
    for name in names:
        cell = suite.cells[name]
        first = seeds_of(name, suite.seeds)[:1] if name in judging else []
        for seed in dict.fromkeys([*first, *seeds_of(name)]):
            if cell.config is None:
                continue
            folder = out / name / f"seed{seed}"
            needed = {key: training_of(other, seed) for key, other in cell.needs.items()}
            config = resolved[name]
            training = training_config(config, cell)
            key = digest(
                {"stage": "train", "config": training, "seed": seed,
                 "deps": {k: needed[k].stages[0].key for k in cell.trains_with},
                 "code": code_digest((*class_paths(training), "benchmark.lightning_cli"))}
            )  # fmt: skip
            stages = [Stage("train", key)]
            if name == suite.reference:
                on = {k: protocol[k] for k in ("seed", "test_images", "real_images", "neighbour_images")}
                code = code_digest(("benchmark.embedding",))
                stages.append(Stage("real", real := digest([key, on, code])))
                stages += [Stage(f"real+{net}", digest([real, net])) for net in protocol["features"]]
            job = Job(
                cell, seed, "train", folder, tuple(stages), folder,
                arguments=arguments(cell, seed, folder, {k: v.folder for k, v in needed.items()}),
                needs=tuple(needed[k].name for k in cell.trains_with),
                reference=reference_folder, config=config, steps=config["trainer"].get("max_steps") or 0,
            )  # fmt: skip
            trainings[name, seed] = alike.setdefault(key, job)

    reference = training_of(suite.reference, suite.seeds[0])
    for name in names:
        cell = suite.cells[name]
        for seed in seeds_of(name):
            folder = out / name / f"seed{seed}"
            trained = trainings.get((name, seed))
            needed = {key: training_of(other, seed) for key, other in cell.needs.items()}
            sampled_with = {k: needed[k].stages[0].key for k in cell.samples_with}
            weights = {job.name for job in (reference, trained, *needed.values()) if job is not None}
            borrows = trained is not None and trained.folder != folder
            job = Job(
                cell, seed, "evaluate", folder,
                _evaluation_stages(suite, cell, trained, resolved.get(name, {}), sampled_with, reference),
                trained.folder if trained else None,
                arguments=arguments(cell, seed, folder, {k: v.folder for k, v in needed.items()}) if trained else (),
                needs=tuple(sorted(weights)),
                after=(f"{trained.cell.name}/seed{trained.seed}/evaluate",) if borrows else (),
                reference=reference.folder, reference_arguments=reference.arguments,
                config=resolved.get(name, {}),
            )  # fmt: skip
            evaluations.append(job)
    return [*alike.values(), *evaluations]


def _ancestors(suite: Suite, name: str) -> set[str]:
    found: set[str] = set()
    for needed in suite.cells[name].needs.values():
        found |= {needed} | _ancestors(suite, needed)
    return found


def _evaluation_stages(
    suite: Suite,
    cell: Cell,
    trained: Job | None,
    config: dict[str, Any],
    sampled_with: dict[str, str],
    reference: Job,
) -> tuple[Stage, ...]:
    """Stages of a cell's evaluation, each keyed by just what it depends on."""
    protocol = asdict(suite.protocol)
    code = code_digest(("benchmark.outputs", *class_paths(config)))
    model = config["model"].get("init_args", {}) if trained else {}
    real = {"data": reference.config["data"], "code": code_digest(class_paths(reference.config["data"]))}
    source = digest([digest_of_samples(Path(cell.samples)) if cell.samples else f"images/{cell.images}", real])
    base = {"train": trained.stages[0].key if trained else source, "code": code}

    def stage(name: str, **on: Any) -> Stage:
        return Stage(name, digest({"stage": name, **base, **on}))

    stages: list[Stage] = []
    if trained:
        asked = {k: protocol[k] for k in ("seed", "test_images")}
        levels = asked | {k: protocol[k] for k in ("noisy_draws", "levels")}
        # Some classifiers are read off the density or the denoiser, whose settings then matter.
        likelihood = model.get("likelihood")
        stages.append(stage("classify", protocol=levels, likelihood=likelihood, with_=sampled_with))
        stages.append(stage("likelihood", likelihood=likelihood, protocol=asked, with_=sampled_with))
        stages.append(stage("denoise", times=protocol["denoise_times"], protocol=asked))
        stages.append(stage("diagnose", times=protocol["denoise_times"], protocol=asked))
        stages.append(stage("gradients", times=protocol["denoise_times"], protocol=asked, with_=sampled_with))
    drawn = ("seed", "samples") if trained else ("seed", "samples", "test_images")
    sampling = {k: protocol[k] for k in drawn} | {k: model.get(k) for k in SAMPLING}
    sampling_code = code_digest(("benchmark.sampling", *class_paths(config)))
    for scale in cell.guidance_scales or [None]:
        tag = scale_tag(scale)
        drawn = stage(f"sample{tag}", scale=scale, sampling=sampling, with_=sampled_with, code=sampling_code)
        stages.append(drawn)
        for real in reference.stages[2:]:  # one for each feature network
            name = f"features{real.name.removeprefix('real')}{tag}"
            stages.append(Stage(name, digest([name, drawn.key, real.key])))
    metrics = stage(
        "metrics",
        on=[s.key for s in stages],
        real=[real.key for real in reference.stages[1:]],
        protocol=protocol,
        cell=cell.name,
        reference=suite.reference,
        code=code_digest(("benchmark.evaluate_cell",)),
    )
    return (*stages, metrics)


def training_config(config: dict[str, Any], cell: Cell) -> dict[str, Any]:
    """The part of a cell's resolved configuration that trained weights depend on, without what has a key of its own."""
    # Weights from other cells enter by their own keys, not by where they lie.
    return without(without(training_settings(config), cell.needs), ["data.init_args.seed"])


def training_settings(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a resolved configuration that trained weights depend on, the seed aside."""
    trainer = config.get("trainer") or {}
    model = config["model"]
    kept = {k: v for k, v in (model.get("init_args") or {}).items() if k not in NOT_TRAINING}
    published = kept.get("checkpoint")
    if isinstance(published, str) and Path(published).is_file():  # it counts by what it holds, not by where it lies
        kept["checkpoint"] = digest_file(Path(published))
    return {
        "model": {"class_path": model["class_path"], "init_args": kept},
        "trainer": {k: trainer.get(k) for k in TRAINING},
        **{k: config.get(k) for k in ("data", "optimizer", "lr_scheduler", "ema", "channels_last", "compile")},
    }


def without(config: dict[str, Any], dotted: Iterable[str]) -> dict[str, Any]:
    """A copy of nested mappings that lacks the dotted keys."""
    copy = {k: without(v, ()) if isinstance(v, dict) else v for k, v in config.items()}
    for key in dotted:
        *path, last = key.split(".")
        place = copy
        for part in path:
            place = place.get(part) or {}
        place.pop(last, None)
    return copy


def class_paths(config: Any) -> list[str]:
    """Modules of all class paths in a configuration."""
    if isinstance(config, dict):
        own = [config["class_path"].rsplit(".", 1)[0]] if isinstance(config.get("class_path"), str) else []
        return own + [m for value in config.values() for m in class_paths(value)]
    if isinstance(config, list):
        return [m for value in config for m in class_paths(value)]
    return []


def code_digest(modules: Iterable[str]) -> str:
    """Hash of our source that ``modules`` import, whatever its comments and layout."""
    found: set[str] = set()
    queue = [m for m in modules if m.split(".")[0] in PACKAGES]
    while queue:
        module = queue.pop()
        if module in found or module in WITHOUT_EFFECT or _source(module) is None:
            continue
        found.add(module)
        queue += _imports(module)
    return digest({module: _meaning(module) for module in found})


def _source(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


@functools.cache
def _imports(module: str) -> tuple[str, ...]:
    found = []
    for node in ast.walk(ast.parse(_source(module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(m for m in found if m.split(".")[0] in PACKAGES)


@functools.cache
def _meaning(module: str) -> str:
    """The syntax tree without docstrings."""
    tree = ast.parse(_source(module).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [line for line in body if not _is_text(line)]
    return ast.dump(tree)


def _is_text(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)


def configuration_digest(suite: Suite, here: bool = True) -> str:
    """Hash of everything that resolved configurations follow from: YAML files, overrides and our source.

    Args:
        suite: The suite.
        here: Whether they were held against the devices of this machine.
    """
    folders = {CONFIGS, *(Path(cell.config).parent for cell in suite.cells.values() if cell.config)}
    files = {str(p): digest_file(p) for folder in sorted(folders) for p in sorted(folder.rglob("*.yaml"))}
    modules = [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]
    sources = {str(p.relative_to(ROOT)): digest_file(p) for p in modules}
    cells = {name: asdict(cell) for name, cell in suite.cells.items() if cell.config}
    return digest({"configs": files, "sources": sources, "cells": cells, "here": here})


def cached_resolution(path: Path, key: str) -> dict[str, dict[str, Any]] | None:
    """Resolved configurations written earlier under the same key, or None."""
    cached = read_manifest(path) or {}
    return cached.get("resolved") if cached.get("key") == key else None


def slug(text: str) -> str:
    """``text`` as a file name."""
    return re.sub(r"[^A-Za-z0-9._@-]", "-", text)
