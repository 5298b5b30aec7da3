"""Variants of one base recipe, read from a table: what `apps/bench blocks` times and `apps/ablate` trains.

A table is a YAML file. `train` and `speed` are the two bases, each a recipe and changes to it; a variant is a note and
`overrides`, the changes that make it, with the dotted keys and values that a command line takes. What depends on the size
of the model stands under the variant's own `train` or `speed` beside it. A variant changes the model or the optimizer and
nothing else, so that everything else about two arms is equal.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from apps.common import recipes, strict_yaml
from apps.common.errors import BadRequest
from apps.common.overrides import Override
from apps.common.recipe import Recipe
from tinycore import ConfigError
from tinycore.config import load as load_strictly

BLOCKS = Path(__file__).parents[1] / "ablate" / "blocks.yaml"
PLAIN = "plain"  # the variant that all others are compared with: the base itself
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]{0,63}")  # names become names of files
CHANGED = ("model", "optim")
Purpose = Literal["train", "speed"]


@dataclass(frozen=True, kw_only=True)
class Base:
    """The recipe that variants change, by name or file, with changes that all of them share."""

    recipe: str
    overrides: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What makes a variant: changes of both bases, and of one only."""

    note: str
    overrides: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    speed: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Table:
    """The whole file."""

    train: Base
    speed: Base
    variants: dict[str, Variant]


@dataclass(frozen=True)
class Arm:
    """One variant of one base: the changes that make it, and the recipe that they make."""

    name: str
    note: str
    overrides: dict[str, Any]
    recipe: Recipe


def read(path: Path) -> Table:
    """The table in `path`. Raises BadRequest, one line, for anything that is none."""
    mapping = strict_yaml.read(path)
    try:
        table = load_strictly(Table, mapping, "")
    except ConfigError as error:
        raise BadRequest(f"{path}: {error}") from None
    for name, variant in table.variants.items():
        if not NAME.fullmatch(name):
            raise BadRequest(
                f"{path}: variants.{name!r}: a name has letters, digits, '-', '_' and '+' only, at most 64"
            )
        for key in {**variant.overrides, **variant.train, **variant.speed}:
            if key.partition(".")[0] not in CHANGED:
                raise BadRequest(
                    f"{path}: variants.{name}: changes {key}; a variant changes the {' or the '.join(CHANGED)} "
                    "section only, so that what it is compared by stays equal"
                )
    plain = table.variants.get(PLAIN)
    if plain is None or plain.overrides or plain.train or plain.speed:
        raise BadRequest(f"{path}: variants: needs '{PLAIN}', the base itself, which changes nothing")
    return table


def arms(path: Path, purpose: Purpose, only: str | None = None, changes: Iterable[Override] = ()) -> dict[str, Arm]:
    """The variants of the table in `path` by name, `plain` first; of those, the ones that `only` lists ("mamba,moe").

    `changes` are made to the base before any variant. Raises BadRequest, one line, that names the variant whose recipe
    cannot be made (of a kind that is not registered, say): none is left out in silence.
    """
    table = read(path)
    base: Base = getattr(table, purpose)
    try:
        shared = recipes.load(base.recipe, [*as_overrides(base.overrides, str(path)), *changes])
    except ConfigError as error:
        raise BadRequest(f"{path}: {purpose}: {error}") from None
    mapping = recipes.to_dict(shared)
    found = {}
    for name in _chosen(table, only):
        variant = table.variants[name]
        own = {**variant.overrides, **getattr(variant, purpose)}
        try:
            recipe = recipes.from_dict(recipes.merge(mapping, as_overrides(own, name)))
        except ValueError as error:  # ConfigError and BadRequest, each one line
            raise BadRequest(f"{path}: variant '{name}': {error}") from None
        found[name] = Arm(name, variant.note, own, recipe)
    return found


def as_overrides(values: Mapping[str, Any], origin: str) -> list[Override]:
    """`{"train.steps": 100}` as a command line's overrides. Raises BadRequest for an empty step in a key."""
    found = [Override(tuple(key.split(".")), value) for key, value in values.items()]
    for override in found:
        if not all(override.path):
            raise BadRequest(f"{origin}: {override.dotted!r} has an empty name in it; write it as train.steps")
    return found


def _chosen(table: Table, only: str | None) -> list[str]:
    """Names in the table's order; `plain`, to compare with, is always among them."""
    if only is None:
        wanted = set(table.variants)
    else:
        wanted = {word.strip() for word in only.split(",")}
        for word in sorted(wanted - table.variants.keys()):
            near = difflib.get_close_matches(word, table.variants, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(table.variants)}"
            raise BadRequest(f"--only: unknown variant {word!r}; {hint}")
    return [PLAIN, *(name for name in table.variants if name in wanted and name != PLAIN)]
