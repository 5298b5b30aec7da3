"""A cell: one variant trained with one seed. Its file is what the experiment keeps, and all that a table is made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from apps.common import compare, files, recipes
from apps.common.data_config import TextData
from apps.common.errors import RunError
from apps.common.recipe import Recipe
from apps.common.variants import NAME, Arm, Match
from tinycore import ConfigError
from tinycore.config import dump
from tinycore.config import load as load_strictly


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """How a cell's learning rate was found: val_bpb by factor of the variant's own rate (None: diverged), the factor that was
    best after `steps` with `seed`, and whether it was the smallest or largest there was."""

    steps: int
    seed: int
    scores: dict[str, float | None]
    factor: float
    learning_rate: float
    edge: bool


@dataclass(frozen=True, kw_only=True)
class Matched:
    """What a cell's budget was made equal by, and for wall_clock the two rates that were measured for it."""

    by: Match
    tokens_per_second: float | None = None
    plain_tokens_per_second: float | None = None


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is known of a cell that has been trained.

    status: "diverged" if its loss was not finite at some step, which `reason` says; what it then has not is None.
    tokens: targets learned; flops_per_token: matrix products, forward and backward; seconds: of the whole process;
    tokens_per_second: while it trained, beside `jobs` - 1 other cells; data: the hash of the prepared data, and text that
    of the texts they are made of; environment: versions, processor and threads; recipe: everything that determines the run;
    memory_bytes: the most that its process held, predicted_bytes what was predicted. None: a cell of an older version.
    """

    variant: str
    seed: int
    status: Literal["done", "diverged"]
    reason: str | None
    overrides: dict[str, Any]
    steps: int
    tokens: int | None
    parameters: int
    flops_per_token: float
    val_bpb: float | None
    seconds: float
    tokens_per_second: float | None
    jobs: int
    data: str
    environment: dict[str, Any]
    recipe: dict[str, Any]
    text: str | None = None
    memory_bytes: int | None = None
    predicted_bytes: int | None = None
    tuned: Tuned | None = None
    matched: Matched | None = None

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.variant) or self.seed < 0:
            raise ConfigError("variant: not the name and seed of a cell")
        if self.status == "done" and not (self.val_bpb and self.tokens and self.tokens_per_second):
            raise ConfigError("status: done, without val_bpb, tokens and tokens_per_second above 0")

    @property
    def name(self) -> str:
        return name_of(self.variant, self.seed)

    @property
    def total_flops(self) -> float:
        """Matrix products of the whole run, forward and backward."""
        data, train = self.recipe["data"], self.recipe["train"]
        return self.flops_per_token * self.steps * train["batch_size"] * data["sequence_length"]


def name_of(variant: str, seed: int) -> str:
    """How a cell is called, in messages and as a file."""
    return f"{variant}-s{seed}"


def path_of(folder: Path, variant: str, seed: int) -> Path:
    """The file of a cell."""
    return folder / f"{name_of(variant, seed)}.json"


def recipe_of(arm: Arm, seed: int, precision: str) -> Recipe:
    """The run of a cell: the variant's recipe with this seed, nothing left to be derived, and one checkpoint at its end."""
    recipe = arm.recipe
    train = replace(
        recipe.train,
        seed=seed,
        precision=precision,
        micro_batch=recipe.micro_batch(),
        validate_every=0,
        save_every=0,
        sample_every=0,
        keep=1,
        trackers=(),
        mirror=None,
    )
    return replace(recipe, train=train, sample=replace(recipe.sample, prompts=()))


def recorded(recipe: Recipe) -> dict[str, Any]:
    """The recipe as a cell keeps it: where this machine has its data is no part of it."""
    data = replace(recipe.data, cache=TextData().cache) if isinstance(recipe.data, TextData) else recipe.data
    return recipes.to_dict(replace(recipe, data=data))


def write(folder: Path, cell: Cell) -> None:
    """Keep `cell`, whole or not at all."""
    files.write_json(path_of(folder, cell.variant, cell.seed), dump(cell))


def read(path: Path) -> Cell:
    """The cell in `path`. Raises RunError, one line, for anything else."""
    try:
        cell = load_strictly(Cell, files.read_json(path), "")
        recipes.from_dict(cell.recipe)
    except ValueError as error:  # ConfigError, RunError and BadRequest, each one line
        text = str(error).removeprefix(f"{path}: ")
        raise RunError(f"{path}: {text}; remove the file to train the cell again") from None
    if path.name != f"{cell.name}.json":
        raise RunError(f"{path}: holds the cell {cell.name}; give it its own name, or remove it")
    return cell


def read_all(folder: Path) -> Iterator[Cell]:
    """Every cell in `folder`, by name."""
    for path in sorted(folder.glob("*-s*.json")):
        yield read(path)


def require_same(folder: Path, cell: Cell, wanted: dict[str, Any], data: str, remedy: str) -> None:
    """RunError unless `cell` was trained by the recipe `wanted` (as `recorded`) on the data of that hash."""
    path = path_of(folder, cell.variant, cell.seed)
    # read through today's recipe, a cell of an older version has the defaults of what was added since
    found = compare.differences(recorded(recipes.from_dict(cell.recipe)), wanted)
    if found:
        more = f" ({len(found) - 1} more differ)" if len(found) > 1 else ""
        first = found[0]
        raise RunError(f"{path}: {first.key} is {first.saved} there and {first.requested} here{more}; {remedy}")
    if cell.data != data:
        raise RunError(f"{path}: was trained on other data ({cell.data[:12]}, not {data[:12]}); {remedy}")


def cuts_text_otherwise(overrides: dict[str, Any]) -> bool:
    """Whether a variant of these overrides has another tokenizer than plain."""
    return any(key == "data" or key.startswith("data.tokenizer") for key in overrides)


def has_another_budget(overrides: dict[str, Any]) -> bool:
    """Whether a variant of these overrides learns other targets than plain: other steps, rows or tokens."""
    return any(key.partition(".")[0] in ("data", "train") for key in overrides)
