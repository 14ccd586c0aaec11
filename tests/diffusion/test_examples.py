"""Examples in the docstrings of ``methods/diffusion``: each class has one, and its output is as printed."""

import ast
import doctest
from importlib import import_module
from pathlib import Path

import pytest

import methods.diffusion

MODULES = sorted(Path(methods.diffusion.__path__[0]).glob("[!_]*.py"))
every_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)


@every_module
def test_examples_print_what_they_say(path):
    assert doctest.testmod(import_module(f"methods.diffusion.{path.stem}")).failed == 0


@every_module
def test_every_public_class_that_can_be_built_has_an_example(path):
    classes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
    public = [node for node in classes if not node.name.startswith("_") and "abstractmethod" not in ast.unparse(node)]
    assert not [node.name for node in public if ">>> " not in ast.get_docstring(node)]
