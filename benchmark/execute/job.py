"""One job: training or evaluation of a cell; finished stages are kept, an interrupted training is resumed."""

import gc
import shutil
import warnings
from collections.abc import Callable
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmark.answers import features, given_samples, samples
from benchmark.errors import InputError, one_line, out_of_memory, tell
from benchmark.execute import many_samplers
from benchmark.records.cell import write_records
from benchmark.suite.contents import check_contents
from benchmark.suite.jobs import Job
from benchmark.suite.protocol import Protocol
from benchmark.suite.questions import QUESTIONS
from benchmark.suite.stages import Stage, scale_tag
from benchmark.system.arrays import StoredRows, save_arrays
from benchmark.system.files import read_manifest, write_text
from benchmark.system.gpus import visible_gpus
from benchmark.system.memory import peak_memory, reset_peak_memory
from benchmark.system.report import Report
from benchmark.system.sample_files import digest_of_samples
from benchmark.training import saved_config, torchrun
from benchmark.training.build import build, method_of
from benchmark.training.checkpoints import FINAL, ResumePoints, remove_checkpoints, resume_point
from benchmark.training.checks import check_shapes
from benchmark.training.progress import StepReports


def carry_out(
    job: Job, protocol: Protocol, report: Report, stop: Callable[[], bool], confirm: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Carry out the unfinished stages of a job.

    Args:
        job: The job.
        protocol: Protocol of the measurements.
        report: Receives progress.
        stop: Returns whether to save and stop.
        confirm: Called before a stage is recorded; raises if this process may no longer record it.

    Raises:
        Stopped: If ``stop`` returned true; training has saved its state.
        FloatingPointError: If a loss or a sample is not finite.
        InputError: If the configuration or a file cannot be used.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    runner = _Training(job, protocol, report, stop) if job.part == "train" else _Evaluation(job, protocol, report)

    def done(stage: Stage) -> dict[str, Any]:
        result = runner.do(stage)
        confirm()
        return result

    for stage in job.stages:
        if stage.completed(job.folder) is None and not (job.trained and stage.adopt(job.folder, job.trained)):
            report(stage.name, 0, 0)
            stage.complete(job.folder, lambda stage=stage: done(stage))
        if stage.kind == "train":  # recorded: resume points are no longer needed
            remove_checkpoints(job.folder / "checkpoints")
        samples.remove_parts(job.folder, stage)
    gc.collect()
    return {"job": job.name}


class _Training:
    """The stages of a training job."""

    def __init__(self, job: Job, protocol: Protocol, report: Report, stop: Callable[[], bool]) -> None:
        self.job, self.protocol, self.report, self.stop = job, protocol, report, stop

    def do(self, stage: Stage) -> dict[str, Any]:
        if stage.kind == "train":
            return self.train(stage)
        method, data = method_of(self.job.arguments, self.job.folder)
        check_contents(self.job.config, data)
        if stage.network is None:
            return features.real_images(data, self.protocol, self.job.folder)
        return features.real_features(stage.network, method, data, self.protocol, self.job.folder, self.report)

    def train(self, stage: Stage) -> dict[str, Any]:
        job = self.job
        folder = job.folder / "checkpoints"
        owner = folder / "key"
        if not owner.is_file() or owner.read_text() != stage.key:
            remove_checkpoints(folder)  # of another configuration, as the logs are
            shutil.rmtree(job.folder / "tensorboard", ignore_errors=True)
        write_text(owner, stage.key)
        cli = build(job.arguments, stop=self.stop)
        check_shapes(cli.model, cli.datamodule)
        check_contents(job.config, cli.datamodule, ["train"])
        saved_config.write(job.folder, cli.settings)
        save_arrays(job.folder / "splits.npz", **cli.datamodule.splits)
        trained = cli.trainer.max_steps != 0
        fit = self._fit if cli.trainer.num_devices * cli.trainer.num_nodes == 1 else self._fit_on_many
        done = fit(cli, folder)
        return {
            "outputs": [f"checkpoints/{FINAL}", saved_config.FILE, "splits.npz"],
            **done,
            "images_per_step": cli.datamodule.batch_size + cli.datamodule.unlabeled_batch_size,
            "n_labeled": cli.datamodule.n_labeled if trained else None,  # unknown for published weights
            "published": not trained,
            "task": cli.datamodule.task,
            "data": cli.datamodule.name,
            "parameters": sum(p.numel() for p in cli.model.parameters()),
        }

    def _fit(self, cli: Any, folder: Path) -> dict[str, Any]:
        """Train in this process."""
        cli.trainer.callbacks.insert(0, StepReports(self.report))
        clock = next(c for c in cli.trainer.callbacks if isinstance(c, ResumePoints))
        clock.kept = True
        reset_peak_memory()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=resume_point(folder))
        return {
            "seconds": clock.seconds,
            "cpu_seconds": clock.cpu_seconds,
            "steps": cli.trainer.global_step,
            "peak_memory_bytes": peak_memory(),
        }

    def _fit_on_many(self, cli: Any, folder: Path) -> dict[str, Any]:
        """Train in a process for each device; if one dies, try once more from the last resume point."""
        nodes, devices = cli.trainer.num_nodes, cli.trainer.num_devices
        if nodes > 1:
            raise InputError(f"trainer.num_nodes must be 1 in a suite, got {nodes}; use torchrun and lightning fit")

        def fit() -> dict[str, Any]:
            resumed = resume_point(folder)
            arguments = [*self.job.arguments, *([f"--ckpt_path={resumed}"] if resumed else [])]
            return torchrun.fit(arguments, devices, self.job.folder, self.report, self.stop)

        try:
            return fit()
        except RuntimeError as error:  # the other processes' messages depend on timing
            if out_of_memory(error):
                raise
            tell(f"trying once more: {one_line(error)}")
            return fit()


def _checked(built: tuple[Any, Any], config: dict[str, Any]) -> tuple[Any, Any]:
    """A method and its data, which are those that the configuration was resolved with."""
    check_contents(config, built[1])
    return built


class _Evaluation:
    """The stages of an evaluation job; the method and the reference are built once, when first needed."""

    def __init__(self, job: Job, protocol: Protocol, report: Report) -> None:
        self.job, self.protocol, self.report = job, protocol, report

    @cached_property
    def method(self) -> tuple[Any, Any]:
        return _checked(method_of(self.job.arguments, self.job.trained), self.job.config)

    @cached_property
    def reference(self) -> tuple[Any, Any]:
        return _checked(method_of(self.job.reference_arguments, self.job.reference), self.job.reference_config)

    def do(self, stage: Stage) -> dict[str, Any]:
        job, protocol = self.job, self.protocol
        reset_peak_memory()
        if stage.kind == "metrics":
            return write_records(job, protocol)
        if stage.kind == "features":
            return self.features(stage)
        if job.cell.samples is not None:
            return self.copy()
        if job.cell.config is None:
            return samples.image_samples(job.cell.images, self.reference[1], protocol, job.folder)
        method, data = self.method
        if stage.kind == "sample":
            result = self.sample(samples.Shards(protocol, stage.scale, job.folder, stage.key))
        else:
            result = self.answer(stage, method, data)
        return {"peak_memory_bytes": peak_memory(), **result}

    def copy(self) -> dict[str, Any]:
        """Copy given samples, which must still be those of the plan: a reference may have trained for hours since."""
        path = Path(self.job.cell.samples)
        result = given_samples.copy_samples(path, self.reference[1], self.job.folder)
        if digest_of_samples(path) != self.job.given:
            raise InputError(f"{path} was changed since this run was planned; start the run again")
        return result

    def answer(self, stage: Stage, method: Any, data: Any) -> dict[str, Any]:
        question, more = QUESTIONS[stage.kind], {}
        if question.scaled:
            more["scale"] = stage.scale
            if stage.scale is not None:
                method.guidance_scale = stage.scale
        if question.judged:
            more["reference"] = self.reference[0]
        work = getattr(import_module(question.answers), stage.kind)
        return work(method, data, self.protocol, self.job.folder, self.report, **more)

    def sample(self, shards: samples.Shards) -> dict[str, Any]:
        """Draw samples on all visible GPUs."""
        method, data = self.method
        gpus, draw = visible_gpus(), None
        if method.device.type == "cuda" and len(gpus) > 1:
            threads = torch.get_num_threads()
            draw = partial(many_samplers.draw, shards, self.job.arguments, self.job.trained, gpus, threads)
        return samples.sample(method, data, shards, self.report, draw)

    def features(self, stage: Stage) -> dict[str, Any]:
        drawn = read_manifest(Stage("sample", scale=stage.scale).manifest(self.job.folder)) or {}
        if "reason" in drawn:
            return {"outputs": []}
        reference, data = self.reference
        images = StoredRows(self.job.folder / f"samples{scale_tag(stage.scale)}.npz", "images")
        found = features.sample_features(
            stage.network, reference, data, self.protocol.batch, self.job.reference, images,
            lambda done: self.report(stage.name, done, len(images)),
        )  # fmt: skip
        file = f"{stage.name}.npz"
        save_arrays(self.job.folder / file, **found)
        return {"outputs": [file]}
