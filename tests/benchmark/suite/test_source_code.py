"""Hashes of source: what changes them, and what does not."""

import ast
import json
from pathlib import Path

import pytest

from benchmark.errors import InputError
from benchmark.suite import source_code
from benchmark.suite.source_code import KEPT, class_paths, code_digest, keep_readings, own_code, recall_readings

ROOT = Path(__file__).parents[3]


def forget():
    """Let changed source be read again."""
    for value in vars(source_code).values():
        if hasattr(value, "cache_clear"):
            value.cache_clear()
    source_code._RECALLED.clear()
    source_code._READINGS.clear()


@pytest.fixture
def source(tmp_path, monkeypatch):
    """Source of our packages in another place; returns a function that changes a module there."""

    def write(module, text):
        path = tmp_path.joinpath(*module.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        forget()

    monkeypatch.setattr(source_code, "ROOT", tmp_path)
    yield write
    forget()


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


def test_class_paths_are_found_at_any_depth():
    nested = {"a": [{"class_path": "x.y.Z", "init_args": {"b": {"class_path": "p.Q"}}}], "class_path": "r.S", "c": None}
    assert sorted(class_paths(nested)) == ["p", "r", "x.y"]


# A user's own


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of a user's with a network, and what it imports; returns its folder."""
    folder = tmp_path / "modules"
    files = {
        "mine/__init__.py": "from .methods import Mine\n",
        "mine/methods.py": "from . import parts\nfrom .nets.plain import Net\nimport torch, helper\nclass Mine: pass\n",
        "mine/parts.py": "x = 1\n",
        "mine/nets/__init__.py": "y = 1\n",
        "mine/nets/plain.py": "from ..shared import z\nclass Net: pass\n",
        "mine/shared.py": "raise RuntimeError('nothing is imported')\n",
        "mine/apart.py": "w = 1\n",
        "helper.py": "v = 1\n",
        "site-packages/library.py": "u = 1\n",
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.syspath_prepend(folder / "site-packages")
    forget()
    yield folder
    forget()


READ = ["mine/__init__", "mine/methods", "mine/parts", "mine/nets/__init__", "mine/nets/plain", "mine/shared", "helper"]


@pytest.mark.parametrize("changed", READ)
@pytest.mark.parametrize("root", ["mine", "mine.methods", "mine.methods.Mine"])
def test_a_users_source_counts_with_all_of_it_that_is_imported(package, root, changed):
    before = code_digest([root])
    (package / f"{changed}.py").write_text((package / f"{changed}.py").read_text() + "more = 2\n")
    forget()
    assert code_digest([root]) != before
    assert str(package / f"{changed}.py") in own_code([root, "methods.supervised"])


def test_what_a_users_source_does_not_import_and_libraries_do_not_count(package):
    (package / "mine" / "parts.py").write_text("import library\nx = 1\n")
    forget()
    before = code_digest(["mine.methods", "library"])
    (package / "mine" / "apart.py").write_text("w = 2\n")
    (package / "site-packages" / "library.py").write_text("u = 2\n")
    forget()
    assert code_digest(["mine.methods", "library"]) == before


def test_a_function_that_a_setting_names_counts(package):
    named = {"model": {"class_path": "methods.supervised.Supervised", "init_args": {"activation": "mine.apart.relu"}}}
    assert sorted(class_paths(named)) == ["methods.supervised", "mine.apart"]


@pytest.mark.parametrize("module", ["mine.nothing", "mine.methods.Mine.Inner", "nowhere.at_all", "benchmark.sampling2"])
def test_a_module_without_source_is_refused(package, module):
    with pytest.raises(InputError, match=rf"no module {module} of which the source can be found"):
        code_digest([module])


def test_all_modules_that_keys_are_made_of_exist():
    tree = ast.parse((ROOT / "benchmark" / "suite" / "plan.py").read_text())
    constants = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    named = {text for text in constants if isinstance(text, str) and text.startswith("benchmark.")}
    assert len(named) > 4
    for module in named | source_code.WITHOUT_EFFECT:
        assert ROOT.joinpath(*module.split(".")).with_suffix(".py").is_file(), module


# What an earlier run read


def test_kept_readings_give_the_same_digests_without_parsing(source, tmp_path, monkeypatch):
    source("methods.a", "from methods.b import f\n")
    source("methods.b", "def f(x):\n    return x\n")
    before = code_digest(["methods.a"])
    keep_readings(tmp_path)
    forget()
    recall_readings(tmp_path)
    monkeypatch.setattr(source_code.ast, "parse", None)
    assert code_digest(["methods.a"]) == before


def test_kept_readings_do_not_hide_a_change(source, tmp_path):
    source("methods.a", "from methods.b import f\n")
    source("methods.b", "def f(x):\n    return x\n")
    before = code_digest(["methods.a"])
    keep_readings(tmp_path)
    source("methods.b", "def f(x):\n    return -x\n")
    recall_readings(tmp_path)
    assert code_digest(["methods.a"]) != before
    keep_readings(tmp_path)
    assert len(json.loads((tmp_path / KEPT).read_text())["readings"]) == len(source_code._READINGS)


@pytest.mark.parametrize(
    "damage",
    [
        lambda kept: kept | {"reader": "another version"},
        lambda kept: kept | {"readings": 3},
        lambda kept: kept | {"readings": {key: [["a", 3], "b"] for key in kept["readings"]}},
        lambda kept: kept | {"readings": dict.fromkeys(kept["readings"], "a")},
        lambda kept: [],
    ],
)
def test_readings_that_are_damaged_or_of_another_version_are_made_again(source, tmp_path, damage):
    source("methods.a", "LIMIT = 3\n")
    before = code_digest(["methods.a"])
    keep_readings(tmp_path)
    kept = json.loads((tmp_path / KEPT).read_text())
    (tmp_path / KEPT).write_text(json.dumps(damage(kept)))
    forget()
    recall_readings(tmp_path)
    assert code_digest(["methods.a"]) == before
    keep_readings(tmp_path)
    assert json.loads((tmp_path / KEPT).read_text()) == kept
