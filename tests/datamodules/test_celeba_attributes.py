"""All attributes of a small CelebA: the bits of labels, in every part, beside the named one."""

import numpy as np
import pytest
import torch
from test_celeba import ATTRIBUTES, COUNTS, NAMES, PARTS, SMILING, YOUNG, folder

from datamodules.base import stand_ins
from datamodules.celeba_attributes import OFFICIAL, CelebAAttributes
from datamodules.splits import PositiveUnlabeled

__all__ = ["folder"]
CODES = YOUNG + 2 * SMILING  # "Young Smiling" is the header


def made(folder, **options):
    return CelebAAttributes(root=str(folder.parent), **options)


def test_every_part_has_its_attributes_and_the_named_one_as_the_class(folder):
    data = made(folder)
    assert list(data.attribute_names) == ["Young", "Smiling"]
    assert (data.classes, data.task) == (2, "Smiling")
    for number, part in enumerate(COUNTS):
        rows = np.flatnonzero(number == PARTS)
        found = data.attributes(part).numpy()
        assert np.array_equal(found, np.stack([YOUNG, SMILING], 1)[rows])
        assert data.images(part)[1].tolist() == SMILING[rows].tolist()


def test_labels_of_batches_are_the_codes_of_their_images(folder):
    """Image ``i`` is of grey level ``10 i`` all over."""
    data = made(folder, batch_size=8)
    loaders = [data.train_dataloader(), data.val_dataloader(), data.test_dataloader()]
    seen = []
    for loader in loaders:
        x, code = next(iter(loader))["labeled"]
        image = data.grey.quantise(x)[:, 0, 0, 0].long() // 10
        assert code.tolist() == CODES[image].tolist()
        seen += image.tolist()
    assert sorted(seen) == list(range(len(NAMES)))
    x, y = next(iter(data.predict_dataloader()))["labeled"]
    assert y.tolist() == SMILING[PARTS == 2].tolist()


def test_a_stand_in_has_forty_attributes_and_needs_no_file(tmp_path):
    with stand_ins():
        data = CelebAAttributes(root=str(tmp_path))
    assert len(OFFICIAL) == len(set(OFFICIAL)) == 40
    assert OFFICIAL[31] == "Smiling"
    assert data.attributes("test").shape == (19_962, 40)
    assert torch.equal(data.attributes("test")[:, 31], data.images("test")[1])


def test_a_broken_value_of_another_attribute_is_refused(folder):
    text = (folder / ATTRIBUTES).read_text().splitlines()
    text[3] = f"{NAMES[1]}  0  1"  # of Young, where Smiling is named
    (folder / ATTRIBUTES).write_text("\n".join(text))
    with pytest.raises(ValueError, match="line 4 is not a file name and 2 times -1 or 1"):
        made(folder)


def test_a_task_of_its_own_is_refused(folder):
    with pytest.raises(ValueError, match="labels: a task of its own has no place beside all attributes"):
        made(folder, labels=PositiveUnlabeled([0], 2))
