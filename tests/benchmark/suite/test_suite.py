"""Suite files: what they may say, what is refused in one line, and the order of cells."""

import copy
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from benchmark.errors import InputError
from benchmark.suite.cells import CONFIGS
from benchmark.suite.graph import closure, order
from benchmark.suite.protocol import Protocol
from benchmark.suite.suite import load_suite, selected, suites
from benchmark.system.yaml_files import read_yaml

CONFIG, GUIDED = "digits/supervised.yaml", "digits/noisy_classifier.yaml"
GOOD = {"reference": "ref", "cells": {"ref": {"config": CONFIG}, "other": {"config": CONFIG}}}


@pytest.fixture
def load(tmp_path):
    """The suite in a file with this content, a mapping or text."""

    def load(content, **options):
        path = tmp_path / "mine.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
        return load_suite(str(path), **options)

    return load


@pytest.fixture
def refusal(load):
    """The message with which a file is refused, on one line."""

    def refusal(content):
        with pytest.raises(InputError) as refused:
            load(content)
        assert "\n" not in str(refused.value)
        return str(refused.value)

    return refusal


def changed(*path, to):
    """The good suite with one value changed, or taken out for ``...``."""
    suite = copy.deepcopy(GOOD)
    place = suite
    for key in path[:-1]:
        place = place.setdefault(key, {})
    place[path[-1]] = to
    return suite


def needing(needs):
    """The good suite with a guided method that gets weights from the cells named."""
    return changed(*CELL, to={"config": GUIDED, "needs": needs})


def test_a_suite_says_what_is_run_and_how_it_is_measured(load):
    protocol = {"samples": 7, "middle": [1, 2], "denoise_times": [0.5]}
    suite = load({**GOOD, "protocol": protocol, "seeds": [3, 4]})
    assert (suite.name, suite.reference, suite.seeds) == ("mine", "ref", [3, 4])
    assert suite.protocol == Protocol(samples=7, middle=(1, 2), denoise_times=(0.5,))
    assert list(suite.cells) == ["ref", "other"]


SMALL = {
    "protocol": {"samples": 5, "test_images": 50},
    "overrides": [
        {"set": {"trainer.max_steps": 9, "data.init_args.batch_size": 8}},
        {"cells": ["other"], "set": {"trainer.max_steps": 3}, "guidance_scales": [2]},
    ],
}


def test_a_budget_changes_protocol_and_settings_later_overrides_last_and_shows_in_the_name(tmp_path):
    content = changed("budgets", to={"small": SMALL})
    content["cells"]["other"] |= {"set": {"seed_everything": 4, "trainer.max_steps": 99}, "guidance_scales": [1, 3]}
    content["cells"]["floor"] = {"images": "test"}
    content["protocol"] = {"levels": 3, "samples": 90}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    paper, small = load_suite(str(path)), load_suite(str(path), "small")
    assert (paper.name, small.name) == ("mine", "mine-small")
    assert paper.cells["other"].set["trainer.max_steps"] == 99
    assert paper.cells["ref"].set == {}
    assert small.cells["ref"].set == {"trainer.max_steps": 9, "data.init_args.batch_size": 8}
    expected = {"seed_everything": 4, "trainer.max_steps": 3, "data.init_args.batch_size": 8}
    assert (small.cells["other"].set, small.cells["other"].guidance_scales) == (expected, [2])
    assert small.cells["floor"] == paper.cells["floor"]
    assert small.protocol == Protocol(samples=5, test_images=50, levels=3)


def test_a_budget_in_a_file_of_its_own_chooses_cells_by_their_configuration_and_the_suite_has_the_last_word(tmp_path):
    shared = {"protocol": {"samples": 4}, "overrides": [{"configs": ["supervised"], "set": {"a": 1, "b": 1}}]}
    (tmp_path / "shared.yaml").write_text(yaml.safe_dump(shared))
    own = {"include": "shared.yaml", "protocol": {"levels": 2}, "overrides": [{"cells": ["other"], "set": {"b": 2}}]}
    content = changed("budgets", to={"small": own})
    content["cells"]["supervised"] = {"config": "digits/joint.yaml"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    suite = load_suite(str(tmp_path / "mine.yaml"), "small")
    assert suite.protocol == Protocol(samples=4, levels=2)
    sets = {name: cell.set for name, cell in suite.cells.items()}
    assert sets == {"ref": {"a": 1, "b": 1}, "other": {"a": 1, "b": 2}, "supervised": {}}


def test_a_change_of_all_methods_leaves_out_configurations_that_it_names(tmp_path):
    content = changed("budgets", to={"small": {"overrides": [{"without": ["supervised"], "set": {"a": 1}}]}})
    content["cells"]["guided"] = {"config": GUIDED, "needs": {"denoiser": None}}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    cells = load_suite(str(path), "small").cells
    assert [name for name, cell in cells.items() if cell.set == {"a": 1}] == ["guided"]


def test_a_budget_may_add_cells_that_its_overrides_reach_and_that_need_cells_of_the_suite(tmp_path):
    content = changed("cells", "score_model", to={"config": "digits/score_model.yaml"})
    more = {"sweep": {"for": {"n": [1, 2]}, "cells": {"guided_{n}": {"config": GUIDED}}}}
    content["budgets"] = {"full": {"cells": more, "overrides": [{"cells": ["guided_*"], "set": {"a": 1}}]}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    suite = load_suite(str(tmp_path / "mine.yaml"), "full")
    assert (suite.name, [*suite.cells]) == ("mine-full", ["ref", "other", "score_model", "guided_1", "guided_2"])
    assert suite.needs["guided_2"] == ["score_model"]
    assert suite.cells["guided_1"].set["a"] == 1
    assert [*load_suite(str(tmp_path / "mine.yaml")).cells] == ["ref", "other", "score_model"]


SHARES = (10, 50, 250)
SIX = {
    "noisy_classifier", "denoising_assisted", "cg_sc_100", "cg_100", "cdm", "ddgm", "joint_guided", "joint_classifier",
    *(f"few_{method}_{n}" for method in ("ssl_da", "supervised_da", "cg_sc_all", "cg") for n in SHARES),
}  # fmt: skip
FLOORS = {"held_out_images", "training_copies", "class_gaussians", "score_class_gaussians"}


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10"])
def test_the_budget_of_hours_has_the_methods_what_they_are_compared_with_and_floors_on_averaged_images(name):
    suite = load_suite(name, "medium")
    assert {"reference_classifier", "score_model", *SIX, *FLOORS} <= {*suite.cells}
    assert (suite.protocol.samples, suite.protocol.test_images) == (5000, None)
    assert suite.protocol.features == ("reference", "efficientnet-lite0")
    methods = [cell for cell in suite.cells.values() if cell.config is not None]
    assert {cell.set["data.init_args.average_to"] for cell in methods} == {16}
    for n in SHARES:
        assert suite.cells[f"few_ssl_da_{n}"].set["data.init_args.labels"]["init_args"] == {"count": n}
    for settings in (cell.set for cell in methods if not cell.floor):  # the rate falls to 0 as the training ends
        steps = settings.get("lr_scheduler.init_args.steps", settings["lr_scheduler"]["init_args"]["steps"])
        assert steps == settings["trainer.max_steps"]


def test_a_budget_may_keep_some_cells_which_bring_the_reference_and_what_they_need(tmp_path):
    content = changed("cells", "score_model", to={"config": "digits/score_model.yaml"})
    content["cells"] |= {"guided": {"config": GUIDED}, "copies": {"images": "train"}, "test": {"images": "test"}}
    content["budgets"] = {
        "few": {"only": ["guided", "cop*", "more"], "cells": {"more": {"config": "digits/joint.yaml"}}},
        "all": {"protocol": {"samples": 9}},
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    few = load_suite(str(path), "few")
    assert [*few.cells] == ["ref", "score_model", "guided", "copies", "more"]
    assert few.cells["guided"] == load_suite(str(path), "all").cells["guided"]
    asked = load_suite(str(path), "few", more={"asked": {"config": "digits/joint.yaml"}})
    assert [*asked.cells] == [*few.cells, "asked"]
    assert "other" in load_suite(str(path), "all").cells


def test_changes_reach_every_method_over_its_budget_and_the_suite_takes_the_name_given(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(changed("budgets", to={"small": SMALL})))
    suite = load_suite(str(path), "small", {"trainer.max_steps": 2}, "elsewhere")
    assert suite.name == "elsewhere"
    assert {cell.set["trainer.max_steps"] for cell in suite.cells.values()} == {2}


@pytest.mark.parametrize(
    ("budgets", "told"),
    [
        ({"tiny": SMALL}, "mine.yaml: no budget 'small'; there are: paper, tiny"),
        (None, "mine.yaml: no budget 'small'; there are: paper"),
        ([1], "mine.yaml: budgets: expected keys and values, got [1]"),
        ({"small": {"cells": {"other": {}}}}, "budget small: cells: 'other' is a cell of the suite already"),
        ({"small": {"cells": [1]}}, "budget small: cells: expected keys and values, got [1]"),
        ({"small": {"protocl": {}}}, "budget small: unknown key 'protocl'; did you mean protocol?"),
        ({"small": {"protocol": {"samples": 0}}}, "protocol: samples must be at least 1, got 0"),
        ({"small": {"include": "none.yaml"}}, "budget small: no file none.yaml beside the suite file or below configs"),
        ({"small": {"only": "other"}}, "budget small: only: must be a list, got 'other'"),
        ({"small": {"only": ["other", "othr"]}}, "budget small: only: 'othr' is no cell"),
        ({"small": {"overrides": "no"}}, "budget small: overrides must be a list, got 'no'"),
        ({"small": {"overrides": [{"cells": ["nobody"]}]}}, "overrides 0: 'nobody' is no cell with a config"),
        ({"small": {"overrides": [{"sets": {}}]}}, "overrides 0: unknown key 'sets'; did you mean set?"),
        ({"small": {"overrides": [{"guidance_scales": [-1]}]}}, "guidance_scales must be distinct numbers >= 0"),
    ],
)
def test_a_budget_that_cannot_be_used_is_refused_in_one_line(tmp_path, budgets, told):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(changed("budgets", to=budgets)))
    with pytest.raises(InputError) as refused:
        load_suite(str(path), "small")
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_in_the_usual_place_is_found_by_its_name():
    assert "digits" in suites()
    assert load_suite("digits").name == "digits"


def test_a_configuration_is_looked_for_beside_the_suite_file_first(load, tmp_path):
    assert load(GOOD).cells["ref"].config.endswith(f"configs/{CONFIG}")
    own = tmp_path / "digits" / "supervised.yaml"
    own.parent.mkdir()
    own.write_text("model: {}")
    assert load(GOOD).cells["ref"].config == str(own)


def test_yaml_may_merge_mappings(load):
    suite = load(f"reference: a\ncells:\n  a: &base {{config: {CONFIG}, seed: 3}}\n  b: {{<<: *base, seed: 4}}\n")
    assert [suite.cells[name].seed for name in "ab"] == [3, 4]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("digist", "no suite named 'digist'; did you mean digits? there are: "),
        ("../../etc", "no suite named '../../etc'; there are: "),
        ("nothing.yaml", f"no suite file at {Path.cwd() / 'nothing.yaml'}"),
    ],
)
def test_an_unknown_suite_is_answered_with_those_there_are(name, told):
    with pytest.raises(InputError) as refused:
        load_suite(name)
    assert str(refused.value).startswith(told)
    assert name.endswith(".yaml") or "digits" in str(refused.value)


CELL = ("cells", "other")
REFUSED = {
    "unknown key": (changed("sedes", to=[0]), "mine.yaml: unknown key 'sedes'; did you mean seeds?"),
    "unknown cell key": (
        changed(*CELL, "guidance_scale", to=[1]), "unknown key 'guidance_scale'; did you mean guidance_scales?"
    ),
    "unknown protocol key": (
        changed("protocol", "sample", to=3), "mine.yaml: protocol: unknown key 'sample'; did you mean samples?"
    ),
    "far from any key": (changed("zzz", to=1), "known keys are budgets, cells, protocol, reference, seeds"),
    "no cells": (changed("cells", to={}), "mine.yaml: cells: expected keys and values, got {}"),
    "empty cell": (changed(*CELL, to=None), "cell other: expected keys and values, got None"),
    "no config": (changed(*CELL, to={"floor": True}), "cell other: give one of config, images and samples"),
    "both": (changed(*CELL, "images", to="test"), "cell other: give one of config, images and samples"),
    "missing config": (changed(*CELL, "config", to="none.yaml"), "cell other: no file none.yaml beside the suite file"),
    "no such part": (changed(*CELL, to={"images": "val"}), "cell other: images must be train or test, got 'val'"),
    "images with scales": (
        changed(*CELL, to={"images": "test", "guidance_scales": [1]}), "images and samples take no weights, settings"
    ),
    "name of a parent folder": (changed("cells", "..", to={"config": CONFIG}), "cell name must be 1 to 64"),
    "name of a result": (changed("cells", "results.json", to={"config": CONFIG}), "must not end in .json"),
    "name of a report": (changed("cells", "Report.HTML", to={"config": CONFIG}), "must not end in .json"),
    "name with a slash": (changed("cells", "a/b", to={"config": CONFIG}), "cell name must be 1 to 64"),
    "name that is a number": (changed("cells", 3, to={"config": CONFIG}), "cell name must be 1 to 64"),
    "long name": (changed("cells", "a" * 65, to={"config": CONFIG}), "must be 1 to 64 letters"),
    "negative scale": (changed(*CELL, "guidance_scales", to=[1, -2]), "distinct numbers >= 0, got [1, -2]"),
    "scale twice": (changed(*CELL, "guidance_scales", to=[1, 1.0]), "distinct numbers >= 0, got [1, 1.0]"),
    "scale not a number": (changed(*CELL, "guidance_scales", to=[True]), "guidance_scales must be a number, got True"),
    "scale not finite": (changed(*CELL, "guidance_scales", to=[float("nan")]), "must be a number, got nan"),
    "scales not a list": (changed(*CELL, "guidance_scales", to=3), "guidance_scales must be a list, got 3"),
    "seed not an integer": (changed(*CELL, "seed", to="one"), "cell other: seed must be an integer >= 0, got 'one'"),
    "negative seed": (changed(*CELL, "seed", to=-1), "cell other: seed must be an integer >= 0, got -1"),
    "floor not a choice": (changed(*CELL, "floor", to="yes"), "floor must be true or false, got 'yes'"),
    "set not a mapping": (changed(*CELL, "set", to=["a"]), "set must be keys and values, got ['a']"),
    "need not a name": (needing({"denoiser": 3}), "needs: denoiser must be text, got 3"),
    "need of no cell": (needing({"denoiser": "zz"}), "cell other: denoiser needs 'zz', which is no cell"),
    "need that the method does not state": (needing({"network": "ref"}), "cell other: needs: unknown key 'network'"),
    "needs of one that has none": (changed(*CELL, "needs", to={"denoiser": "ref"}), "unknown key 'denoiser'"),
    "weights by the key of the plan": (changed(*CELL, "trains_with", to={"denoiser": "ref"}), "unknown key 'trains_wi"),
    "no reference": ({"cells": GOOD["cells"]}, "reference must name a cell with a config, got 'None'"),
    "reference of images": (
        {"reference": "i", "cells": {"i": {"images": "test"}}}, "reference must name a cell with a config, got 'i'"
    ),
    "circle": (
        {"reference": "ref", "cells": {
            "ref": {"config": CONFIG}, "a": {"config": GUIDED, "needs": {"denoiser": "b"}},
            "b": {"config": GUIDED, "needs": {"denoiser": "a"}},
        }},
        "mine.yaml: cells need one another in a circle: a -> b -> a",
    ),
    "need of one that trains no denoiser": (
        needing({"denoiser": "ref"}), "cell other: denoiser needs 'ref', which trains no denoiser"
    ),
    "need of one that has another's denoiser": (
        {"reference": "ref", "cells": {
            "ref": {"config": CONFIG}, "score_model": {"config": "digits/score_model.yaml"},
            "guided": {"config": GUIDED}, "other": {"config": GUIDED, "needs": {"denoiser": "guided"}},
        }},
        "cell other: denoiser needs 'guided', which trains no denoiser",
    ),
    "sweep without values": (
        changed("cells", "sweep", to={"for": {"x": []}, "cells": {"{x}": {"config": CONFIG}}}),
        "cells: sweep: for: x must be a list, or values by name, got []",
    ),
    "sweep over a cell that there is": (
        changed("cells", "sweep", to={"for": {"x": ["other"]}, "cells": {"{x}": {"config": CONFIG}}}),
        "cells: 'other' is given twice",
    ),
    "need of itself": (needing({"denoiser": "other"}), "in a circle: other -> other"),
    "seeds not a list": (changed("seeds", to=3), "distinct integers from 0 to 2^32 - 1, got 3"),
    "no seeds": (changed("seeds", to=[]), "distinct integers from 0 to 2^32 - 1, got []"),
    "seed twice": (changed("seeds", to=[1, 1]), "distinct integers from 0 to 2^32 - 1, got [1, 1]"),
    "huge seed": (changed("seeds", to=[2**32]), "distinct integers from 0 to 2^32 - 1"),
    "boolean seed": (changed("seeds", to=[True]), "distinct integers from 0 to 2^32 - 1, got [True]"),
    "no samples": (changed("protocol", "samples", to=0), "protocol: samples must be at least 1, got 0"),
    "too few samples": (changed("protocol", "samples", to=3), "samples must exceed neighbours = 3, got 3"),
    "no levels": (changed("protocol", "levels", to=0), "protocol: levels must be at least 1, got 0"),
    "no batch": (changed("protocol", "batch", to=0), "protocol: batch must be at least 1, got 0"),
    "samples as text": (changed("protocol", "samples", to="1e3"), "samples must be an integer >= 0, got 1000.0"),
    "one bound": (changed("protocol", "middle", to=[1]), "middle must be a list of two numbers, got [1]"),
    "falling bounds": (changed("protocol", "middle", to=[2, 1]), "middle must be two rising bounds, got [2, 1]"),
    "time outside": (changed("protocol", "denoise_times", to=[0.0]), "denoise_times must lie in (0, 1], got [0.0]"),
    "key twice": ("reference: a\nreference: b\n", "mine.yaml, line 2: key 'reference' is given twice"),
    "cell twice": ("cells:\n  a: {config: x}\n  a: {config: y}\n", "mine.yaml, line 3: key 'a' is given twice"),
    "not YAML": ("cells: [\n", "mine.yaml, line 2: "),
    "empty": ("", "mine.yaml: expected keys and values, got None"),
    "a list": ("- a\n", "mine.yaml: expected keys and values, got ['a']"),
}  # fmt: skip


def test_some_cells_of_a_suite_come_with_the_reference_and_what_they_need():
    whole = load_suite("digits")
    guided = next(name for name, cell in whole.cells.items() if cell.samples_with)
    part = selected(whole, [guided])
    assert set(part.cells) == {whole.reference, guided, *whole.cells[guided].needs.values()}
    assert selected(whole, whole.cells) == whole


def test_numbers_need_no_decimal_point(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "reference: ref\nprotocol: {middle: [5e-1, 1.25e0]}\n"
        "cells: {ref: {config: digits/supervised.yaml, guidance_scales: [1e0, 3, 2E+1, .5, -0]}}\n"
    )
    suite = load_suite(str(tmp_path / "mine.yaml"))
    assert suite.protocol.middle == (0.5, 1.25)
    assert suite.cells["ref"].guidance_scales == [1.0, 3, 20.0, 0.5, 0]


@pytest.mark.parametrize("case", REFUSED)
def test_a_suite_that_cannot_be_run_is_refused_in_one_line(refusal, case):
    content, told = REFUSED[case]
    assert told in refusal(content)


def test_bytes_that_are_no_text_and_folders_are_refused(tmp_path):
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"# caf\xe9")
    with pytest.raises(InputError, match=r"latin\.yaml is not UTF-8 text"):
        load_suite(str(path))
    with pytest.raises(InputError, match="no suite file at"):
        load_suite(str(tmp_path) + "/folder.yaml")


def test_a_method_states_its_needs_and_a_suite_may_name_other_cells(load):
    suite = load({
        **GOOD,
        "cells": {
            "ref": {"config": CONFIG}, "score_model": {"config": "digits/score_model.yaml"},
            "mine": {"config": "digits/score_model.yaml"}, "guided": {"config": GUIDED},
            "other": {"config": GUIDED, "needs": {"denoiser": "mine"}},
            "assisted": {"config": "digits/denoising_assisted.yaml"},
            "own_weights": {"config": GUIDED, "needs": {"denoiser": None}},
        },
    })  # fmt: skip
    assert (suite.cells["guided"].trains_with, suite.cells["guided"].samples_with) == ({}, {"denoiser": "score_model"})
    assert suite.cells["other"].needs == {"denoiser": "mine"}
    assert suite.cells["assisted"].trains_with == {"denoiser": "score_model"}
    assert suite.cells["mine"].needs == suite.cells["own_weights"].needs == suite.cells["own_weights"].set == {}


@pytest.mark.parametrize(
    "key", ["model.init_args.denoiser.init_args.network.init_args.width", "model.denoiser.network.width"]
)
def test_a_needed_cell_brings_its_settings_with_its_weights(load, key):
    suite = load({
        **GOOD,
        "cells": {
            "ref": {"config": CONFIG},
            "score_model": {"config": "digits/score_model.yaml", "set": {key: 8, "model.denoiser": "my.Denoiser"}},
            "guided": {"config": GUIDED},
        },
    })  # fmt: skip
    given = suite.cells["guided"].set["model.init_args.denoiser"]
    assert given["class_path"] == "methods.diffusion.denoiser.Pretrained"
    denoiser = given["init_args"]["denoiser"]
    assert denoiser["class_path"] == "my.Denoiser"
    assert denoiser["init_args"]["network"]["class_path"] == "methods.networks.unet.UNet"
    assert denoiser["init_args"]["network"]["init_args"]["width"] == 8


def test_a_denoiser_that_overrides_name_by_its_file_is_brought_too(load, tmp_path):
    part = tmp_path / "part.yaml"
    part.write_text("class_path: methods.diffusion.denoiser.EDMDenoiser\ninit_args: {data_std: 0.25}\n")
    cells = {
        **GOOD["cells"],
        "score_model": {"config": "digits/score_model.yaml", "set": {"model.init_args.denoiser": str(part)}},
        "guided": {"config": GUIDED, "set": {"model.init_args.denoiser.init_args.denoiser.init_args.data_std": 0.5}},
    }
    settings = load({**GOOD, "cells": cells}).cells["guided"].set
    assert list(settings) == [
        "model.init_args.denoiser",
        *cells["guided"]["set"],
    ]  # what a cell sets itself comes later
    denoiser = settings["model.init_args.denoiser"]["init_args"]["denoiser"]
    assert denoiser["init_args"] == {"data_std": 0.25}


SWEEP = {
    "for": {"share": {5: 0.05, "half": 0.5}, "width": [1, 2]},
    "cells": {
        "a_{share}_{width}": {"config": CONFIG, "set": {"x": "{share}", "y": ["{width}"], "z": "w{width} of {share}"}},
        "b_{share}_{width}": {"config": CONFIG},
    },
}


def test_a_sweep_is_its_cells_for_every_value(load):
    suite = load({**GOOD, "cells": {**GOOD["cells"], "sweep": SWEEP}})
    names = [f"{cell}_{share}_{width}" for share in ("5", "half") for width in (1, 2) for cell in "ab"]
    assert list(suite.cells) == [*GOOD["cells"], *names]
    assert suite.cells["a_half_2"].set == {"x": 0.5, "y": [2], "z": "w2 of 0.5"}
    assert suite.cells["b_5_1"].set == {}


def test_a_cell_of_a_sweep_needs_the_cell_of_the_same_name_of_a_value(load):
    noise = {"set": {"data.init_args.jitter": "{noise}"}}
    scores = {"scores_{noise}": {"config": "digits/score_model.yaml", **noise}}
    guided = {"guided_{noise}": {"config": GUIDED, "needs": {"denoiser": "scores_{noise}"}, **noise}}
    sweep = {"for": {"noise": {"none": 0.0, "some": 4.0}}, "cells": {**scores, **guided}}
    suite = load({**GOOD, "cells": {**GOOD["cells"], "sweep": sweep}})
    assert suite.needs["guided_some"] == ["scores_some"]
    assert suite.cells["guided_some"].set["data.init_args.jitter"] == 4.0


def test_parts_of_a_budget_are_put_below_their_key_and_cells_may_be_named_by_pattern(load, tmp_path):
    (tmp_path / "small.yaml").write_text("init_args.width: 8\ninit_args.depth: 10\n")
    changes = [{"cells": ["o*"], "parts": {"model.network": "small.yaml"}, "set": {"model.network.init_args.depth": 4}}]
    suite = load({**GOOD, "budgets": {"small": {"overrides": changes}}}, budget="small")
    assert suite.cells["other"].set == {"model.network.init_args.width": 8, "model.network.init_args.depth": 4}
    assert suite.cells["ref"].set == {}


@given(data=st.data(), count=st.integers(1, 7))
def test_cells_are_ordered_after_those_they_need(data, count):
    names = [f"c{i}" for i in range(count)]
    ranks = data.draw(st.permutations(range(count)))
    needs = {
        name: data.draw(st.sets(st.sampled_from(lower)) if lower else st.just(set()))
        for name, rank in zip(names, ranks, strict=True)
        for lower in [[m for m, other in zip(names, ranks, strict=True) if other < rank]]
    }
    placed = order(needs)
    assert sorted(placed) == sorted(names)
    assert all(placed.index(m) < placed.index(n) for n in names for m in needs[n])
    for name in names:
        found = closure(needs, [name])
        assert found == {name}.union(*(closure(needs, [needed]) for needed in needs[name]))


COMPARED = {
    **{f"digits/{pattern}": ("digits", pattern) for pattern in ("few_cg*", "few_*_noisy", "few_*_da", "pu_*")},
    "fashion_mnist/cg_*5": ("fashion_mnist", "cg_*5"),
    **{
        f"{suite}/{rows}": (suite, rows)
        for suite in ("fashion_mnist", "cifar10")
        for rows in ("few_*cg_*0", "few_*_da_*0")
    },
    **{
        f"{suite}/cg_*{share}": (suite, f"cg_*{share}")
        for suite, shares in (("cifar10", (5, 20, 40, 60, 80)), ("cifar100", (5, 20)))
        for share in shares
    },
}


@pytest.mark.parametrize(("suite", "pattern"), COMPARED.values(), ids=COMPARED)
def test_cells_that_are_compared_see_as_many_labeled_images_a_step(suite, pattern):
    found = 0
    for budget in ("paper", *read_yaml(CONFIGS / f"suites/{suite}.yaml").get("budgets", {})):
        cells = [cell for name, cell in load_suite(suite, budget).cells.items() if fnmatch(name, pattern)]
        sizes = {
            cell.name: cell.set.get("data.init_args.batch_size")
            or read_yaml(Path(cell.config))["data"]["init_args"]["batch_size"]
            for cell in cells
        }
        found = max(found, len(sizes))
        assert len(set(sizes.values())) <= 1, sizes
    assert found > 1


def test_a_copied_configuration_without_the_files_that_it_includes_is_told_so(tmp_path):
    (tmp_path / "mine.yaml").write_text((CONFIGS / "digits/score_model.yaml").read_text())
    cells = {
        "ref": {"config": CONFIG}, "score_model": {"config": str(tmp_path / "mine.yaml")}, "guided": {"config": GUIDED}
    }  # fmt: skip
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump({"reference": "ref", "cells": cells}))
    with pytest.raises(InputError, match=r"cell score_model: no file denoiser\.yaml beside .*mine\.yaml"):
        load_suite(str(tmp_path / "suite.yaml"))
