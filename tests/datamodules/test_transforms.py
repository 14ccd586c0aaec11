"""Preparation and augmentation of grey levels: exact on images that say where each pixel came from."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from datamodules.digits import Digits
from datamodules.transforms import Augmentation, Preparation

RAMP = np.arange(2 * 1 * 4 * 5, dtype=np.uint8).reshape(2, 1, 4, 5)
"""Every pixel of two grey images of 4 x 5 has a level of its own."""


class AugmentedDigits(Digits):
    """The digits, mirrored and shifted."""

    augmentation = Augmentation(flip=True, crop_padding=2)


def colours(n=64, height=6, width=7):
    """Images whose every pixel has a level of its own within a channel."""
    level = torch.arange(height * width, dtype=torch.uint8).reshape(height, width)
    return torch.stack([level, level + 50, level + 100]).expand(n, -1, -1, -1)


def drawn(augmentation, u, seed=0):
    return augmentation(u, np.random.default_rng(seed))


def test_nothing_asked_for_changes_nothing():
    assert Preparation()(RAMP) is RAMP
    u = colours()
    assert drawn(Augmentation(), u) is u


def test_padding_puts_the_image_in_the_middle_of_level_0():
    padded = Preparation(pad_to=9)(RAMP)
    assert padded.shape == (2, 1, 9, 9)
    assert np.array_equal(padded[:, :, 2:6, 2:7], RAMP)
    assert padded.sum() == RAMP.sum()


def test_28_pixels_are_padded_to_32_by_two_on_each_side():
    white = np.full((1, 1, 28, 28), 255, np.uint8)
    rows = Preparation(pad_to=32)(white)[0, 0].max(axis=1)
    assert np.flatnonzero(rows).tolist() == list(range(2, 30))


def test_rgb_repeats_a_grey_channel_and_leaves_colours_alone():
    grey = Preparation(rgb=True)(RAMP)
    assert grey.shape == (2, 3, 4, 5)
    assert all(np.array_equal(grey[:, channel], RAMP[:, 0]) for channel in range(3))
    assert np.array_equal(Preparation(rgb=True)(grey), grey)


def test_shrinking_averages_and_flat_images_stay_flat():
    checkerboard = (200 * (np.indices((32, 32)).sum(0) % 2)).astype(np.uint8)[None, None]
    small = Preparation(resize=4)(checkerboard)
    assert np.abs(small.astype(int) - 100).max() <= 3
    assert (Preparation(resize=32)(np.full((1, 3, 16, 16), 77, np.uint8)) == 77).all()


@given(
    resize=st.none() | st.integers(1, 9),
    pad_to=st.none() | st.integers(9, 12),
    rgb=st.booleans(),
    c=st.sampled_from([1, 3]),
)
def test_the_stated_shape_is_the_shape_made(resize, pad_to, rgb, c):
    preparation = Preparation(resize, pad_to, rgb)
    made = preparation(np.repeat(RAMP, c, axis=1))
    assert made.shape[1:] == preparation.shape((c, 4, 5))
    assert made.dtype == np.uint8


def test_padding_to_less_than_the_image_is_refused():
    with pytest.raises(ValueError, match="pad_to must be at least the image's 28 pixels, got 20"):
        Preparation(pad_to=20).shape((1, 28, 28))


@pytest.mark.parametrize("padding", [-1, 6, 40])
def test_a_crop_that_reflection_cannot_fill_is_refused(padding):
    with pytest.raises(ValueError, match=rf"crop_padding must lie in 0\.\.5, got {padding}"):
        Augmentation(crop_padding=padding).check((3, 6, 7))


def test_flipping_mirrors_about_half_of_the_images_left_and_right():
    u = colours(400)
    flipped = drawn(Augmentation(flip=True), u)
    mirrored = (flipped == u.flip(3)).all(dim=(1, 2, 3))
    assert ((flipped == u).all(dim=(1, 2, 3)) ^ mirrored).all()
    assert 160 < mirrored.sum() < 240


def test_a_crop_is_a_window_of_the_image_extended_by_reflection():
    u, padding = colours(600), 2
    extended = F.pad(u[:1].float(), (padding,) * 4, mode="reflect").to(torch.uint8)[0]
    windows = {extended[:, i : i + 6, j : j + 7].numpy().tobytes(): (i, j) for i in range(5) for j in range(5)}
    places = [windows[image.numpy().tobytes()] for image in drawn(Augmentation(crop_padding=padding), u)]
    assert set(places) == {(i, j) for i in range(5) for j in range(5)}
    torch.testing.assert_close(torch.tensor(places).float().mean(0), torch.full((2,), 2.0), atol=0.25, rtol=0)


def test_augmentation_is_a_function_of_its_generator():
    augmentation, u = Augmentation(flip=True, crop_padding=2), colours()
    assert torch.equal(drawn(augmentation, u, 3), drawn(augmentation, u, 3))
    assert not torch.equal(drawn(augmentation, u, 3), drawn(augmentation, u, 4))


def test_training_batches_are_augmented_by_seed_stream_and_step_and_nothing_else_is():
    plain, data = Digits(unlabeled_batch_size=128), AugmentedDigits(unlabeled_batch_size=128)
    batches, again = data.train_dataloader(), AugmentedDigits(unlabeled_batch_size=128).train_dataloader()
    x, y = batches.batch(3)["labeled"]
    unchanged, same_y = plain.train_dataloader().batch(3)["labeled"]
    assert torch.equal(y, same_y)
    u = plain.grey.quantise(unchanged)
    expected = data.augmentation(u, np.random.default_rng([data.seed, 5, 0, 3]))
    assert torch.equal(data.grey.quantise(x), expected)
    assert not torch.equal(expected, u)
    assert torch.equal(again.batch(3)["unlabeled"], batches.batch(3)["unlabeled"])
    for one, other in zip(data.val_dataloader(), plain.val_dataloader(), strict=True):
        assert torch.equal(one["labeled"][0], other["labeled"][0])
