"""Protocols of other people's published numbers, each task beside this package's own rules on the same items.

A suite is one YAML file here: for each task what differs from the `standard` one - prompt, scoring, metric, format - and which
items are asked. Both tasks of a pair get names of their own, `brandon-tiny.hellaswag` and `brandon-tiny.hellaswag.standard`,
so that their results are never taken for those of the whole task.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tinyeval import strict_yaml, tasks
from tinyeval.strict_yaml import TaskError
from tinyeval.task import CHOSEN, Task, from_dict, nearest, with_dataset

_FOLDER = Path(__file__).parent
_ENTRY = ("standard", "published", "shows", "task", "only", "first")


@dataclass(frozen=True)
class Pair:
    """A task by the protocol and by the standard rules, on the same items. shows: the protocol's score that was published, and
    what it was; None: nothing was."""

    standard_name: str
    protocol: Task
    standard: Task
    shows: str
    published: float | None


@dataclass(frozen=True)
class Suite:
    """See the module."""

    name: str
    description: str
    source: str
    pairs: tuple[Pair, ...]

    @property
    def tasks(self) -> list[Task]:
        """All of them, each protocol's before its standard one."""
        return [task for pair in self.pairs for task in (pair.protocol, pair.standard)]


def names() -> list[str]:
    """The suites there are."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def load(name: str) -> Suite:
    """The suite of that name. Raises TaskError for an unknown one, with the nearest."""
    if name not in names():
        raise TaskError(f"unknown suite {name!r}; {nearest(name, names())}")
    path = _FOLDER / f"{name}.yaml"
    written = strict_yaml.read(path)
    pairs = tuple(_pair(name, entry, str(path)) for entry in written["tasks"])
    return Suite(written["name"], written["description"], written["source"], pairs)


def _pair(suite: str, entry: Mapping[str, Any], origin: str) -> Pair:
    unknown = next((key for key in entry if key not in _ENTRY), None)
    if unknown is not None:
        raise TaskError(f"{origin}: unknown key {unknown!r}; {nearest(str(unknown), _ENTRY)}")
    own, standard = dict(entry["task"]), tasks.load(entry["standard"])
    which = {key: entry[key] for key in ("only", "first") if key in entry}
    form = {key: own.pop(key) for key in ("format", *CHOSEN) if key in own}
    name = f"{suite}.{standard.name}"
    described = f"{standard.name} by the rules of {suite}"
    dataset = {**standard.dataset, **which, **form}
    if "only" in which and dataset.get("config") == "*":
        # the hub has a configuration for each value: what is not asked need not be loaded
        dataset["config"] = next(iter(which["only"].values()))
    protocol = from_dict(
        {
            "name": name,
            "version": 1,
            "description": described,
            "source": standard.source,
            "licence": standard.licence,
            "dataset": dataset,
            "direction": "up" if standard.higher_is_better else "down",
            **({} if standard.chance is None else {"chance": standard.chance}),
            **own,
        },
        origin,
    )
    same = {**which, "config": dataset["config"]} if "config" in dataset else which
    return Pair(
        standard.name,
        protocol,
        replace(with_dataset(standard, **same), name=f"{name}.standard"),
        entry.get("shows", protocol.metric),
        entry.get("published"),
    )


__all__ = ["Pair", "Suite", "load", "names"]
