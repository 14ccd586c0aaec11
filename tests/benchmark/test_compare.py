"""The compare command: every exit code, accepting a baseline, and its output in three formats."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from tables import number, results, table

from benchmark import compare as command_line
from benchmark.compare import cut, main, to_json, to_markdown, to_text
from benchmark.results.answers_file import Scored, answers_of, answers_path, write_answers
from benchmark.results.differences import compare
from benchmark.results.record import Results, failed, not_applicable
from benchmark.results.results_file import read_results, write_results


@pytest.fixture(autouse=True)
def no_summary(monkeypatch):
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


@pytest.fixture
def run(tmp_path, capsys):
    """Write two results (or anything) to files, run the command on them: exit code, output, errors."""

    def run(old, new, *options):
        for name, content in (("old.json", old), ("new.json", new)):
            if isinstance(content, Results):
                write_results(tmp_path / name, content)
        result = main([str(tmp_path / "old.json"), str(tmp_path / "new.json"), *options])
        captured = capsys.readouterr()
        return result, captured.out, captured.err

    run.folder = tmp_path
    return run


def shell(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "benchmark.compare", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


# --- exit codes, as a user meets them


def test_the_command_exits_with_every_code_of_the_contract(tmp_path):
    write_results(tmp_path / "old.json", table())
    for name, new, expected in (
        ("same", table(), 0),
        ("worse", table(accuracy_clean=0.90), 1),
        ("other-suite", dataclasses.replace(table(), suite="cifar"), 3),
        ("missing-cell", table(cells=("da",)), 4),
    ):
        write_results(tmp_path / f"{name}.json", new)
        done = shell(tmp_path / "old.json", tmp_path / f"{name}.json")
        assert (done.returncode, done.stderr) == (expected, ""), name
        assert f"exit code {expected}" in done.stdout
    unreadable = shell(tmp_path / "old.json", tmp_path / "absent.json")
    assert (unreadable.returncode, unreadable.stdout) == (2, "")
    assert (
        unreadable.stderr == f"error: {tmp_path}/absent.json: no such file; run the suite first or correct the path\n"
    )
    assert shell("--format", "html", "a", "b").returncode == 2
    assert shell("--force", tmp_path / "old.json", tmp_path / "same.json").returncode == 2
    assert shell("--help").returncode == 0


@pytest.mark.parametrize("broken", [b"", b"\xff", b'{"schema": 2}', b'{"schema": 1, "suite": "digits"', b"null"])
def test_a_broken_file_on_either_side_exits_2_with_one_line(run, broken):
    for name, other in (("old.json", "new.json"), ("new.json", "old.json")):
        (run.folder / name).write_bytes(broken)
        write_results(run.folder / other, table())
        result, out, err = run(None, None)
        assert (result, out, err.count("\n")) == (2, "", 1)
        assert name in err


def test_output_into_a_closed_pipe_keeps_the_verdict(tmp_path):
    write_results(tmp_path / "old.json", table())
    write_results(tmp_path / "new.json", table(fd=9.0))
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "benchmark.compare", tmp_path / "old.json", tmp_path / "new.json"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


# --- accepting a new baseline


def test_accept_writes_a_comparable_complete_table_after_printing_what_changed(run):
    result, out, err = run(table(), table(fd=0.9), "--accept")
    assert (result, err) == (0, f"written: {run.folder}/old.json\n")
    assert "worse" in out
    assert (run.folder / "old.json").read_bytes() == (run.folder / "new.json").read_bytes()
    assert run(None, None)[0] == 0


@pytest.mark.parametrize(
    ("new", "expected"), [(table(cells=("da",)), 4), (dataclasses.replace(table(), suite="other"), 3)]
)
def test_accept_refuses_what_is_not_comparable_or_complete_unless_forced(run, new, expected):
    result, _, err = run(table(), new, "--accept")
    assert result == expected
    assert "is kept" in err
    assert len(read_results(run.folder / "old.json").records) == len(table().records)
    assert run(table(), new, "--accept", "--force")[0] == 0
    assert (run.folder / "old.json").read_bytes() == (run.folder / "new.json").read_bytes()


def seeds_with_answers(folder, name, *scores):
    """Write results of three seeds and the scores of images behind them; returns the results."""
    file = folder / f"{name}.json"
    rows = [Scored("da", seed, "key", {"accuracy/clean": np.array(row)}) for seed, row in enumerate(scores)]
    found = results(*(number(seed=seed, value=float(np.mean(row)), n=4) for seed, row in enumerate(scores)))
    write_results(file, found)
    write_answers(answers_path(file), rows)
    return found


def test_scores_of_images_beside_both_files_decide_and_the_output_says_so(run):
    seeds_with_answers(run.folder, "old", *[[1, 1, 1, 1]] * 3)
    seeds_with_answers(run.folder, "new", *[[1, 1, 1, 0]] * 3)
    result, out, _ = run(None, None, "--format", "markdown")
    assert result == 0
    assert "tolerance 0.588 (paired interval of seeds and images), seeds 0, 1, 2" in out
    (run.folder / "old.npz").unlink()
    result, out, _ = run(None, None)
    assert (result, "1 -> 0.75, gain -0.25, tolerance 0.01 (absolute)" in out) == (1, True)


def test_scores_of_other_results_exit_2_and_keep_the_baseline(run):
    seeds_with_answers(run.folder, "old", *[[1, 1, 1, 1]] * 3)
    seeds_with_answers(run.folder, "new", *[[1, 1, 1, 1]] * 3)
    other = results(*(number(seed=seed, value=0.5, n=4) for seed in range(3)))
    for old, new, name in ((other, None, "old.npz"), (None, other, "new.npz")):
        before = {path.name: path.read_bytes() for path in run.folder.iterdir()}
        result, out, err = run(old, new, "--accept", "--force")
        assert (result, out, err.count("\n")) == (2, "", 1)
        assert f"{name}: accuracy/clean of da (seed 0) has mean 1, the results say 0.5" in err
        for side in ("old", "new"):
            assert (run.folder / f"{side}.npz").read_bytes() == before[f"{side}.npz"]
        seeds_with_answers(run.folder, "old", *[[1, 1, 1, 1]] * 3)


def test_accept_takes_the_scores_of_images_along(run):
    seeds_with_answers(run.folder, "old", *[[1, 1, 1, 1]] * 3)
    new = seeds_with_answers(run.folder, "new", *[[1, 1, 1, 0]] * 3)
    assert run(None, None, "--accept")[0] == 0
    answers_of(run.folder / "old.json", new)
    assert run(None, None, "--strict")[0] == 0
    (run.folder / "new.npz").unlink()
    result, _, err = run(None, None, "--accept")
    assert (result, "NEW lacks the scores of images; --force" in err) == (3, True)
    assert (run.folder / "old.npz").exists()
    assert run(None, None, "--accept", "--force")[0] == 0
    assert not (run.folder / "old.npz").exists()


def test_accept_keeps_a_table_of_more_seeds_unless_forced(run):
    three = results(*(number(seed=seed, value=0.9) for seed in range(3)))
    one = results(number(seed=1, value=0.9))
    result, _, err = run(three, one, "--accept")
    assert (result, "NEW lacks seed 0 of da; --force" in err) == (3, True)
    assert len(read_results(run.folder / "old.json").records) == 3
    assert run(three, one, "--accept", "--force")[0] == 0
    assert run(one, three, "--accept")[0] == 0


def test_a_first_baseline_is_written_only_when_forced(run):
    assert run(None, table(), "--accept")[0] == 2
    assert run(None, table(), "--accept", "--force")[0] == 0
    assert (run.folder / "old.json").read_bytes() == (run.folder / "new.json").read_bytes()


def test_a_baseline_that_cannot_be_written_exits_2(run, monkeypatch):
    def full(path, results):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command_line, "write_results", full)
    result, out, err = run(table(), table(), "--accept")
    assert (result, err) == (2, f"error: {run.folder}/old.json: cannot be written: No space left on device\n")
    assert out.splitlines()[-1].startswith("no regression")


# --- output


def test_json_output_holds_everything_and_equal_inputs_give_equal_bytes(run):
    first = run(table(), table(fd=0.4, accuracy_clean=0.1), "--format", "json")
    assert first == run(table(), table(fd=0.4, accuracy_clean=0.1), "--format", "json")
    content = json.loads(first[1])
    assert (first[0], content["exit_code"], content["schema"]) == (1, 1, 1)
    worse = [change["metric"] for change in content["changes"] if change["verdict"] == "worse"]
    assert worse == ["accuracy/clean", "fd"]


@pytest.mark.parametrize("name", ["<script>", "|x", "=1+1", "`x`", "a\nb", "\x1b[31m", "\u202ex"])
def test_names_do_nothing_in_any_format(name):
    old = results(number(name, nfe=name), not_applicable("a", "m", 0, "nll", "x"), suite=name, commit=name)
    new = results(number(name, nfe=name + "!"), failed("a", "m", 0, "nll", name), suite=name)
    found = compare(old, new)
    text, markdown = to_text(found), to_markdown(found)
    assert not any(sign in text for sign in "\x1b\u202e")
    assert len(text.splitlines()) == 4
    assert not any(sign in markdown for sign in "<`\x1b\u202e")
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert {line.count("|") for line in rows} == {5}
    json.loads(to_json(found))


def test_text_has_a_short_line_for_each_cell_that_failed_and_ends_with_the_verdict():
    metrics = [f"accuracy/t={k}" for k in range(40)] + ["f1", "ece", "nll"]
    cells = [f"few_cells_of_a_long_name_{k}" for k in range(3)]
    old = results(
        *(number(c, s, m, 0.5, feature_network="reference, seed0") for c in cells for s in (0, 1) for m in metrics)
    )
    error = "RuntimeError: the width 12 of the network is no multiple of the heads' 8 " + "and so on " * 40
    new = results(
        *(failed(cells[0], "m", s, m, error if s else "boom") for s in (0, 1) for m in ("f1", "ece")),
        *(dataclasses.replace(r, value=0.1) if r.metric == "f1" else r for r in old.records if r.cell == cells[1]),
    )
    *body, verdict = to_text(compare(old, new)).splitlines()
    assert verdict.startswith("incomplete, exit code 4")
    assert max(map(len, body)) <= 120
    assert len([line for line in body if cells[0] in line]) == len([line for line in body if cells[2] in line]) == 1
    assert [line for line in body if cells[0] in line and "43 metrics" in line and "boom; and 2 more" in line]
    assert [line for line in body if line.startswith("worse") and "0.5 -> 0.1" in line]
    assert [line.split() for line in body if line.startswith("same")] == [
        ["same", "1", "cell", "42", "numbers", "within", "tolerance"]
    ]


def test_costs_that_grew_are_one_line_with_a_count():
    old, new = (
        results(
            *(number(f"c{k}", metric=m, value=v) for k in range(9) for m in ("cpu_seconds/train", "cpu_seconds/total"))
        )
        for v in (10.0, 99.0)
    )
    text = to_text(compare(old, new))
    assert [line.split("  ") for line in text.splitlines() if line.startswith("warning")] == [
        ["warning", "9 cells", "18 numbers", "costs and the like, which decide nothing"]
    ]
    assert json.loads(to_json(compare(old, new)))["changes"][17]["new"] == 99.0


def test_markdown_folds_away_what_is_the_same():
    markdown = to_markdown(compare(table(), table(fd=0.9)))
    assert markdown.index("| worse | da | fd |") < markdown.index("<details>") < markdown.index("| same |")
    assert markdown.startswith("### Regression, exit code 1")


def test_the_step_summary_is_appended_and_never_too_long(run, monkeypatch):
    summary = run.folder / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    run(table(), table())
    assert summary.read_text().startswith("before\n### No regression")
    monkeypatch.setattr(command_line, "SUMMARY_BYTES", 1500)
    for _ in range(3):
        assert run(table(), table())[0] == 0
    assert summary.stat().st_size <= 1500
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(run.folder / "absent" / "summary.md"))
    result, _, err = run(table(), table())
    assert (result, err.startswith("warning: no step summary")) == (0, True)


def test_a_cut_summary_ends_at_a_line_says_so_and_closes_what_it_opened():
    text = "head\n<details>\n" + "ü" * 40 + "\n" + "line\n" * 100
    short = cut(text, 200)
    assert len(short.encode()) <= 200
    assert "Cut here" in short
    assert short.count("<details>") == short.count("</details>") == 1
    assert cut(text, 10_000) == text
    assert cut(text, 10) == ""
