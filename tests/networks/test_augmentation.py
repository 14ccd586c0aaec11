"""Changes of a classifier's images: torchvision's, each image by its own draw, as often as stated."""

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as peer

from methods.networks import augmentation
from methods.networks.augmentation import ClassifierAugmentation, cropped, random_boxes, rotated

B = 6
FACTORS = torch.tensor([0.6, 0.9, 1.0, 1.3, 1.8, 2.0])
CHANGES = {
    "brightened": (peer.adjust_brightness, FACTORS),
    "contrasted": (peer.adjust_contrast, FACTORS),
    "saturated": (peer.adjust_saturation, FACTORS),
    "sharpened": (peer.adjust_sharpness, FACTORS),
    "hue_shifted": (peer.adjust_hue, torch.tensor([-0.5, -0.1, 0.0, 0.04, 0.1, 0.5])),
    "rotated": (
        lambda v, angle: peer.rotate(v, angle, InterpolationMode.BILINEAR),
        torch.tensor([-30.0, -7.5, 0.0, 4.0, 30.0, 90.0]),
    ),
}


def images(n=B, channels=3, side=(9, 8)):
    """In [0, 1], one black and one grey among them."""
    v = torch.rand(n, channels, *side)
    v[0], v[1] = 0.0, 0.5
    return v


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_torchvisions_by_each_images_own_factor(name, channels):
    if channels == 1 and name in ("saturated", "hue_shifted"):
        pytest.skip("of colours")
    theirs, factors = CHANGES[name]
    v = images(channels=channels)
    expected = torch.stack([theirs(image, float(factor)) for image, factor in zip(v, factors, strict=True)])
    torch.testing.assert_close(getattr(augmentation, name)(v, factors), expected, atol=1e-5, rtol=0)


def test_a_crop_is_torchvisions_and_reads_nothing_outside_its_box():
    v = images()
    boxes = [torch.tensor(values) for values in ([0, 2, 3, 0, 1, 4], [0, 1, 0, 3, 2, 2], [9, 6, 5, 9, 8, 5],
                                                 [8, 7, 8, 5, 6, 6])]  # fmt: skip
    expected = [
        peer.resized_crop(image, *map(int, box), list(v.shape[2:]), InterpolationMode.BILINEAR, antialias=False)
        for image, *box in zip(v, *boxes, strict=True)
    ]
    torch.testing.assert_close(cropped(v, *boxes), torch.stack(expected), atol=1e-5, rtol=0)


def test_boxes_lie_inside_and_cover_half_to_all_of_the_image_at_ratios_of_three_to_four():
    v = torch.empty(4000, 3, 32, 32)
    top, left, height, width = random_boxes(v)
    assert ((top >= 0) & (left >= 0) & (top + height <= 32) & (left + width <= 32)).all()
    area, ratio = height * width / 32**2, width / height
    assert 0.46 < area.min() < 0.53
    assert area.mean() == pytest.approx(0.73, abs=0.02)
    assert 0.7 < ratio.min() < 0.8
    assert 1.25 < ratio.max() < 1.43
    assert (top == 32 - height).any()  # all places, the last one too


@pytest.mark.parametrize(("channels", "untouched"), [(3, 0.75**6 / 2), (1, 0.75**5 / 2)])
def test_images_stay_as_they_are_as_often_as_the_probabilities_say_and_in_range(channels, untouched):
    x = 2 * torch.rand(1, channels, 8, 8).expand(6000, -1, -1, -1) - 1
    found = ClassifierAugmentation()(x)
    assert found.shape == x.shape
    assert found.abs().max() <= 1 + 1e-6
    same = (found - x).abs().flatten(1).amax(1) < 1e-5
    assert same.float().mean() == pytest.approx(untouched, abs=4 * (untouched / 6000) ** 0.5)


def test_images_of_a_batch_are_changed_differently_and_the_same_again_by_the_same_seed():
    x = (2 * torch.rand(1, 3, 8, 8) - 1).expand(16, -1, -1, -1)
    augment = ClassifierAugmentation()
    torch.manual_seed(1)
    first = augment(x)
    assert len({image.numpy().tobytes() for image in first}) > 10
    torch.manual_seed(1)
    assert torch.equal(augment(x), first)
    assert not list(augment.state_dict())


def test_a_full_turn_and_the_whole_box_change_nothing():
    v, ones = images(), torch.ones(B)
    torch.testing.assert_close(rotated(v, 360 * ones), v, atol=1e-4, rtol=0)
    torch.testing.assert_close(cropped(v, 0 * ones, 0 * ones, 9 * ones, 8 * ones), v, atol=1e-5, rtol=0)
