"""Plan of a suite: its jobs in order, each with its stages."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmark.suite.cells import Cell
from benchmark.suite.graph import closure, order
from benchmark.suite.jobs import Job, arguments
from benchmark.suite.needs import weights_key
from benchmark.suite.questions import QUESTIONS
from benchmark.suite.settings import SAMPLING, data_key, method_settings, training_settings, without
from benchmark.suite.source_code import class_paths, code_digest
from benchmark.suite.stages import Stage
from benchmark.suite.suite import Suite
from benchmark.system.files import digest
from benchmark.system.sample_files import digest_of_samples

RECORDS = "benchmark.records.cell"
"""Module that computes all records of a cell."""


def plan(suite: Suite, resolved: dict[str, dict[str, Any]], out: Path, seeds: list[int]) -> list[Job]:
    """Jobs of a suite, each after those that it needs.

    Args:
        suite: The suite.
        resolved: Each cell's configuration with all defaults, by cell.
        out: Folder of the run.
        seeds: Seeds of the cells without a fixed one.
    """
    trainings: dict[tuple[str, int], Job] = {}
    protocol = asdict(suite.protocol)
    names = order(suite.needs)
    judging = closure(suite.needs, [suite.reference])
    names.sort(key=lambda name: name not in judging)

    def seeds_of(name: str, asked: list[int] = seeds) -> list[int]:
        fixed = suite.cells[name].seed
        return asked if fixed is None else [fixed]

    def training_of(name: str, seed: int) -> Job:
        fixed = suite.cells[name].seed
        return trainings[name, seed if fixed is None else fixed]

    # The reference has one seed, whichever seeds are asked for: the rows of all seeds are measured alike.
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
            # Weights from other cells count by their keys, not by their paths.
            training = without(training_settings(config), map(weights_key, cell.needs))
            key = digest(
                {"stage": "train", "config": training, "seed": seed,
                 "deps": {k: needed[k].stage("train").key for k in cell.trains_with},
                 "code": code_digest((*class_paths(training), "benchmark.training.lightning_cli"))}
            )  # fmt: skip
            stages = [Stage("train", key)]
            if name == suite.reference:
                on = {k: protocol[k] for k in ("seed", "part", "test_images", "real_images", "neighbour_images")}
                code = code_digest(("benchmark.answers.features",))
                stages.append(Stage("real", real := digest([key, on, code, data_key(config)])))
                seen = [real, protocol["batch"], protocol["whole_statistics"]]
                stages += [Stage("real", digest([*seen, net]), net) for net in protocol["features"]]
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
            sampled_with = {k: needed[k].stage("train").key for k in cell.samples_with}
            weights = {job.name for job in (reference, trained, *needed.values()) if job is not None}
            borrows = trained is not None and trained.folder != folder
            given = None if cell.samples is None else digest_of_samples(Path(cell.samples))
            job = Job(
                cell, seed, "evaluate", folder,
                _evaluation_stages(suite, cell, trained, resolved.get(name, {}), sampled_with, reference, given),
                trained.folder if trained else None,
                arguments=arguments(cell, seed, folder, {k: v.folder for k, v in needed.items()}) if trained else (),
                needs=tuple(sorted(weights)),
                after=(f"{trained.cell.name}/seed{trained.seed}/evaluate",) if borrows else (),
                reference=reference.folder, reference_arguments=reference.arguments,
                reference_config=reference.config,
                config=resolved.get(name, {}), given=given,
            )  # fmt: skip
            evaluations.append(job)
    return [*alike.values(), *evaluations]


def _evaluation_stages(
    suite: Suite,
    cell: Cell,
    trained: Job | None,
    config: dict[str, Any],
    sampled_with: dict[str, str],
    reference: Job,
    given: str | None,
) -> tuple[Stage, ...]:
    """Stages of a cell's evaluation, each with a key of exactly what it depends on."""
    protocol = asdict(suite.protocol)
    model = method_settings(config) if trained else {}
    real = {**data_key(reference.config), "code": code_digest(class_paths(reference.config["data"]))}
    source = digest([given or f"images/{cell.images}", real])
    base = {"train": trained.stage("train").key if trained else source}

    def stage(kind: str, scale: float | None = None, **on: Any) -> Stage:
        return Stage(kind, digest({"stage": kind, "scale": scale, **base, **on}), scale=scale)

    def answer(kind: str, scale: float | None = None) -> Stage:
        question = QUESTIONS[kind]
        on = {key: model.get(key) for key in question.settings}
        if question.judged:
            on["reference"] = reference.stage("train").key
        measured = {k: protocol[k] for k in ("seed", "part", "test_images", "batch", *question.protocol)}
        code = code_digest((question.answers, *class_paths(config)))
        return stage(kind, scale, protocol=measured, data=data_key(config), code=code, with_=sampled_with, **on)

    stages: list[Stage] = []
    reals = [stage for stage in reference.stages if stage.kind == "real"]
    asked = [kind for kind, question in QUESTIONS.items() if question.always or kind in cell.ask]
    for kind in asked if trained else ():
        scales = cell.guidance_scales if QUESTIONS[kind].scaled else []
        stages += [answer(kind, scale) for scale in scales or [None]]
    drawn = ("seed", "samples", "batch") if trained else ("seed", "samples", "part", "test_images")
    sampling = {k: protocol[k] for k in drawn} | {k: model.get(k) for k in SAMPLING}
    maker = "benchmark.answers.given_samples" if cell.samples else "benchmark.answers.samples"
    sampling_code = code_digest((maker, *class_paths(config)))
    for scale in cell.guidance_scales or [None]:
        drawn = stage("sample", scale, sampling=sampling, with_=sampled_with, code=sampling_code)
        stages.append(drawn)
        stages += [
            Stage("features", digest(["features", drawn.key, real.key]), real.network, scale)
            for real in reals
            if real.network is not None
        ]
    metrics = stage(
        "metrics",
        on=[s.key for s in stages],
        real=[real.key for real in reals],
        protocol=protocol,
        cell=cell.name,
        reference=suite.reference,
        code=code_digest((RECORDS, *(QUESTIONS[kind].records.rpartition(".")[0] for kind in asked))),
    )
    return (*stages, metrics)
