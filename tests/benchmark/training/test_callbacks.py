"""What every training run has beside its method: averaging, keyed randomness, guards and checkpoints."""

import io
import multiprocessing
import os
import pickle
import random
import re
import resource
import signal
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import lightning
import pytest
import torch
import torch.nn.functional as F
from faults.micro import flip_a_byte, truncate
from lightning.pytorch.callbacks import Callback, EarlyStopping, OnExceptionCheckpoint
from torch import nn

from benchmark.errors import InputError, Stopped, WriteError
from benchmark.training.callbacks import EMA, FiniteLoss, KeyedRandomness, KnownMonitors, Logs
from benchmark.training.checkpoints import (
    FINAL,
    AtomicCheckpointIO,
    ResumePoints,
    checkpoints,
    intact,
    newest_checkpoint,
)
from datamodules.digits import Digits
from methods.base import Method
from methods.baselines.gaussian import Gaussians
from methods.diffusion.process import VarianceExploding

EPOCH = 3
"""Steps an epoch of 1,293 images by 500."""


class Toy(Method):
    """A linear classifier behind a batch norm, with noise on its images and a buffer that never changes."""

    def __init__(self, at_step=lambda method, terms: terms):
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))
        self.register_buffer("constant", torch.tensor([0.1, 1e-3, 7.0]))
        self.at_step, self.drawn = at_step, []

    def losses(self, batch):
        x, y = batch["labeled"]
        noise = torch.randn_like(x)
        self.drawn.append(float(noise[0, 0, 0, 0]))
        terms = {"classify": F.cross_entropy(self.network(x + 0.1 * noise), y), "decay": self.weight.square().mean()}
        return self.at_step(self, terms) if self.training else terms

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.05)

    @property
    def weight(self):
        return self.network[2].weight


def toy(**options):
    torch.manual_seed(0)
    return Toy(**options)


def trainer(folder, steps, *callbacks, **options):
    return lightning.Trainer(
        **{"max_steps": steps, "max_epochs": -1, "accelerator": "cpu", "logger": False, "callbacks": list(callbacks),
           "default_root_dir": folder, "plugins": [AtomicCheckpointIO()], "use_distributed_sampler": False,
           "num_sanity_val_steps": 0, "inference_mode": False, "enable_progress_bar": False,
           "enable_model_summary": False, **options}
    )  # fmt: skip


def fit(folder, steps, *callbacks, method=None, resume=None, **options):
    """Train, with everything that every run has; the trained method and its trainer."""
    method = toy() if method is None else method
    runner = trainer(folder, steps, *callbacks, KeyedRandomness(3), FiniteLoss(), **options)
    runner.fit(method, datamodule=Digits(batch_size=500), ckpt_path=resume)
    return method, runner


def stop_at(step, folder=None, **options):
    """Resume points of a run that is asked to stop after ``step`` steps."""
    asked = iter(range(1, step + 1))
    return ResumePoints(folder, stop=lambda: next(asked) == step, **options)


class Seen(Callback):
    """Weights as another callback meets them."""

    def __init__(self):
        self.raw, self.validated = [], []

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.raw.append(pl_module.weight.detach().clone())

    def on_validation_epoch_end(self, trainer, pl_module):
        self.validated.append(pl_module.weight.detach().clone())


class Watched(Toy):
    """Notes its weights in every hook of validation."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def note(self, hook):
        self.seen.setdefault(hook, []).append(self.weight.detach().clone())

    def on_validation_start(self):
        self.note("start")

    def validation_step(self, batch, batch_idx):
        self.note("step")

    def on_validation_epoch_end(self):
        self.note("epoch end")


def averaged(raw, decay):
    """The average of a sequence of weights by its definition."""
    average = raw[0].double()
    for n, weight in enumerate(raw[1:], start=1):
        d = min(decay, (1 + n) / (10 + n))
        average = d * average + (1 - d) * weight.double()
    return average.float()


# EMA


@pytest.mark.parametrize("decay", [0.0, 0.2, 0.999])
def test_the_average_is_that_of_its_definition_and_becomes_the_final_weights(tmp_path, decay):
    seen = Seen()
    method, _ = fit(tmp_path, 2 * EPOCH, seen, EMA(decay))
    torch.testing.assert_close(method.weight, averaged(seen.raw, decay), rtol=1e-5, atol=1e-7)


def test_a_decay_of_zero_keeps_the_raw_weights(tmp_path):
    seen = Seen()
    method, _ = fit(tmp_path, EPOCH, seen, EMA(0.0))
    assert torch.equal(method.weight, seen.raw[-1])


def test_all_of_validation_sees_the_average_and_training_goes_on_from_the_raw_weights(tmp_path):
    torch.manual_seed(0)
    method, before, after = Watched(), Seen(), Seen()
    fit(tmp_path / "a", 2 * EPOCH, before, EMA(0.9), after, method=method)
    for epoch in range(2):
        expected = averaged(before.raw[: (epoch + 1) * EPOCH], 0.9)
        views = [method.seen[hook][epoch] for hook in ("start", "step", "epoch end")]
        for weight in (*views, before.validated[epoch], after.validated[epoch]):
            torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-7)
    torch.manual_seed(0)
    alone = Seen()
    fit(tmp_path / "b", 2 * EPOCH, alone, method=Watched())
    assert all(torch.equal(a, b) for a, b in zip(before.raw, alone.raw, strict=True))


def test_validation_before_the_first_update_sees_the_current_weights(tmp_path):
    seen, method = Seen(), toy()
    initial = method.weight.detach().clone()
    fit(tmp_path, 1, EMA(), seen, method=method, num_sanity_val_steps=1)
    assert torch.equal(seen.validated[0], initial)


def test_training_without_a_single_update_keeps_what_was_trained(tmp_path):
    method = Gaussians([1, 8, 8], 0, VarianceExploding())
    runner = trainer(tmp_path, -1, EMA(), max_epochs=1)
    runner.fit(method, datamodule=Digits(batch_size=1293))
    assert method.denoiser.means.abs().max() > 0.5  # the mean digit, where it began at zero


def test_an_exception_inside_validation_saves_average_and_raw_weights_in_their_places(tmp_path):
    class Fails(Callback):
        def on_validation_batch_end(self, *args, **kwargs):
            raise RuntimeError("in validation")

    seen = Seen()
    with pytest.raises(RuntimeError, match="in validation"):
        fit(tmp_path, 2 * EPOCH, OnExceptionCheckpoint(tmp_path, "crash"), seen, EMA(0.5), Fails())
    saved = torch.load(tmp_path / "crash.ckpt", weights_only=True)
    name = "network.2.weight"
    assert torch.equal(saved["current_model_state"][name], seen.raw[-1])
    torch.testing.assert_close(saved["state_dict"][name], averaged(seen.raw, 0.5), rtol=1e-5, atol=1e-7)


def test_statistics_of_a_batch_norm_are_averaged_as_weights_are_and_constants_stay(tmp_path):
    raw = []

    class Statistics(Callback):
        def on_train_batch_end(self, trainer, method, *args):
            raw.append(method.network[1].running_mean.detach().clone())

    ema = EMA(0.9)
    method, runner = fit(tmp_path, 4 * EPOCH, Statistics(), ema)
    expected = averaged(raw, 0.9)
    torch.testing.assert_close(method.network[1].running_mean, expected, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(expected, raw[-1])
    assert torch.equal(method.constant, torch.tensor([0.1, 1e-3, 7.0]))
    assert torch.equal(ema._average_model.module.constant, method.constant)
    assert int(method.network[1].num_batches_tracked) == runner.global_step == 4 * EPOCH


def test_the_callback_pickles():
    ema = pickle.loads(pickle.dumps(EMA(0.25)))
    average, current = [torch.zeros(1)], [torch.ones(1)]
    ema._kwargs["multi_avg_fn"](average, current, 10**6)
    assert float(average[0]) == 0.75


# Resuming


@pytest.mark.parametrize("stopped", [1, EPOCH - 1, EPOCH, EPOCH + 1, 2 * EPOCH])
def test_a_resumed_run_ends_at_the_same_raw_and_averaged_weights(tmp_path, stopped):
    """Also in the middle of an epoch and at its ends; with keyed noise, momentum and a batch norm."""
    steps = 2 * EPOCH + 1
    whole, raw = EMA(0.9), Seen()
    expected, _ = fit(tmp_path / "whole", steps, whole, raw, ResumePoints())
    with pytest.raises(Stopped):
        fit(tmp_path / "parts", steps, EMA(0.9), stop_at(stopped))
    point = newest_checkpoint(tmp_path / "parts" / "checkpoints")
    assert point.name == f"step={stopped:08d}.ckpt"
    again = Seen()
    torch.manual_seed(99)  # a process of its own has another random state
    resumed, runner = fit(tmp_path / "parts", steps, EMA(0.9), again, ResumePoints(), method=Toy(), resume=point)
    assert runner.global_step == steps
    assert all(torch.equal(a, b) for a, b in zip(raw.raw[stopped:], again.raw, strict=True))
    state = resumed.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in expected.state_dict().items())


def test_seconds_add_up_over_attempts(tmp_path):
    with pytest.raises(Stopped):
        fit(tmp_path, 4, stop_at(2))
    point = newest_checkpoint(tmp_path / "checkpoints")
    (saved,) = [s for name, s in torch.load(point)["callbacks"].items() if "ResumePoints" in name]
    clock = ResumePoints()
    fit(tmp_path, 4, clock, resume=point)
    assert clock.seconds > saved["seconds"] > 0
    assert clock.cpu_seconds > saved["cpu_seconds"] > 0
    assert clock.seconds - saved["seconds"] == pytest.approx(time.perf_counter() - clock._wall_start, abs=1)


# Keyed randomness


def test_each_step_draws_its_own_noise_a_function_of_seed_and_step(tmp_path):
    whole, _ = fit(tmp_path / "a", 5, limit_val_batches=0)
    assert len(set(whole.drawn)) == 5
    with pytest.raises(Stopped):
        fit(tmp_path / "b", 5, stop_at(2), limit_val_batches=0)
    point = newest_checkpoint(tmp_path / "b" / "checkpoints")
    resumed, _ = fit(tmp_path / "b", 5, resume=point, limit_val_batches=0)
    assert resumed.drawn == whole.drawn[2:]


def test_validation_draws_the_same_noise_each_time_and_leaves_training_as_it_was(tmp_path):
    with_validation, _ = fit(tmp_path / "a", 2 * EPOCH)
    without, _ = fit(tmp_path / "b", 2 * EPOCH, limit_val_batches=0)
    drawn = with_validation.drawn
    assert drawn[EPOCH] == drawn[2 * EPOCH + 1]
    assert drawn[:EPOCH] + drawn[EPOCH + 1 : 2 * EPOCH + 1] == without.drawn


def test_accumulated_batches_draw_different_noise(tmp_path):
    method, _ = fit(tmp_path, 2, limit_val_batches=0, accumulate_grad_batches=2)
    assert len(set(method.drawn)) == 4


def draw(seed=0, rank=0, world=1, accumulated=1, batch=4, hook="on_train_batch_start"):
    """What a device draws first in a batch of step 4."""
    at = SimpleNamespace(global_rank=rank, world_size=world, global_step=4, accumulate_grad_batches=accumulated)
    getattr(KeyedRandomness(seed), hook)(at, None, None, batch)
    return float(torch.randn(1))


def test_shards_seeds_and_purposes_draw_different_noise():
    assert draw() == draw()
    shards = [draw(rank=rank, world=2, accumulated=2, batch=batch) for batch in (4, 5) for rank in (0, 1)]
    assert len({draw(), draw(seed=1), *shards, draw(hook="on_validation_batch_start")}) == 7


def test_a_shard_draws_the_same_noise_on_any_device_and_in_any_accumulated_batch():
    alone = [draw(accumulated=4, batch=batch) for batch in range(4)]
    assert [draw(rank=rank, world=4) for rank in range(4)] == alone
    assert [draw(rank=rank, world=2, accumulated=2, batch=batch) for batch in (0, 1) for rank in (0, 1)] == alone


class Steps(Callback):
    """The noise that each accumulated batch drew, by step, and the steps after which validation ran."""

    def __init__(self):
        self.noise, self.validated = {}, []

    def on_train_batch_start(self, trainer, *args):
        self.step = trainer.global_step

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.noise.setdefault(self.step, []).append(pl_module.drawn[-1])

    def on_validation_end(self, trainer, pl_module):
        self.validated.append(trainer.global_step)


@pytest.mark.parametrize(("before", "after"), [(1, 5), (5, 2), (2, 2)])
@pytest.mark.parametrize("stopped", [2, EPOCH, EPOCH + 1])
def test_a_run_resumed_with_other_accumulation_goes_on_at_its_step(tmp_path, before, after, stopped):
    steps, whole, rest = 3 * EPOCH - 1, Steps(), Steps()
    fit(tmp_path / "whole", steps, whole, accumulate_grad_batches=after)
    with pytest.raises(Stopped):
        fit(tmp_path / "parts", steps, stop_at(stopped), accumulate_grad_batches=before)
    point = newest_checkpoint(tmp_path / "parts" / "checkpoints")
    _, runner = fit(tmp_path / "parts", steps, rest, ResumePoints(), resume=point, accumulate_grad_batches=after)
    assert runner.global_step == steps
    assert rest.noise == {step: drawn for step, drawn in whole.noise.items() if step >= stopped}
    assert whole.validated == [EPOCH, 2 * EPOCH]
    assert rest.validated == [step for step in whole.validated if step > stopped]


# The guard


def not_a_number_at(step):
    def spoil(method, terms):
        bad = method.trainer.global_step + 1 == step
        return {**terms, "decay": terms["decay"] * (float("nan") if bad else 1)}

    return spoil


def test_a_loss_that_is_not_finite_ends_the_run_naming_step_and_term(tmp_path):
    with pytest.raises(FloatingPointError, match=r"^loss is not finite at step 4: decay$"):
        fit(tmp_path, 9, ResumePoints(every_n_steps=1), method=toy(at_step=not_a_number_at(4)))


def test_no_checkpoint_holds_weights_that_are_not_finite(tmp_path):
    with pytest.raises(FloatingPointError):
        fit(tmp_path, 9, EMA(), ResumePoints(every_n_steps=1), method=toy(at_step=not_a_number_at(4)))
    points = checkpoints(tmp_path / "checkpoints")
    assert [point.name for point in points] == ["step=00000002.ckpt", "step=00000003.ckpt"]
    for point in points:
        saved = torch.load(point, weights_only=True)
        for part in ("state_dict", "current_model_state"):
            assert all(value.isfinite().all() for value in saved[part].values())


class InfiniteGradient(torch.autograd.Function):
    """One, with a gradient that is not finite."""

    @staticmethod
    def forward(ctx, x):
        return torch.ones(())

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("inf")


@pytest.mark.parametrize(("every", "steps"), [(1, 9), (100, 3)], ids=["before a resume point", "at the end"])
def test_a_gradient_that_is_not_finite_reaches_no_checkpoint_either(tmp_path, every, steps):
    def spoil(method, terms):
        last = method.trainer.global_step + 1 == 3
        return {**terms, "decay": InfiniteGradient.apply(method.weight[0, 0])} if last else terms

    with pytest.raises(FloatingPointError, match=r"^weights are not finite at step 3: network.2.weight$"):
        fit(tmp_path, steps, ResumePoints(every_n_steps=every), method=toy(at_step=spoil))
    folder = tmp_path / "checkpoints"
    assert not (folder / FINAL).exists()
    assert [point.name for point in checkpoints(folder)] == [f"step={k:08d}.ckpt" for k in (1, 2)][: 3 * (every == 1)]


# Resume points


def test_the_newest_two_points_are_kept_and_none_after_the_end(tmp_path):
    kept = []

    class Look(Callback):
        def on_train_batch_start(self, *args):
            kept.append([point.name for point in checkpoints(tmp_path / "checkpoints")])

    fit(tmp_path, 8, Look(), ResumePoints(every_n_steps=2))
    assert kept[-1] == ["step=00000004.ckpt", "step=00000006.ckpt"]
    assert ended(tmp_path / "checkpoints")


def test_the_final_weights_are_the_average_and_nothing_else(tmp_path):
    method, _ = fit(tmp_path, 4, EMA(0.5), ResumePoints())
    final = torch.load(tmp_path / "checkpoints" / FINAL, weights_only=True)
    assert all(torch.equal(value, final["state_dict"][name]) for name, value in method.state_dict().items())
    assert not {"optimizer_states", "current_model_state", "callbacks"} & final.keys()


def ended(folder):
    """Whether a training left its final weights and nothing else."""
    return [path.name for path in folder.iterdir()] == [FINAL]


def two_points(folder):
    """A run that was stopped with two points on disk."""
    with pytest.raises(Stopped, match="stopped at step 3; go on with --ckpt_path="):
        fit(folder, 9, stop_at(3, every_n_steps=1))
    older, newer = checkpoints(folder / "checkpoints")
    return older, newer


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, flip_a_byte, empty, Path.unlink])
def test_a_damaged_newest_point_falls_back_to_the_one_before(tmp_path, damage):
    older, newer = two_points(tmp_path)
    assert newest_checkpoint(tmp_path / "checkpoints") == newer
    damage(newer)
    assert newest_checkpoint(tmp_path / "checkpoints") == older
    damage(older)
    assert newest_checkpoint(tmp_path / "checkpoints") is None


def flipped(content, position, rng):
    changed = bytearray(content)
    changed[position] ^= 1 << rng.randrange(8)
    return bytes(changed)


def test_a_flipped_bit_is_found_wherever_it_changes_what_is_read(tmp_path):
    _, path = two_points(tmp_path)
    whole, state, rng = path.read_bytes(), AtomicCheckpointIO().load_checkpoint(path), random.Random(0)
    with zipfile.ZipFile(path) as archive:
        content = [archive.read(entry) for entry in archive.infolist()]
    starts = [whole.index(part) for part in content]
    within = [start + rng.randrange(len(part)) for start, part in zip(starts, content, strict=True) for _ in range(4)]
    assert len(within) >= 60
    for position in within:
        path.write_bytes(flipped(whole, position, rng))
        assert not intact(path)
        with pytest.raises(InputError, match=f"{path} is damaged: it is not what was written; use an earlier one"):
            AtomicCheckpointIO().load_checkpoint(path)
    for _ in range(60):  # the archive's own records too, of which some say nothing of what is in it
        path.write_bytes(flipped(whole, rng.randrange(len(whole)), rng))
        assert not intact(path) or equal(AtomicCheckpointIO().load_checkpoint(path), state)


def equal(one, other):
    """Whether two values that may hold tensors are the same."""
    out = [io.BytesIO(), io.BytesIO()]
    for value, file in zip((one, other), out, strict=True):
        torch.save(value, file)
    return out[0].getvalue() == out[1].getvalue()


def test_the_newest_point_is_by_step_not_by_the_clock(tmp_path):
    _, newer = two_points(tmp_path)
    os.utime(newer, (0, 0))
    assert newest_checkpoint(tmp_path / "checkpoints") == newer


def test_half_written_files_of_a_killed_attempt_are_swept_by_the_next(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / f".{FINAL}.4242-0a1b2c3d.tmp").write_bytes(b"half")
    fit(tmp_path, 1, ResumePoints())
    assert ended(folder)


# Checkpoint files


def forked(work):
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def test_a_kill_while_writing_leaves_the_checkpoint_that_was_there(tmp_path):
    path = tmp_path / "state.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)
    large = torch.zeros(100 * 2**20)  # 400 MB: it takes a while
    writer = forked(lambda: AtomicCheckpointIO().save_checkpoint({"step": 2, "weight": large}, path))
    half_written = []
    while writer.is_alive() and not half_written:
        half_written = [p for p in tmp_path.glob(".*.tmp") if p.stat().st_size > 2**20]
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    assert writer.exitcode == -signal.SIGKILL
    assert half_written[0].exists()
    assert AtomicCheckpointIO().load_checkpoint(path) == {"step": 1}


def test_a_full_disk_is_named_with_the_file_and_leaves_the_checkpoint_that_was_there(tmp_path):
    path, told = tmp_path / "state.ckpt", tmp_path / "told"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)

    def write():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
        try:
            AtomicCheckpointIO().save_checkpoint({"step": 2, "weight": torch.zeros(2**21)}, path)
        except WriteError as error:
            told.write_text(str(error))

    writer = forked(write)
    writer.join()
    assert writer.exitcode == 0
    assert re.fullmatch(
        rf"cannot write {path}: File too large \(1\.0 MiB were written, [\d.]+ MiB are free\)", told.read_text()
    )
    assert AtomicCheckpointIO().load_checkpoint(path) == {"step": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state.ckpt", "told"]


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    path, mark = tmp_path / "bomb.ckpt", tmp_path / "exploded"
    torch.save({"state_dict": {}, "extra": Bomb(mark)}, path)
    with pytest.raises(InputError, match="cannot be read as weights alone"):
        AtomicCheckpointIO().load_checkpoint(path, weights_only=False)
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 and no more"])
def test_a_file_that_is_no_checkpoint_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "state.ckpt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{path} (cannot be read|is )"):
        AtomicCheckpointIO().load_checkpoint(path)


def test_a_checkpoint_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(InputError, match=f"no checkpoint at {tmp_path / 'none.ckpt'}"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "none.ckpt")


@pytest.mark.parametrize("options", [{}, {"val_check_interval": 1}, {"check_val_every_n_epoch": 2}], ids=str)
def test_early_stopping_on_a_metric_that_is_not_logged_names_those_that_are(tmp_path, options):
    data = Digits(batch_size=500, validation_fraction=0.1)
    early = EarlyStopping("val/los")
    trainer = lightning.Trainer(
        max_epochs=2, callbacks=[KnownMonitors(), Logs(), early], default_root_dir=tmp_path, accelerator="cpu",
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=1, use_distributed_sampler=False, log_every_n_steps=1, **options,
    )  # fmt: skip
    with pytest.raises(
        InputError, match=r"^EarlyStopping: no metric 'val/los' is logged; there are .*val/loss"
    ) as told:
        trainer.fit(Toy(), datamodule=data)
    assert "\n" not in str(told.value)


def test_early_stopping_on_a_metric_of_later_epochs_is_let_be(tmp_path):
    trainer = lightning.Trainer(
        max_epochs=2, check_val_every_n_epoch=2, callbacks=[KnownMonitors(), Logs(), EarlyStopping("val/loss")],
        default_root_dir=tmp_path, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(Toy(), datamodule=Digits(batch_size=500))
    assert trainer.current_epoch == 2
