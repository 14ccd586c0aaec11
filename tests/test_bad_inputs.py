"""Whatever a command cannot use: exit code 2, one line that names it, no traceback, and nothing written.

A case is a command, what lies in the folder that it runs in, and parts of the line. Some of these are tested nearer to
their code as well; here is the one table over all commands.
"""

import gzip
import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from benchmark import cli, compare, evaluate, readme, report, run, status
from benchmark.results.record import Results, measured
from benchmark.results.results_file import write_results
from benchmark.training.build import build
from benchmark.training.checkpoints import FINAL

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
DIGITS = CONFIGS / "digits"
SUPERVISED = f"--config={DIGITS / 'supervised.yaml'}"
QUIET = ("--trainer.logger=false", "--trainer.enable_progress_bar=false")
FEW = ("--trainer.max_steps=1", *QUIET)


def listing(folder: Path) -> dict[str, int]:
    """Everything in a folder, with its size."""
    return {str(path.relative_to(folder)): path.lstat().st_size for path in sorted(folder.rglob("*"))}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("DIFFCLASS_DATA", raising=False)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return folder


@pytest.fixture
def refused(here, capsys):
    """Run a command and see that it is refused as it should be."""

    def refused(main, words, *told):
        before = listing(here)
        try:
            code = main(list(words))
        except SystemExit as end:
            code = end.code
        error = capsys.readouterr().err
        assert code == 2, error
        assert error.startswith("error: "), error
        assert error.count("\n") == 1, error
        assert len(error) <= 400, len(error)
        assert error[:-1].isprintable(), error
        assert "Traceback" not in error
        assert all(part in error for part in told), error
        assert listing(here) == before

    return refused


def fit(*words):
    return ["fit", SUPERVISED, *words]


def table(cases):
    return pytest.mark.parametrize("case", cases.values(), ids=cases.keys())


# lightning: its words

NETWORK = "model.network"
WORDS = {
    "nothing": ([], "fit,validate,test,predict"),
    "no command": (["--config=x.yaml"], "x.yaml"),
    "unknown command": (["trian"], "trian"),
    "no configuration": (["fit"], "required: fit.data, fit.model"),
    "no file for --config": (["fit", "--config"], "--config needs the path of a file"),
    "an empty name for --config": (["fit", "--config="], "--config needs the path of a file"),
    "a missing file": (["fit", "--config=none.yaml"], "none.yaml: No such file"),
    "a folder for a file": (["fit", "--config=/tmp"], "/tmp: Is a directory"),
    "a word too much": (fit("positional"), "unrecognized arguments: positional"),
    "an unknown option": (fit("--bogus=1"), "bogus: unknown key"),
    "a misspelt option": (fit("--checkpoint_evry=1"), "did you mean checkpoint_every"),
    "a misspelt key of the trainer": (fit("--trainer.max_step=1"), "did you mean trainer.max_steps"),
    "a misspelt key of the data": (fit("--data.batchsize=1"), "did you mean batch_size"),
    "a misspelt key of the network": (fit(f"--{NETWORK}.witdh=1"), "did you mean width"),
    "a misspelt key of the optimiser": (fit("--optimizer.weight_decya=1"), "did you mean weight_decay"),
    "a misspelt key of averaging": (fit("--ema.deacy=0.5"), "did you mean ema.decay"),
    "no steps": (fit("--trainer.max_steps=0"), "trainer.max_steps must be at least 1"),
    "negative steps": (fit("--trainer.max_steps=-7"), "trainer.max_steps must be at least 1", "got -7"),
    "no end": (fit("--trainer.max_steps=-1"), "would never end; give trainer.max_steps"),
    "steps in e notation": (fit("--trainer.max_steps=1e3"), "trainer.max_steps: expected int, got 1000.0"),
    "steps in octal": (fit("--trainer.max_steps=0o12"), "trainer.max_steps: expected int, got 0o12"),
    "steps that are a no": (fit("--trainer.max_steps=no"), "trainer.max_steps: expected int, got False"),
    "steps as text": (fit("--trainer.max_steps=many"), "trainer.max_steps: expected int, got many"),
    "steps beyond 64 bits": (fit(f"--trainer.max_steps=1{'0' * 30}"), "trainer.max_steps: 1000", "at most 64 bits"),
    "steps of 5,000 digits": (fit(f"--trainer.max_steps={'1' * 5000}"), "trainer.max_steps", "at most 64 bits"),
    "no batch": (fit("--data.batch_size=0"), "data.init_args.batch_size: expected PositiveInt", "v>0"),
    "a negative batch": (fit("--data.batch_size=-1"), "batch_size: expected PositiveInt"),
    "a batch in e notation": (fit("--data.batch_size=1e2"), "batch_size: expected PositiveInt", "'1e2'"),
    "half a batch": (fit("--data.batch_size=1.5"), "batch_size: expected PositiveInt"),
    "a batch beyond 64 bits": (fit(f"--data.batch_size=1{'0' * 30}"), "data.batch_size", "at most 64 bits"),
    "a batch that no memory holds": (
        fit("--data.init_args.batch_size=99999999999", *FEW),
        "data.init_args.batch_size: 99999999999 images take", "GiB, this machine has", "choose a smaller one",
    ),
    "a batch that does not divide": (
        fit("--trainer.accumulate_grad_batches=3", *FEW), "batch of 128 does not divide over 1 devices x 3"
    ),
    "no accumulation": (
        fit("--trainer.accumulate_grad_batches=0"), "trainer.accumulate_grad_batches must be at least 1"
    ),
    "no validation interval": (
        fit("--trainer.check_val_every_n_epoch=0"), "check_val_every_n_epoch must be at least 1"
    ),
    "negative logging": (fit("--trainer.log_every_n_steps=-3"), "trainer.log_every_n_steps must be at least 1, got -3"),
    "negative clipping": (
        fit("--trainer.gradient_clip_val=-1"), "trainer.gradient_clip_val must be at least 0, got -1"
    ),
    "clipping that is no number": (fit("--trainer.gradient_clip_val=.nan"), "gradient_clip_val"),
    "negative batches": (fit("--trainer.limit_train_batches=-1"), "invalid value -1", "for limit_train_batches"),
    "an end that is no time": (fit("--trainer.max_time=soon"), "soon", "DD:HH:MM:SS"),
    "no interval of resume points": (fit("--checkpoint_every=0"), "checkpoint_every: expected PositiveInt"),
    "a negative learning rate": (fit("--optimizer.lr=-1"), "Invalid learning rate: -1.0"),
    "a learning rate that is no number": (fit("--optimizer.lr=nan"), "optimizer.init_args.lr: expected float, got nan"),
    "a learning rate as text": (fit("--optimizer.lr=fast"), "optimizer.init_args.lr: expected float", "fast"),
    "a scheduler of no steps": (
        fit("--lr_scheduler=torch.optim.lr_scheduler.StepLR", "--lr_scheduler.step_size=0", *FEW), "a setting is 0"
    ),
    "negative averaging": (fit("--ema.decay=-0.1"), "ema.decay: expected", "v>=0"),
    "averaging beyond 1": (fit("--ema.decay=1.5"), "ema.decay: expected", "1.5"),
    "a negative seed": (fit("--seed_everything=-1"), "seed_everything: expected NonNegativeInt: -1"),
    "a huge seed": (fit(f"--seed_everything={2**32}"), "seed_everything must be an integer from 0 to 2^32 - 1"),
    "half a seed": (fit("--seed_everything=1.5"), "seed_everything", "got 1.5"),
    "a seed as text": (fit("--seed_everything=one"), "seed_everything", "got one"),
    "an unknown accelerator": (fit("--trainer.accelerator=abacus"), "abacus", "Available names are"),
    "more GPUs than there are": (fit("--trainer.accelerator=gpu", "--trainer.devices=99"), "gpu"),
    "no devices": (fit("--trainer.accelerator=cpu", "--trainer.devices=0"), "devices='0'"),
    "devices by name": (fit("--trainer.accelerator=cpu", "--trainer.devices=all"), "`devices`", "int > 0"),
    "no nodes": (fit("--trainer.num_nodes=0"), "`num_nodes` must be a positive integer, but got 0"),
    "an unknown strategy": (fit("--trainer.strategy=ddpp"), "strategy='ddpp'"),
    "an unknown precision": (fit("--trainer.precision=half"), "trainer.precision", "got half"),
    "weights in half precision": (
        fit("--trainer.precision=bf16-true"), "bf16-true keeps the weights", "32-true, bf16-mixed, 16-mixed and 64-true"
    ),
    "weights in half precision by a class": (
        fit("--trainer.plugins=lightning.pytorch.plugins.precision.HalfPrecision"), "trainer.precision 16-true keeps"
    ),
    "an unknown profiler": (fit("--trainer.profiler=nope"), "profiler", "simple"),
    "callbacks that are none": (fit("--trainer.callbacks=3"), "trainer.callbacks: expected list, got 3"),
    "a choice that is none": (fit("--channels_last=maybe"), "channels_last: expected bool, got maybe"),
    "a class elsewhere": (fit("--model=os.system"), "class_path os.system is outside the allowed modules"),
    "a class of torch": (fit(f"--{NETWORK}=torch.nn.Linear"), "class_path torch.nn.Linear is outside the allowed"),
    "a misspelt class": (fit("--model=methods.supervised.Supervized"), "has no attribute 'Supervized'"),
    "a misspelt short name": (fit("--optimizer=SGDD"), "optimizer: no class named SGDD"),
    "a class of another kind": (fit("--model=torch.optim.SGD"), "does not correspond to a subclass of Method"),
    "a network of no such depth": (fit(f"--{NETWORK}.depth=11"), "depth must be 10, 16, 22, 28"),
    "a negative width": (fit(f"--{NETWORK}.width=-1"), "width: expected PositiveInt"),
    "other channels": (fit(f"--{NETWORK}.in_channels=3", *FEW), "does not take the 1x8x8 images of digits"),
    "other classes": (fit(f"--{NETWORK}.classes=5", *FEW), "tells 5 classes apart", "digits has 10"),
    "smoothing beyond 1": (fit("--model.label_smoothing=1.5"), "label_smoothing: expected ClosedUnitInterval"),
    "smoothing that is no number": (fit("--model.label_smoothing=nan"), "label_smoothing", "nan"),
    "all is validation": (fit("--data.validation_fraction=1"), "validation_fraction: expected OpenUnitInterval"),
    "nearly all is validation": (fit("--data.validation_fraction=0.999"), "leaves a class without training images"),
    "too little validation": (
        fit("--data.validation_fraction=0.001"), "validation_fraction 0.001 of", "without an example; ask for more"
    ),
    "no label a class": (fit("--data.labels=LabelsPerClass", "--data.labels.count=0"), "count: expected PositiveInt"),
    "more labels than images": (
        fit("--data.labels=LabelsPerClass", "--data.labels.count=5000"), "5000 images of class 0 were asked for"
    ),
    "no share of labels": (fit("--data.labels=LabelFraction", "--data.labels.fraction=0"), "fraction", "v>0"),
    "all labels as a share": (fit("--data.labels=LabelFraction", "--data.labels.fraction=1"), "fraction", "v<1"),
    "fewer labels than classes": (
        fit("--data.labels=LabelFraction", "--data.labels.fraction=0.001"), "without an example; ask for more"
    ),
    "no positive class": (
        fit("--data.labels=PositiveUnlabeled", "--data.labels.count=9", "--data.labels.positive=[]"), "must name"
    ),
    "a positive class twice": (
        fit("--data.labels=PositiveUnlabeled", "--data.labels.count=9", "--data.labels.positive=[1,1]"), "distinct"
    ),
    "a positive class beyond": (
        fit("--data.labels=PositiveUnlabeled", "--data.labels.count=9", "--data.labels.positive=[1,77]"), "[1, 77]"
    ),
    "a negative positive class": (
        fit("--data.labels=PositiveUnlabeled", "--data.labels.count=9", "--data.labels.positive=[-1]"), "positive"
    ),
    "more positives than there are": (
        fit("--data.labels=PositiveUnlabeled", "--data.labels.count=9000", "--data.labels.positive=[1]"), "leave none"
    ),
    "an unknown label split": (fit("--data.labels=LabelsPerClas"), "data.init_args.labels"),
    "a missing checkpoint": (fit("--ckpt_path=none.ckpt", *FEW), "no checkpoint at ", "none.ckpt"),
    "an empty checkpoint name": (fit("--ckpt_path=", *FEW), "no checkpoint at"),
    "no last resume point": (fit("--ckpt_path=last", *FEW), "no resume point"),
    "an output folder that is a file": (fit("--trainer.default_root_dir=/dev/null", *FEW), "/dev/null"),
    "a root that is a file": (fit("--data=datamodules.mnist.MNIST", "--data.root=/dev/null"), "no train-images-idx3"),
    "a name that leads out": (fit("--data=datamodules.image_folder.ImageFolder", "--data.name=../x"), "got '../x'"),
    "no name": (fit("--data=datamodules.image_folder.ImageFolder", "--data.name="), "name must be"),
    "a huge name": (
        fit("--data=datamodules.image_folder.ImageFolder", f"--data.name={'x' * 9999}"), "up to 64 letters"
    ),
}  # fmt: skip


@table(WORDS)
def test_words_of_lightning(refused, case):
    words, *told = case
    refused(cli.main, words, *told)


def test_more_processes_than_cores_are_not_started(refused, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    told = ("trainer.devices: 9999 were asked for", "CPU cores")
    refused(cli.main, fit("--trainer.devices=9999", *FEW), *told)
    Path("devices.yaml").write_text("trainer: {devices: 9999}\n")
    refused(cli.main, fit("--config=devices.yaml", "--trainer.accelerator=cpu"), *told)


# lightning: the parts of other methods

JOINT, CDM, NOISY, ASSISTED, SCORE = (
    f"--config={DIGITS / name}.yaml"
    for name in ("joint", "cdm", "noisy_classifier", "denoising_assisted", "score_model")
)
PARTS = {
    "negative guidance": (NOISY, "--model.guidance_scale=-1", "guidance_scale", "-1"),
    "guidance that is no number": (NOISY, "--model.guidance_scale=nan", "guidance_scale", "nan"),
    "no noise levels": (JOINT, "--model.process.steps=0", "process.init_args.steps"),
    "an unknown schedule": (JOINT, "--model.process.schedule=square", "schedule", "square"),
    "falling noise": (
        SCORE, "--model.denoiser.process={class_path: methods.diffusion.process.VarianceExploding, "
        "init_args: {sigma_min: 9, sigma_max: 1}}", "0 < sigma_min < sigma_max, got 9"
    ),
    "falling betas": (
        SCORE, "--model.denoiser.process={class_path: methods.diffusion.process.ContinuousVP, "
        "init_args: {beta_min: 9, beta_max: 1}}", "0 < beta_min < beta_max, got 9"
    ),
    "a negative weight": (JOINT, "--model.clean_weight=-1", "clean_weight"),
    "dropout beyond 1": (JOINT, "--model.head_dropout=1.5", "head_dropout"),
    "no width": (JOINT, "--model.network.width=0", "width: expected PositiveInt"),
    "no classes": (JOINT, "--model.classes=0", "classes"),
    "levels that are not the process's": (CDM, "--model.network.levels=7", "levels"),
    "more sampling steps than levels": (
        JOINT, "--model.sampler.steps=101", "model.init_args.sampler: a sampler of 101 steps"
    ),
    "no sampling steps": (JOINT, "--model.sampler.steps=0", "steps"),
    "steps that are no number": (JOINT, "--model.sampler.steps=few", "steps"),
    "a sampler that is none": (JOINT, "--model.sampler=methods.supervised.Supervised", "Sampler"),
    "a likelihood that is none": (SCORE, "--model.likelihood=methods.supervised.Supervised", "likelihood"),
    "a weight of the prior below 0": (
        f"--config={DIGITS / 'pu_odd_even.yaml'}", "--model.prior_weight=-1", "prior_weight"
    ),
    "a confidence beyond 1": (f"--config={DIGITS / 'few_ssl_noisy.yaml'}", "--model.confidence=1.5", "confidence"),
    "a time beyond 1": (f"--config={DIGITS / 'few_ssl_noisy.yaml'}", "--model.tau=2", "tau"),
    "a trained denoiser that is missing": (
        ASSISTED, "--model.denoiser.checkpoint=none.ckpt", "no trained denoiser at ", "none.ckpt"
    ),
}  # fmt: skip


@table(PARTS)
def test_parts_of_methods(refused, case):
    config, word, *told = case
    refused(cli.main, ["fit", config, word, *FEW], *told)


# lightning: configuration files

BOMB = "a: &a [1, 1]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)
MERGES = "a0: &a0 {x: 1, y: 2}\n" + "".join(
    f"a{i + 1}: &a{i + 1} {{<<: [{', '.join([f'*a{i}'] * 9)}]}}\n" for i in range(12)
)
CHAIN = "a0: &a0 [1]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}]\n" for i in range(5000))
FILES = {
    "empty": (b"", "bad.yaml: expected keys and values, got None"),
    "a comment": (b"# nothing\n", "bad.yaml: expected keys and values, got None"),
    "a list": (b"- 1\n", "bad.yaml: expected keys and values, got [1]"),
    "a word": (b"word\n", "bad.yaml: expected keys and values, got 'word'"),
    "not UTF-8": (b"# caf\xe9\n", "bad.yaml is not UTF-8 text"),
    "a zero byte": (b"a: \0\n", "bad.yaml: unacceptable character"),
    "a tab": (b"trainer:\n\tmax_steps: 3\n", "bad.yaml, line 2: "),
    "an open bracket": (b"trainer: {max_steps: 3\n", "bad.yaml, line 2: "),
    "two documents": (b"a: 1\n---\nb: 1\n", "bad.yaml, line 2: "),
    "a key twice": (b"trainer: {}\ntrainer: {}\n", "bad.yaml, line 2: key 'trainer' is given twice"),
    "a nested key twice": (b"trainer: {max_steps: 1, max_steps: 2}\n", "line 1: key 'max_steps' is given twice"),
    "a key that is a list": (b"? [1]\n: 2\n", "bad.yaml, line 1: found unhashable key"),
    "an object": (
        b"a: !!python/object/apply:os.system ['true']\n", "bad.yaml, line 1: could not determine a constructor"
    ),
    "a name of Python": (b"a: !!python/name:os.system\n", "bad.yaml, line 1: could not determine a constructor"),
    "an unknown tag": (b"a: !mine 1\n", "bad.yaml, line 1: could not determine a constructor"),
    "a date that is none": (b"\na: 2001-99-99\n", "bad.yaml, line 2: '2001-99-99' cannot be read as timestamp"),
    "a number that is none": (b"a: !!int x\n", "bad.yaml, line 1: 'x' cannot be read as int"),
    "a time that is none": (b"a: !!timestamp x\n", "bad.yaml, line 1: 'x' cannot be read as timestamp"),
    "a number of 5,000 digits": (b"a: " + b"1" * 5000, "bad.yaml, line 1: '111", "cannot be read as int"),
    "a number beyond 64 bits": (
        b"trainer: {max_steps: 9223372036854775808}", "bad.yaml: 9223372036854775808 is too large"
    ),
    "an alias of nothing": (b"a: *b\n", "bad.yaml, line 1: found undefined alias"),
    "an alias of itself": (b"a: &a [*a]\n", "bad.yaml is nested too deeply"),
    "aliases of aliases": (BOMB.encode(), "bad.yaml gives more than 100000 values; has it aliases"),
    "bottomless": (b"[" * 1500, "bad.yaml is nested too deeply"),
    "deep": (b"a: " + b"{a: " * 400 + b"1" + b"}" * 400, "bad.yaml"),
    "no model": (b"trainer: {max_steps: 3}\n", "bad.yaml: the following arguments are required"),
    "an unknown key": (b"optimiser: 3\n", "bad.yaml: optimiser: unknown key; did you mean optimizer"),
    "a model that is a no": (b"model: no\n", "bad.yaml: model: ", "got False"),
    "a model that is a number": (b"model: 3\n", "bad.yaml: model: "),
    "a class that is a list": (b"model: {class_path: [a]}\n", "bad.yaml: model"),
    "a class elsewhere": (b"model: {class_path: os.system}\n", "bad.yaml: model: class_path os.system is outside"),
    "settings that are a list": (
        b"model: {class_path: methods.supervised.Supervised, init_args: [1]}\n", "bad.yaml: model"
    ),
    "steps in quotes": (b"trainer: {max_steps: '1e3'}\n", "bad.yaml: trainer.max_steps: expected int"),
    "steps in e notation": (b"trainer: {max_steps: 1e3}\n", "bad.yaml: trainer.max_steps: expected int"),
    "no accumulation": (
        b"trainer: {accumulate_grad_batches: 0}\n", "bad.yaml: trainer.accumulate_grad_batches must be"
    ),
    "a file that includes itself": (b"model: bad.yaml\n", "bad.yaml"),
    "a file that it includes is missing": (b"model: none.yaml\n", "bad.yaml: model: there is no file none.yaml"),
    "a file in a folder that is missing": (b"model: parts/none.yml\n", "model: there is no file parts/none.yml"),
    "a boolean that is none": (b"a: !!bool maybe\n", "bad.yaml, line 1: 'maybe' cannot be read as bool"),
    "an empty number": (b"a: !!float ''\n", "bad.yaml, line 1: '' cannot be read as float"),
    "a number of 5,000 hexadecimal digits": (b"a: 0x" + b"f" * 5000, "bad.yaml, line 1: '0xfff", "read as int"),
    "more than a megabyte": (b"a: 1\n# " + bytes(10 * 2**20), "bad.yaml has more than 1 MiB"),
    "60,000 keys": (b"".join(b"k%d: 1\n" % i for i in range(60_000)), "bad.yaml gives more than 100000 values"),
    "a key twice among 20,000": (b"".join(b"k%d: 1\n" % (i % 19_999) for i in range(20_000)), "'k0' is given twice"),
    "merges of merges": (MERGES.encode(), "bad.yaml line 6 merges too much by <<"),
    "a merge of itself": (b"a: &a {<<: *a}\n", "bad.yaml is nested too deeply"),
    "a chain of aliases": (CHAIN.encode(), "bad.yaml is nested too deeply"),
    "a long text many times": (
        b"a: &a " + b"x" * 500_000 + b"\nb: [" + b"*a," * 50_000 + b"]", "bad.yaml gives more than 100000 values"
    ),
    "escape codes": (b'"\\e[31mred": 1\n', r"\x1b[31mred"),
    "a huge key": (b"? " + b"x" * 200_000 + b"\n: 1\n", "bad.yaml: "),
    "a huge text": (b"model: " + b"x" * 100_000, "bad.yaml: model: "),
}  # fmt: skip


@table(FILES)
def test_configuration_files(refused, here, case):
    content, *told = case
    (here / "bad.yaml").write_bytes(content)
    refused(cli.main, ["fit", "--config=bad.yaml"], *told)


# lightning: checkpoints


@pytest.fixture(scope="module")
def weights():
    """The state of a classifier of digits as the end of a training leaves it."""
    return {"state_dict": build([SUPERVISED, *QUIET]).model.state_dict()}


class Bomb:
    """What touches a file when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("touched"),)


CHECKPOINTS = {
    "empty": (lambda path, _: path.write_bytes(b""), "cannot be read as weights alone"),
    "text": (lambda path, _: path.write_text("hello"), "cannot be read as weights alone"),
    "a folder": (lambda path, _: path.mkdir(), "no checkpoint at"),
    "truncated": (
        lambda path, w: (torch.save(w, path), path.write_bytes(path.read_bytes()[:-2000])),
        "cannot be read as weights alone",
    ),
    "an object": (lambda path, w: torch.save({**w, "x": Bomb()}, path), "cannot be read as weights alone"),
    "a list": (lambda path, _: torch.save([1], path), "is no checkpoint of a method: it has no state_dict"),
    "weights alone": (lambda path, w: torch.save(w, path), "holds weights alone; training goes on from a resume point"),
    "of another network": (
        lambda path, w: torch.save({"state_dict": dict(list(w["state_dict"].items())[:-1])}, path),
        "holds the weights of another method or size than Supervised", "the first is",
    ),
}  # fmt: skip


@table(CHECKPOINTS)
def test_checkpoints(refused, here, weights, case):
    make, *told = case
    make(here / "some.ckpt", weights)
    refused(cli.main, fit("--ckpt_path=some.ckpt", *FEW), "some.ckpt", *told)
    assert not (here / "touched").exists()


def spoilt(weights, value):
    """The state with one value in the place of a weight's."""
    state = {name: weight.clone() for name, weight in weights["state_dict"].items()}
    name = next(iter(state))
    state[name] = state[name].to(torch.complex64) if value == 1j else state[name]
    state[name].view(-1)[0] = value
    return {"state_dict": state}


NUMBERS = {
    "not a number": (float("nan"), "is not finite; use an earlier one or train again"),
    "endless": (float("inf"), "is not finite; use an earlier one or train again"),
    "complex": (1j, "holds the weights of another method or size than Supervised"),
}


@pytest.mark.parametrize("command", ["validate", "test", "predict", "fit"])
@table(NUMBERS)
def test_weights_that_are_no_finite_real_numbers(refused, here, weights, case, command):
    value, told = case
    torch.save(spoilt(weights, value), here / "some.ckpt")
    refused(cli.main, [command, SUPERVISED, "--ckpt_path=some.ckpt", *FEW], "some.ckpt", told)


def test_a_state_of_training_without_its_parts(refused, here, weights):
    torch.save({**weights, "optimizer_states": [], "epoch": 0, "global_step": 3}, here / "some.ckpt")
    refused(cli.main, fit("--ckpt_path=some.ckpt", *FEW), "some.ckpt is no resume point: it lacks loops")


DENOISERS = {
    "text": (lambda path, _: path.write_text("hello"), "cannot be read as weights alone"),
    "an object": (lambda path, _: torch.save({"state_dict": {"denoiser.x": Bomb()}}, path), "cannot be read as"),
    "a list": (lambda path, _: torch.save([1], path), "holds no weights named denoiser.*"),
    "no denoiser": (lambda path, w: torch.save(w, path), "holds no weights named denoiser.*"),
    "numbers for weights": (lambda path, _: torch.save({"state_dict": {"denoiser.x": 3}}, path), "x is no tensor"),
    "no numbers": (
        lambda path, _: torch.save({"state_dict": {"denoiser.x": torch.tensor(float("nan"))}}, path), "x is not finite"
    ),
    "of another network": (
        lambda path, _: torch.save({"state_dict": {"denoiser.x": torch.zeros(1)}}, path), "trained with another"
    ),
}  # fmt: skip


@table(DENOISERS)
def test_trained_denoisers(refused, here, weights, case):
    make, *told = case
    make(here / "some.ckpt", weights)
    refused(cli.main, ["fit", ASSISTED, "--model.denoiser.checkpoint=some.ckpt", *FEW], "some.ckpt", *told)
    assert not (here / "touched").exists()


def test_published_weights_of_a_page(refused, here):
    (here / "page.pth").write_text("<!DOCTYPE html><html>quota exceeded</html>\n")
    network = "methods.networks.external.TimmClassifier"
    words = (f"--{NETWORK}={network}", f"--{NETWORK}.name=test_resnet", f"--{NETWORK}.classes=10")
    told = "page.pth cannot be read as weights alone: it is damaged or holds other objects; copy it anew"
    refused(cli.main, ["test", SUPERVISED, *words, f"--{NETWORK}.weights=page.pth", *FEW], told)
    refused(cli.main, ["test", SCORE, "--model.checkpoint=page.pth", "--model.denoiser=EpsDenoiser", *FEW], told)


# lightning: data

INSECTS = ("--data=datamodules.image_folder.ImageFolder", "--data.name=insects", "--data.root=.")


def save(path, size=(6, 5), mode="RGB", color=0, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path, **how)


def insects(add):
    """A folder of images of two classes, and what ``add`` does to it."""

    def make(here):
        for part in ("train", "test"):
            for name in ("ant/0.png", "ant/1.png", "bee/0.png", "bee/1.png"):
                save(here / "insects" / part / name)
        add(here / "insects")

    return make


def mnist(images, labels=None):
    """Packed files of MNIST's names."""

    def make(here):
        (here / "mnist").mkdir()
        (here / "mnist/train-images-idx3-ubyte.gz").write_bytes(images)
        if labels is not None:
            (here / "mnist/train-labels-idx1-ubyte").write_bytes(labels)

    return make


IHDR = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
HUGE = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + IHDR + struct.pack(">I", zlib.crc32(IHDR))
HUGE += struct.pack(">I", 9) + b"IDAT" + bytes(9)
HEAD = bytes.fromhex("00000803 0000ea60 0000001c 0000001c")
BLACK = gzip.compress(HEAD + bytes(60_000 * 784), 1)
LABELS = bytes.fromhex("00000801 0000ea60")
MNIST = ("--data=datamodules.mnist.MNIST", "--data.root=.")
DATA = {
    "no folder": (lambda here: None, INSECTS, "no folder of images insects"),
    "a file for a folder": (lambda here: (here / "insects").touch(), INSECTS, "no folder of images insects"),
    "no parts": (lambda here: (here / "insects/ant").mkdir(parents=True), INSECTS, "no folders train and test"),
    "no test part": (lambda here: save(here / "insects/train/ant/0.png"), INSECTS, "has a folder train but no test"),
    "no classes": (
        lambda here: [(here / "insects" / part).mkdir(parents=True) for part in ("train", "test")],
        INSECTS, "put the images of each class in a folder of its name",
    ),
    "an empty class": (insects(lambda f: (f / "train/cat").mkdir()), INSECTS, "train/cat", "add some or remove it"),
    "a class of one part": (
        insects(lambda f: save(f / "train/cat/0.png")), INSECTS, "class cat is in one of train and"
    ),
    "a file among classes": (insects(lambda f: (f / "train/a.txt").touch()), INSECTS, "train/a.txt", "remove it"),
    "a text": (insects(lambda f: (f / "train/ant/a.txt").touch()), INSECTS, "ant/a.txt", "remove it or convert it"),
    "a text named as an image": (
        insects(lambda f: (f / "train/ant/a.png").write_text("x")), INSECTS, "ant/a.png", "remove it or convert it"
    ),
    "a cut image": (
        insects(lambda f: (f / "train/ant/1.png").write_bytes((f / "train/ant/0.png").read_bytes()[:44])),
        INSECTS, "ant/1.png", "a damaged image", "copy it anew or remove it",
    ),
    "sizes that differ": (insects(lambda f: save(f / "train/bee/z.png", (9, 9))), INSECTS, "bee/z.png", "give resize"),
    "16 bits": (insects(lambda f: save(f / "train/bee/z.png", mode="I;16")), INSECTS, "bee/z.png", "16 bits a channel"),
    "pixels that are no numbers": (
        insects(lambda f: save(f / "train/bee/z.png", mode="F", color=float("nan"), format="TIFF")),
        INSECTS, "bee/z.png", "not a PNG or JPEG image",
    ),
    "transparent pixels": (insects(lambda f: save(f / "train/bee/z.png", mode="RGBA")), INSECTS, "transparent pixels"),
    "colours of print": (
        insects(lambda f: save(f / "train/bee/z.jpg", mode="CMYK")), INSECTS, "bee/z.jpg", "colours of mode CMYK"
    ),
    "a picture of billions": (
        insects(lambda f: (f / "train/bee/z.png").write_bytes(HUGE)),
        INSECTS, "bee/z.png", "make it smaller or remove it",
    ),
    "a test share beside a test part": (insects(lambda f: None), (*INSECTS, "--data.test_fraction=0.5"), "leave out"),
    "resized to nothing": (insects(lambda f: None), (*INSECTS, "--data.resize=0"), "resize"),
    "MNIST without files": (lambda here: None, MNIST, "no train-images-idx3-ubyte[.gz]", "set download: true"),
    "MNIST cut": (
        mnist(BLACK[:-12]), MNIST, "train-images-idx3-ubyte.gz is damaged", "delete it and set download: true"
    ),
    "MNIST that is no archive": (mnist(b"x" * 100), MNIST, "train-images-idx3-ubyte.gz is damaged"),
    "MNIST of other files": (mnist(gzip.compress(b"x" * 100)), MNIST, "it starts with 78787878"),
    "MNIST of other sizes": (
        mnist(gzip.compress(HEAD[:4] + bytes(12))), MNIST, "does not state the sizes 60000 x 28 x 28"
    ),
    "MNIST with a label beyond": (mnist(BLACK, LABELS + b"\x0a" * 60_000), MNIST, "it holds the label 10"),
    "MNIST with too few labels": (mnist(BLACK, LABELS + b"\x01" * 10), MNIST, "fewer than 60008 bytes"),
    "CIFAR of another checksum": (
        lambda here: save(here / "cifar-10-batches-py/data_batch_1", format="PNG"),
        ("--data=datamodules.vision.CIFAR10", "--data.root=."), "data_batch_1", "its checksum is not the published one",
    ),
    "CelebA without files": (lambda here: None, ("--data=datamodules.celeba.CelebA", "--data.root=."), "set root or"),
    "ImageNet in one heap": (
        lambda here: [save(here / "imagenet" / name, format="JPEG") for name in ("train/n01/a.JPEG", "val/a.JPEG")],
        ("--data=datamodules.imagenet.ImageNet", "--data.root=."), "move each into a folder of the name of its class",
    ),
}  # fmt: skip


@table(DATA)
def test_data(refused, here, case):
    make, words, *told = case
    make(here)
    refused(cli.main, fit(*words, *FEW), *told)


# benchmark.run

CELL = {"config": "digits/supervised.yaml"}
GOOD = {"reference": "ref", "cells": {"ref": CELL, "other": CELL}}
MINE = ("--suite", "mine.yaml", "--out", "out")


def suite(**changes):
    return {**GOOD, **changes}


def other(**changes):
    return suite(cells={"ref": CELL, "other": {**CELL, **changes}})


SUITES = {
    "empty": (None, "mine.yaml: expected keys and values, got None"),
    "a list": ([1], "mine.yaml: expected keys and values, got [1]"),
    "an unknown key": (suite(sedes=[0]), "unknown key 'sedes'; did you mean seeds?"),
    "an unknown key of a cell": (other(guidance_scale=[1]), "did you mean guidance_scales?"),
    "an unknown key of the protocol": (suite(protocol={"sample": 3}), "did you mean samples?"),
    "no cells": (suite(cells={}), "mine.yaml: cells: expected keys and values, got {}"),
    "a cell of nothing": (suite(cells={"ref": CELL, "other": None}), "cell other: expected keys and values"),
    "a cell whose name leads out": (suite(cells={"ref": CELL, "../x": CELL}), "cell name must be 1 to 64"),
    "a cell of a long name": (suite(cells={"ref": CELL, "x" * 65: CELL}), "must be 1 to 64 letters"),
    "a cell of a number": (suite(cells={"ref": CELL, 3: CELL}), "cell name must be 1 to 64"),
    "a configuration that is missing": (other(config="none.yaml"), "no file none.yaml beside the suite file"),
    "no reference": ({"cells": {"ref": CELL}}, "reference must name a cell with a config"),
    "seeds as text": (suite(seeds=["a"]), "seeds must be distinct integers from 0 to 2^32 - 1"),
    "a huge seed": (suite(seeds=[2**32]), "seeds must be distinct integers from 0 to 2^32 - 1"),
    "negative guidance": (other(guidance_scales=[-1]), "guidance_scales must be distinct numbers >= 0, got [-1]"),
    "guidance as text": (other(guidance_scales=["1"]), "guidance_scales must be a number, got '1'"),
    "no samples": (suite(protocol={"samples": 0}), "samples must be at least 1, got 0"),
    "fewer samples than neighbours": (suite(protocol={"samples": 3}), "samples must exceed neighbours = 3"),
    "samples in e notation": (suite(protocol={"samples": "1e3"}), "samples must be an integer >= 0, got 1000.0"),
    "times beyond 1": (suite(protocol={"denoise_times": [2]}), "denoise_times must lie in (0, 1], got [2]"),
    "a circle": (
        suite(cells={"ref": CELL, "a": {"config": "digits/noisy_classifier.yaml", "needs": {"denoiser": "a"}}}),
        "need one another in a circle: a -> a",
    ),
    "settings that are a list": (other(set=[1]), "set must be keys and values, got [1]"),
    "budgets that are a list": (suite(budgets=[1]), "mine.yaml", ""),
}  # fmt: skip


@table(SUITES)
def test_suite_files(refused, here, case):
    content, *told = case
    (here / "mine.yaml").write_text("" if content is None else yaml.safe_dump(content))
    budget = ("--budget", "small") if isinstance(content, dict) and "budgets" in content else ()
    refused(run.main, (*MINE, *budget), *told)


RUN = {
    "no suite": ((), "--suite"),
    "an unknown suite": (("--suite", "digist"), "no suite named 'digist'; did you mean digits?"),
    "a suite that leads out": (("--suite", "../../etc/passwd"), "no suite named"),
    "a suite file that is missing": (("--suite", "none.yaml"), "no suite file at ", "none.yaml"),
    "an empty suite": (("--suite", ""), "no suite named ''"),
    "an unknown option": (("--suite", "digits", "--dryrun"), "unknown option --dryrun; did you mean --dry-run?"),
    "an option by its beginning": (("--suite", "digits", "--dry"), "unknown option --dry"),
    "a word too much": (("--suite", "digits", "more"), "unrecognized arguments: more"),
    "an option without its value": (("--suite",), "--suite: expected one argument"),
    "an unknown budget": (("--suite", "digits", "--budget", "huge"), "no budget 'huge'; there are: paper"),
    "an unknown cell": (("--suite", "digits", "--only", "nobody"), "no cell 'nobody' in suite digits"),
    "seeds as text": (("--suite", "digits", "--seeds", "a,b"), "--seeds: seeds must be distinct integers"),
    "a seed twice": (("--suite", "digits", "--seeds", "1,1"), "--seeds: seeds must be distinct integers"),
    "a negative seed": (("--suite", "digits", "--seeds=-1",), "--seeds: seeds must be distinct integers"),
    "a huge seed": (("--suite", "digits", "--seeds", str(2**32)), "--seeds: seeds must be distinct integers"),
    "a seed of 5,000 digits": (("--suite", "digits", "--seeds", "1" * 5000), "--seeds: seeds must be distinct"),
    "no seeds": (("--suite", "digits", "--seeds", ""), "--seeds: seeds must be distinct integers"),
    "no workers": (("--suite", "digits", "--workers", "0"), "--workers must be 1 to 1024, got 0"),
    "workers as text": (("--suite", "digits", "--workers", "two"), "--workers: invalid int value: 'two'"),
    "workers without number": (("--suite", "digits", "--workers", "9" * 20), "--workers must be 1 to 1024, got 9999"),
    "a setting without a name": (("--suite", "digits", "--set", "a=1"), "give that one a name in results with --name"),
    "a setting without a value": (("--suite", "digits", "--name", "x", "--set", "a"), "--set takes KEY=VALUE"),
    "a setting of no key": (("--suite", "digits", "--name", "x", "--set", "../a=1"), "--set takes KEY=VALUE"),
    "a setting of an object": (
        ("--suite", "digits", "--name", "x", "--set", "a=!!python/name:os.system"), "--set a, line 1"
    ),
    "a setting that is no YAML": (("--suite", "digits", "--name", "x", "--set", "a=[1"), "--set a, line 2: "),
    "a setting of a date that is none": (
        ("--suite", "digits", "--name", "x", "--set", "a=2001-99-99"), "--set a, line 1"
    ),
    "a name that leads out": (("--suite", "digits", "--name", "../x"), "--name must be 1 to 64 letters"),
    "a data root that is missing": (("--suite", "digits", "--data-root", "none"), "--data-root: no folder at ", "none"),
    "a data root that is a file": (
        ("--suite", "digits", "--data-root", "/dev/null"), "--data-root: no folder at /dev/null"
    ),
    "an output folder that is a file": (("--suite", "digits", "--out", "/dev/null"), "cannot write to /dev/null"),
    "an output folder whose name is no text": (("--suite", "digits", "--out", "r\udcff"), "r\\udcff is not UTF-8 text"),
    "an output folder below a file": (
        ("--suite", "digits", "--out", "/dev/null/x"), "choose another folder with --out"
    ),
}  # fmt: skip


@table(RUN)
def test_words_of_a_run(refused, case):
    words, *told = case
    refused(run.main, words, *told)


# benchmark.compare, benchmark.report, benchmark.readme

RECORD = json.loads(json.dumps(measured("a", "m", 0, "accuracy/clean", 0.5, n=10).__dict__, default=str))
RESULTS = {"schema": 1, "suite": "s", "commit": "c", "environment": {}, "records": [RECORD]}


def results(**changes):
    return json.dumps({**RESULTS, **changes}).encode()


def record(**changes):
    return results(records=[{**RECORD, **changes}])


CONTENTS = {
    "empty": (b"", "not valid JSON"),
    "not UTF-8": (b"\xff\xfe", "not UTF-8 text at byte 0"),
    "cut": (results()[:-5], "not valid JSON"),
    "a list": (b"[]", "need a JSON object with records"),
    "null": (b"null", "need a JSON object with records"),
    "another schema": (results(schema=2), "schema: this version reads 1, got 2"),
    "a schema as text": (results(schema="1"), "schema: this version reads 1"),
    "an unknown field": (results(suit="x"), "unknown field; did you mean 'suite'?"),
    "a suite that is a number": (results(suite=3), "suite: need a text"),
    "records that are an object": (results(records={}), "records: need a list"),
    "a record that is a number": (results(records=[3]), "records[0]: need an object"),
    "a field twice": (b'{"schema": 1, "schema": 1}', "'schema' occurs twice"),
    "a record twice": (
        results(records=[RECORD, RECORD]), "records[1]: same cell, seed, metric and protocol as records[0]"
    ),
    "an unknown field of a record": (record(sead=1), "unknown field; did you mean 'seed'?"),
    "a value that is no number": (record(value=float("nan")), "records[0].value: need a finite number"),
    "a value without end": (record(value=float("inf")), "records[0].value: need a finite number"),
    "a value as text": (record(value="0.5"), "records[0].value: need a finite number"),
    "a value out of range": (record(value=97.0), "accuracy/clean needs a number from 0 to 1"),
    "a seed as text": (record(seed="0"), "records[0].seed: need an integer"),
    "an unknown metric": (record(metric="acuracy/clean"), "did you mean 'accuracy/clean'"),
    "no cell": (record(cell=""), "records[0].cell: need a text that is not empty"),
    "half a surrogate": (
        b'{"schema": 1, "suite": "\\ud800", "commit": "", "environment": {}, "records": []}', "suite: need"
    ),
    "a deep protocol": (record(protocol={"a": [[1]]}), "records[0].protocol: need"),
    "a deep environment": (
        results().replace(b'"environment": {}', b'"environment": {"a": ' + b"[" * 600 + b"]" * 600 + b"}"),
        "nested too deeply",
    ),
    "bottomless": (b"[" * 100_000, "not valid JSON"),
    "a number of 5,000 digits": (b"1" * 5000, "not valid JSON"),
}  # fmt: skip


@table(CONTENTS)
def test_results_files_in_every_command_that_reads_them(refused, here, monkeypatch, case):
    content, *told = case
    write_results(here / "good.json", Results("s", "c", {}, ()))
    for name in ("run/results.json", "results/digits.json"):
        (here / name).parent.mkdir()
        (here / name).write_bytes(content)
    (here / "README.md").write_text("<!-- table: digits -->\n<!-- end -->\n")
    monkeypatch.setattr(readme, "ROOT", here)
    refused(compare.main, ["good.json", "run/results.json"], "run/results.json: ", *told)
    refused(compare.main, ["run/results.json", "good.json", "--accept"], "run/results.json: ", *told)
    refused(report.main, ["run"], "run/results.json: ", *told)
    refused(readme.main, [], "results/digits.json: ", *told)


def test_a_results_file_of_any_size_is_refused_unread(refused, here):
    with open(here / "huge.json", "wb") as file:
        file.truncate(2**40)
    refused(compare.main, ["huge.json", "huge.json"], "huge.json: has more than 32 MiB")
    refused(compare.main, ["/dev/zero", "huge.json"], "huge.json: has more than 32 MiB")


COMPARE = {
    "nothing": ((), "required: OLD, NEW"),
    "one file": (("a.json",), "required: NEW"),
    "missing files": (("a.json", "b.json"), "b.json: no such file; run the suite first"),
    "a folder": (("/tmp", "/tmp"), "/tmp: is a folder; name the results.json in it"),
    "an unknown format": (("a", "b", "--format", "html"), "--format: invalid choice: 'html'"),
    "an unknown option": (("a", "b", "--acept"), "unknown option --acept; did you mean --accept?"),
    "force alone": (("a", "b", "--force"), "--force only means something with --accept"),
    "a first baseline without force": (("a.json", "b.json", "--accept"), "b.json: no such file"),
}  # fmt: skip


@table(COMPARE)
def test_words_of_compare(refused, case):
    words, *told = case
    refused(compare.main, words, *told)


def samples(name="samples.npz", **arrays):
    """A run whose one cell has this file of samples; or these bytes."""

    def make(here):
        folder = here / "run" / "a" / "seed0"
        folder.mkdir(parents=True)
        (here / "run" / "results.json").write_bytes(results())
        if "content" in arrays:
            (folder / name).write_bytes(arrays["content"])
        else:
            np.savez(folder / name, **arrays)

    return make


IMAGES, CLASSES = np.zeros((4, 2, 2, 1), np.uint8), np.zeros(4, np.int64)
REPORT = {
    "nothing": (lambda here: None, (), "required: RUN"),
    "an unknown option": (lambda here: None, ("--ouput", "x"), "unknown option --ouput"),
    "a missing folder": (lambda here: None, ("none",), "none holds no results.json; run `python -m benchmark.run"),
    "an empty folder": (lambda here: (here / "run").mkdir(), ("run",), "run holds no results.json"),
    "samples that are none": (samples(content=b"hello"), ("run",), "samples.npz: no samples can be read"),
    "samples that are cut": (samples(content=b"PK\3\4" + bytes(50)), ("run",), "samples.npz: no samples can be read"),
    "samples of objects": (
        samples(images=np.array([Bomb()], dtype=object), labels=CLASSES), ("run",), "npz: no samples can be read"
    ),
    "samples without labels": (samples(images=IMAGES), ("run",), "samples.npz: no samples can be read"),
    "samples of another shape": (
        samples(images=IMAGES[0], labels=CLASSES), ("run",), "it holds no samples (N, H, W, C)"
    ),
    "samples that are no numbers": (
        samples(images=np.full(IMAGES.shape, np.nan), labels=CLASSES), ("run",), "it holds no samples (N, H, W, C)"
    ),
    "no samples": (samples(images=IMAGES[:0], labels=CLASSES[:0]), ("run",), "it holds no samples"),
    "fewer labels": (samples(images=IMAGES, labels=CLASSES[:2]), ("run",), "with labels (N,)"),
    "a scale that is none": (
        samples("samples@x.npz", images=IMAGES, labels=CLASSES), ("run",), "is not named as samples"
    ),
    "a page that is a folder": (
        lambda here: (samples(images=IMAGES, labels=CLASSES)(here), (here / "run" / "report.html").mkdir()),
        ("run",), "report.html: cannot be written",
    ),
}  # fmt: skip


@table(REPORT)
def test_runs_to_report(refused, here, case):
    make, words, *told = case
    make(here)
    refused(report.main, words, *told)
    assert not (here / "touched").exists()


README = {
    "an unknown option": (("--chekc",), "unknown option --chekc"),
    "a word too much": (("digits",), "unrecognized arguments: digits"),
}


@table(README)
def test_words_of_readme(refused, case):
    words, *told = case
    refused(readme.main, words, *told)


def test_a_readme_that_is_missing(refused, here, monkeypatch):
    monkeypatch.setattr(readme, "ROOT", here)
    refused(readme.main, [], "README.md: No such file or directory")


# What must work

NAMES = ["with space", "ünïcode-数字", "new\nline", "-dash", "it's", "a%20b", "$HOME", "x" * 200]


@pytest.mark.parametrize("name", NAMES)
def test_paths_of_any_name_work(here, capsys, name):
    folder = here / name
    samples(images=IMAGES, labels=CLASSES)(folder)
    for word in ("run", str(folder / "run")):
        assert report.main([str(folder / word)]) == 0
    assert (folder / "run" / "report.html").is_file()
    file = folder / "run" / "results.json"
    assert compare.main([str(file), str(file)]) == 0
    (folder / "mine.yaml").write_text(yaml.safe_dump(GOOD))
    assert run.load_suite(str(folder / "mine.yaml")).cells.keys() == GOOD["cells"].keys()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", NAMES[:3])
def test_a_training_works_in_a_folder_of_any_name(here, capsys, name):
    folder = here / name
    insects(lambda _: [save(folder / f"insects/train/{c}/{i}.png") for c in ("ant", "bee") for i in range(2, 9)])(
        folder
    )
    (folder / "mine.yaml").write_text(Path(SUPERVISED.partition("=")[2]).read_text())
    words = [
        f"--config={folder / 'mine.yaml'}",
        INSECTS[0],
        INSECTS[1],
        f"--data.root={folder}",
        f"--{NETWORK}.classes=2",
    ]
    words += [
        f"--trainer.default_root_dir={folder / 'out'}",
        f"--{NETWORK}.in_channels=3",
        "--data.validation_fraction=0.2",
    ]
    assert cli.main(["fit", *words, "--data.resize=8", "--data.batch_size=2", *FEW]) is None
    assert (folder / "out" / "checkpoints" / FINAL).is_file()
    assert "error" not in capsys.readouterr().err


# As processes

LONG = "x" * 300
LONG_NAMES = {
    "a configuration": (cli.main, ["fit", f"--config={LONG}.yaml"]),
    "a configuration that is included": (cli.main, fit(f"--model={LONG}.yaml")),
    "a checkpoint": (cli.main, fit(f"--ckpt_path={LONG}", *FEW)),
    "a root folder": (cli.main, fit(f"--trainer.default_root_dir={LONG}", *FEW)),
    "a suite": (run.main, ["--suite", f"{LONG}.yaml"]),
    "a folder of a run": (run.main, ["--suite", "digits", "--out", LONG]),
    "a folder of data": (run.main, ["--suite", "digits", "--data-root", LONG]),
    "a folder of weights": (run.main, ["--suite", "digits", "--weights", LONG]),
    "samples": (evaluate.main, [LONG, "--data", "digits", "--row", "x"]),
    "results": (compare.main, [LONG, LONG]),
    "a run to report": (report.main, [LONG]),
    "a run to show": (status.main, [LONG]),
}


@table(LONG_NAMES)
def test_names_that_no_file_can_have(refused, case):
    refused(*case, LONG[:100])


PROCESSES = {
    "cli": (
        ("benchmark.cli", "fit", "--config=none.yaml"),
        "none.yaml: No such file or directory\n",
    ),
    "run": (("benchmark.run", "--sweet", "digits"), "error: unknown option --sweet; did you mean --set? "),
    "compare": (("benchmark.compare", "a.json"), "error: the following arguments are required: NEW "),
    "report": (("benchmark.report", "none"), "none holds no results.json; "),
    "readme": (("benchmark.readme", "--help-me"), "error: unknown option --help-me; did you mean --help? "),
}


@pytest.mark.slow
@table(PROCESSES)
def test_commands_as_processes(here, case):
    words, told = case
    done = subprocess.run(
        [sys.executable, "-m", *words], env={**os.environ, "PYTHONPATH": str(CONFIGS.parent)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: ")
    assert told in done.stderr
    assert listing(here) == {}
