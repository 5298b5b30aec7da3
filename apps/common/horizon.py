"""How long to train, as `--tokens 200M` or `--minutes 30`: either sets train.steps of whatever recipe there is.

steps = ceil(tokens / (batch x length)). A warmup made for a longer run is shortened with the steps where it would take
more than a tenth of them, and that is said; one given by name stays as it was given.

For minutes, the time of a run is what its parts take, each measured on this machine (apps.pretrain.pace):

    micro-batches of all steps x seconds of one + validations + checkpoints + samples + report
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from apps.common import dial, phases, quantity
from apps.common.command_line import Arguments
from apps.common.console import Console, short
from apps.common.dial import Derived, Dial
from apps.common.errors import BadRequest
from apps.common.overrides import Override
from apps.common.recipe import Recipe, TrainConfig

WARMUP_SHARE = 0.1  # of the steps; a longer warmup was meant for a longer run
# not measured: what no tiny model notices and no large one can do without
CHECKPOINT_BYTES_PER_SECOND = 200e6
CHECKPOINT_SECONDS = 0.1
REPORT_SECONDS = 5.0


@dataclass(frozen=True)
class Pace:
    """Seconds on this machine with this model, precision, micro-batch and number of processes.

    micro_batch: forward, backward and optimizer for one micro-batch on every process; start: what the first step takes
    beyond that; validation: one validation; samples: one section of samples.
    """

    micro_batch: float
    start: float
    validation: float
    samples: float


@dataclass(frozen=True)
class Asked:
    """What the command line says about size and horizon."""

    dial: Dial | None = None
    tokens: int | None = None
    minutes: float | None = None


def read(arguments: Arguments, resuming: bool) -> Asked:
    """The options size, tokens and minutes. Raises BadRequest, one line, where they contradict others."""
    options = arguments.options
    given = [f"--{name}" for name in ("size", "tokens", "minutes") if name in options]
    if resuming and given:
        raise BadRequest(
            f"{given[0]} is for a new run, and --resume goes on with the recipe that the run began with; leave it out "
            "(another horizon: --train.steps N --allow-changes)"
        )
    if "size" in options and "recipe" in options:
        raise BadRequest("--size derives a recipe and --recipe names one; give one of them")
    horizons = [name for name in given if name != "--size"]
    horizons += ["--train.steps"] * any(override.dotted == "train.steps" for override in arguments.overrides)
    if "--minutes" in horizons:
        horizons += ["--train.max_hours"] * any(each.dotted == "train.max_hours" for each in arguments.overrides)
    if len(horizons) > 1:
        raise BadRequest(f"{' and '.join(horizons)} each say how long to train; give one of them")
    return Asked(
        dial=dial.read(arguments.text("size", ""), arguments.overrides) if "size" in options else None,
        tokens=quantity.read(arguments.text("tokens", ""), "tokens", "tokens") if "tokens" in options else None,
        minutes=arguments.number("minutes", 0.0, 0.05, 1e6) if "minutes" in options else None,
    )


def announce(turned: Dial | None, recipe: Recipe, derived: Sequence[Derived], console: Console) -> None:
    """What was derived, in short, at the start of a run."""
    train, length = recipe.train, recipe.data.positions
    if turned is not None:
        layers = len(recipe.model.flat_layers())
        console.say(
            f"size {turned.name}: width {recipe.model.dim}, {layers} layers, {recipe.model.vocab_size:,} tokens of "
            f"vocabulary; {train.batch_size} rows of {length} a step, learning rate {recipe.optim.learning_rate:g}, "
            f"{train.steps:,} steps = {short(phases.sequences(recipe) * length)} tokens (rules: --dry-run)"
        )
    else:
        for entry in derived:
            console.say(f"{entry.key} {entry.value}: {entry.rule}")


def with_tokens(recipe: Recipe, tokens: int, given: Sequence[Override] = ()) -> tuple[Recipe, tuple[Derived, ...]]:
    """`recipe` for a run of `tokens`, at least one step, and what that derived; `given` are the user's own values."""
    length = recipe.data.positions
    rule = f"{tokens:,} tokens / ({_rows(recipe)} x {length} tokens), rounded up"
    return with_steps(recipe, phases.steps_for(recipe, tokens / length), rule, given)


def with_epochs(recipe: Recipe, rows: int, given: Sequence[Override] = ()) -> tuple[Recipe, tuple[Derived, ...]]:
    """`recipe` with the steps of `train.epochs` passes over `rows` rows, and what that derived."""
    epochs = recipe.train.epochs
    if epochs is None:
        return recipe, ()
    rule = f"{epochs:g} passes over {rows:,} rows, {_rows(recipe).replace(' rows', '')} a step, rounded up"
    return with_steps(recipe, phases.steps_for(recipe, epochs * rows), rule, given)


def _rows(recipe: Recipe) -> str:
    """The rows of a step in words."""
    scheduled = [entry.batch for entry in recipe.train.batch_schedule]
    return f"{recipe.train.batch_size} rows" if not scheduled else f"{scheduled[0]} to {recipe.train.batch_size} rows"


def with_steps(
    recipe: Recipe, steps: int, rule: str, given: Sequence[Override] = ()
) -> tuple[Recipe, tuple[Derived, ...]]:
    """`recipe` with `steps`, derived by `rule`, and with a warmup that fits them."""
    derived = [Derived("train.steps", steps, rule)]
    before, schedule = recipe.train.steps, recipe.optim.schedule
    if schedule.warmup > WARMUP_SHARE * steps:
        key = "optim.schedule.warmup"
        if any(key.startswith(override.dotted) for override in given):
            derived.append(Derived(key, schedule.warmup, f"yours, of {steps:,} steps"))
        elif steps < before:
            warmup = max(1, round(schedule.warmup * steps / before))
            derived.append(Derived(key, warmup, f"shortened with the steps, from {schedule.warmup:,} of {before:,}"))
            schedule = replace(schedule, warmup=warmup)
    recipe = replace(recipe, train=replace(recipe.train, steps=steps), optim=replace(recipe.optim, schedule=schedule))
    return recipe, tuple(derived)


def as_overrides(derived: Sequence[Derived]) -> list[Override]:
    """The derived values as overrides of a recipe's mapping."""
    return [Override(tuple(entry.key.split(".")), entry.value) for entry in derived]


def updated(before: Sequence[Derived], newer: Sequence[Derived]) -> tuple[Derived, ...]:
    """`before` with the entries of `newer` in place of those of the same key, and the others behind."""
    by_key = {entry.key: entry for entry in [*before, *newer]}
    return tuple(by_key.values())


def expected_seconds(recipe: Recipe, world: int, parameters: int, pace: Pace, steps: int) -> float:
    """How long a run of `steps` takes on `world` processes, its last validation, samples and report included."""
    train = recipe.train
    saves = due(steps, train.save_every)
    checkpoint = CHECKPOINT_SECONDS + 12 * parameters / CHECKPOINT_BYTES_PER_SECOND
    return (
        pace.start
        + phases.sequences(recipe, steps) // (recipe.micro_batch(world) * world) * pace.micro_batch
        + due(steps, train.validate_every, train.save_every) * pace.validation
        + saves * checkpoint
        + due(steps, train.sample_every) * pace.samples
        + REPORT_SECONDS
    )


def steps_within(
    recipe: Recipe, world: int, parameters: int, pace: Pace, seconds: float, what: str = "--minutes"
) -> int:
    """The most steps that end within the `seconds` that `what` allows. Raises BadRequest where not even one does."""
    least = expected_seconds(recipe, world, parameters, pace, 1)
    if least > seconds:
        raise BadRequest(
            f"{what}: {max(seconds, 0.0):.0f} s are left after preparing and one step with its validation, checkpoint "
            f"and report takes {least:.0f} s here; give more time, fewer train.validate_rows, or a smaller model"
        )
    low, high = 1, 2
    while expected_seconds(recipe, world, parameters, pace, high) <= seconds:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if expected_seconds(recipe, world, parameters, pace, middle) <= seconds:
            low = middle
        else:
            high = middle
    return low


def due(steps: int, *every: int) -> int:
    """How many of steps 1 to `steps` are multiples of one of (at most two) `every`, or the last one; 0 is never."""
    chosen = [number for number in every if number]
    met = sum(steps // number for number in chosen)
    if len(chosen) == 2:
        met -= steps // math.lcm(*chosen)
    return met + all(steps % number for number in chosen)


def rehearsed(recipe: Recipe, world: int) -> Recipe:
    """`recipe` with steps of one micro-batch of whole rows on every process: what `Pace.micro_batch` is measured on. Shorter
    rows of a schedule take no longer."""
    micro_batch = recipe.micro_batch(world)
    train: TrainConfig = replace(
        recipe.train,
        batch_size=micro_batch * world,
        micro_batch=micro_batch,
        batch_schedule=(),
        length_schedule=(),
    )
    return replace(recipe, train=train)
