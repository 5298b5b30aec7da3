"""Variants of one base recipe, read from a table: what `apps/bench blocks` times and `apps/ablate` trains.

A table is a YAML file. `train`, `small` and `speed` are its bases, each a recipe (or a size, from which the dial derives
one) and changes to it; a variant is a note and `overrides`, the changes that make it, with the dotted keys and values that
a command line takes, on top of the base or of another `recipe`. What depends on the size of the model stands under the
variant's own `train`, `small` or `speed` beside it. A variant changes the model, the optimizer or the tokens that text is
cut into and nothing else, so that everything else about two arms is equal. What it is matched by, and how its learning
rate is tuned, is the table's to say and for apps/ablate to do.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from apps.common import dial, quantity, recipes, strict_yaml
from apps.common.data_config import TextData
from apps.common.errors import BadRequest
from apps.common.overrides import Override
from apps.common.recipe import Recipe
from tinycore import ConfigError
from tinycore.config import dump
from tinycore.config import load as load_strictly

TABLES = Path(__file__).parents[1] / "ablate"
PREFIX = "ablate-"
DEFAULT = "ablate-blocks"
PLAIN = "plain"  # the variant that all others are compared with: the base itself
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]{0,63}")  # names become names of files
CHANGED = ("model", "optim", "data.tokenizer", "data.sequence_length")
MOST_RATES = 16
Purpose = Literal["train", "small", "speed"]
Match = Literal["tokens", "flops", "parameters", "bytes", "wall_clock"]
MATCHES: tuple[Match, ...] = get_args(Match)
Knob = tuple[dict[str, int], ...]  # stages: keys that are turned together, with the step of each


@dataclass(frozen=True, kw_only=True)
class Base:
    """What variants change, with changes that all of them share: a recipe by name or file, or what the dial derives for a
    `size` (and `tokens` of training)."""

    recipe: str | None = None
    size: str | None = None
    tokens: str | None = None
    overrides: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.recipe is None) == (self.size is None):
            raise ConfigError("recipe: give a recipe or a size, one of them")
        if self.tokens is not None and self.size is None:
            raise ConfigError("tokens: belong to a size; a recipe says train.steps")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What makes a variant: another recipe's model and optimizer (or another size's whole recipe), changes of every base,
    and of one only. `match` and `knob` stand in place of the table's."""

    note: str
    recipe: str | None = None
    size: str | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    small: dict[str, Any] = field(default_factory=dict)
    speed: dict[str, Any] = field(default_factory=dict)
    match: Match | None = None
    knob: Knob | None = None

    def __post_init__(self) -> None:
        if self.recipe is not None and self.size is not None:
            raise ConfigError("recipe: give a recipe or a size, one of them")

    @property
    def changes(self) -> dict[str, Any]:
        """Of any base."""
        return {**self.overrides, **self.train, **self.small, **self.speed}


@dataclass(frozen=True, kw_only=True)
class Tune:
    """How each variant's learning rate is found: its own, times each of `rates`, for so many steps of one seed; None: for all
    the steps of a cell, so that the best is the cell of that seed, and no shorter run decides for a longer one."""

    rates: tuple[float, ...]
    steps: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < len(self.rates) <= MOST_RATES or len(set(self.rates)) < len(self.rates):
            raise ConfigError(f"rates: {list(self.rates)} are not 1 to {MOST_RATES} different factors")
        if not all(0 < rate < 1e6 for rate in self.rates):
            raise ConfigError(f"rates: {list(self.rates)} are factors of a learning rate, above 0")
        if (self.steps is not None and self.steps < 1) or self.seed < 0:
            raise ConfigError("steps: at least 1, with a seed of at least 0")


@dataclass(frozen=True, kw_only=True)
class Table:
    """The whole file.

    match: what is made equal between a variant and plain; knob: what is turned for parameters and bytes; calibrate: steps
    that a rate is measured over for wall_clock; law: whether a law of size is fitted to the results; left_out: members of
    families that no variant has, each with the reason.
    """

    train: Base
    small: Base | None = None
    speed: Base | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    match: Match = "tokens"
    knob: Knob = ()
    calibrate: int = 20
    tune: Tune | None = None
    law: bool = False
    left_out: dict[str, str] = field(default_factory=dict)
    variants: dict[str, Variant]

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(f"seeds: {list(self.seeds)} are not different numbers of at least 0")
        if self.calibrate < 1:
            raise ConfigError(f"calibrate: {self.calibrate} is not at least 1")


@dataclass(frozen=True)
class Arm:
    """One variant of one base: the changes that make it, the recipe that they make, and what it is matched by."""

    name: str
    note: str
    overrides: dict[str, Any]
    recipe: Recipe
    match: Match = "tokens"
    knob: Knob = ()

    def changed(self, changes: Mapping[str, Any]) -> Arm:
        """The same variant with further changes. Raises ConfigError or BadRequest, one line, where they do not fit."""
        merged = recipes.merge(recipes.to_dict(self.recipe), as_overrides(changes, self.name))
        return replace(self, overrides={**self.overrides, **changes}, recipe=recipes.from_dict(merged))


def names() -> list[str]:
    """The tables that come with the project, the default first."""
    found = sorted(f"{PREFIX}{path.stem}" for path in TABLES.glob("*.yaml"))
    return sorted(found, key=lambda name: name != DEFAULT)


def find(name_or_path: str) -> Path:
    """The file of the table of that name, or the file itself. Raises BadRequest for an unknown name."""
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return path
    if name_or_path not in names():
        near = difflib.get_close_matches(name_or_path, names(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names())}"
        raise BadRequest(f"unknown table of variants {name_or_path!r}; {hint}")
    return TABLES / f"{name_or_path.removeprefix(PREFIX)}.yaml"


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
        for key in variant.changes:
            if not any(key == allowed or key.startswith(f"{allowed}.") for allowed in CHANGED):
                raise BadRequest(
                    f"{path}: variants.{name}: changes {key}; a variant changes {', '.join(CHANGED)} only, so that what it "
                    "is compared by stays equal"
                )
    plain = table.variants.get(PLAIN)
    if plain is None or plain.changes or plain.recipe or plain.size or plain.match or plain.knob:
        raise BadRequest(f"{path}: variants: needs '{PLAIN}', the base itself, which changes nothing")
    return table


def arms(path: Path, purpose: Purpose, only: str | None = None, changes: Iterable[Override] = ()) -> dict[str, Arm]:
    """The variants of the table in `path` by name, `plain` first; of those, the ones that `only` lists ("mamba,moe").

    `changes` are made to the base before any variant. Raises BadRequest, one line, that names the variant whose recipe
    cannot be made (of a kind that is not registered, say): none is left out in silence.
    """
    return arms_of(read(path), str(path), purpose, only, changes)


def arms_of(
    table: Table, origin: str, purpose: Purpose, only: str | None = None, changes: Iterable[Override] = ()
) -> dict[str, Arm]:
    """As `arms`, of a table that was read from `origin`."""
    base: Base | None = getattr(table, purpose)
    if base is None:
        raise BadRequest(f"{origin}: has no base called {purpose}")
    shared_changes = [*as_overrides(base.overrides, origin), *changes]
    try:
        shared = recipes.from_dict(recipes.merge(_mapping(base.recipe, base.size, base.tokens), shared_changes))
    except ConfigError as error:
        raise BadRequest(f"{origin}: {purpose}: {error}") from None
    mapping = recipes.to_dict(shared)
    found = {}
    for name in _chosen(table, only):
        variant = table.variants[name]
        try:
            own = _replaced(variant, base, shared, shared_changes)
            own |= {**variant.overrides, **getattr(variant, purpose)}
            recipe = recipes.from_dict(recipes.merge(mapping, as_overrides(own, name)))
        except ValueError as error:  # ConfigError and BadRequest, each one line
            raise BadRequest(f"{origin}: variant '{name}': {error}") from None
        found[name] = Arm(name, variant.note, own, recipe, variant.match or table.match, variant.knob or table.knob)
    return found


def _mapping(recipe: str | None, size: str | None, tokens: str | None) -> dict[str, Any]:
    """What a recipe's file writes, or the dial derives."""
    if size is None:
        return recipes.read(recipe or recipes.DEFAULT)
    mapping, _ = dial.read(size).turn(quantity.read(tokens, "tokens", "tokens") if tokens else None)
    return mapping


def _replaced(variant: Variant, base: Base, shared: Recipe, changes: Iterable[Override]) -> dict[str, Any]:
    """The changes that put another recipe's model and optimizer, or another size, in the place of the base's."""
    if variant.recipe is not None:
        other = recipes.load(variant.recipe)
        steps = shared.train.steps / other.train.steps
        schedule = replace(other.optim.schedule, warmup=round(other.optim.schedule.warmup * steps))
        model = replace(
            other.model,
            vocab_size=shared.model.vocab_size,
            max_seq_len=max(other.model.max_seq_len, shared.data.positions),
        )
        return {"model": dump(model), "optim": dump(replace(other.optim, schedule=schedule))}
    if variant.size is None:
        return {}
    sized = recipes.from_dict(recipes.merge(_mapping(None, variant.size, base.tokens), changes))
    assert isinstance(sized.data, TextData)
    return {
        "model": dump(sized.model),
        "optim": dump(sized.optim),
        "data.tokenizer": dump(sized.data.tokenizer),
        "data.sequence_length": sized.data.sequence_length,
        "train.steps": sized.train.steps,
        "train.batch_size": sized.train.batch_size,
        "train.micro_batch": sized.micro_batch(),
    }


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
