"""The page of a run: its curves and pictures."""

import base64
import hashlib
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark.report import main
from benchmark.results.headline import to_headline
from benchmark.results.page import write_report
from benchmark.results.page_pictures import _arranged, _picture, confusions, curve, grids
from benchmark.results.record import Results, failed, measured, not_applicable
from benchmark.results.results_file import write_results
from benchmark.suite.cells import Cell
from benchmark.suite.jobs import Job, write_plan
from benchmark.suite.stages import Stage


def accuracy(cell: str, sigma: float, value: float):
    return measured(
        cell, "m", 0, f"accuracy/t={sigma:g}", value, n=10, stderr=None, protocol={"sigma": sigma}, seconds=None,
        peak_memory_bytes=None, key="",
    )  # fmt: skip


def test_cells_that_share_a_classifier_have_one_line():
    curves = {"first": 0.9, "twin": 0.9, "other": 0.8}
    records = [accuracy(cell, sigma, high - sigma / 10) for cell, high in curves.items() for sigma in (0.5, 1.0)]
    drawn = curve(Results(suite="s", commit="", environment={}, records=records), ["first", "twin", "silent", "other"])
    assert {name: f">{name}<" in drawn for name in ("first", "twin", "silent", "other")} == {
        "first": True,
        "twin": False,
        "silent": False,
        "other": True,
    }


@pytest.mark.parametrize("count", [20, 30, 70])
def test_every_curve_is_drawn_and_named_inside_the_picture(count):
    cells = [f"cell_{i}" for i in range(count)]
    records = [accuracy(cell, sigma, i / count) for i, cell in enumerate(cells) for sigma in (0.5, 1.0)]
    drawn = curve(Results(suite="s", commit="", environment={}, records=records), cells)
    width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawn).groups())
    found = re.findall(r'x="([-\d.]+)" y="([-\d.]+)"[^>]*>(cell_\d+)<', drawn)
    assert [name for *_, name in found] == cells
    assert all(0 < float(x) < width - 30 and 0 < float(y) < height for x, y, _ in found)


def test_without_curves_there_is_no_picture():
    assert curve(Results(suite="s", commit="", environment={}, records=[]), ["a"]) is None


def test_confusions_of_noise_levels_are_drawn_once_for_each_classifier(tmp_path):
    matrices = {"sharp": np.eye(5), "twin": np.eye(5), "blurred": np.full((5, 5), 0.2)}
    for cell, confusion in matrices.items():
        folder = tmp_path / cell / "seed0"
        folder.mkdir(parents=True)
        np.savez(folder / "diagnostics.npz", confusion=confusion)
    cells = [*matrices, "silent"]
    (tmp_path / "earlier" / "seed0").mkdir(parents=True)
    np.savez(tmp_path / "earlier" / "seed0" / "diagnostics.npz", confusion=np.eye(3))  # of other settings
    records = [measured(cell, "m", 0, "accuracy/level", 0.5, n=10) for cell in cells]
    records.append(not_applicable("earlier", "m", 0, "accuracy/level", "no noise levels"))
    drawn = confusions(tmp_path, Results(suite="s", commit="", environment={}, records=records), [*cells, "earlier"])
    assert [picture["caption"] for picture in drawn] == ["sharp", "blurred"]
    brightest = []
    for picture in drawn:
        with Image.open(io.BytesIO(base64.b64decode(picture["image"].partition(",")[2]))) as image:
            pixels = np.asarray(image.convert("RGB"), dtype=int)
        yellow = (pixels[..., 0] > 200) & (pixels[..., 1] > 200) & (pixels[..., 2] < 90)
        brightest.append(yellow[:, : pixels.shape[1] // 2].sum())  # left of the colour bar
    assert brightest[0] > 1000 > brightest[1]


def test_points_in_the_plane_are_shown_where_they_lie():
    points = np.random.default_rng(0).integers(0, 65536, (30, 1, 1, 2), dtype=np.int32)
    address, width = _picture(points, np.arange(30) % 2)
    kind, data = address.split(",")
    assert width > 0
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        pixels = np.asarray(picture.convert("RGB"), dtype=int)
    reds, blues = ((pixels[..., a] - pixels[..., b] > 60).sum() for a, b in ((0, 2), (2, 0)))
    assert min(reds, blues) > 15  # a colour for each class


@pytest.mark.parametrize(("classes", "columns"), [(10, 10), (2, 10), (3, 9), (20, 10)])
def test_few_classes_share_the_width_of_the_picture_class_by_class(classes, columns):
    labels = np.arange(400) % classes
    images = np.broadcast_to(labels[:, None, None, None] + 1, (400, 3, 3, 1))
    grid = _arranged(images, labels)
    assert grid.shape[1] == columns * 4  # pixels of an image and the gap
    shown = [len(np.unique(grid[:3, 4 * i : 4 * i + 3])) for i in range(columns)]
    assert shown == [1] * columns
    assert len({int(grid[0, 4 * i, 0]) for i in range(columns)}) == min(classes, 10)


def test_a_handful_of_samples_still_makes_a_picture():
    assert _arranged(np.ones((2, 3, 3, 1)), np.array([0, 1])).shape == (4, 8, 1)


class Page(HTMLParser):
    """The elements of a page, their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


NAMES = [
    *("<script>alert(1)</script>", "|x", '"><img src=x onerror=alert(1)>', "`x`", "a\nb", "$\\frac$", "{{ 7 * 7 }}"),
    *("=1+1", "\x1b[31m", "</svg><script>alert(1)</script>", "&lt;b&gt;", "]]>", "\u202e", "../../../etc", "]--><b>"),
]


@pytest.mark.parametrize("name", NAMES)
def test_names_reasons_and_protocols_do_nothing_in_the_page(tmp_path, name):
    records = [
        measured(name, name, 0, "accuracy/clean", 0.5, n=10, protocol={name: name}),
        measured(name, name, 0, "accuracy/t=0.5", 0.5, n=10, protocol={"sigma": 0.5, "kind": name}),
        not_applicable(name, name, 0, "nll", name),
        failed("b", name, 0, "accuracy/clean", name),
        measured("b", name, 0, "nll", 2.0, n=10),
    ]
    environment = {name: name, "nested": {name: [name]}}
    write_results(tmp_path / "results.json", Results(name, name, environment, tuple(records)))
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    tags = [tag for tag, _ in page.elements]
    assert not {*tags} & {"img", "b", "iframe", "object", "link", "base"}
    assert (tags.count("script"), tags.count("form")) == (1, 1)  # the page's own
    assert not any(key.startswith("on") for _, attributes in page.elements for key in attributes)
    shown = " ".join(name.split())
    assert shown in " ".join(page.text.split())
    assert any(shown in " ".join((attributes.get("title") or "").split()) for _, attributes in page.elements)


def test_the_page_asks_nobody_for_anything_and_its_policy_says_so(tmp_path):
    folder = tmp_path / "a" / "seed0"
    folder.mkdir(parents=True)
    np.savez(folder / "samples.npz", images=np.zeros((4, 2, 2, 1), np.uint8), labels=np.arange(4))
    write_results(tmp_path / "results.json", Results("s", "", {}, (accuracy("a", 0.5, 0.5),)))
    text = write_report(tmp_path).read_text(encoding="utf-8")
    page = Page(text)
    policy = next(a["content"] for tag, a in page.elements if tag == "meta" and "http-equiv" in a)
    digest = base64.b64encode(
        hashlib.sha256(text.split("<script>")[1].split("</script>")[0].encode()).digest()
    ).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert {"img", "svg"} <= {tag for tag, _ in page.elements}
    asked = [a[key] for _, a in page.elements for key in ("src", "href", "xlink:href", "action", "data") if key in a]
    assert asked
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in asked)
    assert not re.search(r"@import|url\((?!#)", text)


def test_a_cell_whose_name_leads_out_of_the_run_shows_no_pictures(tmp_path):
    folder = tmp_path / "elsewhere" / "seed0"
    folder.mkdir(parents=True)
    np.savez(folder / "samples.npz", images=np.zeros((4, 2, 2, 1), np.uint8), labels=np.arange(4))
    (tmp_path / "run").mkdir()
    record = measured("../elsewhere", "m", 0, "accuracy/clean", 0.5, n=10)
    write_results(tmp_path / "run" / "results.json", Results("s", "", {}, (record,)))
    assert main([str(tmp_path / "run")]) == 0
    assert "<img" not in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_curves_without_a_noise_level_are_left_out():
    records = [measured("a", "m", 0, "accuracy/t=0.5", 0.5, n=10, protocol={"sigma": s}) for s in ("x", 0, -1, True)]
    assert curve(Results(suite="s", commit="", environment={}, records=records), ["a"]) is None


def test_each_feature_network_has_a_table(tmp_path):
    def number(metric, value, **protocol):
        return measured(
            "a", "m", 0, metric, value, n=10, stderr=None, protocol=protocol, seconds=None, peak_memory_bytes=None,
            key="",
        )  # fmt: skip

    records = [
        number("accuracy/generated", 0.9, feature_network="reference"),
        number("fd", 0.25, feature_network="reference"),
        number("fd", 0.75, feature_network="lite0"),
    ]
    write_results(tmp_path / "results.json", Results(suite="s", commit="", environment={}, records=records))
    page = write_report(tmp_path).read_text()
    first, second = re.split(r'<h2 id="table\d">Generation by ', page)[1:3]
    assert first.startswith("reference</h2>")
    assert "0.250" in first
    assert second.startswith("lite0</h2>")
    assert "0.750" in second
    assert "0.250" not in second


def rows_in(text):
    """Texts of the cells of tables, by the name in front."""
    lines = [line for line in text.splitlines() if line.startswith("<tr data-cell=")]
    return {
        re.search(r'<th scope="row"><span>([^<]*)', line)[1]: re.findall(r">([^<>]*)(?:</strong>)?</td>", line)
        for line in lines
    }


def test_the_best_methods_are_bold_and_what_is_not_told_from_them(tmp_path):
    """Means .9, .89 and .5 with differences of about .01, so that the first two are not told apart."""
    values = {"a": (0.90, 0.91, 0.89), "b": (0.89, 0.89, 0.89), "c": (0.5, 0.51, 0.49), "floor": (1.0, 1.0, 1.0)}
    records = [
        measured(cell, "m", seed, "accuracy/clean", value, n=10)
        for cell, of_seeds in values.items()
        for seed, value in enumerate(of_seeds)
    ]
    records += [
        measured(cell, "m", seed, "accuracy/clean", value, n=10, protocol={"task": "odd"})
        for cell, value in (("p", 0.99), ("q", 0.7))
        for seed in range(3)
    ]
    results = Results("s", "", {}, tuple(records))
    write_results(tmp_path / "results.json", results)
    text = write_report(tmp_path, [*values, "p", "q"], {"floor"}).read_text(encoding="utf-8").split('id="table1"')[0]
    assert re.findall(r"<strong>([^<]*)</strong>", text) == ["0.900(6)", "0.890(0)", "0.990(0)"]
    assert [*rows_in(text)] == ["floor (floor)", "a", "b", "c", "p", "q"]
    assert "**.900**" in to_headline(results, [*values], {"floor"})


def test_the_methods_table_tells_labels_where_a_row_has_some(tmp_path):
    records = [
        measured(cell, "m", 0, "accuracy/clean", 0.5, n=10, protocol={} if count is None else {"n_labeled": count})
        for cell, count in (("all", 1437), ("few", 70), ("none", None))
    ] + [measured("all", "m", 0, "fd", 0.5, n=10, protocol={"n_labeled": "<b>"})]
    for found, header, labels in ((records, True, ["1437", "70", ""]), (records[2:3], False, ["0.500"])):
        write_results(tmp_path / "results.json", Results("s", "", {}, tuple(found)))
        text = write_report(tmp_path).read_text(encoding="utf-8").split('id="table1"')[0]
        assert ('<th scope="col">labels</th>' in text) == header
        assert [cells[0] for cells in rows_in(text).values()] == labels


def test_failed_missing_and_inapplicable_rows_are_in_the_page_with_their_reasons(tmp_path):
    records = [
        measured("good", "m", 0, "accuracy/clean", 0.9, n=10),
        measured("good", "m", 0, "f1", 0.8, n=10),
        failed("bad", "m", 0, "accuracy/clean", "diverged: the loss is nan"),
        failed("bad", "m", 0, "f1", "diverged: the loss is nan"),
        measured("half", "m", 0, "accuracy/clean", 0.7, n=10, protocol={"n_labeled": 5}),
        failed("half", "m", 1, "accuracy/clean", "out of memory"),
        not_applicable("images", "m", 0, "accuracy/clean", "not a model"),
        not_applicable("images", "m", 0, "f1", "not a model"),
    ]
    for cell, seed in (("bad", 0), ("half", 0), ("half", 1)):
        folder = tmp_path / cell / f"seed{seed}"
        folder.mkdir(parents=True)
        np.savez(folder / "samples.npz", images=np.full((4, 2, 2, 1), seed, np.uint8), labels=np.arange(4))
    write_results(tmp_path / "results.json", Results("s", "", {}, tuple(records)))
    text = write_report(tmp_path, ["good", "bad", "half", "images", "absent"]).read_text(encoding="utf-8")
    headline, tables = text.split('<h2 id="table1">')
    rows = rows_in(tables)
    assert rows == {
        "good": ["0.900", "0.800"],
        "bad": ["failed", "failed"],
        "half": ["failed; 0.700", "missing"],
        "absent": ["missing", "missing"],
    }
    shown = " ".join(Page(text).text.split())
    assert "failed: bad: diverged: the loss is nan" in shown
    assert "failed: half: out of memory" in shown
    assert "n/a throughout: images: not a model" in shown
    assert rows_in(headline) == {"good": ["0.900"], "bad": ["failed"], "half": ["failed"], "images": ["–"]}
    pictures = re.findall(r'alt="Samples of ([^"]*), class by class"', text)
    assert pictures == ["half"]  # of its sound seed; what the folder of the failed cell holds is not shown
    assert "failed: bad, diverged: the loss is nan" in shown  # among the samples too


def test_columns_of_samples_are_named_by_their_classes(tmp_path):
    folder = tmp_path / "a" / "seed0"
    folder.mkdir(parents=True)
    np.savez(folder / "samples.npz", images=np.zeros((4, 2, 2, 1), np.uint8), labels=np.array([0, 1, 2, 2]))
    names = [{"label": k, "class_name": name} for k, name in enumerate(("cat", "<b>dog</b>"))]
    (folder / "per_class.json").write_text(json.dumps(names))
    write_results(tmp_path / "results.json", Results("s", "", {}, (accuracy("a", 0.5, 0.5),)))
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert re.findall(r'<span title="[^"]*">([^<]*)</span>', text) == ["cat", "&lt;b&gt;dog&lt;/b&gt;", "2"]


def test_samples_at_scales_that_are_in_no_result_are_not_shown(tmp_path):
    folder = tmp_path / "a" / "seed0"
    folder.mkdir(parents=True)
    for name in ("samples", "samples@1", "samples@3"):
        np.savez(folder / f"{name}.npz", images=np.zeros((4, 2, 2, 1), np.uint8), labels=np.arange(4))
    record = measured("a", "m", 0, "fd", 1.0, n=4, protocol={"guidance_scale": 3.0})
    found = grids(tmp_path, Results("s", "", {}, (accuracy("a", 0.5, 0.5), record)), ["a"])
    assert [grid["caption"] for grid in found] == ["a, scale 3"]


def test_the_page_made_again_knows_a_runs_floors_and_its_order(tmp_path):
    records = [measured(cell, "m", 0, "accuracy/clean", 0.9, n=10) for cell in ("a", "floor", "z")]
    write_results(tmp_path / "results.json", Results("s", "", {}, tuple(records)))
    jobs = [
        Job(Cell(name, floor=name == "floor"), 0, "evaluate", tmp_path / name / "seed0", (Stage("metrics", "key"),))
        for name in ("z", "floor", "a")
    ]
    write_plan(tmp_path, "s", "key", {}, jobs)
    assert main([str(tmp_path)]) == 0
    text = (tmp_path / "report.html").read_text(encoding="utf-8").split('id="table1"')[0]
    assert [*rows_in(text)] == ["floor (floor)", "z", "a"]


def test_a_committed_table_has_its_suites_floors_order_and_command(tmp_path):
    for end, name in ((".json", "results.json"), (".npz", "answers.npz")):
        shutil.copy(Path(__file__).parents[2] / "results" / f"digits{end}", tmp_path / name)
    assert main([str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert re.search(r'<tr data-cell="training_copies" class="floor">', page)
    assert not re.search(r'<tr data-cell="(joint|cdm)" class="floor">', page)
    assert "python -m benchmark.run --suite digits --only joint --seeds 0,1,2,3,4\n<" in page
    assert page.index('data-cell="gaussian"') < page.index('data-cell="score_model"') < page.index('data-cell="joint"')
    assert "margin 0.03" in page
