"""Every configuration that ships can be used, and the commands are installed."""

import contextlib
import subprocess
import sys
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from benchmark import cli
from benchmark.cost.meter import measured
from benchmark.suite.jobs import arguments
from benchmark.suite.needs import WEIGHTS, weights_key
from benchmark.suite.suite import load_suite
from benchmark.training.build import build
from benchmark.training.checks import check_shapes
from datamodules.base import stand_ins

CONFIGS = Path(__file__).parents[1] / "configs"
READ = {path.relative_to(CONFIGS): yaml.safe_load(path.read_text()) for path in sorted(CONFIGS.rglob("*.yaml"))}
SUITES = [path for path in READ if path.parts[0] == "suites" and len(path.parts) == 2]
EXPERIMENTS = [path for path in READ if path.parts[:2] == ("suites", "experiments")]
SHARED_BUDGETS = [path for path in READ if path.parts[0] == "budgets" and len(path.parts) == 2]
BUDGET_PARTS = [path for path in READ if path.parts[0] == "budgets" and len(path.parts) == 3]
METHODS = [path for path in READ if "model" in READ[path] and path not in SUITES]
PARTS = [path for path in READ if "class_path" in READ[path]]
CLAIMS = [Path("claims.yaml")]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data root with the one data set that has its sizes from its files alone: a folder of images."""
    root = tmp_path_factory.mktemp("data")
    for kind in ("infected", "uninfected"):
        (root / "malaria" / kind).mkdir(parents=True)
        for number in range(100):
            Image.new("RGB", (70, 80)).save(root / "malaria" / kind / f"{number}.png")
    return root


@pytest.fixture(autouse=True)
def images_in_place_of_downloads(monkeypatch, root):
    """Black images of the right shape, with every class, where a data set would read its files."""
    monkeypatch.setenv("DIFFCLASS_DATA", str(root))
    with stand_ins():
        yield


def strings(value):
    """All strings in nested lists and mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)


def test_every_file_is_a_suite_an_experiment_a_budget_a_method_or_a_part_of_one_or_holds_the_claims():
    assert sorted([*SUITES, *EXPERIMENTS, *SHARED_BUDGETS, *BUDGET_PARTS, *METHODS, *PARTS, *CLAIMS]) == sorted(READ)


@pytest.mark.parametrize("path", SHARED_BUDGETS, ids=str)
def test_a_shared_budget_changes_configurations_that_there_are(path):
    stems = {name for change in READ[path]["overrides"] for name in change.get("configs", [])}
    assert stems <= {method.stem for method in METHODS}


def test_every_part_is_included_somewhere():
    included = {path.parent / text for path, value in READ.items() for text in strings(value) if text.endswith(".yaml")}
    assert set(PARTS) <= included
    assert set(BUDGET_PARTS) <= included


def test_every_method_is_a_cell_of_a_suite_or_of_an_experiment():
    cells = [cell for name, budget in BUDGETS for cell in load_suite(name, budget).cells.values()]
    experiments = {CONFIGS / text for path in EXPERIMENTS for text in strings(READ[path]) if text.endswith(".yaml")}
    used = {Path(cell.config) for cell in cells if cell.config} | experiments
    assert not {CONFIGS / path for path in METHODS} - used


@pytest.mark.parametrize("path", METHODS, ids=str)
def test_every_method_builds_takes_its_data_and_keeps_its_settings(path, tmp_path):
    """Weights that it needs from another training may be missing; those of large networks have shapes alone."""
    small = path.parts[0] in ("digits", "toy2d")
    with torch.device("cpu" if small else "meta"):
        built = build(
            [f"--config={CONFIGS / path}", f"--trainer.default_root_dir={tmp_path}", "--trainer.logger=false"]
        )
        weights = list(built.model.parameters())
        assert any(weight.requires_grad for weight in weights) or not built.model.automatic_optimization
    with contextlib.suppress(FileNotFoundError):
        if small:
            check_shapes(built.model, built.datamodule)
        else:
            measured(lambda: check_shapes(built.model, built.datamodule))  # which traces like calls once
    if not small:
        return
    (tmp_path / "kept.yaml").write_text(built.settings)
    again = built.parser.parse_args([f"--config={tmp_path / 'kept.yaml'}"])
    assert built.parser.dump(again, skip_unset=False) == built.parser.dump(built.config, skip_unset=False)


BUDGETS = [(path.stem, budget) for path in SUITES for budget in ("paper", *READ[path].get("budgets", {}))]


def check_cells(cells, suite, folder):
    """See that cells take their settings, and denoisers and weights of the cells that they need."""

    @cache
    def config(name):
        cell = suite.cells[name]
        words = arguments(cell, 0, folder, {a: folder / other for a, other in cell.needs.items()})
        with torch.device("meta"):  # weights of the right shapes that nobody draws
            return build([*words, "--trainer.logger=false"]).config.clone()

    for cell in cells:
        found = config(cell.name)
        for argument, other in cell.needs.items():
            assert found[weights_key(argument)] == str(folder / other / "checkpoints" / "final.ckpt")
            if argument != WEIGHTS:
                denoiser = found[f"model.init_args.{argument}.init_args.denoiser"]
                assert plain(denoiser) == plain(config(other)["model.init_args.denoiser"])


def plain(settings):
    """Settings without the paths of the files that they were read from."""
    return {key: value for key, value in vars(settings.clone().as_flat()).items() if "__path__" not in key}


@cache
def enough_cells():
    """Cells of all suites in which each method is given each setting and weights of its suites once, by suite."""
    found, covered = {}, set()
    for path in sorted(SUITES, key=lambda path: (path.stem != "cifar10", path.stem)):
        cells = [cell for cell in load_suite(path.stem).cells.values() if cell.set or cell.needs]
        for cell in sorted(cells, key=lambda cell: -len(cell.set)):
            settings = {(Path(cell.config).stem, key) for key in (*cell.set, *cell.needs)}
            if settings - covered:
                found.setdefault(path.stem, []).append(cell)
                covered |= settings
    return found


@pytest.mark.parametrize(("name", "budget"), BUDGETS)
def test_every_suite_loads_at_each_budget(name, budget):
    assert load_suite(name, budget).name == (name if budget == "paper" else f"{name}-{budget}")


@pytest.mark.parametrize("name", [path.stem for path in SUITES])
def test_a_method_takes_each_of_the_settings_that_suites_give_it(name, tmp_path):
    check_cells(enough_cells().get(name, []), load_suite(name), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "budget"), BUDGETS)
def test_every_cell_of_a_suite_takes_its_settings_at_each_budget(name, budget, tmp_path):
    suite = load_suite(name, budget)
    check_cells([cell for cell in suite.cells.values() if cell.set or cell.needs], suite, tmp_path)


def test_the_commands_are_installed():
    ours = {point.name: point for point in entry_points(group="console_scripts") if point.value == "benchmark.cli:main"}
    assert ours.keys() == {"lightning", "diffclass"}
    assert all(point.load() is cli.main for point in ours.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lightning", "diffclass"])
def test_an_installed_command_is_ours_from_any_folder(name, tmp_path):
    script = Path(sys.executable).with_name(name)
    done = subprocess.run(
        [script, "fit", "--config=no.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: cannot read {tmp_path / 'no.yaml'}: No such file or directory\n"


def test_a_command_that_went_well_returns_nothing(tmp_path):
    """What it returns would be the exit code of the installed command."""
    words = [f"--config={CONFIGS / 'digits' / 'supervised.yaml'}", f"--trainer.default_root_dir={tmp_path}"]
    words += ["--trainer.max_steps=1", "--trainer.logger=false", "--trainer.enable_progress_bar=false"]
    assert cli.main(["fit", *words]) is None


HALF_SUMS = [
    path for path in METHODS if 0 < READ[path]["trainer"].get("gradient_clip_val", 0) < 0.1
]  # trained on the mean over pixels, by the settings of a loss that is half the sum


@pytest.mark.parametrize("path", HALF_SUMS, ids=str)
def test_adam_steps_as_on_the_loss_that_the_settings_are_of(path):
    """A loss 2 / d as large has gradients 2 / d as large: the step is the same if Adam's eps and the clip are too."""
    grey = path.parent.name in ("mnist", "fashion_mnist")
    unit = 2 / (1024 if grey else 3072)
    settings = READ[path]["optimizer"]["init_args"]
    assert READ[path]["trainer"]["gradient_clip_val"] == pytest.approx(unit, rel=0.03)
    assert settings["eps"] == pytest.approx(1e-8 * unit, rel=0.03)
    gradients = 1e-8 * torch.randn(5, 100)  # where eps counts
    steps = []
    for size, eps in ((1.0, 1e-8), (unit, settings["eps"]), (unit, 1e-8)):
        weight = torch.nn.Parameter(torch.zeros(100))
        optimizer = torch.optim.Adam([weight], lr=settings["lr"], eps=eps)
        for gradient in gradients:
            weight.grad = size * gradient
            optimizer.step()
        steps.append(weight.detach())
    torch.testing.assert_close(steps[1], steps[0], rtol=0.03, atol=0.03 * settings["lr"])
    assert steps[2].abs().max() < 0.01 * steps[0].abs().max()  # what Adam's usual eps would make of it
