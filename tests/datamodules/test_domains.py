"""Two domains: whose images train, whose are tested on, and that no label of the target reaches training."""

import re

import numpy as np
import pytest
import torch
from test_mnist import lay_out
from test_vision import svhn, usps

from datamodules.domains import LabeledSource, UnlabeledTarget
from datamodules.grey_levels import GreyLevels
from datamodules.in_memory import ImagesInMemory
from datamodules.mnist import MNIST
from datamodules.splits import LabelsPerClass
from datamodules.transforms import Augmentation
from datamodules.vision import SVHN, USPS
from methods import UNLABELED

SIZES = {"train": 60, "test": 20}
BYTES, AS_IT_IS = GreyLevels(256), Augmentation()


class Flat(ImagesInMemory):
    """Flat images of three classes whose grey level tells domain, part and class."""

    data_classes = 3

    def __init__(self, level, shape=(1, 4, 4), grey=BYTES, augmentation=AS_IT_IS, **kwargs):
        self.level, self.shape, self.grey, self.augmentation = level, shape, grey, augmentation
        self.name = f"flat{level}"
        super().__init__(**kwargs)

    def load(self, part):
        y = np.arange(SIZES[part]) % self.data_classes
        level = self.level + 10 * (part == "test") + y
        return np.broadcast_to(level[:, None, None, None], (len(y), *self.shape)).astype(np.uint8), y


def level(data, x):
    """Grey level of each flat image."""
    return data.grey.quantise(x).flatten(1)[:, 0].long()


def steps(data, count=20):
    batches = data.train_dataloader()
    return [batches.batch(k) for k in range(count)]


def test_labels_and_choices_are_the_sources_and_the_test_part_is_the_targets():
    data = LabeledSource(Flat(0, validation_fraction=0.2), Flat(100), batch_size=16)
    assert (data.name, data.task, data.classes, data.n_labeled) == ("flat0-to-flat100", "flat0 to flat100", 3, 48)
    for batch in steps(data):
        assert batch.keys() == {"labeled"}
        x, y = batch["labeled"]
        assert torch.equal(level(data, x), y)
    for loader, first, count in ((data.val_dataloader(), 0, 12), (data.test_dataloader(), 110, 20)):
        batches = [batch["labeled"] for batch in loader]
        x, y = (torch.cat(values) for values in zip(*batches, strict=True))
        assert torch.equal(level(data, x), first + y)
        assert len(y) == count
    assert torch.equal(data.images("test")[1], Flat(100).images("test")[1])
    torch.testing.assert_close(data.class_prior, torch.full((3,), 1 / 3))


def test_unlabeled_images_are_all_of_the_targets_training_part():
    data = LabeledSource(Flat(0), Flat(100, validation_fraction=0.5), batch_size=8, unlabeled_batch_size=15)
    seen = [batch["unlabeled"] for batch in steps(data, 2)]  # once through the 30 of them
    assert torch.bincount(level(data, torch.cat(seen)), minlength=103)[100:].tolist() == [10, 10, 10]
    for batch in steps(data):
        x, y = batch["labeled"]
        assert torch.equal(level(data, x), y)


def test_the_second_training_has_the_targets_images_alone_and_none_of_their_labels():
    data = UnlabeledTarget(Flat(0), Flat(100, validation_fraction=0.5), batch_size=15)
    seen = [batch["labeled"] for batch in steps(data, 2)]
    assert torch.bincount(level(data, torch.cat([x for x, _ in seen])), minlength=103)[100:].tolist() == [10, 10, 10]
    assert all((y == UNLABELED).all() for _, y in seen)
    assert data.n_labeled == 54  # those that the first training saw
    assert torch.equal(data.images("test")[0], Flat(100).images("test")[0])
    assert level(data, next(iter(data.val_dataloader()))["labeled"][0]).max() <= 2


@pytest.mark.parametrize("kind", [LabeledSource, UnlabeledTarget])
def test_splits_are_those_of_the_two_data_sets(kind):
    source, target = Flat(0, split_seed=3, validation_fraction=0.2), Flat(100, split_seed=4, validation_fraction=0.4)
    data = kind(source, target)
    for part in ("train", "validation"):
        assert np.array_equal(data.splits[part], source.splits[part])
        assert torch.equal(data.images(part)[1], source.images(part)[1])
    assert np.array_equal(data.splits["target"], target.splits["train"])


@pytest.mark.parametrize("kind", [LabeledSource, UnlabeledTarget])
def test_batches_are_a_function_of_seed_and_step(kind):
    options = {"unlabeled_batch_size": 8} if kind is LabeledSource else {}

    def batch(seed, k):
        found = kind(Flat(0), Flat(100), batch_size=16, seed=seed, **options).train_dataloader().batch(k)
        return torch.cat([found["labeled"][0], *([found["unlabeled"]] if options else [])])

    assert torch.equal(batch(1, 7), batch(1, 7))
    assert not torch.equal(batch(1, 7), batch(1, 8))
    assert not torch.equal(batch(1, 7), batch(2, 7))


OTHERS = {
    "image shape, flat0 has (1, 4, 4), flat100 (3, 4, 4)": {"shape": (3, 4, 4)},
    "number of grey levels, flat0 has 256, flat100 128": {"grey": GreyLevels(128)},
    "augmentation, flat0 has Augmentation(flip=False": {"augmentation": Augmentation(flip=True)},
    "all labels of flat100 belong to its classes": {"labels": LabelsPerClass(2)},
}


@pytest.mark.parametrize(("message", "options"), OTHERS.items(), ids=OTHERS)
def test_domains_that_do_not_go_together_are_refused(message, options):
    with pytest.raises(ValueError, match=re.escape(message)) as refusal:
        LabeledSource(Flat(0), Flat(100, **options))
    assert "\n" not in str(refusal.value)


@pytest.mark.slow
def test_digits_of_files_go_together_at_28_grey_and_at_32_coloured_pixels(tmp_path, monkeypatch):
    """Published layouts: 60,000 flat digits, and tens of random ones in the place of USPS and SVHN."""
    lay_out(tmp_path / "mnist", packed=False)
    usps(tmp_path, monkeypatch), svhn(tmp_path, monkeypatch)
    own = {"root": str(tmp_path), "validation_fraction": 0.25}
    grey = UnlabeledTarget(MNIST(resize=28, **own), USPS(resize=28, **own), batch_size=10)
    assert (grey.shape, grey.name, grey.n_labeled) == ((1, 28, 28), "mnist-to-usps", 45_000)
    assert len(grey.images("test")[1]) == 40
    coloured = LabeledSource(SVHN(**own), MNIST(resize=32, rgb=True, **own), batch_size=4, unlabeled_batch_size=6)
    assert (coloured.shape, coloured.name, coloured.n_labeled) == ((3, 32, 32), "svhn-to-mnist", 30)
    digits = coloured.grey.quantise(coloured.train_dataloader().batch(0)["unlabeled"])
    assert (digits.flatten(1).amax(1) == digits.flatten(1).amin(1)).all()  # flat ones, in all channels alike
