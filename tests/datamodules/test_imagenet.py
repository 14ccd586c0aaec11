"""ImageNet from a small one made here: streamed batches are a function of the step, whole parts are stated subsets."""

import re
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning import LightningModule, Trainer
from PIL import Image

from datamodules import image_files
from datamodules.base import ImageData, stand_ins
from datamodules.imagenet import CentreCrop, ImageNet
from datamodules.stored import VARIABLE
from datamodules.streamed import Seeded, _Arrays

same = partial(torch.testing.assert_close, rtol=0, atol=0)
RNG = np.random.default_rng(0)
CLASSES = ("n01", "n02", "n03")
SIZE = 16


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, quality=95)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Photographs of several sizes: 20 of each class to train, 8 to test."""
    root = tmp_path_factory.mktemp("data")
    for part, count in (("train", 20), ("val", 8)):
        for wnid in CLASSES:
            for i in range(count):
                height, width = RNG.integers(17, 70, 2)
                small = Image.fromarray(RNG.integers(0, 256, (5, 5, 3)).astype(np.uint8))
                save(root / "imagenet" / part / wnid / f"{wnid}_{i}.JPEG", small.resize((width, height)))
    return root


def trainer(rank=0, world=1, step=0, device="cpu"):
    """Where a trainer is; a data set asks for nothing else."""
    strategy = SimpleNamespace(root_device=torch.device(device))
    return SimpleNamespace(
        global_rank=rank, world_size=world, strategy=strategy, global_step=step, accumulate_grad_batches=1
    )


def imagenet(root, at=None, **options):
    given = {"size": SIZE, "workers": 0, "validation_fraction": 0.2, "reference_images": 300, "batch_size": 8}
    data = ImageNet(str(root), **given | options)
    data.trainer = at
    return data


def firsts(batches, count):
    return [batch for batch, _ in zip(batches, range(count), strict=False)]


def unmirrored(data, x):
    """Images whose mirror images are the same, to float32 accuracy of their levels."""
    u = data.grey.quantise(x).int()
    return u + u.flip(3)


def test_the_parts_are_the_folders_and_classes_are_in_order_of_their_names(made):
    data = imagenet(made)
    assert (data.name, data.shape, data.classes) == ("imagenet3-16", (3, SIZE, SIZE), 3)
    assert [len(data.images(part)[1]) for part in ("train", "validation", "test")] == [48, 12, 24]
    u, y = data.images("test")
    assert y.tolist() == [k for k in range(3) for _ in range(8)]
    crop = CentreCrop(SIZE)
    files = [made / "imagenet" / "val" / wnid / f"{wnid}_{i}.JPEG" for wnid in CLASSES for i in range(8)]
    assert np.array_equal(u, np.stack([crop(file).transpose(2, 0, 1) for file in files]))


def test_training_batches_are_crops_mirrored_at_random_and_dequantised(made):
    data = imagenet(made)
    u, labels = data.images("train")
    mirrored = 0
    for batch in firsts(data.train_dataloader(), 6):
        x, y = batch["labeled"]
        assert x.dtype == torch.float32
        centres = data.grey.centre(u)
        for image, label in zip(x, y, strict=True):
            plain, turned = ((centres - v).abs().flatten(1).amax(1) for v in (image, image.flip(2)))
            row = int(torch.minimum(plain, turned).argmin())
            assert min(plain[row], turned[row]) <= 1 / 256 + 1e-6
            assert labels[row] == label
            mirrored += int(turned[row] < plain[row])
    assert 12 < mirrored < 36


def test_noise_fills_the_bins(made):
    data = imagenet(made, flip=False)
    x, _ = next(iter(data.train_dataloader()))["labeled"]
    centres = data.grey.centre(data.images("train")[0])
    rows = (centres[:, None] - x[None]).abs().flatten(2).amax(2).argmin(0)
    noise = 128 * (x - centres[rows])
    torch.testing.assert_close(noise.std(), torch.tensor(12**-0.5), atol=0.02, rtol=0)
    torch.testing.assert_close(noise.mean(), torch.tensor(0.0), atol=0.02, rtol=0)


def test_an_epoch_shows_every_training_image_once(made):
    data = imagenet(made, flip=False)
    x = torch.cat([batch["labeled"][0] for batch in data.train_dataloader()])
    u, _ = data.images("train")
    distances = (data.grey.centre(u)[:, None] - x[None]).abs().flatten(2).amax(2)
    assert distances.argmin(1).unique().tolist() == list(range(48))


@pytest.mark.parametrize("start", [0, 3, 5])
def test_a_batch_is_the_same_wherever_iteration_starts(made, start):
    whole = list(imagenet(made, unlabeled_batch_size=4).train_dataloader())
    assert len(whole) == 12  # as many as the pool of all images lasts
    resumed = list(imagenet(made, trainer(step=start), unlabeled_batch_size=4).train_dataloader())
    assert len(resumed) == 12 - start
    same(resumed, whole[start:])


def test_worker_processes_change_nothing(made):
    here, there = (list(imagenet(made, workers=workers).train_dataloader()) for workers in (0, 2))
    assert len(here) == 6
    same(here, there)
    same(*[list(imagenet(made, workers=workers).val_dataloader()) for workers in (0, 2)])


@pytest.mark.parametrize("workers", [0, 2])
def test_another_device_gets_grey_levels_and_dequantises_them_itself(made, workers):
    data = imagenet(made, trainer(device="meta"), workers=workers, unlabeled_batch_size=4)
    for batches in (data.train_dataloader(), data.val_dataloader()):
        for batch in firsts(batches, 2):
            assert batch["labeled"][0].device.type == "meta"
            assert batch["labeled"][0].dtype == torch.float32
            assert batch["labeled"][0].shape[1:] == (3, SIZE, SIZE)


def test_levels_for_another_device_are_those_of_the_cpu_and_noise_is_of_the_seed(made):
    here, there = (imagenet(made, trainer(device=device)).train_dataloader() for device in ("cpu", "meta"))
    numbers = next(iter(_Arrays(here.numbers)))
    seeded, y = there.reader[numbers]["labeled"]
    x, wanted = here.reader[numbers]["labeled"]
    assert torch.equal(y, wanted)
    assert torch.equal(here.reader.grey.quantise(x), seeded.u)
    counted = seeded.dequantised(here.reader.grey, torch.device("cpu"))
    assert torch.equal(here.reader.grey.quantise(counted), seeded.u)
    assert (counted == x).float().mean() < 0.01
    turned = Seeded(seeded.u.flip(0), seeded.seeds.flip(0)).dequantised(here.reader.grey, torch.device("cpu"))
    assert torch.equal(turned.flip(0), counted)


def test_another_seed_gives_other_batches(made):
    one, other = (next(iter(imagenet(made, seed=seed).train_dataloader()))["labeled"][0] for seed in (0, 1))
    assert not torch.equal(one, other)


def test_the_shares_of_two_devices_join_to_the_batch_of_one(made):
    whole = firsts(imagenet(made).train_dataloader(), 3)
    shares = [firsts(imagenet(made, trainer(rank, 2)).train_dataloader(), 3) for rank in range(2)]
    for k, batch in enumerate(whole):
        x, y = (torch.cat(parts) for parts in zip(*(share[k]["labeled"] for share in shares), strict=True))
        assert torch.equal(y, batch["labeled"][1])
        difference = unmirrored(imagenet(made), x) - unmirrored(imagenet(made), batch["labeled"][0])
        assert difference.abs().max() <= 2  # levels; dequantisation may round up to the next


@pytest.mark.parametrize("world", [1, 2])
def test_evaluation_sees_every_image_once_unmirrored_and_the_same_each_time(made, world):
    loaders = [imagenet(made, trainer(rank, world)).test_dataloader() for rank in range(world)]
    batches = [batch["labeled"] for loader in loaders for batch in loader]
    assert sum(map(len, loaders)) >= len(batches) >= 1
    again = [batch["labeled"] for loader in loaders for batch in loader]
    same(batches, again)
    data = imagenet(made)
    u, y = data.images("test")
    x, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    rows = (data.grey.centre(u)[:, None] - x[None]).abs().flatten(2).amax(2).argmin(0)
    assert sorted(rows.tolist()) == list(range(24))
    assert torch.equal(y[rows], labels)


def test_whole_parts_are_balanced_subsets_that_no_seed_changes(made):
    data, other = imagenet(made, reference_images=9), imagenet(made, reference_images=9, seed=5)
    u, y = data.images("train")
    assert torch.bincount(y).tolist() == [3, 3, 3]
    assert torch.equal(u, other.images("train")[0])
    everything = {image.numpy().tobytes() for image in imagenet(made).images("train")[0]}
    assert {image.numpy().tobytes() for image in u} <= everything
    assert torch.bincount(data.images("test")[1]).tolist() == [3, 3, 3]
    assert len(list(data.train_dataloader())) == 6  # of all 48


def test_whole_parts_are_read_once_and_batches_need_none(made, monkeypatch):
    imagenet(made).images("test")
    monkeypatch.setattr(image_files, "_pixels", None)
    data = imagenet(made)
    assert len(data.images("test")[1]) == 24
    next(iter(data.train_dataloader()))
    assert data.class_prior.tolist() == pytest.approx([1 / 3] * 3)


def test_a_square_of_the_right_size_stays_and_others_are_halved_scaled_and_cropped(tmp_path):
    exact = RNG.integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
    save(tmp_path / "exact.png", exact)
    assert np.array_equal(CentreCrop(SIZE)(tmp_path / "exact.png"), exact)
    ramp = np.broadcast_to(2 * np.arange(64)[None, :, None], (48, 64, 3)).astype(np.uint8)
    save(tmp_path / "ramp.png", ramp)
    out = CentreCrop(SIZE)(tmp_path / "ramp.png").astype(float)
    # 64 x 48, halved once to 32 x 24, scaled to 21 x 16, of which columns 2 to 17 stay.
    expected = 2 * ((np.arange(SIZE) + 2.5) * 64 / 21 - 0.5)
    assert np.abs(out - expected[None, :, None]).max() <= 1.5
    noise = np.kron(np.array([[0, 200], [200, 0]]), np.ones((1, 1))).astype(np.uint8)
    save(tmp_path / "checks.png", np.tile(noise, (SIZE, SIZE)))
    assert (CentreCrop(SIZE)(tmp_path / "checks.png") == 100).all()


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_photographs_that_are_grey_or_for_print_become_rgb(tmp_path, mode):
    image = Image.new("RGB", (30, 20), (90, 90, 90)).convert(mode)
    save(tmp_path / "a.JPEG", image)
    out = CentreCrop(SIZE)(tmp_path / "a.JPEG")
    assert out.shape == (SIZE, SIZE, 3)
    assert np.abs(out.astype(int) - 90).max() <= 2


class Seen(LightningModule):
    """Keeps the images that training and validation show."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.validated = [], 0

    def training_step(self, batch, index):
        self.seen.append(batch["labeled"][0].clone())
        return self.weight**2

    def validation_step(self, batch, index):
        self.validated += len(batch["labeled"][0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_trainer_takes_the_batches_over_epochs(made, tmp_path):
    model, data = Seen(), imagenet(made, workers=1)
    options = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    Trainer(max_steps=8, num_sanity_val_steps=0, default_root_dir=tmp_path, **options).fit(model, datamodule=data)
    loaders = [imagenet(made, trainer(step=step)).train_dataloader() for step in (0, 6)]
    same(model.seen, [batch["labeled"][0] for loader in loaders for batch in loader][:8])
    assert model.validated == 12


def test_every_argument_can_be_given_in_a_config(made):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ImageData, "data")
    arguments = {"root": str(made), "size": SIZE, "reference_images": 9, "workers": 0, "batch_size": 4, "seed": 3}
    given = {"class_path": "datamodules.imagenet.ImageNet", "init_args": arguments | {"validation_fraction": 0.1}}
    data = parser.instantiate_classes(parser.parse_object({"data": given})).data
    assert (data.shape, data.batch_size, data.validation_fraction) == ((3, SIZE, SIZE), 4, 0.1)


def test_a_stand_in_has_the_published_sizes_and_needs_no_file(tmp_path):
    with stand_ins():
        data = ImageNet(str(tmp_path), reference_images=2000)
    assert (data.name, data.classes, data.n_labeled) == ("imagenet-256", 1000, 1_281_167 - 12_812)
    assert [data.images(part)[0].shape for part in ("train", "test")] == [(2000, 3, 256, 256)] * 2


def filled(root, parts=("train", "val"), classes=CLASSES):
    for part in parts:
        for wnid in classes:
            save(root / "imagenet" / part / wnid / "a.JPEG", Image.new("RGB", (20, 20)))
            save(root / "imagenet" / part / wnid / "b.JPEG", Image.new("RGB", (20, 20)))


UNUSABLE = {
    "other classes": (lambda r: (filled(r, ("train",)), filled(r, ("val",), ("n01",))), "", "class n02 is in one of"),
    "a flat part": (
        lambda r: (filled(r, ("train",)), save(r / "imagenet/val/a.JPEG", Image.new("RGB", (20, 20)))),
        "val",
        "images lie directly in it; move each into a folder of the name of its class",
    ),
    "an empty class": (
        lambda r: (filled(r), (r / "imagenet/train/n09").mkdir()),
        "train/n09",
        "the folder of this class has no image; add some or remove it",
    ),
    "something else": (
        lambda r: (filled(r), (r / "imagenet/val/n01/list.txt").touch()),
        "val/n01/list.txt",
        "not named as an image",
    ),
}


@pytest.mark.parametrize(("make", "file", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_folder_is_refused_with_one_line(tmp_path, make, file, message):
    make(tmp_path)
    with pytest.raises(ValueError, match=message) as refusal:
        imagenet(tmp_path)
    assert str(refusal.value).startswith(f"{tmp_path / 'imagenet' / file}: ")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_part_that_is_not_there_is_told_with_where_it_was_looked_for(tmp_path, part):
    filled(tmp_path, [{"train": "val", "val": "train"}[part]])
    with pytest.raises(FileNotFoundError, match=f"no folder {part} of ImageNet in {tmp_path}.*{VARIABLE}") as refusal:
        imagenet(tmp_path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_file_stops_the_batches_in_one_line_that_names_it(tmp_path, workers):
    filled(tmp_path)
    damaged = tmp_path / "imagenet" / "val" / "n02" / "b.JPEG"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(ValueError, match=re.escape(str(damaged))) as refusal:
        list(imagenet(tmp_path, workers=workers, validation_fraction=0.5).test_dataloader())
    assert "\n" not in str(refusal.value)


def test_a_number_of_reference_images_that_is_not_balanced_is_refused(made):
    with pytest.raises(ValueError, match="reference_images must be a multiple of the 3 classes, got 10"):
        imagenet(made, reference_images=10)


@pytest.mark.parametrize("workers", [0, 2])
def test_blocks_give_every_image_in_order_where_a_subset_stands_for_the_part(made, workers):
    data, whole = imagenet(made, reference_images=3, workers=workers), imagenet(made)
    assert len(data.images("train")[1]) == 3
    for part in ("train", "test"):
        blocks = list(data.blocks(part, 7))
        assert [len(block) for block in blocks[:-1]] == [7] * (len(blocks) - 1)
        assert torch.equal(torch.cat(blocks), whole.images(part)[0])
