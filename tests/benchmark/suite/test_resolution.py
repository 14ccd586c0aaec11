"""Configurations that are remembered: until a file changes that they follow from, or the data do."""

import dataclasses
import json
import os
from pathlib import Path

import pytest

from benchmark.suite.resolution import cached_resolution, configuration_digest, with_known_contents
from benchmark.suite.suite import load_suite
from benchmark.system.files import digest_file, state_of


def test_remembered_configurations_are_forgotten_when_a_file_they_follow_from_changes(tmp_path):
    (tmp_path / "part.yaml").write_text("a: 1\n")
    (tmp_path / "main.yaml").write_text("part: part.yaml\n")
    (tmp_path / "mine.yaml").write_text("reference: r\ncells: {r: {config: main.yaml}}\n")
    suite = load_suite(str(tmp_path / "mine.yaml"))
    before = configuration_digest(suite)
    assert configuration_digest(load_suite(str(tmp_path / "mine.yaml"))) == before
    cells = {"r": dataclasses.replace(suite.cells["r"], set={"trainer.max_steps": 3})}
    assert configuration_digest(dataclasses.replace(suite, cells=cells)) != before
    (tmp_path / "runs" / "lightning").mkdir(parents=True)
    (tmp_path / "runs" / "lightning" / "config.yaml").write_text("a: 2\n")  # of a training, beside the suite
    assert configuration_digest(suite) == before
    (tmp_path / "part.yaml").write_text("a: 2\n")
    assert configuration_digest(suite) != before


@pytest.mark.parametrize(
    ("file", "counts"),
    [("methods/a.py", True), ("benchmark/training/a.py", True), ("benchmark/results/a.py", False),
     ("benchmark/run.py", False), ("benchmark/errors.py", True)],
)  # fmt: skip
def test_configurations_depend_on_the_source_that_reads_them_alone(tmp_path, monkeypatch, file, counts):
    monkeypatch.setattr("benchmark.suite.resolution.ROOT", tmp_path)
    (tmp_path / "mine.yaml").write_text("reference: r\ncells: {r: {config: main.yaml}}\n")
    (tmp_path / "main.yaml").write_text("a: 1\n")
    suite = load_suite(str(tmp_path / "mine.yaml"))
    before = configuration_digest(suite)
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text("a = 1\n")
    assert (configuration_digest(suite) != before) is counts


CONTENT = {"data": {"train": "t", "test": "u"}, "files": {}, "root": str(Path.cwd() / "data"), "sources": {}}


@pytest.fixture(autouse=True)
def no_data_root(monkeypatch):
    monkeypatch.delenv("DIFFCLASS_DATA", raising=False)


def write(path, key="mine", **content):
    found = {"r": {"content": {**CONTENT, **content}}}
    path.write_text(json.dumps({"key": key, "resolved": found}))
    return found


@pytest.mark.parametrize(
    "text",
    ['{"key": "mine"}', '{"key": "mine", "resolved": {"r": {}}}', '{"key": "mine", "resolved": [1]}',
     '{"key": "mine", "resolved": {"r": {"content": {"sources": 3, "root": null}}}}', "[]", "{", ""],
)  # fmt: skip
def test_remembered_configurations_under_another_key_or_damaged_are_none(tmp_path, text):
    path = tmp_path / "plan.json"
    path.write_text(text)
    assert cached_resolution(path, "mine") is None
    write(path, key="other")
    assert cached_resolution(path, "mine") is None
    found = write(path)
    assert cached_resolution(path, "mine") == found


def test_remembered_configurations_are_forgotten_when_their_data_change_or_lie_elsewhere(tmp_path, monkeypatch):
    images, path = tmp_path / "images", tmp_path / "plan.json"
    (images / "train").mkdir(parents=True)
    (images / "train" / "a.png").write_bytes(b"1")

    def remembered():
        return cached_resolution(path, "mine") is not None

    write(path, sources={str(images): state_of(images)})
    assert remembered()
    (images / "train" / "b.png").write_bytes(b"1")
    assert not remembered()
    write(path, sources={str(images): state_of(images)})
    (images / "train" / "b.png").write_bytes(b"22")
    assert not remembered()
    write(path, sources={str(images): state_of(images)})
    os.utime(images / "train" / "a.png", (1, 1))
    assert not remembered()
    write(path, sources={str(images): state_of(images)})
    monkeypatch.setenv("DIFFCLASS_DATA", str(tmp_path))
    assert not remembered()
    monkeypatch.delenv("DIFFCLASS_DATA")
    assert remembered()
    monkeypatch.chdir(tmp_path)  # where the folder is by default
    assert not remembered()
    write(path, root="another")  # of data that come from no file
    assert remembered()
    write(path, sources=None)  # data that do not tell where they come from
    assert not remembered()


def test_what_was_made_of_files_that_are_gone_stands(tmp_path):
    weights, path = tmp_path / "weights.pth", tmp_path / "plan.json"
    weights.write_bytes(b"1")
    found = write(path, sources={str(weights): state_of(weights)}, files={str(weights): digest_file(weights)})
    weights.unlink()
    assert cached_resolution(path, "mine") == found


def test_a_state_sees_links_and_ends_where_they_lead_in_a_circle(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "nowhere").symlink_to(tmp_path / "none")
    before = state_of(tmp_path / "a")
    assert before == state_of(tmp_path / "a")
    (tmp_path / "none").write_text("there")
    assert state_of(tmp_path / "a") != before
    assert state_of(tmp_path / "nothing") is None


def test_a_state_sees_files_replaced_by_others_of_equal_size_and_date(tmp_path):
    """An unpacked archive can give all its files one date."""
    folder = tmp_path / "images"

    def unpacked(content):
        folder.mkdir()
        (folder / "a").write_text(content)
        for path in (folder / "a", folder):
            os.utime(path, ns=(10**18, 10**18))
        return state_of(folder), state_of(folder / "a")

    before = unpacked("one")
    folder.rename(tmp_path / "old")
    after = unpacked("two")
    assert [one == two for one, two in zip(before, after, strict=True)] == [False, False]


def test_data_that_stood_in_are_known_by_what_an_earlier_run_noted_of_the_same_settings(tmp_path):
    path = tmp_path / "plan.json"
    found = write(path)
    assert with_known_contents({"r": {}}, path) == found
    assert with_known_contents({"r": {"data": 1}, "s": {}}, path) == {"r": {"data": 1}, "s": {}}
    write(path, sources={str(tmp_path / "none"): None}, root="another")
    assert with_known_contents({"r": {}}, path) == {"r": {}}
    path.write_text("{")
    assert with_known_contents({"r": {}}, path) == {"r": {}}
