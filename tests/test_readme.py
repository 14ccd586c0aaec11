"""The README says what is so: its commands exist and its tables are the committed ones."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from documents import blocks, commands
from oracles import ExactDenoiser, GaussianMixture

from benchmark import cli, readme
from methods.base import KeyedNoise
from methods.diffusion.process import VarianceExploding
from methods.diffusion.samplers import Heun
from methods.networks.wrn import WideResNet
from methods.noisy_classifier import NoisyClassifierGuidance

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def run(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_readme_is_short_and_shows_the_commands_it_promises():
    assert len(README.splitlines()) < 150
    assert {("make", "digits"), ("make", "test")} <= {tuple(words) for words in commands(ROOT / "README.md")}


def test_the_committed_results_compare_equal_with_themselves():
    assert run("benchmark.compare", "results/digits.json", "results/digits.json").returncode == 0


@pytest.mark.slow
def test_a_dry_run_shows_cells_and_what_they_cost(tmp_path):
    done = run("benchmark.run", "--suite", "digits", "--dry-run", "--out", str(tmp_path / "none"))
    assert done.returncode == 0, done.stderr
    line = re.search(r"^denoising_assisted .*", done.stdout, re.MULTILINE)[0]
    assert line.split()[1:7] == ["1", "0/12", "944", "G", "1.38", "T"]
    assert "not counted" not in done.stdout
    assert re.search(r"predicted: \d+:\d\d", done.stdout)
    assert not (tmp_path / "none").exists()


def test_the_example_of_a_method_is_the_method_that_ships():
    written: dict[str, Any] = {}
    exec(blocks(ROOT / "docs/own-method.md", "python")[0][1], written)
    mixture, process = GaussianMixture.example((1, 8, 8)), VarianceExploding()
    parts = ExactDenoiser(mixture, process), WideResNet(1, 3, depth=10, width=1), Heun(2)
    x, y = mixture.sample(8)
    losses, samples = [], []
    for ours in (written["NoisyClassifierGuidance"](*parts), NoisyClassifierGuidance(*parts)):
        torch.manual_seed(0)
        losses.append(ours.eval().losses({"labeled": (x, y)}))
        samples.append(ours.sample(KeyedNoise(0, "sample", range(8), x.shape[1:]), y))
    assert losses[0] == losses[1]
    assert torch.equal(*samples)


def test_the_example_of_loading_prints_an_accuracy_near_that_of_the_test(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cli.main(["fit", f"--config={ROOT / 'configs/digits/class_gaussians.yaml'}", "--trainer.enable_progress_bar=false"])
    cli.main(["test", "--config=runs/lightning/config.yaml"])
    accuracy = re.search(r"test/accuracy\D+([\d.]+)", capsys.readouterr().out)[1]
    exec(blocks(ROOT / "README.md", "python")[0][1], {})
    printed = re.fullmatch(r"tensor\(([\d.]+)\)\n", capsys.readouterr().out)[1]
    assert float(printed) == pytest.approx(float(accuracy), abs=0.02)  # of bin centres, of dequantised images


def test_a_page_shows_the_committed_ratios_or_how_to_measure_some(tmp_path, monkeypatch):
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    assert "None are committed yet" in readme.speed("speed-cpu")
    (tmp_path / "results").mkdir()
    row = {"target": "fir/up", "peer": "p", "ratio": 2.5, "least": 2.0, "goal": None, "ours": 0.1, "theirs": 0.25}
    found = {"rows": [{**row, "unit": "s"}], "machine": {"cpu": "C", "cores": 2}, "threads": 1, "versions": {"t": "1"}}
    (tmp_path / "results" / "speed-cpu.json").write_text(json.dumps(found))
    shown = readme.speed("speed-cpu")
    assert "| `fir/up` | p | 2.50 | 2.00 |  | 0.1 | 0.25 | s |\n" in shown
    assert shown.endswith("C, 2 cores, 1 thread; t 1.\n")
