"""A pipeline's file as values: stages in order, each an app with its recipe or options and the stage it begins from.

`{NAME}` in an option is the folder of that earlier stage.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps.common import strict_yaml
from apps.common.errors import BadRequest

DIRECTORY = Path(__file__).parent
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*", re.ASCII)
_STAGE = re.compile(r"\{([^{}]*)\}")
_KEYS = {"name", "app", "from", "recipe", "options"}


@dataclass(frozen=True)
class App:
    """What a stage may be. trains: it leaves a run directory; begins: it needs a run to begin from."""

    trains: bool
    begins: bool


APPS = {
    "pretrain": App(trains=True, begins=False),
    "finetune": App(trains=True, begins=True),
    "verify": App(trains=False, begins=True),
    "evaluate": App(trains=False, begins=True),
}


@dataclass(frozen=True)
class Stage:
    """recipe: a name, or a mapping without the model; options: of the app's command line; begins: the stage it is from."""

    name: str
    app: str
    begins: str | None
    recipe: str | Mapping[str, Any] | None
    options: Mapping[str, str]

    @property
    def trains(self) -> bool:
        return APPS[self.app].trains

    def arguments(self, out: Path) -> list[str]:
        """The options as words of a command line, for a pipeline in `out`."""
        resolved = {key: _STAGE.sub(lambda name: str(out / name[1]), value) for key, value in self.options.items()}
        return [word for key, value in resolved.items() for word in (f"--{key}", value)]


@dataclass(frozen=True)
class Plan:
    """A pipeline; mapping: all of it as plain data, by which an unfinished one is known again."""

    name: str
    description: str
    model: Mapping[str, Any]
    stages: tuple[Stage, ...]
    mapping: Mapping[str, Any]


def names() -> list[str]:
    """The pipelines that come with the project."""
    return sorted(path.stem for path in DIRECTORY.glob("*.yaml"))


def read(name: str) -> Plan:
    """The pipeline of that name or file. Raises BadRequest, one line with the key, for what is none."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else DIRECTORY / f"{name}.yaml"
    if not path.is_file():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names())}, and files that end in .yaml"
        raise BadRequest(f"unknown pipeline {name!r}; {hint}")
    return parse(path.stem, strict_yaml.read(path), str(path))


def parse(name: str, mapping: Mapping[str, Any], origin: str) -> Plan:
    """`mapping` as a plan; see `read`."""
    odd = sorted(mapping.keys() - {"description", "model", "stages"})
    if odd:
        raise BadRequest(f"{origin}: unknown key '{odd[0]}'; there are description, model, stages")
    stages: list[Stage] = []
    listed = mapping.get("stages")
    if not isinstance(listed, list) or not listed:
        raise BadRequest(f"{origin}: stages: takes a list of at least one stage")
    for index, entry in enumerate(listed):
        stages.append(_stage(entry, f"{origin}: stages.{index}", stages))
    model = mapping.get("model")
    if not isinstance(model, Mapping):
        raise BadRequest(f"{origin}: model: takes the model that all stages share")
    return Plan(name, str(mapping.get("description", "")), model, tuple(stages), mapping)


def _stage(entry: Any, where: str, before: list[Stage]) -> Stage:
    if not isinstance(entry, Mapping):
        raise BadRequest(f"{where}: is not a mapping of name, app, from, recipe, options")
    if odd := sorted(entry.keys() - _KEYS):
        raise BadRequest(f"{where}: unknown key '{odd[0]}'; there are {', '.join(sorted(_KEYS))}")
    name, app = entry.get("name"), entry.get("app")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadRequest(f"{where}.name: {name!r} is not a name of lower-case letters, digits, - and _")
    if name in {stage.name for stage in before}:
        raise BadRequest(f"{where}.name: there are two stages {name!r}")
    if app not in APPS:
        raise BadRequest(f"{where}.app: {app!r} is none of {', '.join(APPS)}")
    begins = entry.get("from")
    sources = [stage.name for stage in before if stage.trains]
    if APPS[app].begins and begins not in sources:
        raise BadRequest(
            f"{where}.from: {begins!r} is no earlier stage that trains; there are {', '.join(sources) or 'none'}"
        )
    if not APPS[app].begins and begins is not None:
        raise BadRequest(f"{where}.from: {app} begins with fresh weights; leave it out")
    recipe, options = entry.get("recipe"), entry.get("options", {})
    if not isinstance(options, Mapping):
        raise BadRequest(f"{where}.options: is not a mapping of option and value")
    for key, value in options.items():
        named = set(_STAGE.findall(str(value))) - {stage.name for stage in before}
        if named:
            raise BadRequest(f"{where}.options.{key}: there is no earlier stage {min(named)!r}")
    if APPS[app].trains != (recipe is not None) or not isinstance(recipe, str | Mapping | None):
        raise BadRequest(f"{where}.recipe: {'takes a name or a mapping' if APPS[app].trains else f'{app} has none'}")
    if isinstance(recipe, Mapping) and "model" in recipe:
        raise BadRequest(f"{where}.recipe.model: the pipeline names the model, once for all stages")
    return Stage(name, app, begins, recipe, {str(key): str(value) for key, value in options.items()})
