"""The page of a run: its curves and pictures."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from benchmark.record import Results, measured
from benchmark.report import _arranged, _confusions, _curve, _picture


def accuracy(cell: str, sigma: float, value: float):
    return measured(
        cell, "m", 0, f"accuracy/t={sigma:g}", value, n=10, stderr=None, protocol={"sigma": sigma}, seconds=None,
        peak_memory_bytes=None, key="",
    )  # fmt: skip


def test_cells_that_share_a_classifier_have_one_line():
    curves = {"first": 0.9, "twin": 0.9, "other": 0.8}
    records = [accuracy(cell, sigma, high - sigma / 10) for cell, high in curves.items() for sigma in (0.5, 1.0)]
    drawn = _curve(Results(suite="s", commit="", environment={}, records=records), ["first", "twin", "silent", "other"])
    assert {name: f">{name}<" in drawn for name in ("first", "twin", "silent", "other")} == {
        "first": True,
        "twin": False,
        "silent": False,
        "other": True,
    }


def test_without_curves_there_is_no_picture():
    assert _curve(Results(suite="s", commit="", environment={}, records=[]), ["a"]) is None


def test_confusions_of_noise_levels_are_drawn_once_for_each_classifier(tmp_path):
    matrices = {"sharp": np.eye(5), "twin": np.eye(5), "blurred": np.full((5, 5), 0.2)}
    for cell, confusion in matrices.items():
        folder = tmp_path / cell / "seed0"
        folder.mkdir(parents=True)
        np.savez(folder / "diagnostics.npz", confusion=confusion)
    cells = [*matrices, "silent"]
    results = Results(suite="s", commit="", environment={}, records=[accuracy(cell, 1.0, 0.5) for cell in cells])
    drawn = _confusions(tmp_path, results, cells)
    assert [picture["caption"] for picture in drawn] == ["sharp", "blurred"]
    brightest = []
    for picture in drawn:
        with Image.open(io.BytesIO(base64.b64decode(picture["image"].partition(",")[2]))) as image:
            pixels = np.asarray(image.convert("RGB"), dtype=int)
        yellow = (pixels[..., 0] > 200) & (pixels[..., 1] > 200) & (pixels[..., 2] < 90)
        brightest.append(yellow[:, : pixels.shape[1] // 2].sum())  # left of the colour bar
    assert brightest[0] > 1000 > brightest[1]


def test_points_in_the_plane_are_shown_where_they_lie():
    points = np.random.default_rng(0).integers(0, 65536, (30, 1, 1, 2), dtype=np.int32)
    kind, data = _picture(points, np.arange(30) % 2).split(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        pixels = np.asarray(picture.convert("RGB"), dtype=int)
    reds, blues = ((pixels[..., a] - pixels[..., b] > 60).sum() for a, b in ((0, 2), (2, 0)))
    assert min(reds, blues) > 15  # a colour for each class


@pytest.mark.parametrize(("classes", "columns"), [(10, 10), (2, 10), (3, 9), (20, 10)])
def test_few_classes_share_the_width_of_the_picture_class_by_class(classes, columns):
    labels = np.arange(400) % classes
    images = np.broadcast_to(labels[:, None, None, None] + 1, (400, 3, 3, 1))
    grid = _arranged(images, labels)
    assert grid.shape[1] == columns * 4  # pixels of an image and the gap
    shown = [len(np.unique(grid[:3, 4 * i : 4 * i + 3])) for i in range(columns)]
    assert shown == [1] * columns
    assert len({int(grid[0, 4 * i, 0]) for i in range(columns)}) == min(classes, 10)


def test_a_handful_of_samples_still_makes_a_picture():
    assert _arranged(np.ones((2, 3, 3, 1)), np.array([0, 1])).shape == (4, 8, 1)
