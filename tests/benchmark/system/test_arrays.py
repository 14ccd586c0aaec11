"""Arrays that are written and read some rows at a time are those written and read at once, in little memory."""

import numpy as np
import pytest

from benchmark.system.arrays import StoredRows, load_arrays, save_arrays, save_rows
from runs import peak_memory

IMAGES = np.random.default_rng(0).integers(0, 256, (103, 5, 4, 3)).astype(np.uint8)
LABELS = np.arange(103)


@pytest.mark.parametrize("size", [1, 10, 103, 500])
def test_rows_written_block_by_block_give_the_same_file(tmp_path, size):
    save_arrays(tmp_path / "whole.npz", images=IMAGES, labels=LABELS)
    blocks = (IMAGES[i : i + size] for i in range(0, len(IMAGES), size))
    save_rows(tmp_path / "rows.npz", "images", len(IMAGES), blocks, labels=LABELS)
    found = load_arrays(tmp_path / "rows.npz")
    assert list(found) == ["images", "labels"]
    assert np.array_equal(found["images"], IMAGES)
    assert found["images"].dtype == np.uint8
    assert (tmp_path / "rows.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()


@pytest.mark.parametrize("size", [1, 10, 103, 500])
@pytest.mark.parametrize("images", [IMAGES, IMAGES.astype(np.int32), IMAGES.transpose(0, 2, 3, 1)])
def test_stored_rows_are_read_in_order(tmp_path, size, images):
    save_arrays(tmp_path / "a.npz", other=LABELS, images=images)
    stored = StoredRows(tmp_path / "a.npz", "images")
    parts = list(stored.split(size))
    assert (len(stored), stored.shape, stored.dtype) == (103, images.shape, images.dtype)
    assert [len(part) for part in parts[:-1]] == [size] * (len(parts) - 1)
    assert np.array_equal(np.concatenate(parts), images)


def test_named_arrays_alone_are_loaded(tmp_path):
    save_arrays(tmp_path / "a.npz", images=IMAGES, labels=LABELS, more=LABELS)
    assert list(load_arrays(tmp_path / "a.npz", "labels", "more")) == ["labels", "more"]


def test_rows_that_do_not_lie_together_are_refused(tmp_path):
    save_arrays(tmp_path / "a.npz", images=np.asfortranarray(IMAGES))
    with pytest.raises(ValueError, match="rows cannot be read one after the other"):
        StoredRows(tmp_path / "a.npz", "images")


def test_few_rows_are_in_memory_at_once(tmp_path):
    block = 2**18

    def write_and_read():
        blocks = (np.full((2**10, 2**8), number, np.uint8) for number in range(64))
        save_rows(tmp_path / "a.npz", "images", 64 * 2**10, blocks)
        assert sum(int(part[0, 0]) for part in StoredRows(tmp_path / "a.npz", "images").split(2**10)) == sum(range(64))

    assert peak_memory(write_and_read) < 8 * block  # all 64 blocks would be 64 times as many
