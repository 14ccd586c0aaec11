"""Images averaged to fewer pixels: exact areas, and a data set of another name."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from datamodules.averaging import averaged
from datamodules.base import stand_ins
from datamodules.image_folder import ImageFolder
from datamodules.mnist import FashionMNIST
from datamodules.vision import CIFAR10

SPLIT = {"validation_fraction": 0.3}
SIZES = [(28, 16), (32, 16), (16, 16), (9, 4), (5, 1)]


def noise(side, n=50, c=1):
    return np.random.default_rng(0).integers(0, 256, (n, c, side, side), dtype=np.uint8)


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_a_flat_image_stays_as_it_is_at_every_grey_level(old, new):
    levels = np.arange(256, dtype=np.uint8)[:, None, None, None]
    made = averaged(np.broadcast_to(levels, (256, 3, old, old)), new)
    assert made.dtype == np.uint8
    assert np.array_equal(made, np.broadcast_to(levels, (256, 3, new, new)))


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_the_mean_of_each_image_moves_by_rounding_alone_and_over_images_not_at_all(old, new):
    images = noise(old, n=400)
    moved = averaged(images, new).mean((1, 2, 3)) - images.mean((1, 2, 3))
    assert np.abs(moved).max() <= 0.5
    assert abs(moved.mean()) < 5 * moved.std() / len(moved) ** 0.5 + 1e-12


def test_half_the_side_is_the_mean_of_blocks_of_four_with_halves_to_the_even_level():
    images = noise(32, c=3)
    blocks = F.avg_pool2d(torch.from_numpy(images).double(), 2)
    assert np.array_equal(averaged(images, 16), blocks.round().numpy())
    assert averaged(np.array([[[[0, 1], [0, 1]]], [[[1, 2], [1, 2]]]], np.uint8), 1).ravel().tolist() == [0, 2]


@given(old=st.integers(1, 12), new=st.integers(1, 12), seed=st.integers(0, 9))
def test_areas_are_those_of_pixels_cut_into_parts_that_fit_both_sizes(old, new, seed):
    old, new = max(old, new), min(old, new)
    image = np.random.default_rng(seed).integers(0, 256, (1, 1, old, old), dtype=np.uint8)
    fine = np.kron(image, np.ones((new, new)))  # every pixel as new x new equal ones
    means = fine.reshape(new, old, new, old).mean((1, 3))
    assert np.abs(averaged(image, new)[0, 0] - means).max() <= 0.5 + 1e-9


def test_28_to_16_pixels_are_areas_of_one_pixel_and_three_quarters():
    image = np.zeros((1, 1, 28, 28), np.uint8)
    image[0, 0, 1, 0] = 196  # its upper three quarters lie in the first row of new pixels
    made = averaged(image, 16)[0, 0].astype(int)
    assert (made[0, 0], made[1, 0], made.sum()) == (48, 16, 64)


def test_an_averaged_data_set_has_a_name_of_its_own_and_its_files_where_they_were(tmp_path):
    for part in ("train", "test"):
        for name, level in (("ant", 10), ("bee", 200)):
            folder = tmp_path / "insects" / part / name
            folder.mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (8, 8), (level, level, number)).save(folder / f"{number}.png")
    given, small = (ImageFolder("insects", root=str(tmp_path), average_to=size, **SPLIT) for size in (None, 4))
    assert (given.name, small.name, small.shape) == ("insects", "insects-4", (3, 4, 4))
    assert small.sources == given.sources == (tmp_path / "insects",)
    for part in ("train", "validation", "test"):
        (u, y), (v, z) = given.images(part), small.images(part)
        assert v.dtype == torch.uint8
        assert torch.equal(v, u[:, :, :4, :4])  # flat images
        assert torch.equal(y, z)


def test_averaging_comes_before_padding_and_colour():
    with stand_ins():
        assert FashionMNIST(average_to=16).shape == (1, 16, 16)
        assert FashionMNIST(average_to=16, pad_to=20, rgb=True).shape == (3, 20, 20)
        assert (FashionMNIST(average_to=16).name, CIFAR10(average_to=16).name) == ("fashion-mnist-16", "cifar10-16")


def test_no_image_is_averaged_to_more_pixels_than_it_has():
    with stand_ins(), pytest.raises(ValueError, match="average_to must be at most the image's 28 pixels, got 29"):
        FashionMNIST(average_to=29)


def test_an_averaged_data_set_that_is_not_there_is_missed_by_the_name_of_its_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"of fashion-mnist in .*/fashion-mnist or"):
        FashionMNIST(root=str(tmp_path), average_to=16)
