"""The dependency rule, read from the source of every package: five leaves, and apps the only place they meet.

- no package imports another; the one exception is tinycore/ops, which may try tinykernels
- tinydata, tinyreason and tinyeval never import torch
- no package imports apps
- whatever else a package imports, its own pyproject.toml declares
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("tinycore", "tinydata", "tinyeval", "tinykernels", "tinyreason")
WITHOUT_TORCH = ("tinydata", "tinyeval", "tinyreason")


def imports(source: str) -> Iterator[str]:
    """Top-level names of everything a module imports, also inside functions and through importlib."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__", "find_spec") and isinstance(node.args[0].value, str):
                yield node.args[0].value.partition(".")[0]


def foreign_imports(package: str) -> dict[str, set[str]]:
    """What a package (or apps) imports besides itself and the standard library: name -> files that do."""
    source = ROOT / "apps" if package == "apps" else ROOT / "packages" / package / "src" / package
    found: dict[str, set[str]] = {}
    for path in sorted(source.rglob("*.py")):
        for name in set(imports(path.read_text(encoding="utf-8"))) - {package} - sys.stdlib_module_names:
            found.setdefault(name, set()).add(path.relative_to(source).as_posix())
    return found


def declared(package: str) -> set[str]:
    """Distributions that a package's (or the root's) pyproject.toml names, extras included, in normal form."""
    folder = ROOT if package == "apps" else ROOT / "packages" / package
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project.get("optional-dependencies", {})
    requirements = [*project["dependencies"], *(item for extra in extras.values() for item in extra)]
    return {normal(re.match(r"[\w.-]+", requirement).group()) for requirement in requirements}


def parts(distribution: str) -> set[str]:
    """What a distribution without a module of its own stands for, such as pydantic-monty for its client and its runtime."""
    provided = {normal(name) for names in metadata.packages_distributions().values() for name in names}
    if distribution in provided:
        return set()
    try:
        needed = metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        return set()
    return {
        normal(re.match(r"[\w.-]+", requirement).group()) for requirement in needed if "extra ==" not in requirement
    }


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_package_is_covered() -> None:
    assert sorted(path.parent.name for path in (ROOT / "packages").glob("*/pyproject.toml")) == list(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_imports_another(package: str) -> None:
    crossings = {
        (name, file)
        for name, files in foreign_imports(package).items()
        for file in files
        if name in PACKAGES and not (package == "tinycore" and name == "tinykernels" and file.startswith("ops/"))
    }
    assert not crossings


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_imports_apps(package: str) -> None:
    assert "apps" not in foreign_imports(package)


@pytest.mark.parametrize("package", WITHOUT_TORCH)
def test_these_packages_know_no_torch(package: str) -> None:
    assert "torch" not in foreign_imports(package)
    assert "torch" not in declared(package)


@pytest.mark.parametrize("package", [*PACKAGES, "apps"])
def test_imports_are_declared(package: str) -> None:
    available = declared(package)
    if package == "apps":  # it composes: what the packages below it declare is there for it
        available |= set().union(*(declared(below) for below in PACKAGES if below in available))
    distributions = metadata.packages_distributions()
    available |= set().union(*(parts(name) for name in available))
    undeclared = {
        name: files
        for name, files in foreign_imports(package).items()
        if not {normal(distribution) for distribution in distributions.get(name, [name])} & available
    }
    assert not undeclared


def test_the_scanner_sees_every_way_to_import() -> None:
    source = """
import torch.nn as nn
from tinycore.config import load
from . import sibling
import os, numpy
def later():
    from apps import common
    importlib.import_module("triton.language")
    __import__("pickle")
"""
    assert set(imports(source)) == {"torch", "tinycore", "os", "numpy", "apps", "triton", "pickle"}
