"""Trained methods given away: they answer the same wherever they are unpacked, and name no folder of a machine."""

import shutil

import pytest
import torch
import yaml

from benchmark.errors import InputError
from benchmark.load import load
from benchmark.results.results_file import read_results
from benchmark.suite.stages import Stage
from benchmark.suite.suite import load_suite
from benchmark.system.images import draw_images
from benchmark.training.released import pack, unpack
from benchmark.weights import RELEASED, main
from runs import ROOT, command

CONFIGS = ROOT / "configs" / "digits"
QUIET = ("--trainer.max_steps=1", "--trainer.logger=false", "--trainer.enable_progress_bar=false")


def fit(name, folder, *words):
    """Train for a step, and record it as a suite does."""
    assert command("fit", f"--config={CONFIGS / name}", f"--trainer.default_root_dir={folder}", *QUIET, *words) == 0
    record(folder)


def record(folder):
    Stage("train", "key").complete(folder, lambda: {"outputs": ["checkpoints/final.ckpt", "config.yaml"]})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of a score model and a classifier that guides it."""
    run = tmp_path_factory.mktemp("runs") / "mini"
    score, guided = run / "score_model" / "seed0", run / "guided" / "seed0"
    fit("score_model.yaml", score)
    checkpoint = score / "checkpoints" / "final.ckpt"
    fit("noisy_classifier.yaml", guided, f"--model.init_args.denoiser.init_args.checkpoint={checkpoint}")
    return run


@pytest.fixture
def copied(trained, tmp_path):
    """A copy of the run, whose settings name the first."""
    return shutil.copytree(trained, tmp_path / "copied" / "mini")


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


def change(folder, **settings):
    """Change the model's settings in a training's folder, and record the training anew."""
    config = folder / "config.yaml"
    found = yaml.safe_load(config.read_text())
    found["model"]["init_args"] |= settings
    config.write_text(yaml.safe_dump(found))
    record(folder)


def test_a_run_that_was_moved_or_is_named_by_a_link_is_released_alike(copied, released, tmp_path):
    (tmp_path / "link").symlink_to(copied)
    for number, run in enumerate((copied, tmp_path / "link", copied / ".." / "mini")):
        pack(run, tmp_path / f"{number}")
        for path in released.glob("*.safetensors"):
            assert (tmp_path / f"{number}" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("path", ["/home/me/denoiser.ckpt", "~/denoiser.ckpt", "../denoiser.ckpt"])
def test_a_method_whose_settings_name_another_folder_is_left_out(copied, tmp_path, capsys, path):
    change(copied / "guided" / "seed0", other=path)
    assert main(["--release", str(copied), "--out", str(tmp_path / "released")]) == 0
    assert f"note: guided is left out: its settings name '{path}', which is not released" in capsys.readouterr().err
    assert {file.stem for file in (tmp_path / "released").iterdir()} == {"score_model"}


def test_the_folder_of_data_and_comments_of_a_user_are_not_released(copied, tmp_path):
    config = copied / "score_model" / "seed0" / "config.yaml"
    config.write_text("# trained in /home/me\n" + config.read_text().replace("data:\n", "data:\n  root: /home/me\n"))
    record(config.parent)
    pack(copied, tmp_path / "released")
    assert "/home/me" not in (tmp_path / "released" / "score_model.yaml").read_text()


def test_unfinished_and_other_seeds_are_left_out(copied, tmp_path, capsys):
    guided = copied / "guided"
    shutil.copytree(guided / "seed0", guided / "seed1")
    shutil.copytree(guided / "seed0", guided / "seed2")
    (guided / "seed0" / "config.yaml").write_text("{}")  # begun anew with other settings
    pack(copied, tmp_path / "released")
    assert "note: guided is left out: it has no finished training of seed 0" in capsys.readouterr().err
    assert {file.stem for file in (tmp_path / "released").iterdir()} == {"score_model"}


def test_a_folder_with_files_is_not_released_to(copied, released):
    with pytest.raises(InputError, match="exists; name a new folder"):
        pack(copied, released)


@pytest.mark.parametrize(
    "content", [{"epoch": 0}, {"state_dict": {"a": 1}}, {"state_dict": {"a": torch.tensor(torch.nan)}}]
)
def test_a_checkpoint_that_holds_no_weights_is_refused_before_anything_is_written(copied, tmp_path, capsys, content):
    torch.save(content, copied / "score_model" / "seed0" / "checkpoints" / "final.ckpt")
    record(copied / "score_model" / "seed0")
    assert main(["--release", str(copied), "--out", str(tmp_path / "released")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "released").exists()


def test_a_folder_with_another_training_is_not_unpacked_to(released, tmp_path):
    unpack(released, tmp_path / "ours")
    unpack(released, tmp_path / "ours")  # the same again
    (tmp_path / "ours" / "score_model" / "checkpoints" / "step=00000500.ckpt").touch()
    with pytest.raises(InputError, match="score_model holds something else"):
        unpack(released, tmp_path / "ours")
    (tmp_path / "mine" / "score_model").mkdir(parents=True)
    (tmp_path / "mine" / "score_model" / "config.yaml").write_text("{}")
    with pytest.raises(InputError, match="score_model holds something else"):
        unpack(released, tmp_path / "mine")
    assert not (tmp_path / "mine" / "guided").exists()


def test_a_released_folder_is_named_by_its_path(released, tmp_path, capsys):
    assert main(["--ours", str(released), "--out", str(tmp_path / "ours")]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["guided", "score_model"]


def test_settings_that_are_missing_or_no_text_are_told(released, tmp_path):
    (released / "score_model.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"score_model\.yaml"):
        unpack(released, tmp_path / "ours")
    (released / "score_model.yaml").unlink()
    with pytest.raises(InputError, match=r"no settings .*score_model\.yaml"):
        unpack(released, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "give names to download, --ours SUITE or --release RUN"),
        (["--ours", "digits", "--release", "x"], "give names to download, --ours SUITE or --release RUN"),
        (["--ours", "../no/digits"], "no trained methods of '../no/digits' are released; there are:"),
        (["inception", "--out", "x"], "--out goes with --ours or --release"),
        (["--release", "nowhere"], "no folder "),
        (["bogus"], "no weights of 'bogus'; there are: inception, "),
        (["--ours", "digits", "--seed", "1"], "--seed goes with --release"),
    ],
)
def test_what_cannot_be_done_is_one_line(words, told, capsys):
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {told}")
    assert captured.err.count("\n") == 1


def test_a_damaged_file_is_named_and_a_pickle_is_no_weights(released, tmp_path):
    (released / "guided.safetensors").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(InputError, match=r"guided\.safetensors cannot be read as weights alone"):
        unpack(released, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()
