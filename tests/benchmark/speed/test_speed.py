"""Races run at the smallest size, their sides are equal, and bad usage is one line; no time is asserted."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from benchmark.errors import INCOMPLETE, OK, UNUSABLE_INPUT
from benchmark.speed.__main__ import main
from benchmark.speed.peers import Peers
from benchmark.speed.race import Bench, Side
from benchmark.speed.targets import TARGETS

PACKAGED = ["second_order", "overhead", "sampler", "assisted", "frechet", "precision_recall", "batches"]
KEYS = {"target", "peer", "ratio", "least", "goal", "ours", "theirs", "unit", "rounds", "error"}


def raced(path, *words):
    assert main(["--tiny", "--rounds", "1", "--json", str(path), *words]) == OK
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return raced(tmp_path_factory.mktemp("speed") / "speed.json", "--only", *PACKAGED)


def test_every_target_is_a_function_of_its_file():
    from importlib import import_module

    for name, target in TARGETS.items():
        assert callable(getattr(import_module(f"benchmark.speed.{target.subject}"), name))


@pytest.mark.parametrize("target", PACKAGED)
def test_a_target_gives_rows_of_equal_sides(found, target):
    rows = [row for row in found["rows"] if row["target"].startswith(f"{target}/")]
    assert rows
    for row in rows:
        assert row.keys() >= KEYS
        assert row["ratio"] == pytest.approx(row["theirs"] / row["ours"])
        assert row["goal"] is None  # goals are of the full size


@pytest.mark.slow
def test_networks_of_installed_peers_are_equal(tmp_path):
    found = raced(tmp_path / "speed.json", "--only", "unet", "inception")
    assert {row["target"] for row in found["rows"]} >= {"unet/step", "unet/forward/bf16", "inception/features"}


def test_the_file_says_what_was_measured_where(found):
    assert found["threads"] == found["rounds"] == 1
    assert found["machine"]["cores"] >= 1
    assert {"torch", "numpy", "diffusers", "torch-fidelity"} <= found["versions"].keys()
    order = [(row["target"], row["peer"]) for row in found["rows"]]
    assert order == sorted(order)


def test_a_step_of_the_sampler_takes_few_operators(found):
    (row,) = [row for row in found["rows"] if row["target"] == "sampler/ddpm/operators"]
    assert row["ours"] <= 8
    assert row["theirs"] >= 40


def test_second_derivatives_cost_at_most_six_passes_and_a_third(found):
    (row,) = [row for row in found["rows"] if row["target"] == "second_order/flops"]
    assert row["ours"] / row["theirs"] <= 6.3


def test_peers_without_a_checkout_are_skipped_with_a_message(tmp_path, capsys):
    found = raced(tmp_path / "speed.json", "--only", "fir", "cdm")
    assert found["rows"] == []
    assert found["skipped"].keys() == {"score_sde", "cdm"}
    assert capsys.readouterr().err.splitlines() == [
        "skipped score_sde: no checkout; give --peer score_sde=DIR",
        "skipped cdm: no checkout; give --peer cdm=DIR",
    ]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--only", "nothing"], "--only: no target 'nothing'"),
        (["--threads", "0"], "--threads must be 1 to"),
        (["--rounds", "0"], "--rounds must be 1 to"),
        (["--rounds", "x"], "argument --rounds"),
        (["--peer", "score_sde"], "--peer takes NAME=DIR"),
        (["--peer", "other=."], "--peer takes NAME=DIR"),
        (["--peer", "cdm=/nowhere"], "is no checkout of cdm"),
        (["--json", "/nowhere/speed.json"], "there is no folder /nowhere"),
        (["--jsn", "x"], "did you mean --json?"),
    ],
)
def test_bad_usage_is_one_line(words, told, capsys):
    assert main(words) == UNUSABLE_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


def test_the_help_loads_no_heavy_package():
    code = "import sys, benchmark.speed.__main__ as m; m.parser().format_help(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_checkout_is_imported_from_its_folder_and_leaves_no_names_behind(tmp_path):
    folders = {}
    for name, answer in (("score_sde", 1), ("cdm", 2)):
        package = tmp_path / name / "models"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "net.py").write_text(
            "from torch.utils.cpp_extension import load\nfrom utils import ANSWER\nop = load('fused', sources=[])\n"
        )
        (tmp_path / name / "utils.py").write_text(f"ANSWER = {answer}\n")
        folders[name] = tmp_path / name
    before, path = set(sys.modules), list(sys.path)
    peers = Peers(folders)
    assert [peers.checkout(name, "models.net")[0].ANSWER for name in folders] == [1, 2]
    assert peers.checkout("cdm", "models.net")[0].op is None
    assert {"models", "models.net", "utils"}.isdisjoint(set(sys.modules) - before)
    assert sys.path == path


def test_a_checkout_that_cannot_be_imported_is_skipped(tmp_path, capsys):
    peers = Peers({"cdm": tmp_path})
    assert peers.checkout("cdm", "models.diffusion") is None
    assert "skipped cdm: No module named" in capsys.readouterr().err


def test_sides_that_differ_are_told_and_not_timed(capsys):
    bench = Bench(Peers({}), rounds=3, tiny=True, on_row=lambda row: None)
    theirs = {"peer": Side(lambda: torch.ones(3))}
    bench.race("fir", {"up": Side(lambda: torch.zeros(3), tolerance=0.5)}, theirs)
    assert bench.rows == []
    assert bench.unequal == ["fir/up"]
    assert capsys.readouterr().err == "error: fir/up: our numbers and peer's differ by 1, allowed 0.5\n"
    bench.race("fir", {"down": Side(lambda: np.full(3, 1.1), tolerance=0.11)}, theirs)
    assert [(row.target, row.rounds) for row in bench.rows] == [("fir/down", 3)]


def test_what_a_side_leaves_behind_is_seen_before_another_overwrites_it():
    bench, state = Bench(Peers({}), rounds=1, tiny=True, on_row=lambda row: None), {}
    sides = [Side(lambda value=value: state.update(left=value), lambda _: [state["left"]]) for value in (1.0, 2.0, 1.0)]
    bench.race("fir", {"down": sides[0], "up": sides[1]}, {"peer": sides[2]})
    assert [row.target for row in bench.rows] == ["fir/down"]
    assert bench.unequal == ["fir/up"]


def test_numbers_that_are_no_numbers_are_unequal():
    bench = Bench(Peers({}), rounds=1, tiny=True, on_row=lambda row: None)
    bench.race("fir", {"up": Side(lambda: [float("nan")], tolerance=1.0)}, {"peer": Side(lambda: [1.0])})
    assert bench.unequal == ["fir/up"]


def test_unequal_sides_end_with_the_code_of_incomplete_work(monkeypatch):
    from benchmark.speed import networks

    unequal = {"up": Side(lambda: [0.0])}, {"peer": Side(lambda: [1.0])}
    monkeypatch.setattr(networks, "fir", lambda bench: bench.race("fir", *unequal))
    assert main(["--tiny", "--only", "fir"]) == INCOMPLETE
