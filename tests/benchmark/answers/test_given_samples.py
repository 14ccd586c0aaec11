"""Samples from outside: what is taken, and what is refused in one line; tables by class."""

import json

import numpy as np
import pytest
from PIL import Image

from benchmark.answers.given_samples import copy_samples, given_samples
from benchmark.errors import InputError
from benchmark.evaluate import main as evaluate
from benchmark.execute.session import with_given
from benchmark.results.per_class import to_csv, to_markdown
from benchmark.results.record import Results, failed, measured, not_applicable
from benchmark.results.results_file import write_results
from benchmark.results.rows import rows as rows_of_results
from benchmark.run import main
from benchmark.suite.suite import load_suite
from benchmark.system.arrays import StoredRows
from benchmark.system.names import check_cell_name
from datamodules.digits import Digits


@pytest.fixture(scope="module")
def digits():
    return Digits()


def levels(n=12, top=17, shape=(8, 8)):
    return np.random.default_rng(0).integers(top, size=(n, *shape)).astype(np.uint8)


def saved(tmp_path, **arrays):
    np.savez(tmp_path / "given.npz", **arrays)
    return tmp_path / "given.npz"


def test_an_archive_is_taken_as_it_is(digits, tmp_path):
    u, y = levels(), np.arange(12) % 10
    given = given_samples(saved(tmp_path, images=u, labels=y.astype(np.uint8)), digits)
    np.testing.assert_array_equal(given.images[..., 0], u)
    np.testing.assert_array_equal(given.labels, y)
    assert given.labels.dtype == np.int64
    assert given.told == "12 images from array images, classes from array labels, grey levels 0 to 16 of 16"
    given = given_samples(saved(tmp_path, arr_0=u[..., None], seeds=y), digits)
    np.testing.assert_array_equal(given.images[..., 0], u)
    assert set(given.labels) == {-1}
    assert given.told.startswith("12 images from array arr_0, no classes (seeds left unread)")


def test_an_archive_whose_columns_lie_together_is_stored_row_by_row(digits, tmp_path):
    copy_samples(saved(tmp_path, images=np.asfortranarray(levels())), digits, tmp_path)
    (images,) = StoredRows(tmp_path / "samples.npz", "images").split(12)
    np.testing.assert_array_equal(images[..., 0], levels())


def test_folders_of_images_are_taken_with_their_class_or_without(digits, tmp_path):
    u = levels(12)
    for i, image in enumerate(u):
        for path in (tmp_path / "flat" / f"{i:02}.png", tmp_path / "nested" / str(i % 3) / f"{i:02}.png"):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    given = given_samples(tmp_path / "flat", digits)
    np.testing.assert_array_equal(given.images[..., 0], u)
    assert set(given.labels) == {-1}
    given = given_samples(tmp_path / "nested", digits)
    np.testing.assert_array_equal(given.labels, np.repeat([0, 1, 2], 4))
    np.testing.assert_array_equal(given.images[..., 0], np.concatenate([u[0::3], u[1::3], u[2::3]]))
    assert "folders are class numbers" in given.told


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"pictures": levels()}, "no array 'images', only pictures"),
        ({"images": levels(shape=(9, 9))}, r"8 x 8 pixels and 1 channel as .* got shape \(12, 9, 9\)"),
        ({"images": levels().astype(np.float32)}, "got float32"),
        ({"images": levels(3)}, "3 samples are too few"),
        ({"images": levels(top=40)}, "those of digits are 0 to 16; rescale"),
        ({"images": levels(), "labels": np.arange(3)}, "labels must be 12 integers"),
        ({"images": levels(), "labels": np.full(12, 10)}, "label 10, the classes of digits are 0 to 9"),
        ({"images": np.array([None] * 12)}, "images is an array of objects"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_archives_that_cannot_be_used_are_refused(digits, tmp_path, arrays, said):
    with pytest.raises(InputError, match=said) as caught:
        given_samples(saved(tmp_path, **arrays), digits)
    assert "given.npz" in str(caught.value)


def test_files_that_cannot_be_used_are_refused(digits, tmp_path):
    def refused(said):
        with pytest.raises(InputError, match=said):
            given_samples(path, digits)

    path = tmp_path / "cut.npz"
    path.write_bytes(saved(tmp_path, images=levels(500)).read_bytes()[:200])
    refused("cut.npz")
    np.save(tmp_path / "one.npy", levels())
    path = tmp_path / "one.npy"
    refused("single array")
    path = tmp_path / "folder"
    path.mkdir()
    refused("holds no files")
    see_through = Image.fromarray(levels()[0])
    see_through.putalpha(100)
    see_through.save(path / "a.png")
    refused("a.png: transparent pixels")
    Image.fromarray(levels()[0]).save(path / "a.jpg")
    (path / "a.png").unlink()
    refused("a.jpg is a JPEG file")
    (path / "cats").mkdir()
    for i, image in enumerate(levels()):
        Image.fromarray(image).save(path / "cats" / f"{i}.png")
    refused("a.jpg lies beside the folder cats")
    (path / "a.jpg").unlink()
    refused("folder 'cats' is no class of digits; name all folders by class")


ROW = {"cell": "a", "guidance_scale": 3.0, "metric": "fd", "feature_network": "net", "stderr": 0.1, "n": 100}


def test_tables_by_class_show_means_over_seeds():
    rows = [{**ROW, "seed": seed, "label": label, "value": seed + label} for seed in (0, 1) for label in (0, 1, 2)]
    rows.append({**ROW, "cell": "b|", "seed": 0, "label": 2, "value": 7.0})
    lines = to_markdown(rows).splitlines()
    assert lines[0] == "### fd ↓ of each class, feature network net"
    assert lines[2:] == [
        "| cell | scale | 0 | 1 | 2 |",
        "| --- | --- | ---: | ---: | ---: |",
        "| a | 3 | 0.500 | 1.500 | 2.500 |",
        "| b&#124; | 3 | missing | missing | 7.000 |",
    ]
    assert to_csv(rows).splitlines()[1] == "a,0,3.0,fd,net,0,,0,0.1,100"


def test_tables_by_class_name_classes_and_keep_tasks_apart():
    numbers = [{**ROW, "seed": 0, "label": k, "class_name": name, "value": k} for k, name in enumerate(("cat", "1"))]
    other = [{**ROW, "cell": "pu", "seed": 0, "label": k, "class_name": f"x{k}", "value": k} for k in (0, 1)]
    lines = [line for line in to_markdown([*numbers, *other]).splitlines() if line.startswith("| ")]
    assert lines[0] == "| cell | scale | 0 cat | 1 |"
    assert lines[2:4] == ["| a | 3 | 0.000 | 1.000 |", "| cell | scale | 0 x0 | 1 x1 |"]
    assert lines[5] == "| pu | 3 | 0.000 | 1.000 |"


def test_tables_by_class_show_what_failed_is_missing_or_cannot_be_asked():
    at = {"guidance_scale": 3.0}
    records = [
        measured("a", "m", 0, "fd/intra", 1.0, n=9, protocol={**at, "feature_network": "net"}),
        failed("a", "m", 1, "fd/intra", "boom", protocol=at),
        failed("b", "m", 0, "fd/intra", "loss is nan", protocol=at),
        not_applicable("c", "m", 0, "fd/intra", "no class is asked for"),
        measured("d", "m", 0, "accuracy/clean", 1.0, n=9),
    ]
    numbers = [{**ROW, "seed": 0, "label": k, "class_name": str(k), "value": 1.0} for k in (0, 1)]
    lines = to_markdown(numbers, rows_of_results(Results("s", "", {}, tuple(records)))).splitlines()
    assert lines[4:] == [
        "| a | 3 | failed | failed |",
        "| b | 3 | failed | failed |",
        "| d |  | missing | missing |",
        "",
        "- failed: a, boom",
        "- failed: b, loss is nan",
        "- n/a: c, no class is asked for",
    ]
    alone = (failed("b", "m", 0, "accuracy/generated", "loss is nan", protocol=at),)
    told = to_markdown([], rows_of_results(Results("s", "", {}, alone)))
    assert told == "- failed: b, loss is nan\n"


SUITE = """
reference: reference_classifier
protocol: {samples: 100, noisy_draws: 1, levels: 2, denoise_times: [0.5], test_images: 60, neighbour_images: 200}
cells:
  reference_classifier: {config: digits/supervised.yaml, seed: 1000, set: {trainer.max_steps: 20}}
  theirs: {samples: theirs.npz}
"""


@pytest.mark.slow
def test_a_suite_and_the_command_measure_given_samples_alike(tmp_path, digits, capsys):
    u, y = digits.images("train")
    np.savez(tmp_path / "theirs.npz", images=u[:200, 0].numpy(), labels=y[:200].numpy())
    suite, out = tmp_path / "mine.yaml", tmp_path / "run"
    suite.write_text(SUITE)
    words = ["--out", str(out), "--workers", "1"]
    assert main(["--suite", str(suite), *words]) == 0
    records = json.loads((out / "results.json").read_text())["records"]
    found = {record["metric"]: record for record in records if record["cell"] == "theirs"}
    assert found["nn_ratio"]["value"] == 0  # they are copies of training images
    assert found["precision"]["protocol"]["real"] == 200
    assert found["accuracy/generated"]["n"] == found["fd"]["n"] == 200
    assert found["accuracy/clean"]["status"] == "n/a"
    assert found["prd/recall"]["value"] > 0.9
    assert "accuracy/generated ↑ of each class" in (out / "per_class.md").read_text()

    assert evaluate([str(tmp_path / "theirs.npz"), "--data", str(suite), "--row", "again", *words]) == 0
    again = json.loads((out / "results.json").read_text())["records"]
    assert {record["cell"] for record in again} == {"reference_classifier", "theirs", "again"}
    same = {record["metric"]: record for record in again if record["cell"] == "again"}
    assert {m: r["value"] for m, r in same.items() if r["unit"] != "s"} == {
        m: r["value"] for m, r in found.items() if r["unit"] != "s"
    }
    assert not (out / "reference_classifier" / "seed0").exists()
    assert main(["--suite", str(suite), *words]) == 0  # the row stays
    stays = json.loads((out / "results.json").read_text())["records"]
    assert {record["cell"] for record in stays} == {"reference_classifier", "theirs", "again"}

    for name in {path.name for path in out.iterdir()} - {"reference_classifier", "theirs", "again", ".lock"}:
        assert refused_as_a_cell(name), name  # no cell may take the name of a file or folder that a run writes

    capsys.readouterr()
    assert evaluate(["--data", str(suite), "--remove", "again", *words]) == 0
    assert "| again" not in capsys.readouterr().out
    rest = json.loads((out / "results.json").read_text())["records"]
    assert rest == [record for record in stays if record["cell"] != "again"]
    assert not (out / "again").exists()
    assert "again" not in (out / "plan.json").read_text()
    assert json.loads((out / "given.json").read_text()) == {}


def refused_as_a_cell(name):
    try:
        check_cell_name(name, "cell")
    except InputError:
        return True
    return False


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ('{"../../../evil": "/tmp"}', "name of a row must be 1 to 64 letters"),
        ('{"results.json": "/tmp"}', "name of a row must not end in .json"),
        ('{"a": 1}', "given.json is damaged; delete it"),
        ("[]", "given.json is damaged"),
        ("{", "given.json is damaged"),
    ],
)
def test_rows_that_a_run_folder_names_are_checked(tmp_path, rows, said):
    (tmp_path / "given.json").write_text(rows)
    with pytest.raises(InputError, match=said):
        with_given(load_suite("digits"), tmp_path)


@pytest.mark.slow
def test_a_suite_whose_own_samples_do_not_fit_is_refused_before_training(tmp_path, capsys):
    saved(tmp_path, images=levels(), labels=np.arange(1, 13) % 11).rename(tmp_path / "theirs.npz")
    (tmp_path / "mine.yaml").write_text(SUITE)
    assert main(["--suite", str(tmp_path / "mine.yaml"), "--out", str(tmp_path / "run"), "--workers", "1"]) == 2
    told = capsys.readouterr().err
    assert "row theirs: " in told
    assert "label 10, the classes of digits are 0 to 9" in told
    assert not (tmp_path / "run").exists()


def test_a_suites_own_samples_without_classes_are_taken(digits, tmp_path):
    assert set(given_samples(saved(tmp_path, images=levels(), labels=np.full(12, -1)), digits).labels) == {-1}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none.npz", "--data", "digits"], "none.npz; give an .npz file"),
        (["here.npz", "--data", "digit"], "no suite named 'digit'; did you mean digits?"),
        (["here.npz", "--data", "digits", "--row", "a b"], "--row must be 1 to 64 letters"),
        (["here.npz", "--data", "digits", "--row", "gaussian"], "suite digits has a cell gaussian"),
        (["here.npz", "--data", "digits", "--workers", "0"], "--workers must be 1 to 1024, got 0"),
        (["here.npz", "--data", "digits", "--row", "results.json"], "--row must not end in .json, .csv"),
        (["parts", "--data", "digits"], "part0.npz is a file of arrays; join the arrays"),
        (["first.npz", "--data", "digits", "--workers", "1"], "channels come first, save images.transpose(0, 2, 3, 1)"),
        (["--data", "digits"], "give SAMPLES, with --row NAME if you like, or --remove ROW alone"),
        (["here.npz", "--data", "digits", "--remove", "here"], "give SAMPLES, with --row NAME"),
        (["--data", "digits", "--remove", "here"], "runs/digits; none were given"),
        (["here.npz", "--date", "digits"], "unknown option --date; did you mean --data?"),
        (["here.npz"], "the following arguments are required: --data"),
    ],
    ids=lambda value: "" if isinstance(value, list) else value[:20],
)
def test_the_command_refuses_in_one_line_and_writes_nothing(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    saved(tmp_path, images=levels()).rename("here.npz")
    saved(tmp_path, images=levels(shape=(1, 8, 8))).rename("first.npz")
    (tmp_path / "parts").mkdir()
    saved(tmp_path, images=levels()).rename("parts/part0.npz")
    assert evaluate(words) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.npz", "here.npz", "parts"]


@pytest.mark.slow
def test_rows_of_other_code_are_not_lost_from_the_tables_when_a_row_comes_or_goes(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text(SUITE.replace("  theirs: {samples: theirs.npz}\n", ""))
    saved(tmp_path, images=levels()).rename(tmp_path / "here.npz")
    out = tmp_path / "run"
    out.mkdir()
    made = [measured("reference_classifier", "Supervised", 1000, "accuracy/clean", 0.9, n=9)]
    write_results(out / "results.json", Results("mine", "", {}, tuple(made)))
    (out / "given.json").write_text(json.dumps({"old": str(tmp_path / "here.npz")}))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    common = ["--data", str(tmp_path / "mine.yaml"), "--out", str(out), "--workers", "1"]
    for words in ([str(tmp_path / "here.npz")], ["--remove", "old"]):
        assert evaluate([*words, *common]) == 2
        told = capsys.readouterr().err
        assert "has 1 row(s) of other code, settings or data, reference_classifier the first" in told
        assert told.splitlines()[-1].startswith("error: ")
        assert {path.name: path.read_bytes() for path in out.iterdir() if path.name != ".lock"} == before
