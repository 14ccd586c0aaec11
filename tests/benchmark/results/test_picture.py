"""The picture of a run: its samples and curves, of the cells that it has."""

import numpy as np
import pytest
from PIL import Image
from tables import number, results

from benchmark.errors import InputError
from benchmark.results.picture import draw
from benchmark.results.tables import write_tables


def run_of(folder, *cells):
    """Folder of a run with ten samples of each cell, and accuracies at three noise levels."""
    for cell in cells:
        (folder / cell / "seed0").mkdir(parents=True)
        images = np.tile(np.arange(10, dtype=np.uint8)[:, None, None, None], (1, 8, 8, 1))
        np.savez(folder / cell / "seed0" / "samples@3.npz", images=images, labels=np.arange(10))
    levels = [number(cell, metric=f"accuracy/t={t}", value=1 - t, sigma=t) for cell in cells for t in (0.2, 0.5, 0.9)]
    write_tables(folder, results(*levels))
    return folder


def test_a_picture_is_drawn_from_the_cells_that_a_run_has(tmp_path):
    draw(run_of(tmp_path / "run", "noisy_classifier", "denoising_assisted"), tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as image:
        assert image.size == (1660, 700)


def test_a_run_without_any_of_the_cells_is_refused(tmp_path):
    with pytest.raises(InputError, match="samples of none of held_out_images"):
        draw(run_of(tmp_path / "run", "mine"), tmp_path / "picture.png")
    assert not (tmp_path / "picture.png").exists()
