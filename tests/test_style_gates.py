"""What the project promises about its own source, held by reading it.

One version everywhere, no file past 500 lines, no module named after nothing, a lock that names public PyPI
only, nothing that would execute a stranger's file, no path of one machine.
"""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parent.parent
PROJECTS = sorted([ROOT / "pyproject.toml", *(ROOT / "packages").glob("*/pyproject.toml")])
SOURCES = [ROOT / "apps", *sorted((ROOT / "packages").glob("*/src"))]
TREES = [*SOURCES, ROOT / "tests", *sorted((ROOT / "packages").glob("*/tests"))]

PICKLING_MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def modules(trees: list[Path]) -> list[Path]:
    return [path for tree in trees for path in sorted(tree.rglob("*.py"))]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def unsafe(source: str) -> Iterator[str]:
    """Everything in a module that can run what a file says: unpickling, and eval or exec of text."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            top = {
                name.partition(".")[0] for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else names)
            }
            yield from (f"import {name}" for name in sorted(top & PICKLING_MODULES))
            if isinstance(node, ast.ImportFrom) and node.module == "torch":
                yield from (f"torch.{name}" for name in names if name in ("load", "save"))
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("eval", "exec", "torch.load", "torch.save"):
                yield called
            for keyword in node.keywords:
                refused = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                if keyword.arg in ("allow_pickle", "trust_remote_code") and not refused:
                    yield keyword.arg


def test_versions_agree() -> None:
    versions = {name_of(path): tomllib.loads(path.read_text("utf-8"))["project"]["version"] for path in PROJECTS}
    assert len(versions) == 6
    assert len(set(versions.values())) == 1, versions


def test_python_and_licence_agree() -> None:
    projects = [tomllib.loads(path.read_text("utf-8"))["project"] for path in PROJECTS]
    assert {project["requires-python"] for project in projects} == {">=3.11"}
    assert {project["license"] for project in projects} == {"MIT"}


def test_no_file_holds_two_ideas() -> None:
    lengths = {name_of(path): len(path.read_text("utf-8").splitlines()) for path in modules(TREES)}
    assert {name: length for name, length in lengths.items() if length > 500} == {}


def test_modules_are_named_after_what_they_do() -> None:
    vague = {"utils", "util", "helpers", "helper", "misc", "common_utils"}
    assert [name_of(path) for path in modules(SOURCES) if {path.stem, *path.parent.parts[-3:]} & vague] == []


def test_every_module_says_what_it_is() -> None:
    silent = [
        name_of(path)
        for path in modules(TREES)
        if path.read_text("utf-8").strip() and ast.get_docstring(ast.parse(path.read_text("utf-8"))) is None
    ]
    assert silent == []


def test_nothing_executes_what_a_file_says() -> None:
    found = {name_of(path): sorted(unsafe(path.read_text("utf-8"))) for path in modules(SOURCES)}
    assert {name: things for name, things in found.items() if things} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import joblib.numpy_pickle",
        "def f(): eval(text)",
        "torch.load(path)",
        "from torch import load",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "datasets.load_dataset(name, trust_remote_code=True)",
    ],
)
def test_the_scanner_sees_it(source: str) -> None:
    assert list(unsafe(source))


def test_the_scanner_leaves_the_rest_alone() -> None:
    assert not list(
        unsafe("model.eval(); json.load(f); tinycore.load(d); np.load(p, allow_pickle=False); re.compile(p)")
    )


def test_lock_names_public_pypi_only() -> None:
    lock = (ROOT / "uv.lock").read_text("utf-8")
    hosts = {urlsplit(url).hostname for url in re.findall(r'"(https?://[^"]+)"', lock)}
    assert hosts == {"pypi.org", "files.pythonhosted.org"}
    assert not re.search(r"\b(?:git|path) = ", lock)


def test_no_path_of_one_machine() -> None:
    texts = [
        *modules(TREES),
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("apps/recipes/*.yaml"),
    ]
    texts += [*ROOT.glob("packages/*/*.md"), *PROJECTS, ROOT / ".ci" / "run"]
    pattern = re.compile(r"(?<![\w.])/(?:home|root|work|Users)/\w+")
    found = {name_of(path): pattern.findall(path.read_text("utf-8")) for path in texts}
    assert {name: paths for name, paths in found.items() if paths} == {}
