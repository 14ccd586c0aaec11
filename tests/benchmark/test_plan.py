"""Keys of stages: what a change costs, and what it does not."""

import copy
import dataclasses
import json
from pathlib import Path

import pytest

from benchmark import plan as planning
from benchmark.plan import arguments, cached_resolution, class_paths, code_digest, configuration_digest, plan, slug
from benchmark.protocol import Protocol
from benchmark.suite import Cell, Suite, load_suite

CHECKPOINT = "model.init_args.denoiser.init_args.checkpoint"


def config(class_path, **init_args):
    """A resolved configuration, every default filled in."""
    return {
        "seed_everything": 0,
        "model": {"class_path": class_path, "init_args": {"sampler": sampler(18), **init_args}},
        "data": {"class_path": "datamodules.digits.Digits", "init_args": {"batch_size": 128, "seed": 0}},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 2e-3}},
        "lr_scheduler": {"class_path": "benchmark.schedules.WarmupCosine", "init_args": {"steps": 600}},
        "ema": {"decay": 0.995},
        "trainer": {"max_steps": 600, "default_root_dir": "somewhere", "logger": False, "callbacks": None},
    }


def sampler(steps):
    return {"class_path": "methods.diffusion.samplers.Heun", "init_args": {"steps": steps}}


def pretrained():
    return {"class_path": "methods.diffusion.denoiser.Pretrained", "init_args": {"checkpoint": "score/final.ckpt"}}


SUITE = Suite(
    "s",
    "ref",
    Protocol(),
    {
        "ref": Cell("ref", config="a.yaml", seed=1000),
        "assisted": Cell("assisted", config="a.yaml", trains_with={CHECKPOINT: "score"}, guidance_scales=[1, 3]),
        "noisy": Cell("noisy", config="a.yaml", samples_with={CHECKPOINT: "score"}, guidance_scales=[1, 3]),
        "score": Cell("score", config="a.yaml"),
        "held_out": Cell("held_out", images="test"),
    },
    [0],
)
RESOLVED = {
    "ref": config("methods.supervised.Supervised"),
    "score": config("methods.score_model.ScoreModel", likelihood={"class_path": "x.Flow", "init_args": {"steps": 30}}),
    "noisy": config("methods.noisy_classifier.NoisyClassifierGuidance", denoiser=pretrained()),
    "assisted": config("methods.denoising_assisted.DenoisingAssisted", denoiser=pretrained()),
}


def keys(suite=SUITE, resolved=RESOLVED, seeds=(0,), out=Path("out")):
    """Key of each stage, by job and stage."""
    return {(job.name, s.name): s.key for job in plan(suite, resolved, out, list(seeds)) for s in job.stages}


def cost(suite=SUITE, resolved=RESOLVED):
    """Stages that a change makes necessary, by cell; ``sample`` stands for all scales."""
    before, after = keys(), keys(suite, resolved)
    redone = {}
    for (job, stage), key in after.items():
        if before.get((job, stage)) != key:
            redone.setdefault(job.partition("/")[0], set()).add(stage)
    return redone


def edited(*path, to):
    resolved = copy.deepcopy(RESOLVED)
    place = resolved
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return resolved


def measured_by(**protocol):
    return dataclasses.replace(SUITE, protocol=Protocol(**protocol))


GUIDED = {"sample@1", "features+reference@1", "sample@3", "features+reference@3", "metrics"}
UNGUIDED = {"sample", "features+reference", "metrics"}
ANSWERS = {"classify", "likelihood", "denoise", "diagnose", "gradients"}


def test_nothing_changed_costs_nothing():
    assert cost() == {}
    assert cost(resolved=copy.deepcopy(RESOLVED)) == {}


def test_a_changed_sampler_costs_the_samples_of_its_cell_but_no_training():
    assert cost(resolved=edited("noisy", "model", "init_args", "sampler", to=sampler(9))) == {"noisy": GUIDED}


def test_a_sampler_from_another_module_costs_no_training_either():
    other = {"class_path": "methods.baselines.gaussian.DirectDraw", "init_args": {}}
    redone = cost(resolved=edited("noisy", "model", "init_args", "sampler", to=other))["noisy"]
    assert "train" not in redone
    assert redone >= GUIDED


def test_a_changed_optimiser_costs_training_and_all_that_builds_on_it():
    redone = cost(resolved=edited("score", "optimizer", "init_args", "lr", to=1e-3))
    assert redone["score"] >= {"train", *ANSWERS, *UNGUIDED}
    assert redone["assisted"] >= {"train", *ANSWERS, *GUIDED}
    assert "train" not in redone["noisy"]  # only its samples use the score model
    assert redone["noisy"] >= {"classify", *GUIDED}
    assert redone.keys() == {"score", "assisted", "noisy"}


def test_a_changed_reference_classifier_costs_features_and_metrics_of_all():
    redone = cost(resolved=edited("ref", "optimizer", "init_args", "lr", to=1e-3))
    assert redone["ref"] >= {"train", "real"}
    assert redone["noisy"] == {"features+reference@1", "features+reference@3", "metrics"}
    assert redone["score"] == redone["held_out"] == {"features+reference", "metrics"}


def test_an_added_guidance_scale_costs_only_itself():
    cells = {**SUITE.cells, "noisy": dataclasses.replace(SUITE.cells["noisy"], guidance_scales=[1, 2, 3])}
    redone = cost(dataclasses.replace(SUITE, cells=cells))
    assert redone == {"noisy": {"sample@2", "features+reference@2", "metrics"}}


def test_an_added_cell_costs_only_itself():
    cells = {**SUITE.cells, "more": Cell("more", config="a.yaml")}
    redone = cost(dataclasses.replace(SUITE, cells=cells), {**RESOLVED, "more": RESOLVED["score"]})
    assert redone.keys() == {"more"}


def test_a_changed_likelihood_costs_no_training_and_no_samples():
    redone = cost(resolved=edited("score", "model", "init_args", "likelihood", "init_args", "steps", to=9))
    assert redone == {"score": {"classify", "likelihood", "metrics"}}


def test_each_setting_of_the_protocol_costs_what_it_measures():
    everywhere = {"metrics"}
    assert cost(measured_by(neighbours=5))["noisy"] == everywhere
    assert cost(measured_by(samples=500))["noisy"] == GUIDED
    assert cost(measured_by(noisy_draws=2))["noisy"] == {"classify", "metrics"}
    assert cost(measured_by(denoise_times=(0.5,)))["noisy"] == {"denoise", "diagnose", "gradients", "metrics"}
    assert cost(measured_by(seed=1))["noisy"] == ANSWERS | GUIDED


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("trainer", "default_root_dir"), "elsewhere"),
        (("trainer", "logger"), True),
        (("trainer", "enable_progress_bar"), False),
        (("data", "init_args", "seed"), 7),
        (("seed_everything",), 7),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else "",
)
def test_settings_that_weights_do_not_depend_on_cost_nothing(path, value):
    assert cost(resolved=edited("noisy", *path, to=value)) == {}


def test_where_needed_weights_lie_costs_nothing():
    place = ("model", "init_args", "denoiser", "init_args", "checkpoint")
    assert cost(resolved=edited("assisted", *place, to="elsewhere/final.ckpt")) == {}
    assert keys(out=Path("/elsewhere")) == keys()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("trainer", "max_steps"), 601),
        (("trainer", "precision"), "bf16-mixed"),
        (("trainer", "callbacks"), [{"class_path": "lightning.pytorch.callbacks.EarlyStopping"}]),
        (("ema", "decay"), 0.9),
        (("lr_scheduler", "init_args", "steps"), 9),
        (("data", "init_args", "batch_size"), 64),
        (("channels_last",), False),
        (("model", "init_args", "label_smoothing"), 0.1),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else "",
)
def test_settings_that_weights_depend_on_cost_the_training(path, value):
    assert "train" in cost(resolved=edited("noisy", *path, to=value))["noisy"]


# Seeds


def test_every_seed_has_its_own_keys_and_a_fixed_seed_stays():
    several = keys(seeds=(0, 1))
    assert several.items() >= keys().items()
    own = [key for (job, _), key in several.items() if job.startswith("score/")]
    assert len(set(own)) == len(own) == 2 * sum(job.startswith("score/") for job, _ in keys())
    assert {job for job, _ in several if job.startswith("ref/")} == {"ref/seed1000/train", "ref/seed1000/evaluate"}


def test_cells_take_the_weights_of_their_own_seed():
    jobs = {job.name: job for job in plan(SUITE, RESOLVED, Path("out"), [0, 1])}
    assert f"--{CHECKPOINT}=out/score/seed1/checkpoints/final.ckpt" in jobs["noisy/seed1/train"].arguments
    assert jobs["assisted/seed1/train"].needs == ("score/seed1/train",)
    assert jobs["noisy/seed1/train"].needs == ()
    assert jobs["noisy/seed1/evaluate"].needs == ("noisy/seed1/train", "ref/seed1000/train", "score/seed1/train")


# Jobs


def test_jobs_come_after_those_they_need():
    names = [job.name for job in plan(SUITE, RESOLVED, Path("out"), [0, 1])]
    for job in plan(SUITE, RESOLVED, Path("out"), [0, 1]):
        assert all(names.index(needed) < names.index(job.name) for needed in job.needs)
    assert len(set(names)) == len(names) == 2 * (3 * 2 + 1) + 2


def test_images_are_evaluated_but_not_trained():
    (job,) = (job for job in plan(SUITE, RESOLVED, Path("out"), [0]) if job.cell.name == "held_out")
    assert [stage.name for stage in job.stages] == ["sample", "features+reference", "metrics"]
    assert job.method == "images_test"
    assert job.needs == ("ref/seed1000/train",)


def test_the_method_of_a_job_is_its_module():
    assert {job.method for job in plan(SUITE, RESOLVED, Path("out"), [0]) if job.cell.name == "noisy"} == {
        "noisy_classifier"
    }


def test_settings_reach_the_command_line_as_yaml_reads_them():
    values = {"a": None, "b": True, "c": [1, "x"], "d": 2e-3, "e": "text: [", "f": {"g": False}}
    words = arguments(Cell("c", config="f.yaml", set=values), 3, Path("out"), {})
    assert words == (
        "--config=f.yaml", "--seed_everything=3", "--trainer.default_root_dir=out",
        "--a=null", "--b=true", '--c=[1, "x"]', "--d=0.002", "--e=text: [", '--f={"g": false}',
    )  # fmt: skip


def test_file_names_are_harmless():
    assert slug("a b/../c@3.5") == "a-b-..-c@3.5"


# Code


@pytest.fixture
def source(tmp_path, monkeypatch):
    """Source of our packages in another place; returns a function that changes a module there."""

    def write(module, text):
        path = tmp_path.joinpath(*module.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        planning._imports.cache_clear()
        planning._meaning.cache_clear()

    monkeypatch.setattr(planning, "ROOT", tmp_path)
    yield write
    planning._imports.cache_clear()
    planning._meaning.cache_clear()


def test_comments_docstrings_and_layout_do_not_change_the_digest_of_code(source):
    source("methods.a", "from methods.b import f\nLIMIT = 3\ndef g(x):\n    return f(x, 1)\n")
    source("methods.b", "def f(x, y):\n    return x + y\n")
    before = code_digest(["methods.a"])
    source(
        "methods.a",
        '"""What it is."""\n\nfrom methods.b import f  # a comment\n\nLIMIT = 3\n"""What it bounds."""\n\n\n'
        'def g(x):\n    """Says more."""\n    return f(\n        x,\n        1,\n    )\n',
    )
    assert code_digest(["methods.a"]) == before


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("methods.a", "from methods.b import f\ndef g(x):\n    return f(x, 2)\n"),
        ("methods.b", "def f(x, y):\n    return x - y\n"),
        ("methods.c", "def h():\n    return 'text'\n"),
    ],
)
def test_changed_code_changes_the_digest_of_all_that_imports_it(source, module, text):
    source("methods.a", "from methods.b import f\ndef g(x):\n    return f(x, 1)\n")
    source("methods.b", "import methods.c\ndef f(x, y):\n    return x + y\n")
    source("methods.c", "def h():\n    return 3\n")
    before = code_digest(["methods.a"])
    source(module, text)
    assert code_digest(["methods.a"]) != before


def test_code_that_is_not_imported_does_not_count(source):
    source("methods.a", "import torch\n")
    source("methods.b", "x = 1\n")
    before = code_digest(["methods.a", "torch.optim"])
    source("methods.b", "x = 2\n")
    assert code_digest(["methods.a", "torch.optim"]) == before


def test_imports_inside_functions_and_cycles_count(source):
    source("methods.a", "def g():\n    from methods import b\n    return b.x\n")
    source("methods.b", "import methods.a\nx = 1\n")
    before = code_digest(["methods.a"])
    source("methods.b", "import methods.a\nx = 2\n")
    assert code_digest(["methods.a"]) != before


def test_changed_code_costs_the_training_of_the_methods_made_of_it(monkeypatch):
    meaning, before = planning._meaning, keys()
    monkeypatch.setattr(planning, "_meaning", lambda m: meaning(m) + "changed" * (m == "methods.noisy_classifier"))
    redone = {place for place, key in keys().items() if before[place] != key}
    assert ("noisy/seed0/train", "train") in redone
    assert {job.partition("/")[0] for job, _ in redone} == {"noisy"}


def test_changed_code_of_sampling_costs_samples_but_no_other_answers(monkeypatch):
    meaning, before = planning._meaning, keys()
    monkeypatch.setattr(planning, "_meaning", lambda m: meaning(m) + "changed" * (m == "benchmark.sampling"))
    redone = {stage.partition("@")[0] for place, key in keys().items() if before[place] != key for stage in place[1:]}
    assert redone == {"sample", "features+reference", "metrics"}
    assert {stage for _, stage in before} - redone >= {"train", "real", *ANSWERS}


def test_class_paths_are_found_at_any_depth():
    nested = {"a": [{"class_path": "x.y.Z", "init_args": {"b": {"class_path": "p.Q"}}}], "class_path": "r.S", "c": None}
    assert sorted(class_paths(nested)) == ["p", "r", "x.y"]


# Remembered configurations


def test_remembered_configurations_are_forgotten_when_a_file_they_follow_from_changes(tmp_path):
    (tmp_path / "part.yaml").write_text("a: 1\n")
    (tmp_path / "main.yaml").write_text("part: part.yaml\n")
    (tmp_path / "mine.yaml").write_text("reference: r\ncells: {r: {config: main.yaml}}\n")
    suite = load_suite(str(tmp_path / "mine.yaml"))
    before = configuration_digest(suite)
    assert configuration_digest(load_suite(str(tmp_path / "mine.yaml"))) == before
    cells = {"r": dataclasses.replace(suite.cells["r"], set={"trainer.max_steps": 3})}
    assert configuration_digest(dataclasses.replace(suite, cells=cells)) != before
    (tmp_path / "part.yaml").write_text("a: 2\n")
    assert configuration_digest(suite) != before


@pytest.mark.parametrize("text", ['{"key": "other", "resolved": {}}', '{"key": "mine"}', "[]", "{", ""])
def test_remembered_configurations_under_another_key_or_damaged_are_none(tmp_path, text):
    path = tmp_path / "plan.json"
    path.write_text(text)
    assert cached_resolution(path, "mine") is None
    path.write_text(json.dumps({"key": "mine", "resolved": {"r": {}}}))
    assert cached_resolution(path, "mine") == {"r": {}}


def test_cells_that_differ_in_sampling_alone_share_one_training():
    cells = {"twin": Cell("twin", config="a.yaml", samples_with={CHECKPOINT: "score"}), **SUITE.cells}
    twin = copy.deepcopy(RESOLVED["noisy"])
    twin["model"]["init_args"]["guidance_rule"] = {"class_path": "methods.diffusion.guidance.ClassifierGuidance"}
    jobs = plan(dataclasses.replace(SUITE, cells=cells), {**RESOLVED, "twin": twin}, Path("out"), [0, 1])
    trained = [job.name for job in jobs if job.part == "train" and job.cell.name in ("twin", "noisy")]
    assert trained == ["twin/seed0/train", "twin/seed1/train"]
    noisy = next(job for job in jobs if job.name == "noisy/seed1/evaluate")
    assert "twin/seed1/train" in noisy.needs
    assert (noisy.trained, noisy.folder) == (Path("out/twin/seed1"), Path("out/noisy/seed1"))
    # What both are asked alike is asked once: the second waits for the first and takes over its answers.
    twin_too = next(job for job in jobs if job.name == "twin/seed1/evaluate")
    assert (noisy.after, twin_too.after) == (("twin/seed1/evaluate",), ())
    asked = [{stage.name: stage.key for stage in job.stages} for job in (noisy, twin_too)]
    assert [asked[0][name] == asked[1][name] for name in ("classify", "denoise", "metrics")] == [True, True, False]
    changed = copy.deepcopy(twin)
    changed["optimizer"]["init_args"]["lr"] = 1e-3
    jobs = plan(dataclasses.replace(SUITE, cells=cells), {**RESOLVED, "twin": changed}, Path("out"), [0])
    assert {"twin/seed0/train", "noisy/seed0/train"} <= {job.name for job in jobs}
