"""`--any.dotted.key VALUE`: changes to a recipe's mapping, made before the strict loader sees it.

A path names what is written in the recipe: mapping keys and list indices (`model.layers.0.mixer.kind`). Values are
YAML. Choosing another member of a family - setting `kind`, or the `placement` of norms - replaces the whole mapping,
because the old member's fields mean nothing to the new one; such choices are made first, whatever the order of the
options, so that no other override is lost to them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from apps.common import strict_yaml
from apps.common.errors import BadRequest

CHOICE_KEYS = ("kind", "placement")


@dataclass(frozen=True)
class Override:
    """One `--path value` of a command line; `value` is plain data."""

    path: tuple[str, ...]
    value: Any

    @property
    def dotted(self) -> str:
        return ".".join(self.path)

    @property
    def is_choice(self) -> bool:
        return self.path[-1] in CHOICE_KEYS


def read(option: str, text: str) -> Override:
    """The override `--{option} {text}`; `BadRequest` for an empty step in the path or a value that is not YAML."""
    path = tuple(option.split("."))
    if not all(path):
        raise BadRequest(f"--{option}: an empty name in the dotted key; write it as --train.steps 100")
    return Override(path, strict_yaml.parse(text, f"--{option}"))


def apply(
    mapping: Mapping[str, Any],
    overrides: Iterable[Override],
    default_of: Callable[[tuple[str, ...]], Any] = lambda path: None,
) -> dict[str, Any]:
    """A copy of `mapping` with every override made.

    `default_of(path)` gives the plain value a key has when the recipe does not write it (None: unknown), so that
    `--optim.schedule.warmup 5` changes one field of the default schedule instead of replacing it.
    Raises `BadRequest` for an index out of range or a step into something that is no mapping or list.
    """
    result: dict[str, Any] = copy.deepcopy(dict(mapping))
    overrides = list(overrides)
    choices = sorted((o for o in overrides if o.is_choice), key=lambda o: len(o.path))
    for override in [*choices, *(o for o in overrides if not o.is_choice)]:
        _set(result, override, default_of)
    return result


def _set(root: dict[str, Any], override: Override, default_of: Callable[[tuple[str, ...]], Any]) -> None:
    *parents, last = override.path
    container: Any = root
    for depth, name in enumerate(parents, start=1):
        container = _step_into(container, name, override, override.path[:depth], default_of)
    if isinstance(container, list):
        index = _index(container, last, override)
        container[index : index + 1] = [override.value]
    elif not isinstance(container, dict):
        _refuse_step(container, override, override.path[:-1])
    elif override.is_choice and container.get(last, override.value) != override.value:
        container.clear()
        container[last] = override.value
    else:
        container[last] = override.value


def _step_into(
    container: Any,
    name: str,
    override: Override,
    path: tuple[str, ...],
    default_of: Callable[[tuple[str, ...]], Any],
) -> Any:
    if isinstance(container, list):
        index = _index(container, name, override)
        if index == len(container):
            container.append({})
        return container[index]
    if not isinstance(container, dict):
        _refuse_step(container, override, path[:-1])
    if container.get(name) is None:
        default = default_of(path)
        container[name] = copy.deepcopy(default) if isinstance(default, dict | list) else {}
    return container[name]


def _index(values: list[Any], name: str, override: Override) -> int:
    """Position `name` in `values`; the first free position appends."""
    if name.isascii() and name.isdigit() and int(name[:9]) <= len(values):
        return int(name[:9])
    raise BadRequest(
        f"--{override.dotted}: {name!r} is no position in a list of {len(values)}; "
        f"positions are 0 to {len(values) - 1}, and {len(values)} appends"
        if values
        else f"--{override.dotted}: {name!r} is no position in an empty list; 0 appends"
    )


def _refuse_step(value: Any, override: Override, path: tuple[str, ...]) -> None:
    raise BadRequest(
        f"--{override.dotted}: {'.'.join(path)} is {value!r}, which has no key {override.path[len(path)]!r}"
    )
