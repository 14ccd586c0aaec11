"""Keys of stages: what a change costs, and what it does not."""

import copy
import dataclasses
import inspect
from pathlib import Path

import pytest
from lightning import Trainer

from benchmark.suite import source_code
from benchmark.suite.jobs import arguments
from benchmark.suite.needs import weights_key
from benchmark.suite.plan import plan
from benchmark.suite.protocol import Protocol
from benchmark.suite.questions import QUESTIONS
from benchmark.suite.settings import PLACE, WITHOUT_EFFECT
from benchmark.suite.suite import Cell, Suite

NEEDED = {"denoiser": "score"}


def config(class_path, **init_args):
    """A resolved configuration, every default filled in."""
    return {
        "seed_everything": 0,
        "model": {"class_path": class_path, "init_args": {"sampler": sampler(18), **init_args}},
        "data": {"class_path": "datamodules.digits.Digits", "init_args": {"batch_size": 128, "seed": 0}},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 2e-3}},
        "lr_scheduler": {"class_path": "benchmark.training.schedules.WarmupCosine", "init_args": {"steps": 600}},
        "ema": {"decay": 0.995},
        "trainer": {"max_steps": 600, "default_root_dir": "somewhere", "logger": False, "callbacks": None},
    }


def sampler(steps):
    return {"class_path": "methods.diffusion.samplers.Heun", "init_args": {"steps": steps}}


def pretrained():
    return {"class_path": "methods.diffusion.denoiser.Pretrained", "init_args": {"checkpoint": "score/final.ckpt"}}


def flow():
    return {"class_path": "methods.diffusion.likelihood.ProbabilityFlow", "init_args": {"steps": 30}}


SUITE = Suite(
    "s",
    "ref",
    Protocol(),
    {
        "ref": Cell("ref", config="a.yaml", seed=1000),
        "assisted": Cell("assisted", config="a.yaml", trains_with=NEEDED, guidance_scales=[1, 3]),
        "noisy": Cell("noisy", config="a.yaml", samples_with=NEEDED, guidance_scales=[1, 3]),
        "score": Cell("score", config="a.yaml"),
        "held_out": Cell("held_out", images="test"),
    },
    [0],
)
RESOLVED = {
    "ref": config("methods.supervised.Supervised"),
    "score": config(
        "methods.score_model.ScoreModel",
        likelihood={"class_path": "methods.diffusion.likelihood.ProbabilityFlow", "init_args": {"steps": 30}},
    ),
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


def with_content(train="t", test="u", files=None):
    """The configurations of a suite whose data and files hold something."""
    content = {"data": {"train": train, "test": test}, "files": files or {}, "root": None, "sources": {}}
    return {name: {**config, "content": content} for name, config in RESOLVED.items()}


def costs_between(before, after):
    """Stages that a change of all configurations makes necessary."""
    old = keys(resolved=before)
    return {(job, s.partition("@")[0]) for (job, s), key in keys(resolved=after).items() if old[job, s] != key}


def measured_by(**protocol):
    return dataclasses.replace(SUITE, protocol=Protocol(**protocol))


GUIDED = {"sample@1", "features+reference@1", "sample@3", "features+reference@3", "metrics"}
UNGUIDED = {"sample", "features+reference", "metrics"}
ANSWERS = {kind for kind, question in QUESTIONS.items() if question.always}


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


def asked(*questions, scales=(1, 3)):
    """The suite with further questions to the guided cell."""
    cell = dataclasses.replace(SUITE.cells["noisy"], ask=list(questions), guidance_scales=list(scales))
    return dataclasses.replace(SUITE, cells={**SUITE.cells, "noisy": cell})


def test_a_further_question_costs_its_answer_and_the_records_of_the_cell_that_is_asked():
    assert cost(asked("alignment")) == {"noisy": {"alignment", "metrics"}}
    assert cost(asked("counterfactual")) == {"noisy": {"counterfactual@1", "counterfactual@3", "metrics"}}


def test_an_answer_that_the_reference_judges_is_given_anew_with_another_reference():
    suite = asked("alignment", "counterfactual")
    other = edited("ref", "optimizer", "init_args", "lr", to=1e-3)
    before, after = keys(suite), keys(suite, other)
    changed = {stage for (job, stage), key in after.items() if job.startswith("noisy") and before[job, stage] != key}
    assert changed >= {"counterfactual@1", "counterfactual@3"}
    assert "alignment" not in changed


def test_a_changed_likelihood_costs_no_training_and_no_samples():
    redone = cost(resolved=edited("score", "model", "init_args", "likelihood", "init_args", "steps", to=9))
    assert redone == {"score": {"classify", "likelihood", "diagnose", "metrics"}}


def test_each_setting_of_the_protocol_costs_what_it_measures():
    everywhere = {"metrics"}
    assert cost(measured_by(neighbours=5))["noisy"] == everywhere
    assert cost(measured_by(samples=500))["noisy"] == GUIDED
    assert cost(measured_by(noisy_draws=2))["noisy"] == {"classify", "metrics"}
    assert cost(measured_by(denoise_times=(0.5,)))["noisy"] == {
        "denoise",
        "calibrate",
        "diagnose",
        "gradients",
        "metrics",
    }
    assert cost(measured_by(seed=1))["noisy"] == ANSWERS | GUIDED
    assert cost(measured_by(part="validation"))["noisy"] == ANSWERS | GUIDED - {"sample@1", "sample@3"}
    assert cost(measured_by(part="validation"))["held_out"] >= {"sample"}
    assert cost(measured_by(batch=100))["noisy"] == ANSWERS | GUIDED
    assert cost(measured_by(batch=100))["ref"] >= {"real+reference"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("trainer", "default_root_dir"), "elsewhere"),
        (("trainer", "logger"), True),
        (("trainer", "enable_progress_bar"), False),
        (("trainer", "log_every_n_steps"), 7),
        (("trainer", "profiler"), "simple"),
        (("trainer", "callbacks"), [{"class_path": "lightning.pytorch.callbacks.RichProgressBar"}]),
        (("checkpoint_every",), 7),
        (("data", "init_args", "root"), "elsewhere"),
        (("data", "init_args", "workers"), 7),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else "",
)
def test_settings_that_weights_do_not_depend_on_cost_nothing(path, value):
    assert cost(resolved=edited("noisy", *path, to=value)) == {}


def test_where_needed_weights_lie_costs_nothing():
    place = ("model", "init_args", "denoiser", "init_args", "checkpoint")
    assert cost(resolved=edited("assisted", *place, to="elsewhere/final.ckpt")) == {}
    assert keys(out=Path("/elsewhere")) == keys()


def domains(root, **settings):
    source = {"class_path": "datamodules.vision.USPS", "init_args": {"root": root, "download": False, **settings}}
    return {"class_path": "datamodules.domains.LabeledSource", "init_args": {"source": source, "seed": 0}}


def test_where_a_data_set_inside_another_lies_costs_nothing():
    before = keys(resolved=edited("noisy", "data", to=domains("here")))
    assert keys(resolved=edited("noisy", "data", to=domains("there"))) == before
    assert keys(resolved=edited("noisy", "data", to=domains("here", resize=8))) != before


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("trainer", "fast_dev_run"), True),
        (("trainer", "min_steps"), 700),
        (("trainer", "min_epochs"), 2),
        (("trainer", "sync_batchnorm"), True),
        (("trainer", "strategy"), "ddp"),
        (("trainer", "plugins"), [{"class_path": "lightning.pytorch.plugins.DoublePrecision"}]),
        (("trainer", "devices"), 2),
        (("trainer", "num_nodes"), 2),
        (("trainer", "accumulate_grad_batches"), 2),
        (("trainer", "limit_val_batches"), 2),
        (("trainer", "inference_mode"), True),
        (("trainer", "a_setting_of_the_next_version"), 1),
        (("a_setting_of_ours_that_is_new",), 1),
        (("seed_everything",), 7),
        (("data", "init_args", "labels"), {"class_path": "datamodules.splits.LabelFraction"}),
        (("content",), {"data": {"train": "of other images"}}),
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


def test_other_training_images_cost_everything_and_other_test_images_all_that_looks_at_them():
    everything = {(job, stage.partition("@")[0]) for job, stage in keys()}
    assert costs_between(with_content(), with_content(train="of another folder")) == everything
    redone = costs_between(with_content(), with_content(test="of another folder"))
    assert everything - redone == {
        *(place for place in everything if place[1] == "train"),
        *(place for place in everything if place[1] == "sample" and "held_out" not in place[0]),
    }
    assert costs_between(with_content(), with_content()) == set()


def test_a_file_counts_by_what_it_holds_in_training_and_sampling():
    resolved = with_content(files={"a.pth": "1", "b.pth": "1", "c.pth": "2"})

    def started_from(path, part="checkpoint"):
        changed = copy.deepcopy(resolved)
        changed["noisy"]["model"]["init_args"][part] = path
        return changed

    assert costs_between(started_from("a.pth"), started_from("b.pth")) == set()
    assert ("noisy/seed0/train", "train") in costs_between(started_from("a.pth"), started_from("c.pth"))
    assert costs_between(started_from("a.pth", "guides"), started_from("b.pth", "guides")) == set()
    redone = {stage for _, stage in costs_between(started_from("a.pth", "guides"), started_from("c.pth", "guides"))}
    assert redone == {"sample", "features+reference", "metrics"}


def test_each_setting_without_effect_is_named_once_with_its_reason():
    assert all(WITHOUT_EFFECT.values())
    assert all(PLACE.values())
    trainer = {key.removeprefix("trainer.") for key in WITHOUT_EFFECT if key.startswith("trainer.")}
    assert trainer <= inspect.signature(Trainer).parameters.keys()


# Seeds


def test_every_seed_has_its_own_keys_and_a_fixed_seed_stays():
    several = keys(seeds=(0, 1))
    assert several.items() >= keys().items()
    own = [key for (job, _), key in several.items() if job.startswith("score/")]
    assert len(set(own)) == len(own) == 2 * sum(job.startswith("score/") for job, _ in keys())
    assert {job for job, _ in several if job.startswith("ref/")} == {"ref/seed1000/train", "ref/seed1000/evaluate"}


def test_cells_take_the_weights_of_their_own_seed():
    jobs = {job.name: job for job in plan(SUITE, RESOLVED, Path("out"), [0, 1])}
    assert f"--{weights_key('denoiser')}=out/score/seed1/checkpoints/final.ckpt" in jobs["noisy/seed1/train"].arguments
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


# Code


def change(monkeypatch, module):
    """Let a module's source mean something else."""
    reading = source_code._reading

    def changed(name):
        imports, meaning = reading(name)
        return [imports, meaning + "changed" * (name == module)]

    monkeypatch.setattr(source_code, "_reading", changed)


def test_changed_code_costs_the_training_of_the_methods_made_of_it(monkeypatch):
    before = keys()
    change(monkeypatch, "methods.noisy_classifier")
    redone = {place for place, key in keys().items() if before[place] != key}
    assert ("noisy/seed0/train", "train") in redone
    assert {job.partition("/")[0] for job, _ in redone} == {"noisy"}


def test_changed_code_of_sampling_costs_samples_but_no_other_answers(monkeypatch):
    before = keys()
    change(monkeypatch, "benchmark.answers.samples")
    redone = {stage.partition("@")[0] for place, key in keys().items() if before[place] != key for stage in place[1:]}
    assert redone == {"sample", "features+reference", "metrics"}
    assert {stage for _, stage in before} - redone >= {"train", "real", *ANSWERS}


def test_cells_that_differ_in_sampling_alone_share_one_training():
    cells = {"twin": Cell("twin", config="a.yaml", samples_with=NEEDED), **SUITE.cells}
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
