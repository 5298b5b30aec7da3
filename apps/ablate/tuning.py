"""A learning rate for each variant, so that none loses for plain's: the same few short cells for all, plain included.

A variant's own rate, times each factor of the table, is trained with one seed for a few steps, the schedule shrunk with them,
or for all the steps of a cell, and then the best is not trained again. The lowest val_bpb wins, of equal ones the smaller
factor. The cells are kept like all others, a folder a factor, so that a stop costs none. A best factor at an end of the grid
may have a better one beyond: it is said (`Tuned.edge`).
"""

from __future__ import annotations

from pathlib import Path

from apps.ablate import cell, matching
from apps.ablate.cell import Tuned
from apps.common.errors import RunError
from apps.common.variants import Arm, Tune

FOLDER = "tune"


def folder(out: Path, factor: float) -> Path:
    """Where the cells of one factor are."""
    return out / FOLDER / f"x{factor:g}"


def short(arm: Arm, tune: Tune, factor: float) -> Arm:
    """`arm` as it is tried out."""
    return with_rate(arm if tune.steps is None else matching.with_steps(arm, tune.steps), factor)


def with_rate(arm: Arm, factor: float) -> Arm:
    """`arm` at its learning rate times `factor`, which is told also where it is 1: plain's may be another."""
    return arm.changed({"optim.learning_rate": float(f"{arm.recipe.optim.learning_rate * factor:.6g}")})


def chosen(out: Path, arm: Arm, tune: Tune) -> Tuned:
    """What the cells in `out` say of `arm`. Raises RunError where one is missing, because it failed."""
    scores: dict[float, float | None] = {}
    for factor in tune.rates:
        path = cell.path_of(folder(out, factor), arm.name, tune.seed)
        if not path.exists():
            raise RunError(f"its learning rate cannot be tuned: {path} is missing")
        scores[factor] = cell.read(path).val_bpb
    ordered = sorted(tune.rates)
    best = min(ordered, key=lambda factor: (scores[factor] is None, scores[factor] or 0.0))
    return Tuned(
        steps=arm.recipe.train.steps if tune.steps is None else tune.steps,
        seed=tune.seed,
        scores={f"{factor:g}": scores[factor] for factor in ordered},
        factor=best,
        learning_rate=with_rate(arm, best).recipe.optim.learning_rate,
        edge=len(ordered) > 1 and best in (ordered[0], ordered[-1]),
    )
