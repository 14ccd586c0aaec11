"""Commands that read what anybody may have written, each with a file of its kind spoilt: the cases of the fuzz."""

import gzip
import io
import json
import shutil
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import yaml
from faults import micro, mutations
from networks.published_nets import Weights, ncsnpp
from PIL import Image

from benchmark import cli, compare, evaluate, report, run, status

CONFIGS = micro.ROOT / "configs/digits"
QUIET = (
    "--trainer.logger=false", "--trainer.enable_progress_bar=false", "--trainer.max_steps=1",
    "--trainer.limit_val_batches=1", "--trainer.limit_test_batches=1", "--trainer.limit_predict_batches=1",
    "--trainer.default_root_dir=out", "--trainer.accelerator=cpu", "--trainer.devices=1",
)  # fmt: skip
SUITE = {
    **micro.SUITE,
    "seeds": [0],
    "cells": {**micro.SUITE["cells"], "copies": {"images": "test", "floor": True}},
    "budgets": {
        "tiny": {
            "protocol": {"samples": 12},
            "overrides": [
                {"set": {"trainer.max_steps": 3}},
                {"cells": ["score_model"], "set": {"model.init_args.sampler.init_args.steps": 3}},
                {"configs": ["gaussian"], "guidance_scales": []},
            ],
        }
    },
}
SCORE = {
    "class_path": "methods.score_model.ScoreModel",
    "init_args": {
        "denoiser": {
            "class_path": "methods.diffusion.denoiser.EpsDenoiser",
            "init_args": {
                "network": {
                    "class_path": "methods.networks.ncsnpp.NCSNpp",
                    "init_args": {"in_channels": 1, "width": 8, "multipliers": [1, 2], "blocks": 1},
                },
                "process": {
                    "class_path": "methods.diffusion.process.VarianceExploding",
                    "init_args": {"sigma_min": 0.01, "sigma_max": 20.0},
                },
            },
        },
        "times": {"class_path": "methods.diffusion.process.UniformTimes"},
        "sampler": {"class_path": "methods.diffusion.samplers.Heun", "init_args": {"steps": 3}},
    },
}


@dataclass(frozen=True)
class Case:
    """A command whose input was spoilt.

    Args:
        main: Of a module of ``benchmark``.
        words: Its command line.
        usable: Whether what it read can be read as what it should be, by other means, so that exit code 0 is right.
        codes: Exit codes that are right aside from 0 and 2.
    """

    main: Callable[[list[str]], Any]
    words: list[str]
    usable: Callable[[], bool]
    codes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Box:
    """Where a case happens.

    Args:
        here: The working folder.
        bait: A file elsewhere that must not come to be.
        finished: Folder of a finished run of the suite, to copy from.
        rng: What all choices follow from.
    """

    here: Path
    bait: Path
    finished: Path
    rng: Random

    def run(self):
        """A copy of the finished run, ``here / "run"``, with its suite file."""
        shutil.copytree(self.finished, self.here, dirs_exist_ok=True)
        return self.here / "run"


def _reads(path, read):
    """Whether ``read()`` works on a file; a pipe would be waited for."""
    if not path.is_file():
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read() is not False
    except Exception:
        return False


def _is_yaml(path):
    return lambda: _reads(path, lambda: isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict))


def _is_json(path):
    def refuse(constant):
        raise ValueError(constant)

    return lambda: _reads(path, lambda: json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse))


def _is_npz(path, *names):
    def read():
        with np.load(path, allow_pickle=False) as file:
            return [file[name] for name in names]

    return lambda: _reads(path, read)


def _are_images(paths):
    def read(path):
        with Image.open(path) as image:
            image.load()

    return lambda: all(_reads(path, lambda path=path: read(path)) for path in paths)


def _is_checkpoint(path):
    return lambda: _reads(path, lambda: torch.load(path, weights_only=True, map_location="cpu"))


def suite_file(box):
    """A suite file."""
    path = box.here / "micro.yaml"
    path.write_bytes(mutations.of_yaml(yaml.safe_dump(SUITE, sort_keys=False).encode(), box.rng, box.bait))
    budget = ["--budget", "tiny"] if box.rng.random() < 0.5 else []
    return Case(run.main, ["--suite", "micro.yaml", "--dry-run", "--workers", "1", *budget], _is_yaml(path))


def method_file(box):
    """A method's configuration, trained for one step."""
    path = box.here / "mine.yaml"
    content = yaml.safe_load((CONFIGS / "supervised.yaml").read_text())
    if box.rng.random() < 0.5:
        content["model"] = SCORE
    path.write_bytes(mutations.of_yaml(yaml.safe_dump(content, sort_keys=False).encode(), box.rng, box.bait))
    return Case(cli.main, ["fit", "--config=mine.yaml", *QUIET], _is_yaml(path), codes=(4,))


def compared_results(box):
    """One of two results files."""
    good = (box.finished / "run/results.json").read_bytes()
    old, new = box.here / "old.json", box.here / "new.json"
    old.write_bytes(good), new.write_bytes(good)
    path = box.rng.choice((old, new))
    path.write_bytes(mutations.of_json(good, box.rng, box.bait))
    more = box.rng.choice(([], [], ["--format", "markdown"], ["--format", "json"], ["--accept"]))
    return Case(compare.main, ["old.json", "new.json", *more], _is_json(path), codes=(1, 3, 4))


def reported_results(box):
    """The results of a run that is reported."""
    path = box.run() / "results.json"
    path.write_bytes(mutations.of_json(path.read_bytes(), box.rng, box.bait))
    return Case(report.main, ["run"], _is_json(path))


def reported_arrays(box):
    """The samples or the diagnostics of a run that is reported."""
    folder = box.run() / "score_model/seed0"
    levels = io.BytesIO()
    np.savez(levels, **{"confusion": np.eye(4, dtype=np.float32)})
    (folder / "diagnostics.npz").write_bytes(levels.getvalue())
    name, arrays = box.rng.choice((("samples.npz", ("images", "labels")), ("diagnostics.npz", ("confusion",))))
    path = folder / name
    if box.rng.random() < 0.15:
        mutations.of_path(path, box.rng, box.bait)
    else:
        path.write_bytes(mutations.of_npz(path.read_bytes(), box.rng, box.bait))
    return Case(report.main, ["run"], lambda: not path.is_file() or _is_npz(path, *arrays)())


def run_file(box):
    """A JSON file of a finished run, of which the status is asked."""
    path = _spoilt_run(box)
    return Case(status.main, ["run"], _is_json(path) if path.name == "plan.json" else lambda: True, codes=(4,))


def run_again(box):
    """A file of a finished run that is started once more: the numbers must be those of before."""
    path = _spoilt_run(box, "*.json", "stages/*.json", "*.npz", "checkpoints/*", "config.yaml", "per_class.json")
    numbers = micro.numbers(box.finished / "run")

    def same():
        found = micro.numbers(box.here / "run")
        return {key: found.get(key) for key in numbers} == numbers

    return Case(
        run.main, ["--suite", "micro.yaml", "--out", "run", "--workers", "1"], same,
        codes=(4,) if path.name == "given.json" else (),
    )  # fmt: skip


def _spoilt_run(box, *of_cell):
    """A run's copy with a file spoilt; which."""
    here = box.run()
    folder = here / "score_model/seed0"
    (here / "given.json").write_text(json.dumps({"mine": str(box.here / "samples.npz")}))
    gone = {"host": "elsewhere", "boot": "b", "pid": 2**22 + 5, "start": "1", "since": 1.0, "workers": 2}
    (here / "owner.json").write_text(json.dumps(gone))
    (folder / "attempt").mkdir(exist_ok=True)
    (folder / "attempt/train.json").write_text(json.dumps({"attempt": "a", **gone}))
    news = {"stage": "train", "done": 3, "total": 12, "rate": 2.0, "loss": 1.0, "at": 2.0, "attempt": "a"}
    (folder / "attempt/train.progress.json").write_text(json.dumps(news))
    (folder / "stages/metrics.json").unlink()  # so that the job is not finished and its lease is read
    found = {
        path for pattern in ("*.json", "attempt/*.json", "stages/*.json", *of_cell) for path in folder.glob(pattern)
    }
    cells = {path for pattern in of_cell for path in here.glob(f"gaussian/seed0/{pattern}")}
    own = [here / name for name in ("plan.json", "given.json", "owner.json", "results.json")]
    path = box.rng.choice((*own, *own[:2], *sorted(p for p in found | cells if p.is_file())))
    if box.rng.random() < 0.1:
        mutations.of_path(path, box.rng, box.bait)
    elif path.suffix == ".json":
        path.write_bytes(mutations.of_json(path.read_bytes(), box.rng, box.bait))
    elif path.suffix == ".npz":
        path.write_bytes(mutations.of_npz(path.read_bytes(), box.rng, box.bait))
    else:
        path.write_bytes(mutations.of_bytes(path.read_bytes(), box.rng))
    return path


def _evaluated(box, given, usable):
    words = [given, "--data", "micro.yaml", "--out", "run", "--workers", "1", "--row", "given"]
    return Case(evaluate.main, words, usable)


def samples_file(box):
    """Samples in an ``.npz``."""
    box.run()
    path = box.here / "samples.npz"
    if box.rng.random() < 0.1:
        mutations.of_path(path, box.rng, box.bait)
    else:
        path.write_bytes(mutations.of_npz(path.read_bytes(), box.rng, box.bait))
    return _evaluated(box, "samples.npz", _is_npz(path))


def samples_folder(box):
    """Samples as image files, for each class or together."""
    box.run()
    by_class, folder = box.rng.random() < 0.5, box.here / "images"
    levels = np.random.default_rng(0).integers(17, size=(20, 8, 8)).astype(np.uint8)
    for i, image in enumerate(levels):
        path = folder / (str(i % 10) if by_class else "") / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return _evaluated(box, "images", _spoilt_images(box, folder))


def _spoilt_images(box, folder):
    """Spoil one image of a folder, or put something beside it; says how to see whether all can be read."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    path, folders = box.rng.choice(files), {p.parent for p in files}
    kind = box.rng.random()
    if kind < 0.2:
        mutations.of_path(path, box.rng, box.bait)
    elif kind < 0.3:
        names = "Thumbs.db", "x.txt", ".hidden.png", "a\x1b[31m.png", "é" * 100 + ".png", "-x.png", "x.PNG"
        beside = box.rng.choice((path.parent, folder)) / box.rng.choice(names)
        beside.write_bytes(path.read_bytes() if box.rng.random() < 0.5 else b"x")
    elif kind < 0.4:
        path.parent.rename(path.parent.with_name(box.rng.choice(("-1", "99", "1e3", "\x1b[31m", "x" * 200, "٣", "²"))))
    else:
        path.write_bytes(mutations.of_png(path.read_bytes(), box.rng))
    found = [p for p in folder.rglob("*.[pP][nN][gG]") if p.parent in folders]  # what lies elsewhere is not read
    return _are_images([p for p in found if p.exists() and not p.name.startswith(".")])


def image_folder(box):
    """A data set that is a folder of images."""
    folder, rng = box.here / "data/mine", np.random.default_rng(1)
    for part, count in (("train", 8), ("test", 3)):
        for name in ("ant", "bee"):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                image = Image.fromarray(rng.integers(255, size=(8, 8), dtype=np.uint8))
                image.save(folder / part / name / f"{i}.png")
    config = yaml.safe_load((CONFIGS / "supervised.yaml").read_text())
    config["data"] = {
        "class_path": "datamodules.image_folder.ImageFolder",
        "init_args": {"name": "mine", "batch_size": 4, "validation_fraction": 0.25},
    }
    config["model"]["init_args"]["network"]["init_args"]["classes"] = 2
    (box.here / "mine.yaml").write_text(yaml.safe_dump(config))
    usable = _spoilt_images(box, folder)
    return Case(cli.main, ["fit", "--config=mine.yaml", *QUIET], usable)


def idx_files(box):
    """The files of MNIST."""
    folder = box.here / "data/mnist"
    folder.mkdir(parents=True)
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        for what, array in (("images-idx3", np.zeros((count, 28, 28))), ("labels-idx1", np.arange(count) % 10)):
            head = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            packed = gzip.compress(head + array.astype(np.uint8).tobytes(), 1)
            (folder / f"{part}-{what}-ubyte.gz").write_bytes(packed)
    path = box.rng.choice(sorted(folder.glob("train-*")))  # the others are not read by a training
    if box.rng.random() < 0.2:
        mutations.of_path(path, box.rng, box.bait)
    elif box.rng.random() < 0.5:
        path.write_bytes(mutations.of_bytes(path.read_bytes(), box.rng))
    else:
        path.write_bytes(gzip.compress(mutations.of_bytes(gzip.decompress(path.read_bytes()), box.rng), 1))
    config = yaml.safe_load((CONFIGS / "supervised.yaml").read_text())
    config["data"] = {"class_path": "datamodules.mnist.MNIST", "init_args": {"batch_size": 4}}
    (box.here / "mine.yaml").write_text(yaml.safe_dump(config))
    words = ["fit", "--config=mine.yaml", *QUIET]
    return Case(cli.main, words, lambda: _reads(path, lambda: gzip.decompress(path.read_bytes())))


def trained_weights(box):
    """A checkpoint of ours: tested, trained further, or the denoiser of another method."""
    cells = box.finished / "run"
    command = box.rng.choice(("test", "predict", "fit", "denoiser"))
    path = box.here / "weights.ckpt"
    if command == "denoiser":
        found = cells / "score_model/seed0/checkpoints/final.ckpt"
    elif command == "fit":
        found = box.finished / "step=00000003.ckpt"
    else:
        found = cells / "reference_classifier/seed1000/checkpoints/final.ckpt"
    path.write_bytes(mutations.of_checkpoint(found.read_bytes(), box.rng, box.bait))
    if command == "denoiser":
        key = "--model.init_args.denoiser.init_args.checkpoint=weights.ckpt"
        words = ["fit", f"--config={CONFIGS / 'denoising_assisted.yaml'}", key]
    else:
        words = [command, f"--config={CONFIGS / 'supervised.yaml'}", "--ckpt_path=weights.ckpt"]
    more = [*QUIET, "--trainer.max_steps=4"] if command == "fit" else QUIET
    return Case(cli.main, [*words, *more, "--data.init_args.batch_size=32"], _is_checkpoint(path), codes=(4,))


def published_weights(box):
    """A checkpoint that somebody else published."""
    path, weights = box.here / "score.pth", Weights()
    torch.manual_seed(0)
    ncsnpp(weights, torch.rand(1, 1, 8, 8), torch.ones(1), 8, (1, 2), 1, (4,))
    averages = [value for name, value in weights.items() if name != "all_modules.0.W"]
    out = io.BytesIO()
    torch.save({"model": dict(weights), "ema": {"shadow_params": averages}, "step": 7}, out)
    path.write_bytes(mutations.of_checkpoint(out.getvalue(), box.rng, box.bait))
    if box.rng.random() < 0.2:
        path = path.rename(box.here / "score.safetensors")
    config = yaml.safe_load((CONFIGS / "supervised.yaml").read_text())
    config["model"] = {**SCORE, "init_args": {**SCORE["init_args"], "checkpoint": path.name}}
    config["trainer"]["max_steps"] = 0
    (box.here / "mine.yaml").write_text(yaml.safe_dump(config))
    words = [word for word in QUIET if "max_steps" not in word]
    return Case(cli.main, ["fit", "--config=mine.yaml", *words], _is_checkpoint(path))


DOORS = (
    suite_file, method_file, compared_results, reported_results, reported_arrays, run_file, run_again, samples_file,
    samples_folder, image_folder, idx_files, trained_weights, published_weights,
)  # fmt: skip
