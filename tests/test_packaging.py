"""An installed copy has what a checkout has: code, configurations, templates, and the results that predict costs."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("benchmark", "methods", "datamodules", "configs", "results")
SUITES = """
from benchmark.cost.times import RESULTS
from benchmark.suite.suite import CONFIGS, load_suite, suites
print(CONFIGS, RESULTS.joinpath("digits.json").is_file(), *suites())
assert all(load_suite(name).cells for name in suites())
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Folder of what a wheel holds."""
    pytest.importorskip("setuptools")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("out")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    words = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", f"--wheel-dir={out}", str(source)]
    subprocess.run([sys.executable, "-m", *words], check=True, capture_output=True)
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(out / "site")
    return out / "site"


def test_a_wheel_holds_code_configurations_templates_and_results(installed):
    kinds = ("benchmark/**/*.py", "methods/**/*.py", "datamodules/**/*.py")
    kinds += ("configs/**/*.yaml", "benchmark/results/*.j2", "results/**/*.json", "results/*.yaml")
    for kind in kinds:
        expected = {path.relative_to(ROOT) for path in ROOT.glob(kind)}
        assert expected
        assert {path.relative_to(installed) for path in installed.glob(kind)} == expected


def test_an_installed_copy_finds_its_suites_and_results(installed, tmp_path):
    environment = {"PYTHONPATH": str(installed), "PATH": ""}
    words = [sys.executable, "-c", SUITES]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = sorted(path.stem for path in (ROOT / "configs" / "suites").glob("*.yaml"))
    assert done.stdout.split() == [str(installed / "configs"), "True", *expected]
