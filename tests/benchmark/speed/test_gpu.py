"""Items of a GPU rehearsed on the CPU, each in its process, and what becomes of one that fails; no time is asserted."""

import json
import multiprocessing
import os
import subprocess
import sys
from importlib import import_module

import pytest
import torch

from benchmark.errors import INCOMPLETE, OK, UNUSABLE_INPUT
from benchmark.speed import gpu
from benchmark.speed.gpu_bench import idle_share
from benchmark.speed.gpu_items import ITEMS, STEPS, Skipped, Task
from benchmark.speed.gpu_process import PRELOADED, carry_out

KEYS = {"item", "row", "value", "unit", "percent_of_peak", "must", "hoped", "met", "more"}
PEERS = {"g4": "score_sde", "g5": "diffusers", "g9": "torch_fidelity"}
"""Items that are skipped where a peer is missing."""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    path = tmp_path_factory.mktemp("gpu") / "speed.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmark.speed.gpu", "--tiny", "--minutes", "30", "--json", str(path)],
        capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == OK, done.stdout + done.stderr
    return json.loads(path.read_text()), done.stdout


@pytest.mark.slow
def test_a_rehearsal_measures_every_item(found):
    results, _ = found
    assert list(results["items"]) == sorted(ITEMS)
    for name, end in results["items"].items():
        rows = [row for row in results["rows"] if row["item"] == name]
        assert end["status"] == ("done" if rows else "skipped"), end
        assert rows or name in PEERS
        for row in rows:
            assert row.keys() == KEYS
            assert row["value"] >= 0
            assert row["must"] is row["hoped"] is row["met"] is None  # goals are of the full size
    assert results["device"] == {"name": "cpu"}
    assert {"torch", "lightning"} <= results["versions"].keys()


@pytest.mark.slow
def test_every_goal_is_of_a_row(found):
    rows = {(row["item"], row["row"]) for row in found[0]["rows"]}
    for name, item in ITEMS.items():
        if found[0]["items"][name]["status"] == "done":
            assert {(name, row) for row in item.goals} <= rows


@pytest.mark.slow
def test_rates_are_shares_of_the_products_of_this_run(found):
    rows = found[0]["rows"]
    (peak,) = [row["value"] for row in rows if (row["item"], row["row"]) == ("peak", "bf16")]
    shares = [row for row in rows if row["unit"] == "images/s" and row["item"] in ("g1", "g2", "g6", "g7")]
    assert shares
    for row in shares:
        flops = row["percent_of_peak"] / 100 * peak / row["value"]
        assert 1e5 < flops < 1e11


@pytest.mark.slow
def test_trainings_take_the_steps_that_they_were_asked_for(found):
    for name in STEPS:
        (row,) = [row for row in found[0]["rows"] if row["item"] == name]
        assert row["more"]["steps"] == row["more"]["asked"] == 2
        assert row["more"]["loss"] > 0


@pytest.mark.slow
def test_every_row_is_told(found):
    results, told = found
    assert all(f"{row['item']}/{row['row']} " in told for row in results["rows"])


def test_every_item_is_a_function_of_its_file():
    for name, item in ITEMS.items():
        assert callable(getattr(import_module(f"benchmark.speed.{item.subject}"), name))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_ends_with_one_line_and_writes_nothing(tmp_path, capsys):
    assert gpu.main(["--json", str(tmp_path / "speed.json")]) == UNUSABLE_INPUT
    assert capsys.readouterr().err == "error: torch finds no GPU here; --tiny rehearses all items on the CPU\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--minutes", "0"], "--minutes must be 0.1 to 600"),
        (["--minutes", "nan"], "--minutes must be 0.1 to 600"),
        (["--minutes", "x"], "argument --minutes"),
        (["--peer", "score_sde"], "--peer takes NAME=DIR"),
        (["--json", "/nowhere/speed.json"], "there is no folder /nowhere"),
        (["--data-root", "/nowhere"], "--data-root: no folder at /nowhere"),
    ],
)
def test_bad_usage_is_one_line(words, told, capsys):
    assert gpu.main(["--tiny", *words]) == UNUSABLE_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


def test_the_help_loads_no_heavy_package():
    code = "import sys, benchmark.speed.gpu as m; m.parser().format_help(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def task(tmp_path, name, seconds=600.0):
    return Task(name, seconds, True, tmp_path, None, {}, {})


def test_an_item_sends_its_rows_and_how_it_ended(tmp_path):
    rows = []
    assert carry_out(task(tmp_path, "peak"), rows.append).status == "done"
    assert [row["row"] for row in rows] == ["bf16", "tf32", "fp32", "copy"]


def test_an_item_whose_time_is_up_is_ended_with_a_reason(tmp_path):
    rows = []
    end = carry_out(task(tmp_path, "g1", seconds=0.0), rows.append)
    assert (end.status, end.reason, rows) == ("cut", "ended after its share of the time, 0 s", [])
    assert not multiprocessing.active_children()


def test_an_item_that_fails_says_why(tmp_path):
    folder = tmp_path / "none"  # where nothing can be written
    end = carry_out(Task("g9", 600.0, True, folder, None, {}, {}), lambda row: None)
    assert end.status in ("failed", "skipped")
    assert str(folder) in end.reason or "torch_fidelity" in end.reason


def test_a_peer_without_a_checkout_is_skipped_with_a_reason(tmp_path):
    end = carry_out(task(tmp_path, "g4"), lambda row: None)
    assert (end.status, end.reason) == ("skipped", "no checkout; give --peer score_sde=DIR")


def test_fashion_mnist_without_images_is_skipped_with_a_reason(tmp_path, monkeypatch):
    from benchmark.speed.gpu_bench import Card
    from benchmark.speed.gpu_suite import _built

    with torch._dynamo.config.patch(disable=False):  # a rehearsal sets it, for all tests of this process
        card = Card(task(tmp_path, "supervised"), lambda row: None)
    card.tiny = False
    monkeypatch.setenv("DIFFCLASS_DATA", str(tmp_path))
    with pytest.raises(Skipped, match=r"no train-images.* of fashion-mnist in .*; give --data-root"):
        _built(card, ["--config=fashion_mnist/supervised.yaml", "--trainer.accelerator=cpu"])


def _poisoned(connection):
    connection.send(torch.cuda._is_in_bad_fork())


def test_the_server_of_processes_imports_everything_and_asks_no_gpu():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    here, there = context.Pipe()
    process = context.Process(target=_poisoned, args=(there,))
    process.start()
    assert here.recv() is False  # else no process that it forks could use a GPU
    process.join()


def test_a_run_whose_time_is_up_says_so_of_each_item_and_ends_with_the_code_of_incomplete_work(tmp_path, capsys):
    path = tmp_path / "speed.json"
    assert gpu.main(["--tiny", "--minutes", "0.1", "--json", str(path)]) == INCOMPLETE
    results, told = json.loads(path.read_text()), capsys.readouterr().out
    assert results["items"].keys() == ITEMS.keys()
    cut = {name: end for name, end in results["items"].items() if end["status"] == "cut"}
    assert cut
    for name, end in cut.items():
        assert f"{name}: cut: {end['reason']}" in told


@pytest.mark.parametrize(
    ("spans", "share"),
    [
        ([(0, 10)], 0.0),
        ([(0, 4), (6, 10)], 0.2),
        ([(6, 10), (0, 4), (1, 3)], 0.2),  # in any order, one inside another
        ([(0, 5), (5, 10), (8, 9)], 0.0),
    ],
)
def test_the_idle_share_is_what_no_span_covers(spans, share):
    assert idle_share(spans) == share


def test_a_profile_without_work_has_no_idle_share():
    with pytest.raises(ValueError, match="no work of the device"):
        idle_share([])
