"""The tasks that come with tinyeval, one YAML each; `load` also reads anyone's file."""

from __future__ import annotations

from pathlib import Path

from tinyeval import task
from tinyeval.strict_yaml import TaskError
from tinyeval.task import Task, nearest

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """The tasks there are."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def load(name: str | Path) -> Task:
    """The task of that name, or in that YAML file. Raises TaskError: for an unknown name with the nearest ones."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return task.load(path)
    if str(name) not in names():
        raise TaskError(f"unknown task {str(name)!r}; {nearest(str(name), names())}")
    return task.load(_FOLDER / f"{name}.yaml")


__all__ = ["load", "names"]
