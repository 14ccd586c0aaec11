"""A training tells TensorBoard its loss terms, gradients and learning rate, and shows what it has learnt so far."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmark.training.build import run

CONFIGS = Path(__file__).parents[3] / "configs" / "digits"
SUPERVISED = CONFIGS / "supervised.yaml"


def events_of(folder, *words, config=SUPERVISED):
    """The event file of a training on digits."""
    quiet = ("--trainer.enable_progress_bar=false", "--trainer.limit_val_batches=0")
    asked = ["fit", f"--config={config}", f"--trainer.default_root_dir={folder}", *quiet, *words]
    run(asked, stop=lambda: False)
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return events


def scalars(folder, *words):
    """``{tag: {step: value}}`` of the event file of a training on digits."""
    events = events_of(folder, *words)
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


def test_the_norm_of_the_gradient_is_that_of_all_weights(tmp_path):
    """Plain gradient descent moves all weights by the learning rate times the gradient."""
    words = ("--trainer.log_every_n_steps=1", "--ema.decay=0", "--lr_scheduler=null")
    plain = ("--optimizer={class_path: torch.optim.SGD, init_args: {lr: 0.01}}", "--optimizer.init_args.weight_decay=0")
    weights = []
    for steps in (1, 2):
        told = scalars(tmp_path / f"{steps}", *words, *plain, f"--trainer.max_steps={steps}")
        saved = torch.load(tmp_path / f"{steps}" / "checkpoints" / "final.ckpt", weights_only=True)["state_dict"]
        weights.append(torch.cat([weight.flatten() for weight in saved.values()]))
    assert told["train/grad_norm"][1] == pytest.approx(float((weights[1] - weights[0]).norm()) / 0.01, rel=1e-3)


def test_accuracy_over_noise_and_samples_are_shown_after_validations_and_change_no_weight(tmp_path):
    words = (
        "--trainer.max_steps=4", "--trainer.limit_val_batches=1", "--data.init_args.batch_size=640",
        "--model.init_args.sampler.init_args.steps=2",
    )  # fmt: skip
    joint = CONFIGS / "joint.yaml"
    shown = events_of(tmp_path / "shown", *words, "--views_every=2", config=joint)
    hidden = events_of(tmp_path / "hidden", *words, "--views_every=1000", config=joint)
    levels = [tag for tag in shown.Tags()["scalars"] if tag.startswith("val/accuracy/sigma=")]
    assert len(levels) == 5
    accuracies = [[event.value for event in shown.Scalars(tag)] for tag in levels]
    assert all(0 <= value <= 1 for values in accuracies for value in values)
    first, *_ = pictures = shown.Images("samples")
    steps = [event.step for event in shown.Scalars("val/accuracy")]
    assert [picture.step for picture in pictures] == [event.step for event in shown.Scalars(levels[0])] == steps
    grid = np.array(Image.open(io.BytesIO(first.encoded_image_string)))
    assert grid.shape == (5 * 32, 10 * 32, 3)
    assert "samples" not in hidden.Tags()["images"]
    one, other = (
        torch.load(tmp_path / name / "checkpoints" / "final.ckpt", weights_only=True)["state_dict"]
        for name in ("shown", "hidden")
    )
    assert all(torch.equal(one[name], other[name]) for name in other)


FEW = "--data.init_args.labels={class_path: datamodules.splits.LabelsPerClass, init_args: {count: 5}}"


def test_a_training_on_few_labels_validates_fifty_times_and_its_weights_are_those_of_a_validation_each_step(tmp_path):
    words = (FEW, "--trainer.max_steps=120", "--lr_scheduler.init_args.steps=120", "--trainer.limit_val_batches=1")
    each = "--trainer.callbacks={class_path: EarlyStopping, init_args: {monitor: val/loss, patience: 1000}}"
    weights, steps = [], []
    for name, more in (("some", ()), ("each", (each,)), ("asked", ("--trainer.check_val_every_n_epoch=60",))):
        events = events_of(tmp_path / name, *words, *more)
        steps.append([event.step for event in events.Scalars("val/loss")])
        saved = torch.load(tmp_path / name / "checkpoints" / "final.ckpt", weights_only=True)["state_dict"]
        weights.append(torch.cat([weight.flatten() for weight in saved.values()]))
    assert [len(found) for found in steps] == [40, 120, 2]
    assert steps[0] == list(range(2, 120, 3))
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])


def test_gaussians_are_validated_after_they_are_fitted(tmp_path):
    words = ("--trainer.limit_val_batches=1.0",)
    (accuracy,) = events_of(tmp_path, *words, config=CONFIGS / "class_gaussians.yaml").Scalars("val/accuracy")
    assert accuracy.value > 0.9
