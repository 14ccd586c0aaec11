"""Stages: finished means recorded, under this key, with nothing changed since."""

import json
import os

import pytest

from benchmark.suite.stages import Stage
from benchmark.system.files import read_manifest

STAGE = Stage("sample", "key of today", scale=3)


@pytest.fixture
def folder(tmp_path):
    """A folder in which the stage was finished with two files."""

    def work():
        (tmp_path / "a.npz").write_bytes(b"first")
        (tmp_path / "b.npz").write_bytes(b"second")
        return {"outputs": ["a.npz", "b.npz"], "nfe": 35, "ratio": 0.1}

    STAGE.complete(tmp_path, work)
    return tmp_path


def test_a_finished_stage_tells_what_it_did(folder):
    manifest = STAGE.completed(folder)
    assert (manifest["stage"], manifest["nfe"], manifest["ratio"]) == ("sample@3", 35, 0.1)
    assert sorted(manifest["outputs"]) == ["a.npz", "b.npz"]
    assert manifest["seconds"] >= 0
    assert manifest["cpu_seconds"] >= 0


def test_a_stage_that_was_never_done_is_not_finished(tmp_path):
    assert STAGE.completed(tmp_path) is None


def test_a_stage_of_another_key_or_name_is_not_finished(folder):
    assert Stage("sample", "key of tomorrow", scale=3).completed(folder) is None
    assert Stage("sample", STAGE.key, scale=1).completed(folder) is None


def change_output(folder):
    (folder / "a.npz").write_bytes(b"First")


def lose_output(folder):
    (folder / "b.npz").unlink()


def pipe_for_output(folder):
    (folder / "a.npz").unlink()
    os.mkfifo(folder / "a.npz")


def edit(**values):
    def change(folder):
        path = STAGE.manifest(folder)
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def without_digest(folder):
    path = STAGE.manifest(folder)
    manifest = json.loads(path.read_text())
    del manifest["digest"]
    path.write_text(json.dumps(manifest))


def write(text):
    return lambda folder: STAGE.manifest(folder).write_text(text)


@pytest.mark.parametrize(
    "change",
    [change_output, lose_output, pipe_for_output, edit(nfe=1), edit(outputs={}), edit(key="x"), edit(more=1),
     without_digest, write(""), write("[1]"), write("null"), write('{"key": "key of today"}'), write("{")],
    ids=["output", "lost output", "pipe", "value", "outputs", "key", "more", "digest", "empty", "list", "null", "bare",
         "cut"],
)  # fmt: skip
def test_a_stage_with_a_changed_file_or_manifest_is_not_finished(folder, change):
    assert STAGE.completed(folder) is not None
    change(folder)
    assert STAGE.completed(folder) is None


def test_a_stage_that_fails_is_not_finished_even_if_it_was_before(folder):
    def fail():
        raise FloatingPointError("samples 0 to 9 are not finite")

    with pytest.raises(FloatingPointError):
        STAGE.complete(folder, fail)
    assert STAGE.completed(folder) is None


def test_work_may_report_its_own_time(folder):
    STAGE.complete(folder, lambda: {"outputs": [], "seconds": 12.5})
    assert STAGE.completed(folder)["seconds"] == 12.5


def test_a_manifest_that_cannot_be_read_is_none(tmp_path):
    assert read_manifest(tmp_path / "none.json") is None
    assert read_manifest(tmp_path) is None


def test_a_finished_stage_is_adopted_with_its_files_and_only_under_its_key(folder, tmp_path):
    other = tmp_path / "other"
    assert STAGE.adopt(other, folder)
    assert STAGE.completed(other) == STAGE.completed(folder)
    assert (other / "a.npz").read_bytes() == b"first"
    assert not Stage("sample", "key of tomorrow", scale=3).adopt(tmp_path / "third", folder)
    assert not STAGE.adopt(folder, folder)
    lose_output(folder)
    assert not STAGE.adopt(tmp_path / "third", folder)
    assert not (tmp_path / "third").exists()
