"""Training as a process that is killed, interrupted or diverges, and goes on where it was."""

import signal
import time

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from benchmark import cli
from benchmark.training.build import build
from benchmark.training.checkpoints import FINAL, newest_checkpoint
from runs import ENVIRONMENT, ROOT, started, until

STEPS = 40
"""Three epochs of eleven steps, and seven."""


def words(folder, *more):
    options = (f"--trainer.default_root_dir={folder}", f"--trainer.max_steps={STEPS}", "--trainer.logger=false")
    return ["--config=configs/digits/supervised.yaml", "--seed_everything=5", *options, *more]


def training(folder, *more, every=2, at="*[4-9]"):
    """A training process that has just saved its fourth step, or another, or a later one."""
    arguments = words(folder, f"--checkpoint_every={every}", "--trainer.enable_progress_bar=false", *more)
    warned = {**ENVIRONMENT, "PYTHONWARNINGS": "default"}
    process = started(ROOT, "fit", *arguments, module="benchmark.cli", env=warned)
    until(lambda: list((folder / "checkpoints").glob(f"step={at}.ckpt")), process)
    return process


class LastRaw(Callback):
    """Raw weights after each step."""

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.weights = {name: weight.detach().clone() for name, weight in pl_module.named_parameters()}


def finished(folder):
    """Raw and averaged final weights of the training in a folder, from its newest resume point or the start."""
    built, raw = build(words(folder, "--trainer.enable_progress_bar=false")), LastRaw()
    built.trainer.callbacks.append(raw)
    built.trainer.fit(built.model, datamodule=built.datamodule, ckpt_path=newest_checkpoint(folder / "checkpoints"))
    assert built.trainer.global_step == STEPS
    return raw.weights, torch.load(folder / "checkpoints" / FINAL, weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("unbroken"))


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.slow
def test_training_killed_at_any_step_ends_at_the_same_raw_and_averaged_weights(tmp_path, unbroken):
    process = training(tmp_path)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "checkpoints" / FINAL).exists()
    resumed = finished(tmp_path)
    assert all(equal(one, other) for one, other in zip(resumed, unbroken, strict=True))
    assert not equal(*resumed)  # else the average would have been compared with itself


@pytest.mark.slow
def test_an_interrupted_training_saves_its_state_says_how_to_go_on_and_does(tmp_path, unbroken):
    process = training(tmp_path)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    saved = newest_checkpoint(tmp_path / "checkpoints")
    step = int(saved.stem.partition("=")[2])
    assert errors.splitlines() == [
        "stopping: the state is saved after this step (again to stop at once)",
        f"error: stopped at step {step}; go on with --ckpt_path={saved}",
    ]
    resumed = finished(tmp_path)
    assert all(equal(one, other) for one, other in zip(resumed, unbroken, strict=True))


@pytest.mark.slow
def test_a_terminated_training_saves_its_state_too(tmp_path):
    process = training(tmp_path)
    before = newest_checkpoint(tmp_path / "checkpoints")
    process.terminate()
    _, errors = process.communicate()
    assert process.returncode == 143
    assert "Traceback" not in errors
    assert newest_checkpoint(tmp_path / "checkpoints").name > before.name


@pytest.mark.slow
def test_a_second_interrupt_ends_training_within_its_step(tmp_path):
    process = training(
        tmp_path, "--data.init_args.batch_size=7680", "--trainer.accumulate_grad_batches=60", every=1, at="*1"
    )
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert errors.splitlines() == ["stopping: the state is saved after this step (again to stop at once)"]


def test_a_training_that_diverges_exits_with_4_naming_step_and_term(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["fit", *words(tmp_path, "--optimizer.init_args.lr=1e30", "--checkpoint_every=1")])
    assert end.value.code == 4
    assert capsys.readouterr().err == "error: loss is not finite at step 2: classify\n"
    assert not (tmp_path / "checkpoints" / FINAL).exists()
