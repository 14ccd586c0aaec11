"""Trained methods given away: they answer the same wherever they are unpacked, and name no folder of a machine."""

import shutil

import pytest
import torch
import yaml

from benchmark.load import load
from benchmark.results.results_file import read_results
from benchmark.suite.jobs import write_plan
from benchmark.suite.suite import load_suite
from benchmark.system.images import draw_images
from benchmark.training.released import pack, unpack
from benchmark.weights import RELEASED, main
from runs import ROOT, command, job

CONFIGS = ROOT / "configs" / "digits"
QUIET = ("--trainer.max_steps=1", "--trainer.logger=false", "--trainer.enable_progress_bar=false")


def fit(name, folder, *words):
    assert command("fit", f"--config={CONFIGS / name}", f"--trainer.default_root_dir={folder}", *QUIET, *words) == 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of a score model and a classifier that guides it."""
    run = tmp_path_factory.mktemp("runs") / "mini"
    score, guided = run / "score_model" / "seed0", run / "guided" / "seed0"
    fit("score_model.yaml", score)
    checkpoint = score / "checkpoints" / "final.ckpt"
    fit("noisy_classifier.yaml", guided, f"--model.init_args.denoiser.init_args.checkpoint={checkpoint}")
    write_plan(run, "mini", "key", {}, [job("score_model", folder=score), job("guided", folder=guided)])
    return run


@pytest.fixture
def released(trained, tmp_path):
    pack(trained, tmp_path / "released")
    return tmp_path / "released"


def answers(folder):
    """Samples of a method and, of one with a classifier, its logits."""
    method, data = load(folder)
    u, y = data.images("test")
    asked = y[:4] if method.conditional else None
    drawn = draw_images(method, data, range(4), asked, seed=0, batch=4, drawn=lambda count: None)
    return torch.from_numpy(drawn), method.classify(data.grey.centre(u[:4])) if method.conditional else y[:4]


def test_unpacked_methods_answer_as_the_trained_ones_do(trained, released, tmp_path):
    moved = shutil.move(trained, tmp_path / "away")
    try:
        found = {cell: folder for cell, folder, _ in unpack(released, tmp_path / "other: #1")}
        assert set(found) == {"score_model", "guided"}
        after = {cell: answers(folder) for cell, folder in found.items()}
    finally:
        shutil.move(moved, trained)
    for cell, numbers in after.items():
        for ours, theirs in zip(numbers, answers(trained / cell / "seed0"), strict=True):
            assert torch.equal(ours, theirs)


def test_lightning_takes_an_unpacked_folder(released, tmp_path):
    (folder,) = (folder for cell, folder, _ in unpack(released, tmp_path / "ours") if cell == "guided")
    assert command("test", f"--config={folder / 'config.yaml'}") == 0


def test_released_files_name_no_folder_of_a_machine_and_hold_nothing_else(trained, released):
    assert {path.suffix for path in released.iterdir()} == {".yaml", ".safetensors"}
    for path in released.glob("*.yaml"):
        assert str(trained.parent) not in path.read_text()
        assert yaml.safe_load(path.read_text())["trainer"]["default_root_dir"] == f"{{released}}/{path.stem}"


def test_released_files_can_be_read_by_all(released):
    assert {path.stat().st_mode & 0o444 for path in released.iterdir()} == {0o444}


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """Folders of the released methods of the digits table."""
    return {cell: folder for cell, folder, _ in unpack(RELEASED / "digits", tmp_path_factory.mktemp("ours"))}


@pytest.mark.parametrize("cell", ["supervised", "denoising_assisted", "self_calibrating", "few_ssl_da", "joint"])
def test_a_released_method_has_the_accuracy_of_the_committed_table(committed, cell):
    """Up to two of 360 images, by the rounding of other processors."""
    method, data = load(committed[cell])
    u, y = data.images("test")
    with torch.no_grad():
        found = (method.classify(data.grey.centre(u)).argmax(1) == y).double().mean()
    records = read_results(ROOT / "results" / "digits.json").records
    (expected,) = (r.value for r in records if (r.cell, r.seed, r.metric) == (cell, 0, "accuracy/clean"))
    assert float(found) == pytest.approx(expected, abs=2 / 360)


def test_every_trained_method_of_the_committed_table_is_released(committed):
    trained = {name for name, cell in load_suite("digits").cells.items() if cell.config is not None}
    assert committed.keys() == trained
    assert sum(path.stat().st_size for path in (RELEASED / "digits").iterdir()) < 10e6


def test_settings_with_another_folder_are_refused(trained, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(trained, run)  # whose settings still name the first
    assert main(["--release", str(run), "--out", str(tmp_path / "released")]) == 2
    assert "which only this machine has" in capsys.readouterr().err
    assert not (tmp_path / "released").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "give names to download, --ours SUITE or --release RUN"),
        (["--ours", "digits", "--release", "x"], "give names to download, --ours SUITE or --release RUN"),
        (["--ours", "../digits"], "no trained methods of '../digits' are released; there are:"),
        (["inception", "--out", "x"], "--out goes with --ours or --release"),
        (["--release", "nowhere"], "no run in "),
    ],
)
def test_what_cannot_be_done_is_one_line(words, told, capsys):
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {told}")
    assert captured.err.count("\n") == 1


def test_a_damaged_file_is_named_and_a_pickle_is_no_weights(released, tmp_path):
    (released / "guided.safetensors").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(Exception, match=r"guided\.safetensors cannot be read as weights alone"):
        list(unpack(released, tmp_path / "ours"))
