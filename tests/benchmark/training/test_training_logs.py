"""What a training tells TensorBoard: its loss terms and learning rate, at the steps at which the trainer writes."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmark import cli

SUPERVISED = Path(__file__).parents[3] / "configs" / "digits" / "supervised.yaml"


def scalars(folder, *words):
    """``{tag: {step: value}}`` of the event file of a training on digits."""
    quiet = ("--trainer.enable_progress_bar=false", "--trainer.limit_val_batches=0")
    asked = ["fit", f"--config={SUPERVISED}", f"--trainer.default_root_dir={folder}", *quiet, *words]
    cli.run(asked, stop=lambda: False)
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def test_the_loss_terms_and_the_learning_rate_are_in_the_event_file_every_fifty_steps(tmp_path):
    told = scalars(tmp_path, "--trainer.max_steps=50", "--lr_scheduler.init_args.steps=50")
    assert told["train/loss"] == told["train/classify"]
    assert list(told["train/loss"]) == [49]
    assert 0 < told["train/loss"][49] < 2.3
    assert list(told["train/lr"]) == [49]
    assert 0 < told["train/lr"][49] < 2e-4, "a cosine ends near 0"


def test_accumulated_batches_are_logged_as_the_one_batch_that_they_are(tmp_path):
    words = ("--trainer.log_every_n_steps=2", "--trainer.max_steps=4", "--lr_scheduler.init_args.warmup=4")
    whole = scalars(tmp_path / "whole", *words)
    halves = scalars(tmp_path / "halves", *words, "--trainer.accumulate_grad_batches=2")
    assert whole["train/lr"] == halves["train/lr"]
    assert list(whole["train/lr"].values()) == pytest.approx([0.001, 0.002])
    assert halves["train/loss"] == pytest.approx(whole["train/loss"], rel=1e-3)
    assert list(whole["train/loss"]) == [1, 3]
