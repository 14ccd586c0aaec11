"""Samples in shards: the same bytes whoever draws them, after whatever happened on the way."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
import torch

from benchmark.answers.samples import Shards, sample
from benchmark.execute import many_samplers
from benchmark.execute.job import carry_out
from benchmark.suite.jobs import Job
from benchmark.suite.protocol import Protocol
from benchmark.suite.stages import Stage
from benchmark.suite.suite import Cell
from benchmark.system.arrays import load_arrays
from benchmark.training import torchrun
from benchmark.training.build import build, method_of
from benchmark.training.checkpoints import FINAL
from methods.base import KeyedNoise

PROTOCOL = Protocol(samples=2100, batch=400)  # shards of 1000, 1000 and 100; a batch of 200 ends the first two
MIDDLE = "1000-1999"
CPU = ("--trainer.logger=false", "--trainer.accelerator=cpu")
STEPS = ("--model.init_args.sampler.class_path=methods.diffusion.samplers.DDPM", "--model.init_args.sampler.steps=2")
SMALL = "--model.init_args.denoiser.init_args.network.init_args"
SCORE_MODEL = ("--config=configs/digits/score_model.yaml", f"{SMALL}.width=8", f"{SMALL}.multipliers=[1]", *STEPS)
CONDITIONAL = ("--config=configs/digits/cdm_conditional.yaml", *STEPS)


@pytest.fixture(autouse=True)
def from_the_root(monkeypatch):
    monkeypatch.chdir(torchrun.ROOT)


def weights(folder, *words, scale=0.1):
    """Command line of a method, whose folder holds weights that no layer leaves at zero."""
    arguments = (*words, *CPU, f"--trainer.default_root_dir={folder}")
    torch.manual_seed(0)
    method = build(arguments).model
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    (folder / "checkpoints").mkdir()
    torch.save({"state_dict": method.state_dict()}, folder / "checkpoints" / FINAL)
    return arguments


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder of a score model, and its command line."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(torchrun.ROOT)
        return folder, weights(folder, *SCORE_MODEL)


@pytest.fixture(scope="module")
def model(trained):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(torchrun.ROOT)
        return method_of(trained[1], trained[0])


def shards(folder, protocol=PROTOCOL, key="key", scale=None):
    return Shards(protocol, scale, folder, key)


@pytest.fixture
def run(trained, tmp_path):
    """Carries out the job of these samples; its messages of them, and the bytes of the file."""

    def finish(report=lambda *progress: None):
        told = []
        stage = Stage("sample", "key")
        job = Job(
            Cell("cell", config="digits/score_model.yaml"), 0, "evaluate", tmp_path, (stage,), trained[0],
            arguments=trained[1],
        )  # fmt: skip
        carry_out(job, PROTOCOL, lambda *progress: (told.append(progress), report(*progress)), stop=lambda: False)
        assert job.finished
        assert not (tmp_path / "samples.parts").exists()
        assert {(stage, total) for stage, _, total in told[1:]} == {("sample", 2100)}
        return [done for _, done, _ in told[1:]], (tmp_path / "samples.npz").read_bytes()

    return finish


@pytest.fixture(scope="module")
def drawn(model, tmp_path_factory):
    """A folder in which every shard is finished, but not yet joined."""
    folder = tmp_path_factory.mktemp("drawn")
    shards(folder).draw(*model, shards(folder).ranges, lambda images: None)
    return folder


@pytest.fixture(scope="module")
def unbroken(model, tmp_path_factory):
    """Bytes of the file that one process draws in one go."""
    folder = tmp_path_factory.mktemp("unbroken")
    sample(*model, shards(folder), lambda *progress: None)
    return (folder / "samples.npz").read_bytes()


def forked(work):
    """Exit code of ``work`` in a process of its own."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    return process.exitcode


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def test_all_in_one_go_reports_each_batch_and_leaves_only_the_file(model, run, unbroken, tmp_path):
    done, found = run()
    assert done == [0, 400, 800, 1000, 1400, 1800, 2000, 2100]
    assert found == unbroken
    assert sorted(path.name for path in tmp_path.iterdir()) == ["samples.npz", "stages"]
    arrays = load_arrays(tmp_path / "samples.npz")
    assert (arrays["images"].shape, arrays["images"].dtype) == ((2100, 8, 8, 1), np.uint8)
    assert set(arrays["labels"]) == {-1}
    assert len(np.unique(arrays["images"], axis=0)) > 2000  # else equal bytes would say little
    assert len(np.unique(arrays["images"])) == 17
    method, data = model
    alone = data.grey.quantise(method.sample(KeyedNoise(PROTOCOL.seed, "sample", [2050], data.shape)))[0, 0].numpy()
    assert np.abs(alone.astype(int) - arrays["images"][2050, :, :, 0]).max() <= 1


def test_two_processes_draw_the_bytes_of_one(model, run, unbroken, tmp_path):
    for rank in range(2):
        share = shards(tmp_path).ranges[rank::2]
        assert forked(lambda share=share: shards(tmp_path).draw(*model, share, lambda images: None)) == 0
    done, found = run()
    assert done == [2100]
    assert found == unbroken


def test_a_process_killed_between_two_shards_loses_nothing(model, run, unbroken, tmp_path):
    def work():
        shards(tmp_path).draw(*model, shards(tmp_path).ranges[:1], lambda images: None)
        kill()

    assert forked(work) == -signal.SIGKILL
    done, found = run()
    assert done == [1000, 1400, 1800, 2000, 2100]
    assert found == unbroken


def test_a_process_killed_in_the_middle_of_a_shard_loses_that_one(run, unbroken):
    assert forked(lambda: run(lambda stage, done, total: kill() if done == 1400 else None)) == -signal.SIGKILL
    done, found = run()
    assert done == [1000, 1400, 1800, 2000, 2100]
    assert found == unbroken


@pytest.mark.slow
def test_a_process_killed_while_it_writes_a_shard_loses_that_one(run, unbroken, tmp_path, monkeypatch):
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: kill() if new.name == f"{MIDDLE}.npz" else replace(old, new))
    assert forked(run) == -signal.SIGKILL
    monkeypatch.undo()
    monkeypatch.chdir(torchrun.ROOT)
    (half,) = (tmp_path / "samples.parts").glob(f".{MIDDLE}.npz.*.tmp")
    assert half.stat().st_size > 64_000
    done, found = run()
    assert done[0] == 1000
    assert found == unbroken


def test_a_process_killed_before_the_stage_is_recorded_draws_nothing_again(run, drawn, unbroken, tmp_path, monkeypatch):
    shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: kill() if new.name == "sample.json" else replace(old, new))
    assert forked(run) == -signal.SIGKILL
    monkeypatch.undo()
    monkeypatch.chdir(torchrun.ROOT)
    assert (tmp_path / "samples.npz").read_bytes() == unbroken
    assert run() == ([2100], unbroken)


def cut(shard):
    shard.write_bytes(shard.read_bytes()[:-1000])


def flip(shard):
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)


@pytest.mark.parametrize("spoil", [cut, flip, os.unlink])
def test_a_spoiled_shard_alone_is_drawn_again(spoil, run, drawn, unbroken, tmp_path):
    shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)
    spoil(tmp_path / "samples.parts" / f"{MIDDLE}.npz")
    assert shards(tmp_path).missing() == [range(1000, 2000)]
    assert run() == ([1100, 1500, 1900, 2100], unbroken)


def test_shards_of_another_key_are_not_used(model, run, unbroken, tmp_path):
    other = shards(tmp_path, Protocol(samples=2100, batch=400, seed=1), key="another")
    other.draw(*model, other.ranges, lambda images: None)
    assert other.missing() == []
    done, found = run()
    assert done[0] == 0
    assert found == unbroken


def test_a_shard_that_goes_after_it_was_drawn_is_missed_in_joining(drawn, tmp_path):
    shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)
    flip(tmp_path / "samples.parts" / f"{MIDDLE}.npz")
    with pytest.raises(RuntimeError, match=f"samples.parts/{MIDDLE}.npz is missing or was changed"):
        shards(tmp_path).join(torch.zeros(2100))
    assert not (tmp_path / "samples.npz").exists()


def test_the_stage_took_what_its_shards_took_in_whatever_run(run, drawn, tmp_path):
    shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)
    records = [json.loads(path.read_text()) for path in (tmp_path / "samples.parts" / "stages").iterdir()]
    assert len(records) == 3
    run()
    manifest = json.loads((tmp_path / "stages" / "sample.json").read_text())
    for kind in ("seconds", "cpu_seconds"):
        assert manifest[kind] == pytest.approx(sum(record[kind] for record in records), rel=1e-12)
    assert manifest["peak_memory_bytes"] >= max(record["peak_memory_bytes"] for record in records)


def few(model, folder, batch, scale=None, samples=100):
    sample(*model, shards(folder, Protocol(samples=samples, batch=batch), scale=scale), lambda *progress: None)
    return load_arrays(folder / f"samples{'' if scale is None else f'@{scale:g}'}.npz")


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_another_batch_moves_few_pixels_and_those_to_the_next_level(model, tmp_path, unbroken, batch):
    one, other = (few(model, tmp_path, size)["images"].astype(int) for size in (400, batch))
    difference = np.abs(one - other)
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 1e-3


def test_samples_that_are_not_finite_are_named_and_not_kept(trained, tmp_path):
    broken, data = method_of(trained[1], trained[0])
    shards(tmp_path).draw(broken, data, shards(tmp_path).ranges[:1], lambda images: None)
    next(broken.parameters()).fill_(torch.nan)
    with pytest.raises(FloatingPointError, match=r"^samples 1000 to 1399 are not finite$"):
        sample(broken, data, shards(tmp_path), lambda *progress: None)
    assert shards(tmp_path).missing() == [range(1000, 2000), range(2000, 2100)]
    assert not (tmp_path / "samples.npz").exists()


def test_a_method_that_does_not_generate_says_so(tmp_path):
    built = build(["--config=configs/digits/supervised.yaml", *CPU])
    found = sample(built.model, built.datamodule, shards(tmp_path), lambda *progress: None)
    assert found == {"outputs": [], "reason": "does not generate"}
    assert list(tmp_path.iterdir()) == []


# Processes that a cell of several devices starts


def on_two(folder, arguments, trained, protocol=PROTOCOL, scale=None, report=lambda *progress: None):
    """Samples of two processes of their own; they build a cell of two devices on one each."""
    work = shards(folder, protocol, scale=scale)
    arguments = (*arguments, "--trainer.devices=2")
    draw = partial(many_samplers.draw, work, arguments, trained, [None, None], torch.get_num_threads())
    method, data = method_of(arguments, trained)
    sample(method, data, work, report, draw)


@pytest.mark.slow
def test_guided_samples_of_two_started_processes_are_those_of_one(tmp_path):
    arguments, told = weights(tmp_path, *CONDITIONAL, scale=0.02), []
    protocol = Protocol(samples=1100, batch=400)
    one, two = tmp_path / "one", tmp_path / "two"
    sample(*method_of(arguments, tmp_path), shards(one, protocol, scale=3.0), lambda *progress: None)
    on_two(two, arguments, tmp_path, protocol, scale=3.0, report=lambda *progress: told.append(progress))
    assert (one / "samples@3.npz").read_bytes() == (two / "samples@3.npz").read_bytes()
    assert [told[0], told[-1]] == [("sample@3", 0, 1100), ("sample@3", 1100, 1100)]
    assert len(told) == 5
    arrays = load_arrays(two / "samples@3.npz")
    assert np.array_equal(arrays["labels"], np.arange(1100) % 10)
    assert len(np.unique(arrays["images"], axis=0)) > 1000


@pytest.mark.slow
def test_what_a_started_process_raises_is_raised(trained, tmp_path):
    state = torch.load(trained[0] / "checkpoints" / FINAL, weights_only=True)["state_dict"]
    (tmp_path / "checkpoints").mkdir()
    huge = {name: torch.full_like(value, 1e30) for name, value in state.items()}
    torch.save({"state_dict": huge}, tmp_path / "checkpoints" / FINAL)
    with pytest.raises(FloatingPointError, match=r"samples (0 to 399|1000 to 1399) are not finite"):
        on_two(tmp_path, trained[1], tmp_path)
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_a_started_process_that_is_killed_fails_the_stage_and_its_shards_stay(trained, unbroken, tmp_path, run):
    def end_one(stage, done, total):
        if done:
            multiprocessing.active_children()[0].kill()

    with pytest.raises(RuntimeError, match="a process that drew samples ended with exit code -9; the log says more"):
        on_two(tmp_path, trained[1], trained[0], report=end_one)
    assert multiprocessing.active_children() == []
    assert run()[1] == unbroken


@pytest.mark.slow
def test_started_processes_do_not_outlive_the_one_that_started_them(trained, tmp_path):
    code = (
        "from pathlib import Path; from benchmark.execute import many_samplers;"
        "from benchmark.answers.samples import Shards; from benchmark.suite.protocol import Protocol;"
        f"shards = Shards(Protocol(samples=10**6), None, Path({str(tmp_path)!r}), 'key');"
        f"many_samplers.draw(shards, {trained[1]!r}, Path({str(trained[0])!r}), [None, None], 1, shards.ranges, print)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    parts = tmp_path / "samples.parts"
    while not list(parts.glob("*.npz")):
        assert parent.poll() is None
        time.sleep(0.1)
    parent.kill()
    parent.wait()
    time.sleep(2)
    left = sorted(parts.glob("*.npz"))
    time.sleep(3)
    assert sorted(parts.glob("*.npz")) == left
