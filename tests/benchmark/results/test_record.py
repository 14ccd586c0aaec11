"""Records: what may be written, what may be read, and the same bytes for the same numbers."""

import json
import math
import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.errors import InputError
from benchmark.results.definitions import DEFINITIONS, column_order, definition_of
from benchmark.results.record import Record, Results, failed, measured, not_applicable
from benchmark.results.results_file import read_results, write_results


def number(cell="da", seed=0, metric="accuracy/clean", value=0.98, n=360, **more) -> Record:
    return measured(cell, "denoising_assisted", seed, metric, value, n=n, **more)


def results(*records: Record) -> Results:
    return Results("digits", "abc", {"torch": "2.15"}, records)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "results.json"
    write_results(path, results(number(stderr=0.007, protocol={"n_labeled": 70}), number(seed=1)))
    return path


def test_a_record_has_the_fields_of_the_schema_in_this_order():
    names = "cell method seed metric value unit higher_is_better n stderr status reason protocol"
    assert " ".join(field.name for field in fields(Record)) == f"{names} seconds peak_memory_bytes key"


def test_unit_and_direction_come_from_the_metric():
    nll = number(metric="nll", value=-7.14)
    assert (nll.unit, nll.higher_is_better, nll.status) == ("bits/dim", False, "ok")
    assert number(metric="throughput/sample", value=240).unit == "images/s"
    assert number(metric="nn_ratio", value=1.1).higher_is_better is None


def test_na_keeps_its_reason_and_failed_its_error_on_one_line():
    assert not_applicable("score", "score_model", 0, "ece", "no classifier").status == "n/a"
    record = failed("score", "score_model", 0, "fd", FloatingPointError("loss\nnan"))
    assert (record.status, record.reason, record.value) == ("failed", "FloatingPointError: loss nan", None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cell": ""}, "cell: need"),
        ({"cell": "\ud800"}, "cell: need"),
        ({"seed": -1}, "seed: need an integer from 0 to 4294967295"),
        ({"seed": 2**32}, "seed: need"),
        ({"seed": True}, "seed: need"),
        ({"metric": "acuracy/clean"}, "did you mean 'accuracy/clean'"),
        ({"metric": "accuracy/t=x"}, "metric: unknown"),
        ({"value": math.nan}, "value: need a finite number"),
        ({"value": math.inf}, "value: need a finite number"),
        ({"value": "0.9"}, "value: need"),
        ({"value": 97.2}, "value: accuracy/clean needs a number from 0 to 1 (fraction), got 97.2"),
        ({"unit": "percent"}, "unit: accuracy/clean has 'fraction', got 'percent'"),
        ({"higher_is_better": False}, "higher_is_better: accuracy/clean has True"),
        ({"n": 0}, "n: need an integer from 1"),
        ({"n": None}, "status: 'ok' needs"),
        ({"value": None}, "status: 'ok' needs"),
        ({"reason": "why"}, "status: 'ok' needs"),
        ({"stderr": -1.0}, "stderr: need a number from 0"),
        ({"status": "crashed"}, "status: need one of ok, n/a, failed"),
        ({"status": "failed"}, "status: 'failed' needs a reason"),
        ({"protocol": {"levels": [[1]]}}, "protocol: need"),
        ({"protocol": {"nfe": math.nan}}, "protocol: need"),
        ({"protocol": {"guidance_scale": "3"}}, "guidance_scale a number"),
        ({"seconds": -1}, "seconds: need"),
        ({"peak_memory_bytes": 1.5}, "peak_memory_bytes: need"),
        ({"key": None}, "key: need a text"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(change, message):
    with pytest.raises(ValueError, match=r"need|unknown|has") as error:
        Record(**{**asdict(number()), **change})
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        ("file", {"schema": 2}, "schema: this version reads 1, got 2; run the suite again"),
        ("file", {"schema": True}, "schema: this version reads 1"),
        ("file", {"schema": None}, "schema: this version reads 1"),
        ("file", {"suit": "digits"}, "'suit': unknown field; did you mean 'suite'?"),
        ("file", {"suite": 3}, "suite: need a text"),
        ("file", {"commit": None}, "commit: need a text"),
        ("file", {"environment": []}, "environment: need an object"),
        ("file", {"environment": {"x": math.nan}}, "environment: need an object"),
        ("file", {"records": {}}, "records: need a list"),
        ("file", {"records": [3]}, "records[0]: need an object"),
        ("record", {"sead": 1}, "records[1].'sead': unknown field; did you mean 'seed'?"),
        ("record", {"value": math.nan}, "records[1].value: need a finite number or null, got nan"),
        ("record", {"value": -math.inf}, "records[1].value: need a finite number or null, got -inf"),
        ("record", {"seed": "0"}, "records[1].seed: need an integer from 0 to 4294967295, got '0'"),
        ("record", {"metric": "acc\nuracy"}, "records[1].metric: unknown metric 'acc\\nuracy'"),
        ("record", {"seed": 0, "protocol": {"n_labeled": 70.0}}, "same cell, seed, metric and protocol as records[0]"),
    ],
)
def test_a_file_that_breaks_a_rule_is_refused_naming_the_place(file, place, change, message):
    content = json.loads(file.read_text())
    (content if place == "file" else content["records"][1]).update(change)
    file.write_text(json.dumps(content))
    with pytest.raises(InputError) as error:
        read_results(file)
    assert message in str(error.value)
    assert str(error.value).startswith(f"{file}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["schema", "suite", "records"])
def test_a_missing_field_is_named(file, name):
    content = json.loads(file.read_text())
    del content[name]
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"{name}: missing"):
        read_results(file)


def test_a_missing_field_of_a_record_is_named(file):
    content = json.loads(file.read_text())
    del content["records"][0]["stderr"]
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"records\[0\].stderr: missing"):
        read_results(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"schema": 1, "suite"', "not valid JSON: .*run the suite again"),
        (b"", "not valid JSON"),
        (b"\xff\xfe", "not UTF-8 text at byte 0"),
        (b"[]", "need a JSON object"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"a": ' + b"[" * 900 + b"]" * 900 + b"}", "unknown field|not valid JSON|missing"),
        (b'{"schema": 1, "schema": 1}', "'schema' occurs twice"),
        (b"1" * 5000, "not valid JSON"),
    ],
)
def test_a_file_that_is_no_results_file_is_refused(tmp_path, content, message):
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_results(path)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_results(tmp_path / "absent.json")
    with pytest.raises(InputError, match=r"is a folder; name the results.json in it"):
        read_results(tmp_path)


def test_the_same_numbers_give_the_same_bytes_in_any_order(tmp_path):
    records = [number(seed=seed, protocol={"nfe": 35, "sampler": "Heun"}) for seed in (2, 0, 1)]
    again = [number(seed=seed, protocol={"sampler": "Heun", "nfe": 35.0}) for seed in (0, 1, 2)]
    for name, group in (("a", records), ("b", again)):
        write_results(tmp_path / name, results(*group))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    write_results(tmp_path / "c", read_results(tmp_path / "a"))
    assert (tmp_path / "c").read_bytes() == (tmp_path / "a").read_bytes()


@settings(deadline=None, max_examples=50)
@given(
    value=st.floats(0, 1),
    protocol=st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda name: name != "guidance_scale"),
        st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text(st.characters(codec="utf-8")),
    ),
    cell=st.text(st.characters(codec="utf-8"), min_size=1),
)
def test_what_is_written_is_what_is_read(tmp_path_factory, value, protocol, cell):
    path = tmp_path_factory.mktemp("round") / "results.json"
    written = results(number(cell=cell, value=value, protocol=protocol))
    write_results(path, written)
    assert read_results(path) == written


def test_protocols_that_differ_are_different_numbers_and_equal_ones_are_not():
    assert len(results(number(protocol={"nfe": 18}), number(protocol={"nfe": 35})).records) == 2
    assert number(protocol={"nfe": 1}).identity == number(protocol={"nfe": 1.0}).identity
    assert number(protocol={"nfe": 1}).identity != number(protocol={"nfe": True}).identity
    with pytest.raises(ValueError, match=r"records\[1\]: same cell"):
        results(number(), number(value=0.5))


def test_every_metric_has_one_definition_and_a_tolerance_if_it_gates():
    names = [definition.pattern.replace("*", "0.5") for definition in DEFINITIONS]
    assert [definition_of(name) for name in names] == list(DEFINITIONS)
    assert sorted(reversed(names), key=column_order) == names
    assert all(d.absolute > 0 or d.relative > 0 for d in DEFINITIONS if d.gating)
    assert sorted(["nll", "accuracy/t=0.5", "accuracy/t=0.25"], key=column_order)[0] == "accuracy/t=0.25"


def test_reading_tabulating_and_comparing_start_without_heavy_packages():
    code = (
        "import sys, benchmark.results.record, benchmark.results.tables, benchmark.compare\n"
        "print(sorted({'torch', 'lightning', 'scipy', 'yaml', 'matplotlib'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "[]\n"
