"""What is compared of the settings that a training left beside its weights."""

import pytest
import yaml

from benchmark.errors import InputError
from benchmark.training.saved_config import DATA, HEADER, check_same_training

SETTINGS = {
    "seed_everything": 0,
    "model": {"class_path": "a.B", "init_args": {"width": 8, "sampler": {"class_path": "a.S"}}},
    "data": {"class_path": "d.D", "init_args": {"root": "here", "workers": 2, "batch_size": 8}},
    "trainer": {"max_steps": 3, "devices": 1, "fast_dev_run": False, "callbacks": None, "logger": True},
    "lr_scheduler": {"class_path": "s.S", "init_args": {"steps": 3}},
    "checkpoint_every": 10,
}


def text(data="0", **changes):
    """A training's settings as it writes them, some of them changed by dotted key."""
    settings = yaml.safe_load(yaml.safe_dump(SETTINGS))
    for key, value in changes.items():
        *path, last = key.split("__")
        place = settings
        for part in path:
            place = place[part]
        place[last] = value
    told = f"{DATA}{data * 64}\n" if data else ""
    return told + yaml.safe_dump(settings)


@pytest.fixture
def folder(tmp_path):
    """A folder in which a training has left its weights."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "final.ckpt").write_bytes(b"weights")
    (tmp_path / "config.yaml").write_text(HEADER + text())
    return tmp_path


WATCHES = {"class_path": "benchmark.training.torchrun.Messages", "init_args": {"path": "x", "parent": 1}}
STOPS = {"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {"monitor": "val/loss"}}


@pytest.mark.parametrize("goes_on", [False, True])
@pytest.mark.parametrize(
    "changes",
    [{}, {"data__init_args__root": "there"}, {"data__init_args__workers": 0}, {"trainer__logger": False},
     {"checkpoint_every": 7}, {"trainer__callbacks": [WATCHES]}, {"model__init_args__sampler": {"class_path": "a.T"}}],
    ids=str,
)  # fmt: skip
def test_what_changes_no_weights_is_not_compared(folder, changes, goes_on):
    check_same_training(folder, text(**changes), goes_on)


@pytest.mark.parametrize("goes_on", [False, True])
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"trainer__fast_dev_run": True}, "trainer.fast_dev_run is False, not True, in its config.yaml"),
        ({"trainer__sync_batchnorm": True}, "trainer.sync_batchnorm is None, not True, in"),
        ({"trainer__callbacks": [STOPS]}, "trainer.callbacks is None, not "),
        ({"data__init_args__batch_size": 9}, "data.init_args.batch_size is 8, not 9, in"),
        ({"seed_everything": 1}, "seed_everything is 0, not 1, in"),
        ({"data": "1"}, "content is 'data of sha256 0000"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value),
)
def test_all_else_is_compared(folder, changes, told, goes_on):
    with pytest.raises(InputError, match="holds another training") as refused:
        check_same_training(folder, text(**changes), goes_on)
    assert told in str(refused.value)
    assert len(str(refused.value)) < 400 + len(str(folder))


@pytest.mark.parametrize(
    "changes",
    [{"trainer__max_steps": 9}, {"lr_scheduler__init_args__steps": 9}, {"trainer__devices": 2},
     {"trainer__strategy": "ddp"}, {"trainer__accelerator": "gpu"}, {"trainer__accumulate_grad_batches": 2}],
    ids=str,
)  # fmt: skip
def test_a_training_that_goes_on_may_be_longer_and_on_another_machine_but_does_not_begin_so(folder, changes):
    check_same_training(folder, text(**changes), goes_on=True)
    with pytest.raises(InputError, match="holds another training"):
        check_same_training(folder, text(**changes), goes_on=False)


def test_settings_that_do_not_say_what_a_training_saw_are_compared_without(folder):
    (folder / "config.yaml").write_text(HEADER + text(data=""))
    check_same_training(folder, text(data="1"), goes_on=False)
    with pytest.raises(InputError, match="holds another training"):
        check_same_training(folder, text(data="1", model__init_args__width=9), goes_on=False)
