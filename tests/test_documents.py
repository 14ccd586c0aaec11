"""Each code block of the documents runs: commands parse or are carried out, Python is executed, scripts can be read."""

import importlib
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from documents import PAGES, ROOT, blocks, commands, lines
from PIL import Image

from benchmark.errors import InputError
from benchmark.readme import PICTURE, with_tables
from benchmark.results.answers_file import Answers
from benchmark.results.paired import interval
from benchmark.results.picture import SOURCE, digest_of_curves
from benchmark.results.results_file import read_results
from benchmark.suite.experiments import EXPERIMENTS, experiments, load_experiment, read_experiment
from benchmark.suite.suite import CONFIGS, load_suite, suites
from benchmark.training.build import build
from methods.diffusion.denoiser import EDMDenoiser
from methods.diffusion.process import VarianceExploding
from methods.networks.wrn import WideResNet
from methods.noisy_classifier import NoisyClassifierGuidance
from runs import ENVIRONMENT

NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
every_page = pytest.mark.parametrize("page", PAGES, ids=NAMES)
SUBCOMMANDS = {"fit", "validate", "test", "predict", "sample"}
PLACEHOLDERS = {"NAME", "mine", "flowers"}
WRITTEN = {"runs/lightning/config.yaml", "runs/ours/digits/joint/config.yaml", "mine.yaml", "config.yaml"}
"""Configurations that commands before write."""


@every_page
def test_the_numbers_of_a_page_are_those_of_the_committed_results(page):
    text = page.read_text(encoding="utf-8")
    assert with_tables(text) == text, "run python -m benchmark.readme"


@every_page
def test_a_block_states_its_language(page):
    assert {language for language, _ in blocks(page)} <= {"sh", "bash", "python", "yaml", "text", "math"}


@every_page
def test_yaml_python_and_scripts_can_be_read(page):
    for language, text in blocks(page):
        if language == "yaml":
            assert isinstance(yaml.safe_load(text), dict)
        elif language == "python":
            compile(text, str(page), "exec")
        elif language in ("sh", "bash"):
            subprocess.run(["bash", "-n"], input=text, text=True, check=True)


CALLS = [(page, words) for page in PAGES for words in commands(page)]


@pytest.mark.parametrize(
    "words", [words for _, words in CALLS], ids=[f"{page.stem}: {' '.join(words)}"[:90] for page, words in CALLS]
)
def test_a_command_of_the_documents_is_one_that_there_is(words):
    if words[0] == "make":
        if shutil.which("make"):
            subprocess.run([*words, "--dry-run"], cwd=ROOT, capture_output=True, check=True)
    elif words[:2] == ["python", "-m"] and words[2].startswith("benchmark.") and words[2] != "benchmark.cli":
        module = importlib.import_module(words[2])
        door = importlib.import_module(f"{words[2]}.__main__") if hasattr(module, "__path__") else module
        options = door.parser().parse_args(words[3:])
        suite, data = getattr(options, "suite", None), getattr(options, "data", None)
        if suite == EXPERIMENTS:
            assert experiments()
        elif suite is not None and suite.startswith(EXPERIMENTS):
            load_experiment(read_experiment(suite), data, options.budget)
        else:
            for name in {suite, data} - PLACEHOLDERS - {None}:
                if not name.endswith(".yaml"):
                    load_suite(name, options.budget)
    elif words[0] in ("lightning", "diffclass"):
        assert words[1] in SUBCOMMANDS
        config = words[words.index("--config") + 1]
        assert config in WRITTEN or any((folder / config).is_file() for folder in (ROOT, CONFIGS))
    for word in words:
        if word.startswith(("configs/", "results/")):
            assert (ROOT / word).is_file()


def test_files_and_suites_in_the_text_exist():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    folders = ("configs/", "methods/", "datamodules/", "tests/", "benchmark/", "results/")
    named = {word for word in re.findall(r"`([^`\s]+)`", text) if word.startswith(folders) and "NAME" not in word}
    missing = [name for name in named if not (ROOT / name).exists() and "…" not in name]
    assert not missing
    assert {"digits", "toy2d", "uniform"} <= set(suites())


LATER = ("make", "pip", "git", "ray", "pre-commit")
"""Commands of installation, and those that other tests run."""


def left_out(words):
    """Tell whether a command needs images that are not here, a cluster, hours, or a finished run of the digits."""
    return words[0] in LATER or {"--data-root", "--engine", "DIR", "--watch", "merge", "cifar10"} & {*words} != set()


def shortened(words):
    """A command with a training of two steps."""
    if words[0] == "lightning" and words[1] == "fit":
        return [*words, "--trainer.max_steps=2"]
    if words[:3] == ["python", "-m", "benchmark.run"] and "--dry-run" not in words:
        return [*words, "--set", "trainer.max_steps=2", "--name", "short"]
    return words


def folder_of_flowers(folder):
    """A small folder of images of three classes."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(("oak", "rose", "tulip")):
        (folder / "flowers" / name).mkdir(parents=True)
        for image in range(40):
            pixels = rng.integers(60 * number, 60 * number + 100, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "flowers" / name / f"{image}.png")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["own-data", "own-method", "lightning"])
def test_a_guide_can_be_followed_in_an_empty_folder(name, tmp_path):
    folder_of_flowers(tmp_path)
    (tmp_path / "configs").symlink_to(CONFIGS)
    commands_of_ours = {"lightning": [sys.executable, "-m", "benchmark.cli"], "python": [sys.executable]}
    environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    for language, text in blocks(ROOT / "docs" / f"{name}.md", "sh", "python"):
        if language == "python":
            command = [sys.executable, "-c", text]
            subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
            continue
        for words in lines(text):
            if words[0] == "export":
                pairs = dict(word.split("=") for word in words[1:])
                path = os.pathsep.join([str(tmp_path), str(ROOT)])
                environment |= pairs | ({"PYTHONPATH": path} if "PYTHONPATH" in pairs else {})
            elif not left_out(words):
                command = [*commands_of_ours[words[0]], *shortened(words)[1:]]
                done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
                assert done.returncode == 0, (words, done.stderr)


@pytest.mark.slow
def test_the_samples_of_the_guide_become_a_row_and_leave_again(tmp_path):
    """Run the guide with a suite of one small classifier in the place of the digits'."""
    (tmp_path / "digits.yaml").write_text(
        yaml.safe_dump(
            {
                "reference": "judge",
                "cells": {"judge": {"config": "digits/supervised.yaml", "set": {"trainer.max_steps": 2}}},
            }
        )
    )
    (python,), (shell, _) = blocks(ROOT / "docs/own-samples.md", "python"), blocks(ROOT / "docs/own-samples.md", "sh")
    environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", python[1]], cwd=tmp_path, env=environment, check=True)
    told = []
    for words in lines(shell[1]):
        words = [f"{word}.yaml" if word == "digits" else word for word in words]
        command = [sys.executable, *words[1:]]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        told.append(done.stdout)
    added, removed = told
    assert any(line.startswith("theirs ") for line in added.splitlines())
    assert not any(line.startswith("theirs ") for line in removed.splitlines())


def test_the_method_of_the_guide_has_the_loss_of_the_one_that_ships():
    (_, text), *_ = blocks(ROOT / "docs/own-method.md", "python")
    exec(text, namespace := {})
    network = WideResNet(in_channels=1, classes=3, depth=10, width=1)
    denoiser = EDMDenoiser(lambda x, *_: x, VarianceExploding())
    x, y = torch.rand(6, 1, 8, 8), torch.arange(6) % 3
    told = []
    for method in (
        namespace["NoisyClassifierGuidance"](denoiser, network, None),
        NoisyClassifierGuidance(denoiser, network),
    ):
        torch.manual_seed(0)
        told.append(method.losses({"labeled": (x, y)}))
    assert told[0].keys() == told[1].keys() == {"classify"}
    torch.testing.assert_close(*told)


def pages_of(nav):
    """Files of a navigation, at any depth."""
    for item in nav:
        for value in item.values() if isinstance(item, dict) else [item]:
            yield from pages_of(value) if isinstance(value, list) else [value]


def test_the_navigation_has_each_page_once():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    assert sorted(pages_of(nav)) == sorted(str(page.relative_to(ROOT / "docs")) for page in PAGES[2:])


def test_a_page_without_blocks_of_numbers_is_left_as_it_is():
    assert with_tables("text\n") == "text\n"
    with pytest.raises(InputError, match="no-such"):
        with_tables("<!-- headline: no-such-suite -->\n<!-- end -->\n")


def test_the_picture_is_drawn_from_the_committed_results():
    with Image.open(PICTURE) as picture:
        expected = digest_of_curves(read_results(ROOT / "results/digits.json"))
        assert picture.text[SOURCE] == expected, "run benchmark.readme --picture RUN"


def test_the_loading_example_of_the_readme_and_of_the_page_are_one():
    assert blocks(ROOT / "README.md", "python")[0] in blocks(ROOT / "docs/lightning.md", "python")


def test_the_walk_of_a_number_names_each_file_once_and_few():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    walk = text.partition("## The walk of one number")[2].partition("## ")[0]
    files = re.findall(r"^\| `(\S+)`", walk, re.MULTILINE)
    assert len(set(files)) == len(files) == 25


def short(value):
    """Two digits after the point, no zero before it."""
    return f"{value:.2f}".removeprefix("0")


def test_classification_diffusion_and_its_twins_have_the_weights_that_are_told():
    text = " ".join((ROOT / "results/README.md").read_text(encoding="utf-8").split())
    wide = "--model.init_args.denoiser.init_args.network.init_args.width=16"
    counts = []
    for name, *words in (("cdm",), ("ddm",), ("ddm", wide)):
        with torch.device("meta"):
            model = build([f"--config={ROOT / 'configs/digits' / name}.yaml", *words, "--trainer.logger=false"]).model
        counts.append(f"{sum(weight.numel() for weight in model.parameters()):,}")
    told = "about as many weights: {} classify levels, {} denoise (`ddm`)"
    assert told.format(*counts) in text
    assert f"(`ddm_wide`) has {counts[2]}" in text


def test_the_figures_set_beforehand_have_the_numbers_of_the_results():
    text = " ".join((ROOT / "results/README.md").read_text(encoding="utf-8").split())
    records = [r for r in read_results(ROOT / "results/digits-full.json").records if r.status == "ok"]

    def mean(cell, metric, scale=None):
        found = {
            r.seed: r.value
            for r in records
            if (r.cell, r.metric, r.protocol.get("guidance_scale")) == (cell, metric, scale)
        }
        assert sorted(found) == [0, 1, 2, 3, 4]
        return float(np.mean(list(found.values())))

    asked, stepped, free = (
        mean("joint_features", "accuracy/generated", 30), mean("joint_features", "fd", 30), mean("joint", "fd", 0),
    )  # fmt: skip
    assert f"not above unguided. {asked:.3f}, and {stepped:.3f} against {free:.3f}." in text
    ratios = [mean("cdm", "fd") / mean(twin, "fd") for twin in ("ddm", "ddm_wide")]
    assert "{:.2f} times `ddm`, {:.2f} times `ddm_wide`".format(*ratios) in text
    assert f"{mean('cdm_linear', 'fd') / mean('ddm_linear', 'fd'):.2f} times `ddm_linear`" in text
    ratios = [mean("egc", "fd", scale) / mean("joint", "fd", scale) for scale in (0, 1, 3)]
    told = "{:.3f}, and {:.2f} times without guidance, {:.2f} at scale 1, {:.2f} at scale 3"
    assert told.format(mean("egc", "accuracy/clean"), *ratios) in text
    shifts = (mean(cell, "accuracy/clean") for cell in ("few_clean", "few_clean_shifted"))
    assert "from {:.3f} (`few_clean`) to {:.3f} (`few_clean_shifted`)".format(*shifts) in text


def test_the_numbers_of_guidance_at_scale_1_are_those_of_the_results():
    text = " ".join((ROOT / "results/README.md").read_text(encoding="utf-8").split())

    def means(name):
        records = [r for r in read_results(ROOT / f"results/{name}.json").records if r.status == "ok"]

        def mean(cell, metric, scale=None):
            found = [r.value for r in records if (r.cell, r.metric) == (cell, metric)
                     and r.protocol.get("guidance_scale") == scale]  # fmt: skip
            return float(np.mean(found))

        return mean

    mean = means("digits-full")
    cells = ("noisy_classifier", "denoising_assisted", "score_class_gaussians", "score_training_points")
    unguided, first = mean("score_model", "fd"), [mean(cell, "fd", 1) for cell in cells]
    told = "`fd` is {:.3f} without guidance, and at scale 1 it is {:.3f} by the noisy classifier, {:.3f} with denoising"
    assert told.format(unguided, *first) in text
    assert "{:.3f} by Gaussians of the classes, and {:.3f} by the exact".format(*first[2:]) in text
    assert unguided < min(first)
    assert all(mean(cell, "fd", 3) < unguided for cell in cells)
    asked, precision = (mean(cells[0], metric, 1) for metric in ("accuracy/generated", "precision"))
    told = f"{asked:.3f} of them show the class asked for, and precision is {precision:.3f} against"
    assert f"{told} {mean('score_model', 'precision'):.3f} without" in text
    conditional = (mean("cfg", metric, 1) for metric in ("fd", "accuracy/generated"))
    assert "{:.3f} at scale 1, with {:.3f} of the class".format(*conditional) in text
    assert f"(`few_cg`) `fd` is {mean('few_cg', 'fd', 1):.3f} at scale 1" in text
    assert mean("few_cg", "fd", 1) < first[0]

    mean = means("digits_guidance")
    tried = ("noisy_classifier", "noisy_wide", "noisy_long", "noisy_levels", "points")
    distances = [mean("score_model", "fd"), *(mean(cell, "fd", 1) for cell in tried)]
    told = (
        "`fd` is {:.3f} without guidance and, at scale 1, {:.3f} by the classifier as it is, {:.3f} by one of nine"
        " times the weights, {:.3f} after four times the steps, {:.3f} with more of the noise levels at which classes"
        " part in place of (a)'s even ones, and {:.3f} by the exact"
    )
    assert told.format(*distances) in text
    assert distances[0] < distances[5] < distances[4] < distances[3] < distances[2] < distances[1]
    middle, high = (
        [mean(cell, f"gradient/scale/t={t}") for cell in ("noisy_classifier", "noisy_long", "points")]
        for t in (0.6, 0.8)
    )
    told = "in mean square, is {:.2f}, after four times the steps {:.2f}, by the training images' posterior {:.2f}"
    assert told.format(*middle) in text
    assert "At sigma 4.373 it is {:.2f}, {:.2f} and {:.2f}.".format(*high) in text


def test_the_numbers_of_choices_are_of_validation_images_and_the_settings_are_the_best_of_them():
    text = " ".join((ROOT / "results/README.md").read_text(encoding="utf-8").split())
    records = read_results(ROOT / "results/digits_choices.json").records
    assert {r.protocol.get("part") for r in records} == {"validation"}
    assert {r.seed for r in records} == {5, 6, 1000}

    def mean(cell, metric="accuracy/levels"):
        return float(np.mean([r.value for r in records if (r.cell, r.metric) == (cell, metric)]))

    first, second = (mean(f"encoder_{pool}") for pool in ("flatten", "attention"))
    assert f"levels is {first:.3f} with every pixel, {second:.3f} with an attention pool" in text
    heads = [mean(f"joint_{name}") for name in ("dropout_0.1", "dropout_0", "dropout_0.3")]
    weights = [mean(f"joint_{name}_weights") for name in ("quarter", "fourfold")]
    told = "{:.3f} with dropout 0.1, {:.3f} without, {:.3f} with 0.3; {:.3f} with a quarter of the weights, {:.3f} with"
    assert told.format(*heads, *weights) in text
    assert max(heads + weights) == heads[0]
    likelihood = [mean(f"dlsm_ce_{weight}") for weight in ("0.1", "1", "0.01")]
    assert "weighs 0.1: {:.3f}, against {:.3f} with 1 and {:.3f} with 0.01".format(*likelihood) in text
    assert first > second
    assert max(likelihood) == likelihood[0]
    bits = [mean(f"cdm_ce_{weight}", "nll/ode") for weight in ("0.001", "0.003", "0.01", "0.03")]
    assert "({:.2f}, {:.2f}, {:.2f} and {:.2f} bits, with standard errors".format(*bits) in text


def gradients_in_the_plane(metric):
    """Values of a metric of unscaled gradients by cell, kind of points, noise level and seed."""
    return {
        (r.cell, r.protocol["points"], r.protocol["sigma"], r.seed): r.value
        for r in read_results(ROOT / "results/toy2d.json").records
        if (r.metric, r.status, r.protocol.get("scaling", "none")) == (metric, "ok", "none")
    }


def test_the_numbers_of_overlapping_moons_are_those_of_the_results():
    text = " ".join((ROOT / "results/README.md").read_text(encoding="utf-8").split())
    found, cosines = (gradients_in_the_plane(metric) for metric in ("gradient/mse", "gradient/cosine"))
    grid, noisy = "grid", "noisy test images"

    def told(first, second, points, sigma, values=found):
        sides = [[values[f"{cell}_overlapping", points, sigma, s] for s in range(5)] for cell in (first, second)]
        return *map(np.mean, sides), all(a < b for a, b in zip(*sides, strict=True))

    sc, ce, always = told("sc", "ce", grid, 7.516)
    assert f"too, far from the points: {sc:.4f} against {ce:.4f} on the grid at sigma 7.516, in every seed" in text
    assert always
    assert f"and {told('sc_tenth', 'ce', grid, 7.516)[0]:.4f} with a tenth of the weight" in text
    sc, ce, always = told("sc", "ce", noisy, 2.992)
    assert f"noisy points ({sc:.6f} against {ce:.5f}, in every seed)" in text
    assert always
    assert "not on the grid ({:.3f} against {:.3f})".format(*told("sc", "ce", grid, 2.992)[:2]) in text
    sc, ce, always = told("few_sc_all", "few_ce", grid, 7.516)
    assert f"at sigma 7.516 ({sc:.4f} against {ce:.4f})" in text
    assert always
    assert all(told("few_sc_all", "few_ce", noisy, sigma)[2] for sigma in (1.0, 2.992, 7.516))
    sc, ce, _ = told("few_sc_all", "few_ce", grid, 7.516, cosines)
    assert f"(cosine {sc:.3f} against {ce:.3f})" in text


def test_the_numbers_of_the_plane_are_those_of_the_results():
    text = " ".join((ROOT / "results/README.md").read_text(encoding="utf-8").split())
    found = gradients_in_the_plane("gradient/mse")
    places = [(points, sigma) for points in ("grid", "noisy test images") for sigma in (1.0, 2.992, 7.516)]
    seeds = range(5)
    for points, sigma in places:
        assert all(found["few_sc_all_apart", points, sigma, s] < found["few_ce_apart", points, sigma, s] for s in seeds)

    def errors(cells, points, sigma):
        return [float(np.mean([found[f"{cell}_apart", points, sigma, s] for s in seeds])) for cell in cells]

    def nearer(first, second, points, sigma):
        return all(
            found[f"{first}_apart", points, sigma, s] < found[f"{second}_apart", points, sigma, s] for s in seeds
        )

    cells = ("few_sc_all", "few_ce", "zero_gradient")
    told = "is {:.4f} against {:.4f} by cross-entropy alone ({:.4f} by no gradient"
    assert told.format(*errors(cells, "grid", 7.516)) in text
    assert "on noisy points {:.5f} against {:.5f}.".format(*errors(cells[:2], "noisy test images", 7.516)) in text
    cosines = gradients_in_the_plane("gradient/cosine")
    turned = [[cosines[f"{cell}_apart", "grid", 1.0, s] for s in seeds] for cell in cells[:2]]
    assert "the cosine is {:.3f} against {:.3f}, lower in every seed".format(*map(np.mean, turned)) in text
    assert all(a < b for a, b in zip(*turned, strict=True))
    labeled, plain = errors(("few_sc_labeled", "few_ce"), "grid", 7.516)
    assert f"than by cross-entropy alone, {labeled:.4f} on the grid" in text
    assert labeled > plain
    assert "of the gradient: {:.4f} against {:.4f}, at weight 1".format(*errors(("sc", "ce"), "grid", 7.516)) in text
    noisy = errors(("sc", "ce"), "noisy test images", 2.992)
    assert "{:.6f} against {:.5f} in every seed, and on".format(*noisy) in text
    assert nearer("sc", "ce", "noisy test images", 2.992)
    assert "{:.5f} against {:.4f} in every seed, and further".format(*errors(("sc_tenth", "ce"), "grid", 7.516)) in text
    assert nearer("sc_tenth", "ce", "grid", 7.516)
    assert nearer("sc", "ce", "grid", 1.0)
    assert nearer("ce", "sc", "noisy test images", 7.516)
    assert all(nearer("ce", "sc_tenth", "grid", sigma) for sigma in (1.0, 2.992))
    (dlsm,) = errors(("dlsm",), "grid", 7.516)
    assert f"on the grid at sigma 7.516: {dlsm:.5f}" in text
    assert all(dlsm < min(errors((cell,), "grid", 7.516)) for cell in ("ce", "sc", "sc_tenth"))


def test_the_numbers_of_gradients_and_counterfactuals_are_those_of_the_results():
    text = " ".join((ROOT / "results/README.md").read_text(encoding="utf-8").split())
    records = [r for r in read_results(ROOT / "results/digits.json").records if r.status == "ok"]

    def values(cell, metric, **protocol):
        own = [r for r in records if (r.cell, r.metric) == (cell, metric) and protocol.items() <= r.protocol.items()]
        return [r.value for r in sorted(own, key=lambda r: r.seed)]

    def pair(metric):
        sides = [values(cell, metric) for cell in ("denoising_assisted", "noisy_classifier")]
        assert [len(side) for side in sides] == [5, 5]
        return (*map(np.mean, sides), all(a > b for a, b in zip(*sides, strict=True)))

    at, more, most = (pair(f"gradient/alignment/t={t}") for t in ("0.35", "0.6", "0.8"))
    assert "{:.3f} with denoising assistance and {:.3f} without, so".format(*at[:2]) in text
    assert "{:.3f} against {:.3f} at 0.956, {:.3f} against {:.3f} at 4.373".format(*more[:2], *most[:2]) in text
    assert more[2]
    assert most[2]
    assert "({:.3f} against {:.3f} at 0.143)".format(*pair("gradient/smoothness")[:2]) in text
    changed = [np.mean(values("joint", "counterfactual/asked", guidance_scale=scale)) for scale in (3, 1)]
    assert "at scale 3, {:.3f} of the images become the class asked for, at scale 1 {:.3f}".format(*changed) in text


def test_the_gain_at_two_labels_is_that_of_the_results():
    text = " ".join((ROOT / "results/README.md").read_text(encoding="utf-8").split())
    records = read_results(ROOT / "results/digits-full.json").records
    pair = [
        np.array([r.value for s in range(5) for r in records if (r.cell, r.seed, r.metric) == (c, s, "accuracy/clean")])
        for c in ("few2_cg_sc_all", "few2_cg")
    ]
    gains = pair[0] - pair[1]
    low, high = interval(gains)
    told = "{:.3f} against {:.3f}, a gain of {:+.3f} over five seeds with the 90 % interval [{:+.3f}, {:+.3f}]"
    assert told.format(*(side.mean() for side in pair), gains.mean(), low, high) in text


def test_the_numbers_of_fashion_are_those_of_its_one_seed():
    text = " ".join((ROOT / "results/README.md").read_text(encoding="utf-8").split())
    records = [r for r in read_results(ROOT / "results/fashion_mnist-medium.json").records if r.status == "ok"]

    def value(cell, metric, scale=None):
        own = [r for r in records if (r.cell, r.metric, r.protocol.get("guidance_scale")) == (cell, metric, scale)]
        (found,) = (r.value for r in own if "lite0" not in str(r.protocol.get("feature_network")))
        return found

    both = ("noisy_classifier", "denoising_assisted")
    clean = [value(cell, "accuracy/clean") for cell in ("supervised", *both)]
    told = "{:.3f} by the classifier of clean images, {:.3f} by the noisy classifier, {:.3f} with denoising assistance"
    assert told.format(*clean) in text
    assert "at random noise {:.3f} and {:.3f}.".format(*(value(cell, "accuracy/noisy") for cell in both)) in text
    guided = [value(cell, "fd", 1) for cell in both]
    free = value("score_model", "fd")
    assert f"`fd` is {value('held_out_images', 'fd'):.3f} of test images, {free:.2f} of the score model" in text
    assert "{:.2f} and {:.2f} of the same model guided".format(*guided) in text
    assert min(guided) > free
    assert "where {:.3f} and {:.3f} of".format(*(value(cell, "accuracy/generated", 1) for cell in both)) in text
    assert {r.seed for r in records if r.cell in both} == {0}


def test_the_numbers_in_explanations_of_contradicted_claims_are_those_of_the_results():
    text = " ".join((ROOT / "results/README.md").read_text(encoding="utf-8").split())
    path = ROOT / "results/digits-full.json"
    records = read_results(path).records
    answers = Answers(path.with_suffix(".npz"))

    def mean(cell, metric, scale):
        found = [r for r in records if (r.cell, r.metric, r.status) == (cell, metric, "ok")]
        return np.mean([r.value for r in found if r.protocol.get("guidance_scale") == scale])

    cells = ("cdm", "cdm_mse_alone", "cdm_uniform", "cdm_pooled", "cdm_anchored")
    both, squared, flow, pooled, anchored = (answers.of_seeds(cell, range(5), "nll/ode") for cell in cells)
    medians = (np.median(bits, axis=1).mean() for bits in (both, squared))
    assert "{:.2f} against {:.2f} bits per dimension (median of five seeds)".format(*medians) in text
    assert f"{(both > 5).mean():.0%} of the images have more than 5 bits".replace("%", " %") in text
    assert f"{(squared > 5).mean():.0%} with the squared error alone".replace("%", " %") in text
    twin = answers.of_seeds("ddm", range(5), "nll")
    assert not (twin > 5).any()
    halves = (np.median(bits, axis=1).mean() for bits in (both, twin))
    assert "at most {:.2f} bits with `cdm` and {:.2f} with `ddm`, and".format(*halves) in text
    assert f"they have {flow.mean():.2f} bits" in text
    rare = f"both losses have {pooled.mean():.2f} bits, and {(pooled > 5).mean():.1%} of the images more than 5"
    assert rare.replace("%", " %") in text
    assert f"trains for longer) they have {anchored.mean():.2f}, and no image more than 5" in text
    assert not (anchored > 5).any()
    copies = [short(mean("few_cfg_all", metric, scale)) for metric in ("nn_ratio", "recall") for scale in (1, 3)]
    told = "(`nn_ratio` {} at scale 1, {} at scale 3) of little variety (recall {} and {})"
    assert told.format(*copies) in text
    ratio, recall = (mean("few_cg_sc_all", metric, 1) for metric in ("nn_ratio", "recall"))
    assert f"Self-calibration has `nn_ratio` {ratio:.2f} and recall {short(recall)} at scale 1" in text
    for scale, words in ((1, ".{:03.0f} against .{:03.0f} with an interval"), (3, ".{:03.0f} against .{:03.0f}.")):
        asked = [1000 * mean(cell, "accuracy/generated", scale) for cell in ("self_calibrating", "noisy_encoder")]
        assert words.format(*asked) in text
    near = [mean(cell, "fd", None) for cell in ("cdm_pooled_linear", "cdm_uniform", "cdm_linear")]
    assert "{:.2f} with the linear schedule and {:.2f} with the uniform one".format(*near) in text
    assert f"the linear schedule has {near[2]:.2f} (`cdm_linear`)" in text
    distances = [mean(cell, "fd", None) for cell in ("cdm", "ddm_wide", "ddm", "cdm_linear", "ddm_linear")]
    assert "({:.3f} against {:.3f}; against `ddm` {:.3f}, not decided)".format(*distances) in text
    assert "(`cdm_linear`) has `fd` {:.3f}, a UNet as wide (`ddm_linear`) {:.3f}".format(*distances[3:]) in text
    errors = [mean(cell, "mse/denoise/t=0.2", None) for cell in ("cdm", "ddm_wide", "ddm")]
    assert "({:.3f} against {:.3f}; against `ddm` {:.3f}, reproduced)".format(*errors) in text
    linear = answers.of_seeds("cdm_pooled_linear", range(5), "nll/ode")
    assert f"not decided: {flow.mean():.2f} against {linear.mean():.2f} bits" in text
    for ours, theirs in (("few_ssl_da", "few_pseudo_label"), ("pu_odd_even", "pu_contrastive")):
        assert "({:.3f} against {:.3f})".format(*(mean(c, "accuracy/clean", None) for c in (ours, theirs))) in text
