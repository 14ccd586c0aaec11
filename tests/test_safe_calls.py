"""Our source calls nothing that would run what a file holds, in any other than its safe form."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for room in ("methods", "datamodules", "benchmark") for path in (ROOT / room).rglob("*.py"))
SAFE = {
    "torch.load": {"weights_only": "True"},
    "np.load": {"allow_pickle": "False"},
    "yaml.load": {"Loader": "_Loader"},  # a yaml.CSafeLoader, tests/test_bad_inputs.py
}
NEVER = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.unsafe_load", "yaml.full_load"),
    *("torch.hub.load", "torch.jit.load", "np.fromfile", "shutil.unpack_archive"),
}
MODULES = {"pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle", "tarfile"}
"""``zipfile`` is imported for its error alone."""


def unsafe(source: str) -> list[str]:
    """What is wrong in a source."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found += [name for name in names if name.split(".")[0] in MODULES]
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        lacking = any(given.get(key) != value for key, value in SAFE.get(name, {}).items())
        extracts = name.rpartition(".")[2] in ("extractall", "extract")  # ours is benchmark.metrics.features.extract
        if lacking or name in NEVER or given.get("shell") == "True" or (extracts and "." in name):
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_of_ours_can_run_what_it_reads(path):
    assert unsafe(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        *("torch.load(p)", "torch.load(p, weights_only=False)", "torch.load(p, weights_only=w)", "np.load(p)"),
        *("np.load(p, allow_pickle=True)", "yaml.load(t, Loader=yaml.Loader)", "eval(t)", "exec(t)", "os.system(t)"),
        *("subprocess.run(t, shell=True)", "import pickle", "from pickle import load", "archive.extractall(p)"),
    ],
)
def test_the_unsafe_forms_are_seen(source):
    assert unsafe(source)
