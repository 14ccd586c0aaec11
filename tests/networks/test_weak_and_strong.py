"""Augmentation of semi-supervised learning: torchvision's changes, by each image's own draw."""

import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as v2

from methods.networks import weak_and_strong
from methods.networks.weak_and_strong import CHANGES, Strong, Weak, random_squares


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_keeps_images_in_their_range_and_treats_each_alone(name, channels):
    change, low, high = CHANGES[name]
    v = torch.rand(5, channels, 8, 8)
    for strength in (low, (low + high) / 2, high):
        together = change(v, strength)
        assert together.shape == v.shape
        assert -1e-6 <= together.min() <= together.max() <= 1 + 1e-6
        torch.testing.assert_close(torch.cat([change(image[None], strength) for image in v]), together)


@pytest.mark.parametrize(
    ("name", "strength", "angle", "matrix"),
    [
        ("translate_x", 0.25, 0.0, (1, 0, -2, 0, 1, 0)),
        ("translate_y", -0.25, 0.0, (1, 0, 0, 0, 1, 2)),
        ("shear_x", 0.3, 0.0, None),
        ("rotate", 30.0, 30.0, None),
    ],
)
def test_geometric_changes_move_by_a_share_of_the_side_or_by_degrees(name, strength, angle, matrix):
    v = torch.zeros(1, 1, 8, 8)
    v[..., 3:5, 3:5] = 1
    found = CHANGES[name][0](v, strength)
    if matrix is not None:  # PIL maps a place of the new image to one of the old
        size = (8, 8)
        expected = v2.to_pil_image(v[0]).transform(size, Image.Transform.AFFINE, matrix)
        torch.testing.assert_close(found[0], v2.to_dtype(v2.pil_to_tensor(expected), torch.float32, scale=True))
    elif angle:
        torch.testing.assert_close(found, v2.rotate(v, -angle, v2.InterpolationMode.BILINEAR))
    else:
        moved = (found * torch.arange(8.0)).sum(3) / found.sum(3).clamp(min=1e-6)
        assert (moved[0, 0, 4] - moved[0, 0, 3]).abs().item() == pytest.approx(0.3, abs=0.05)


def test_every_image_draws_its_own_changes(monkeypatch):
    """Two changes that tell how often each was used: the number of images that got ``i`` and ``j`` is binomial."""
    monkeypatch.setattr(weak_and_strong, "CHANGES", {"a": (lambda v, m: v + 1, 0, 0), "b": (lambda v, m: v + 10, 0, 0)})
    monkeypatch.setattr(weak_and_strong, "random_squares", lambda v: torch.zeros(len(v), 1, 1, 1, dtype=torch.bool))
    found = (Strong(2)(torch.full((4000, 1, 2, 2), -1.0))[:, 0, 0, 0] + 1) / 2
    counts = [(found == value).double().mean().item() for value in (2, 11, 20)]
    assert counts == pytest.approx([0.25, 0.5, 0.25], abs=0.04)


def test_squares_have_sides_of_none_to_half_the_image_and_lie_everywhere():
    mask = random_squares(torch.empty(4000, 3, 16, 16))
    side = mask.any(3).sum(2)
    assert mask.shape == (4000, 1, 16, 16)
    assert side.max() in (8, 9)
    assert torch.equal(mask, mask.any(3, keepdim=True) & mask.any(2, keepdim=True))
    share = mask.double().mean(0)[0]
    assert share[4:-4, 4:-4].mean().item() == pytest.approx(1 / 12, abs=0.015)  # mean of (s / 2)^2, s uniform
    assert share.min() > 0


def test_strong_images_stay_in_range_and_follow_the_seed():
    x = 2 * torch.rand(64, 1, 8, 8) - 1
    torch.manual_seed(0)
    one = Strong()(x)
    torch.manual_seed(0)
    assert torch.equal(Strong()(x), one)
    assert one.shape == x.shape
    assert -1 <= one.min() <= one.max() <= 1 + 1e-6
    assert ((one - x).abs().flatten(1).amax(1) > 1e-6).double().mean() > 0.7


def test_weak_images_are_shifts_with_reflection_each_by_its_own_draw():
    x = torch.randn(400, 2, 6, 7)
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="reflect")
    shifts = torch.stack([padded[..., i : i + 6, j : j + 7] for i in range(3) for j in range(3)])
    for flip in (False, True):
        choices = torch.cat([shifts, shifts.flip(4)]) if flip else shifts
        same = (choices == Weak(1, flip)(x)).flatten(2).all(2)
        assert same.any(0).all()
        assert same.any(1).all()


def test_a_forecast_can_count_them_without_numbers():
    with torch.device("meta"):
        x = torch.zeros(64, 1, 8, 8)
        assert Strong()(Weak(1, flip=True)(x)).shape == x.shape
