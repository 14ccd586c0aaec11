"""The digits, and what holds for every small data set: parts, and batches that are a function of the step alone."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from datamodules.base import _counted
from datamodules.batches import EvaluationBatches
from datamodules.digits import Digits
from datamodules.splits import LabelFraction, LabelsPerClass, PositiveUnlabeled

LABELED, UNLABELED = 50, 120


def trainer(rank=0, world=1, step=0, accumulated=1, device="cpu"):
    """Where a trainer is; a data set asks for nothing else."""
    strategy = SimpleNamespace(root_device=torch.device(device))
    return SimpleNamespace(
        global_rank=rank, world_size=world, strategy=strategy, global_step=step, accumulate_grad_batches=accumulated
    )


def digits(at=None, **options):
    data = Digits(**options)
    data.trainer = at
    return data


def few(at=None, **options):
    """Half of the images labeled, the others in an unlabeled stream."""
    sizes = {"batch_size": LABELED, "unlabeled_batch_size": UNLABELED}
    return digits(at, labels=LabelFraction(0.5), **sizes | options)


def rows_of(data, x):
    """Row in the training part of each dequantised image."""
    images, _ = data.images("train")
    key = {image.tobytes(): row for row, image in enumerate(images.numpy())}
    return [key[image.tobytes()] for image in data.grey.quantise(x).numpy()]


def equal(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, tuple):
        return all(equal(a, b) for a, b in zip(one, other, strict=True))
    return torch.equal(one, other)


def test_the_parts_are_the_1797_digits_once_each():
    data = Digits()
    counts = [len(data.images(part)[1]) for part in ("train", "validation", "test")]
    assert counts == [1293, 144, 360]
    images, y = load_digits(return_X_y=True)
    given = sorted((image.tobytes(), label) for image, label in zip(images.astype(np.uint8), y, strict=True))
    parts = [data.images(part) for part in ("train", "validation", "test")]
    ours = sorted((u.numpy().tobytes(), int(k)) for us, ks in parts for u, k in zip(us, ks, strict=True))
    assert ours == given


def test_images_are_8x8_of_17_grey_levels():
    u, y = Digits().images("train")
    assert u.shape == (1293, 1, 8, 8)
    assert u.dtype == torch.uint8
    assert (int(u.min()), int(u.max())) == (0, 16)
    assert y.dtype == torch.int64


def test_the_test_part_is_the_same_for_every_seed():
    one, other = (Digits(seed=k, split_seed=k).images("test") for k in (1, 2))
    assert equal(one, other)


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_every_part_has_the_classes_in_their_proportions(part):
    _, y = load_digits(return_X_y=True)
    found = Digits().images(part)[1]
    expected = np.bincount(y) / len(y) * len(found)
    assert np.abs(np.bincount(found) - expected).max() < 2


def test_training_validation_and_labeled_indices_are_disjoint_and_a_function_of_the_split_seed():
    data = few(split_seed=3)
    splits = data.splits
    assert sorted([*splits["train"], *splits["validation"]]) == list(range(1437))
    assert set(splits["labeled"]) <= set(splits["train"])
    assert not set(data.labeled_indices) & set(data.unlabeled_indices)
    again, other = few(split_seed=3).splits, few(split_seed=4).splits
    assert all(np.array_equal(splits[name], again[name]) for name in splits)
    assert not any(np.array_equal(splits[name], other[name]) for name in splits)


def test_each_seed_draws_labels_of_its_own_from_the_same_training_part():
    one, again, other = few(seed=1), few(seed=1, batch_size=7), few(seed=2)
    assert np.array_equal(one.labeled_indices, again.labeled_indices)
    assert not np.array_equal(one.labeled_indices, other.labeled_indices)
    for name in ("train", "validation"):
        assert np.array_equal(one.splits[name], other.splits[name])
    counts = [np.bincount(data.images("train")[1][data.labeled_indices], minlength=10) for data in (one, other)]
    assert np.array_equal(*counts)
    assert one.fingerprint("train") == other.fingerprint("train")


def test_the_class_prior_is_that_of_the_unlabeled_pool():
    data = digits(labels=PositiveUnlabeled([1, 3, 5, 7, 9], 100))
    _, y = data.images("train")
    assert data.classes == 2
    torch.testing.assert_close(data.class_prior[1], y[data.unlabeled_indices].float().mean())
    assert set(y[data.labeled_indices].tolist()) == {1}
    torch.testing.assert_close(Digits().class_prior.sum(), torch.tensor(1.0))


@pytest.mark.parametrize(
    ("fraction", "message"),
    [
        (-0.1, r"must lie in \(0, 1\), got -0.1"),
        (0.0, r"must lie in \(0, 1\), got 0.0"),
        (0.001, "validation_fraction 0.001 of 1437 images leaves a class"),
        (0.999, "0.999 leaves a class without training images"),
        (1.0, r"must lie in \(0, 1\), got 1.0"),
    ],
)
def test_a_validation_fraction_that_leaves_a_part_without_a_class_is_refused(fraction, message):
    with pytest.raises(ValueError, match=message):
        Digits(validation_fraction=fraction)


def test_more_labels_than_images_are_refused():
    with pytest.raises(ValueError, match="5000 images of class 0 were asked for, the data have"):
        Digits(labels=LabelsPerClass(5000))


def test_images_are_dequantised_inside_their_bins():
    data = few()
    x, y = data.train_dataloader().batch(0)["labeled"]
    images, labels = data.images("train")
    rows = rows_of(data, x)
    assert torch.equal(labels[rows], y)
    noise = (x - data.grey.centre(images[rows])) * data.grey.count
    assert noise.abs().max() <= 1 + 1e-5
    torch.testing.assert_close(noise.mean(), torch.tensor(0.0), atol=0.05, rtol=0)
    torch.testing.assert_close(noise.std(), torch.tensor(3**-0.5), atol=0.03, rtol=0)


@settings(max_examples=15)
@given(start=st.integers(0, 40))
def test_a_batch_is_the_same_wherever_iteration_starts(start):
    whole = few().train_dataloader()
    resumed = iter(few(trainer(step=start)).train_dataloader())
    for k, batch in zip(range(start, start + 3), resumed, strict=False):
        assert equal(batch, whole.batch(k))


def test_a_batch_is_the_same_whatever_was_asked_for_before():
    fresh, used = few().train_dataloader(), few().train_dataloader()
    for k in (30, 2, 17):
        used.batch(k)
    assert equal(used.batch(9), fresh.batch(9))


def test_another_seed_gives_other_batches():
    one, other = (few(seed=k).train_dataloader().batch(0) for k in (1, 2))
    assert not torch.equal(one["labeled"][1], other["labeled"][1])


@pytest.mark.parametrize("step", [0, 5, 12, 13, 14, 27])
def test_an_epoch_ends_at_a_multiple_of_its_length_from_any_step(step):
    batches = few(trainer(step=step)).train_dataloader()
    assert batches.epoch_steps == 13  # 646 labeled images by 50 rounded up; 647 unlabeled by 120 is less
    assert len(list(batches)) == 13 - step % 13


def test_an_epoch_has_as_many_steps_however_a_step_is_accumulated():
    batches = few(trainer(step=3, accumulated=5)).train_dataloader()
    assert batches.epoch_steps == 13
    drawn = list(batches)
    assert len(drawn) == (13 - 3) * 5
    assert equal(drawn[7], batches.batch(4, 2))


@pytest.mark.parametrize("size", [50, 128, 1293, 2000])
def test_every_image_comes_up_equally_often(size):
    data = digits(batch_size=size)
    batches = data.train_dataloader()
    count = np.zeros(1293, int)
    passes = 3
    chain = [row for k in range(-(-passes * 1293 // size)) for row in batches._rows(0, "labeled", k).tolist()]
    np.add.at(count, chain[: passes * 1293], 1)
    assert (count == passes).all()


def test_the_unlabeled_stream_holds_the_images_without_labels_and_all_of_them():
    data = few()
    batches = data.train_dataloader()
    seen = {row for k in range(6) for row in rows_of(data, batches.batch(k)["unlabeled"])}
    images, _ = data.images("train")
    by_pixels = {images[row].numpy().tobytes() for row in data.unlabeled_indices}
    assert {images[row].numpy().tobytes() for row in seen} == by_pixels


def test_with_every_label_known_all_images_serve_unlabeled_too():
    data = digits(batch_size=100, unlabeled_batch_size=1293)
    batch = data.train_dataloader().batch(0)
    assert sorted(batch) == ["labeled", "unlabeled"]
    assert len(set(rows_of(data, batch["unlabeled"]))) > 1280  # the few repeats are equal pictures


def shards(world, accumulated, k=7):
    """The shards of a step, by number."""
    loaders = [few(trainer(rank, world, accumulated=accumulated)).train_dataloader() for rank in range(world)]
    return [loader.batch(k, micro) for micro in range(accumulated) for loader in loaders]


@pytest.mark.parametrize(("world", "accumulated"), [(1, 10), (10, 1), (2, 5), (5, 2)])
def test_a_step_is_the_same_shards_however_it_is_spread(world, accumulated):
    expected = shards(10, 1)
    assert len(expected[0]["labeled"][1]) == LABELED // 10
    assert all(equal(*pair) for pair in zip(shards(world, accumulated), expected, strict=True))


def test_any_number_of_shards_has_the_images_of_the_step():
    data = few()
    whole = data.train_dataloader().batch(7)
    for count in (2, 5):
        parts = shards(count, 1)
        x = torch.cat([part["labeled"][0] for part in parts])
        assert rows_of(data, x) == rows_of(data, whole["labeled"][0])
        assert torch.equal(torch.cat([part["labeled"][1] for part in parts]), whole["labeled"][1])
        unlabeled = torch.cat([part["unlabeled"] for part in parts])
        assert rows_of(data, unlabeled) == rows_of(data, whole["unlabeled"])


def test_two_shards_are_dequantised_by_noise_of_their_own():
    grey = few().grey
    first, second = (x - grey.centre(grey.quantise(x)) for x in (part["labeled"][0] for part in shards(2, 1)))
    assert torch.isclose(first, second, atol=1e-6).float().mean() < 0.01


@pytest.mark.parametrize(
    ("at", "over"), [(trainer(0, 3), "3 devices"), (trainer(0, 2, accumulated=10), "2 devices x 10 steps")]
)
def test_a_batch_that_does_not_divide_over_its_shards_is_refused(at, over):
    with pytest.raises(ValueError, match=f"the labeled batch of 50 does not divide over {over}$"):
        few(at).train_dataloader()


@pytest.mark.parametrize("part", ["train", "validation", "test"])
@pytest.mark.parametrize("world", [1, 2, 5, 61])
def test_evaluation_sees_every_image_once_over_the_devices_in_as_many_batches(part, world):
    shares = [EvaluationBatches(digits(trainer(r, world)), part, batch_size=100) for r in range(world)]
    whole = torch.cat([batch["labeled"][0] for batch in EvaluationBatches(digits(), part, batch_size=100)])
    batches = [list(share) for share in shares]
    assert {len(share) for share in batches} == {len(share) for share in shares} == {len(shares[0])}
    assert all(len(batch["labeled"][1]) for share in batches for batch in share)
    x = torch.cat([batch["labeled"][0] for round_ in zip(*batches, strict=True) for batch in round_])
    assert torch.equal(x, whole) or world == 61
    y = torch.cat([batch["labeled"][1] for round_ in zip(*batches, strict=True) for batch in round_])
    assert torch.equal(y, digits().images(part)[1])


def test_batches_for_another_device_are_made_there():
    data = few(trainer(device="meta"))
    batch = data.train_dataloader().batch(3)
    (evaluated,) = data.val_dataloader()
    parts = [*batch["labeled"], batch["unlabeled"], *evaluated["labeled"]]
    assert {part.device.type for part in parts} == {"meta"}
    assert [len(part) for part in parts] == [LABELED, LABELED, UNLABELED, 144, 144]


def test_dequantisation_by_counters_stays_in_the_bins_and_follows_seed_key_and_place():
    u = Digits().images("test")[0][:100]
    grey = Digits().grey
    x, *others = (grey.dequantise(u, _counted(u, *key)) for key in ((0, 2, 1, 7), (1, 2, 1, 7), (0, 2, 1, 8)))
    assert torch.equal(grey.quantise(x), u)
    assert torch.equal(x[:30], grey.dequantise(u[:30], _counted(u[:30], 0, 2, 1, 7)))
    assert all((x == other).float().mean() < 0.01 for other in others)
    v = _counted(u, 0, 2, 1, 7)
    assert torch.corrcoef(v.flatten(1)).fill_diagonal_(0).abs().max() < 6 / 8
    assert abs(v.mean() - 0.5) < 5 / math.sqrt(12 * v.numel())
