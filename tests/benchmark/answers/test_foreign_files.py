"""Files of a run that somebody else wrote, or damaged: they count as unreadable, in one line at most."""

import json

import pytest

from benchmark.errors import shown, traced
from benchmark.status import main
from benchmark.suite.jobs import read_plan
from benchmark.suite.stages import Stage
from benchmark.system.files import digest, read_json, write_json
from benchmark.system.lock import read_owner
from benchmark.system.machine import this_process

TRAIN = {"kind": "train", "key": "k", "network": None, "scale": None}
JOB = {"cell": "a", "seed": 0, "part": "train", "stages": [TRAIN], "needs": [], "after": [], "steps": 1}
PLAN = {"suite": "s", "key": "", "resolved": {}, "jobs": [JOB]}
STAGE = {"stage": "train", "key": "k", "outputs": {}, "seconds": 1.5}
OWNER = {**this_process(), "since": "2026-01-01 00:00:00", "workers": 2}
WRONG = (None, True, -1, 1.5, "x", "\x1b[31m", [], [[]], {}, [1], float("nan"), "../x", 10**400)


def of(valid, *names):
    """An object with a wrong value in one field after another."""
    return [{**valid, name: wrong} for name in names for wrong in WRONG]


def refused(capsys, out):
    code = main([str(out)])
    told = capsys.readouterr().err
    assert (code, told.count("\n")) == (2, 1)
    assert "is not a plan that this version can read" in told
    assert told[:-1].isprintable()


@pytest.mark.parametrize(
    "content", ["", "[]", "3", "null", '{"suite": 1, "jobs": []}', "[" * 5000, "9" * 5000, "\udc80"]
)
def test_a_plan_that_is_none_is_refused(tmp_path, capsys, content):
    (tmp_path / "plan.json").write_text(content, errors="surrogateescape")
    refused(capsys, tmp_path)


@pytest.mark.parametrize("name", ["cell", "seed", "part", "stages", "needs", "after", "steps"])
def test_a_job_of_a_plan_with_a_wrong_field_is_refused(tmp_path, capsys, name):
    allowed = {"cell": ("x",), "needs": ([],), "after": ([],), "steps": (-1,)}.get(name, ())
    for job in of(JOB, name):
        if not any(job[name] is value or job[name] == value for value in allowed):
            (tmp_path / "plan.json").write_text(json.dumps({**PLAN, "jobs": [job]}))
            refused(capsys, tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("kind", None), ("kind", 3), ("key", None), ("key", ["k"]), ("network", 1.5), ("network", [])),
        *(("scale", "3"), ("scale", True), ("scale", float("nan")), ("scale", 10**400), ("more", 1)),
    ],
)
def test_a_stage_of_a_plan_with_a_wrong_field_is_refused(tmp_path, capsys, name, value):
    (tmp_path / "plan.json").write_text(json.dumps({**PLAN, "jobs": [{**JOB, "stages": [{**TRAIN, name: value}]}]}))
    refused(capsys, tmp_path)


def test_a_plan_of_the_right_fields_is_read(tmp_path):
    write_json(tmp_path / "plan.json", PLAN)
    suite, (job,) = read_plan(tmp_path)
    assert (suite, job.name, job.stages) == ("s", "a/seed0/train", (Stage("train", "k"),))


def test_escape_codes_of_a_plan_do_not_reach_the_terminal(tmp_path, capsys):
    stages = [{**TRAIN, "kind": "\x1b[2J"}]
    write_json(tmp_path / "plan.json", {**PLAN, "suite": "\x1b[31mred[bold]", "jobs": [{**JOB, "stages": stages}]})
    write_json(tmp_path / "owner.json", {**OWNER, "host": "\x1b]0;title\a"})
    assert main([str(tmp_path)]) == 4
    told = capsys.readouterr().out
    assert all(line.isprintable() for line in told.splitlines())
    assert r"suite \x1b[31mred[bold]: " in told
    assert r"\x1b]0;title\x07" in told


def test_a_manifest_with_a_wrong_field_is_of_no_finished_stage(tmp_path, capsys):
    stage, folder = Stage("train", "k"), tmp_path / "a" / "seed0"
    write_json(tmp_path / "plan.json", PLAN)
    for manifest in [3, [], "x", *of(STAGE, "outputs"), *of(STAGE, "key"), *of(STAGE, "seconds")]:
        if isinstance(manifest, dict) and (manifest["outputs"], manifest["key"], manifest["seconds"]) in (
            ({}, "k", 1.5), ({}, "k", -1)
        ):  # fmt: skip
            continue
        whole = {**manifest, "digest": digest(manifest)} if isinstance(manifest, dict) else manifest
        stage.manifest(folder).parent.mkdir(parents=True, exist_ok=True)
        stage.manifest(folder).write_text(json.dumps(whole))
        assert stage.completed(folder) is None
        assert main([str(tmp_path)]) == 4
    assert capsys.readouterr().err == ""


def test_a_folder_whose_owner_file_is_damaged_has_no_known_owner(tmp_path):
    write_json(tmp_path / "owner.json", OWNER)
    assert read_owner(tmp_path) == OWNER
    for owner in [3, [], *of(OWNER, "pid"), *of(OWNER, "workers")]:
        (tmp_path / "owner.json").write_text(json.dumps(owner))
        assert read_owner(tmp_path) is None
    for owner in ({**OWNER, name: wrong} for name in ("host", "since", "boot") for wrong in (None, 1, [], {})):
        write_json(tmp_path / "owner.json", owner)
        assert read_owner(tmp_path) is None


@pytest.mark.parametrize("content", [b"[" * 101 + b"]" * 101, b"[" * 10**6, b"\xff", b"9" * 5000, b""])
def test_json_that_is_deep_or_none_is_a_value_error(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"."):
        read_json(tmp_path / "a.json")


def test_json_may_have_a_hundred_levels(tmp_path):
    (tmp_path / "a.json").write_bytes(b"[" * 100 + b"]" * 100)
    assert read_json(tmp_path / "a.json")


def test_the_traceback_in_a_log_is_cut_and_printable():
    try:
        raise ValueError("\x1b[31m" + "x" * 200_000 + "\n\x07" * 10_000)
    except ValueError as error:
        lines = traced(error).splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert any(r"ValueError: \x1b[31mxxx" in line for line in lines)
    assert len(lines) <= 500
    assert all(line.isprintable() and len(line) <= 4000 for line in lines)


def test_foreign_text_is_one_printable_line_that_keeps_both_ends():
    assert shown("a\n b\x1b[0m\u202e\ud800") == r"a b\x1b[0m\u202e\ud800"
    cut = shown("begin" + "x" * 200_000 + "end")
    assert (cut[:5], cut[-3:], len(cut)) == ("begin", "end", 399)
