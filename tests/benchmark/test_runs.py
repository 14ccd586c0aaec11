"""Runs at hand, several runs as one, and results for other programs."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from benchmark.results.answers_file import Answers, Scored, write_answers
from benchmark.results.record import Results, measured, not_applicable
from benchmark.results.results_file import read_results, write_results
from benchmark.runs import main


def results(*seeds, suite="mine", **more):
    records = [measured("a", "m", seed, "accuracy/clean", 0.5 + seed / 10, n=10) for seed in seeds]
    records += [measured("b_c", "m", seed, "fd", 2.0, n=10, protocol={"guidance_scale": 3}) for seed in seeds]
    records += [not_applicable("b_c", "m", seed, "accuracy/clean", "no class posterior") for seed in seeds]
    return Results(suite, "c0ffee", {"torch": "1"}, tuple(records)) if not more else Results(suite, **more)


@pytest.fixture
def runs(tmp_path):
    """Folders of two runs of one suite with other seeds."""
    for name, seeds in (("first", (0, 1)), ("second", (2,))):
        (tmp_path / name).mkdir()
        write_results(tmp_path / name / "results.json", results(*seeds))
    return tmp_path


def refused(capsys, *words):
    code = main([str(word) for word in words])
    told = capsys.readouterr().err
    assert (code, told.count("\n")) == (2, 1)
    return told


def test_seeds_of_two_runs_are_one_table(runs, capsys):
    assert main(["merge", str(runs / "first"), str(runs / "second" / "results.json"), f"--out={runs / 'all'}"]) == 0
    merged = read_results(runs / "all" / "results.json")
    assert merged.sorted_records == results(0, 1, 2).sorted_records
    assert (merged.commit, merged.environment) == ("c0ffee", {"torch": "1"})
    assert "0.600 ± 0.058" in (runs / "all" / "results.md").read_text()
    assert not (runs / "all" / "answers.npz").exists()


def test_scores_of_images_are_merged_with_the_numbers(runs, capsys):
    for name, seeds in (("first", (0, 1)), ("second", (2,))):
        scores = [Scored("a", seed, "k", {"accuracy/clean": np.arange(10) < 5 + seed}) for seed in seeds]
        write_answers(runs / name / "answers.npz", scores)
    assert main(["merge", str(runs / "first"), str(runs / "second"), f"--out={runs / 'all'}"]) == 0
    answers = Answers(runs / "all" / "answers.npz")
    answers.check(read_results(runs / "all" / "results.json"))
    assert [answers.of("a", seed, "accuracy/clean").mean() for seed in (0, 1, 2)] == [0.5, 0.6, 0.7]


def test_scores_that_cannot_be_used_are_not_merged(runs, capsys):
    (runs / "second" / "answers.npz").write_bytes(b"nothing")
    assert "answers.npz is no whole .npz file" in refused(capsys, "merge", runs / "first", runs / "second", "--out=x")


def test_a_run_merged_with_itself_is_itself(runs, capsys):
    assert main(["merge", str(runs / "first"), str(runs / "first"), f"--out={runs / 'all'}"]) == 0
    assert (runs / "all" / "results.json").read_bytes() == (runs / "first" / "results.json").read_bytes()


def test_other_commits_and_versions_are_all_told(runs, capsys):
    second = read_results(runs / "second" / "results.json")
    write_results(runs / "second" / "results.json", replace(second, commit="beef", environment={"torch": "2", "x": 1}))
    assert main(["merge", str(runs / "first"), str(runs / "second"), f"--out={runs / 'all'}"]) == 0
    merged = read_results(runs / "all" / "results.json")
    assert (merged.commit, merged.environment) == ("c0ffee, beef", {"torch": ["1", "2"], "x": 1})


def test_numbers_that_contradict_and_other_suites_are_not_merged(runs, capsys):
    other = [replace(record, value=0.9) for record in results(0).records[:1]]
    for name, content in (("other", replace(results(0), records=tuple(other))), ("foreign", results(5, suite="x"))):
        (runs / name).mkdir()
        write_results(runs / name / "results.json", content)
    told = refused(capsys, "merge", runs / "first", runs / "other", f"--out={runs / 'all'}")
    assert "accuracy/clean of a (seed 0) is 0.5 in" in told
    told = refused(capsys, "merge", runs / "first", runs / "foreign", f"--out={runs / 'all'}")
    assert "is of suite x" in told
    assert not (runs / "all").exists()


def test_merge_asks_for_runs_and_a_new_folder(runs, capsys):
    assert "at least two runs" in refused(capsys, "merge", runs / "first", f"--out={runs / 'all'}")
    assert "name a new folder" in refused(capsys, "merge", runs / "first", runs / "second", f"--out={runs / 'first'}")
    assert "no such file" in refused(capsys, "merge", runs / "first", runs / "none", f"--out={runs / 'all'}")


def exported(capsys, *words):
    assert main(["export", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_a_wide_line_has_means_errors_and_seeds(runs, capsys):
    first, second = csv.DictReader(io.StringIO(exported(capsys, runs / "first", "--format=wide")))
    assert (first["cell"], float(first["accuracy/clean"]), first["accuracy/clean seeds"]) == ("a", 0.55, "2")
    assert float(first["accuracy/clean stderr"]) == pytest.approx(0.05)
    assert (first["fd"], first["fd seeds"]) == ("", "0")
    assert (second["accuracy/clean"], second["guidance_scale"], second["fd"]) == ("", "3", "2.0")


def test_the_long_form_is_that_of_the_run_and_goes_to_a_file(runs, capsys):
    text = exported(capsys, runs / "first")
    assert text.count("\n") == 1 + len(results(0, 1).records)
    assert main(["export", str(runs / "first"), f"--out={runs / 'long.csv'}"]) == 0
    assert (runs / "long.csv").read_text() == text


def test_latex_has_a_row_for_each_cell_and_escapes_names(runs, capsys):
    text = exported(capsys, runs / "first", "--format=latex")
    rows = [line for line in text.splitlines() if "&" in line]
    assert rows[0] == r"cell & scale & accuracy/clean $\uparrow$ & fd $\downarrow$ \\"
    assert rows[1:] == [r"a &  & $0.550 \pm 0.050$ & -- \\", r"b\_c & 3 & -- & $2.000 \pm 0.000$ \\"]
    assert text.startswith("\\begin{tabular}{llrr}\n\\toprule\n")


def test_two_feature_networks_are_two_columns(tmp_path, capsys):
    records = [
        measured("a", "m", 0, "fd", value, n=10, protocol={"feature_network": n})
        for n, value in (("x", 1.0), ("y", 2.0))
    ]
    write_results(tmp_path / "results.json", Results("mine", "c", {}, tuple(records)))
    (line,) = csv.DictReader(io.StringIO(exported(capsys, tmp_path, "--format=wide")))
    assert (line["fd by x"], line["fd by y"]) == ("1.0", "2.0")


def test_a_metric_that_is_none_is_refused_with_the_nearest_one(runs, capsys):
    told = refused(capsys, "export", runs / "first", "--format=latex", "--metrics=accuracy/cleen")
    assert "accuracy/clean" in told


def test_a_list_has_a_line_for_each_run_and_tells_of_damaged_ones(runs, capsys):
    train = {"kind": "train", "key": "k", "network": None, "scale": None}
    job = {"cell": "a", "seed": 0, "part": "train", "stages": [train], "needs": [], "after": [], "steps": 1}
    (runs / "first" / "plan.json").write_text(json.dumps({"suite": "mine", "key": "", "resolved": {}, "jobs": [job]}))
    (runs / "second" / "plan.json").write_text("[]")
    (runs / "tables").mkdir()  # merged, or samples that were judged
    write_results(runs / "tables" / "results.json", results(4))
    assert main(["list", str(runs)]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert [line.split() for line in lines[1:2]] == [["first", "mine", "0/1", "0,1", "2", "c0ffee"]]
    assert lines[2].split() == ["second", "cannot", "be", "read"]
    assert lines[3].split() == ["tables", "mine", "4", "2", "c0ffee"]
    assert "is not a plan" in said.err
    assert main(["list", str(runs / "first")]) == 0
    assert "no run in" in capsys.readouterr().out


def log(folder, *values, part="val"):
    """TensorBoard's file of one attempt: values by finished steps, as Lightning writes them after each."""
    with SummaryWriter(str(folder)) as writer:
        for step, value in values:
            writer.add_scalar(f"{part}/accuracy", value, step - 1)


def test_curves_are_the_numbers_on_validation_images_and_the_last_attempts(tmp_path, capsys):
    for seed in (10, 2):
        log(tmp_path / "b" / f"seed{seed}" / "tensorboard", (500, 0.5))
    interrupted = tmp_path / "a" / "seed0" / "tensorboard"
    log(interrupted, (500, 0.25), (1000, 0.5))
    log(interrupted, (1000, 0.75))
    log(interrupted, (1, 0.0), part="train")
    assert main(["curves", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "cell,seed,metric,step,value"
    assert lines[1:] == [
        "a,0,accuracy,500,0.25",
        "a,0,accuracy,1000,0.75",
        "b,2,accuracy,500,0.5",
        "b,10,accuracy,500,0.5",
    ]
    assert main(["curves", str(tmp_path), "--out", str(tmp_path / "curves.csv")]) == 0
    assert (tmp_path / "curves.csv").read_text().splitlines() == lines


def test_a_training_that_began_anew_leaves_nothing_of_the_old_one_in_its_curve(tmp_path, capsys):
    log(tmp_path / "a" / "seed0" / "tensorboard", (500, 0.25), (1000, 0.5), (1500, 0.5))
    log(tmp_path / "a" / "seed0" / "tensorboard", (400, 0.75), (800, 1.0))
    assert main(["curves", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["a,0,accuracy,400,0.75", "a,0,accuracy,800,1"]


def test_curves_of_logs_without_validation_are_refused(tmp_path, capsys):
    log(tmp_path / "a" / "seed0" / "tensorboard", (1, 0.0), part="train")
    assert "no number on validation images" in refused(capsys, "curves", tmp_path)


def test_curves_of_a_folder_without_trainings_are_refused(runs, capsys):
    assert "no TensorBoard logs of trainings" in refused(capsys, "curves", runs / "first")
