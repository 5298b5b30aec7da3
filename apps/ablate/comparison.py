"""The table of an experiment, from the files of its cells alone: each variant beside plain, paired by seed.

Cells are compared only if they differ in nothing but their overrides: each recipe must be plain's with the variant's
overrides and the seed, the data the same, and the targets learned by a seed equal in all arms.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps.ablate import baseline, cell
from apps.ablate.baseline import Baseline
from apps.ablate.cell import Cell
from apps.common import recipes, variants
from apps.common.console import short
from apps.common.errors import BadRequest, RunError
from apps.common.markdown import table
from apps.common.variants import PLAIN
from tinyeval import PairedDifference, paired_difference

COLUMNS = (
    "variant",
    "parameters",
    "FLOPs",
    "tok/s",
    "val_bpb",
    "least to most",
    "seeds",
    "- plain",
    "95 % interval",
    "verdict",
    "below bigram",
)


@dataclass(frozen=True)
class Row:
    """One variant. `cells` by seed; `flops` and `speed` over plain's, the latter the median over common seeds;
    `difference` of val_bpb to plain's over the seeds that both have finished, None for plain or without such a seed."""

    variant: str
    cells: dict[int, Cell]
    flops: float
    speed: float | None
    difference: PairedDifference | None

    @property
    def scores(self) -> dict[int, float]:
        """val_bpb by seed, of the cells that did not diverge."""
        return {seed: each.val_bpb for seed, each in self.cells.items() if each.val_bpb is not None}

    @property
    def verdict(self) -> str:
        """better, worse, not distinguishable, or why nothing can be said."""
        if self.variant == PLAIN:
            return ""
        if self.difference is None:
            return "diverged" if not self.scores else "no common seed"
        if self.difference.n == 1:
            return "one seed"
        if not self.difference.distinguishable:
            return "not distinguishable"
        return "better" if self.difference.mean < 0 else "worse"

    def below(self, bound: float) -> int:
        """How many seeds ended below `bound` bits per byte."""
        return sum(score < bound for score in self.scores.values())

    def to_dict(self, bound: float) -> dict[str, Any]:
        """Plain data, for JSON; an interval of one seed has no ends."""
        found = self.difference
        many = found is not None and found.n > 1
        return {
            "variant": self.variant,
            "parameters": next(iter(self.cells.values())).parameters,
            "flops_ratio": self.flops,
            "speed_ratio": self.speed,
            "val_bpb": {str(seed): each.val_bpb for seed, each in self.cells.items()},
            "difference": found.mean if found else None,
            "interval": [found.low, found.high] if found and many else None,
            "pairs": found.n if found else 0,
            "verdict": self.verdict,
            "below_bigram": self.below(bound) == len(self.cells),
        }


@dataclass(frozen=True)
class Comparison:
    """The rows, plain first, what they are measured by, and what to keep in mind."""

    rows: tuple[Row, ...]
    baseline: Baseline
    notes: tuple[str, ...]


def of(folder: Path, order: Sequence[str] = ()) -> Comparison:
    """The comparison of all cells in `folder`, variants in the given order and others after them.

    Raises BadRequest where there is nothing to compare with, RunError for cells that are damaged or do not compare.
    """
    by_variant: dict[str, dict[int, Cell]] = {}
    for found in cell.read_all(folder):
        by_variant.setdefault(found.variant, {})[found.seed] = found
    if PLAIN not in by_variant:
        raise BadRequest(
            f"{folder}: no cell of {PLAIN} to compare with; uv run apps/ablate --only {PLAIN} --out {folder}"
        )
    bound = baseline.read(folder)
    plain = by_variant[PLAIN]
    for cells in by_variant.values():
        for each in cells.values():
            _require_comparable(folder, each, plain, bound)
    place = {name: index for index, name in enumerate([PLAIN, *order])}
    names = sorted(by_variant, key=lambda name: (place.get(name, len(place)), name))
    rows = tuple(_row(name, by_variant[name], plain) for name in names)
    return Comparison(rows, bound, tuple(_notes(rows, bound)))


def _require_comparable(folder: Path, each: Cell, plain: dict[int, Cell], bound: Baseline) -> None:
    reference = next(iter(plain.values()))
    base = recipes.to_dict(recipes.from_dict(reference.recipe))
    changes = variants.as_overrides({**each.overrides, "train.seed": each.seed}, each.name)
    wanted = cell.recorded(recipes.from_dict(recipes.merge(base, changes)))
    cell.require_same(
        folder, each, wanted, reference.data, f"it does not compare with {reference.name}; move it elsewhere"
    )
    twin = plain.get(each.seed)
    if twin is not None and None not in (twin.tokens, each.tokens) and twin.tokens != each.tokens:
        raise RunError(
            f"{cell.path_of(folder, each.variant, each.seed)}: learned {each.tokens:,} targets where {twin.name} learned "
            f"{twin.tokens:,}; the two saw different data"
        )
    if bound.data != each.data:
        raise RunError(
            f"{folder / baseline.FILE}: is of other data than the cells; remove it, the next run makes it again"
        )


def _row(name: str, cells: dict[int, Cell], plain: dict[int, Cell]) -> Row:
    common = [seed for seed in cells if seed in plain]
    pairs = [(cells[seed], plain[seed]) for seed in common]
    scores = [(a.val_bpb, b.val_bpb) for a, b in pairs if a.val_bpb is not None and b.val_bpb is not None]
    speeds = [
        a.tokens_per_second / b.tokens_per_second for a, b in pairs if a.tokens_per_second and b.tokens_per_second
    ]
    difference = None
    if scores and name != PLAIN:
        difference = paired_difference([score for score, _ in scores], [base for _, base in scores])
    first, reference = next(iter(cells.values())), next(iter(plain.values()))
    return Row(
        name,
        dict(sorted(cells.items())),
        first.flops_per_token / reference.flops_per_token,
        statistics.median(speeds) if speeds else None,
        difference,
    )


def _notes(rows: Sequence[Row], bound: Baseline) -> list[str]:
    """What a reader has to know to read the table."""
    cells = [each for row in rows for each in row.cells.values()]
    first = cells[0]
    tokens = sorted(each.tokens for each in cells if each.tokens is not None)
    learned = f"{short(tokens[len(tokens) // 2])} tokens" if tokens else "no tokens"
    notes = [
        f"{first.steps:,} steps, {learned} a cell, data {first.data[:12]}; val_bpb on {bound.targets:,} targets, where the "
        f"corpus's bigram model has {bound.val_bpb:.4f}. FLOPs: forward and backward, per token, over plain's. tok/s: of "
        "training, over plain's, not measured side by side (`uv run apps/bench blocks` is).",
    ]
    judged = sum(row.difference is not None and row.difference.n > 1 for row in rows)
    if judged:
        notes.append(
            f"Intervals are Student's, over differences paired by seed. Of the {judged} comparison{'s' * (judged > 1)}, "
            f"{0.05 * judged:.2f} would be called better or worse by chance if no variant differed."
        )
    for row in rows:
        gone = [str(seed) for seed, each in row.cells.items() if each.status == "diverged"]
        if gone:
            notes.append(
                f"{row.variant}: seed {', '.join(gone)} diverged and is left out of its means and differences."
            )
    for key in sorted({key for each in cells for key in each.environment}):
        values = {str(each.environment[key]) for each in cells if key in each.environment}
        if len(values) > 1:
            notes.append(f"The cells were not trained alike: {key} was {' and '.join(sorted(values))}.")
    return notes


def markdown(comparison: Comparison) -> str:
    """The table and its notes."""
    bound = comparison.baseline.val_bpb
    lines = [_cells_of(row, bound) for row in comparison.rows]
    return "\n\n".join([table(COLUMNS, lines), *comparison.notes])


def _cells_of(row: Row, bound: float) -> list[str]:
    first = next(iter(row.cells.values()))
    scores = list(row.scores.values())
    found, below = row.difference, row.below(bound)
    return [
        row.variant,
        f"{first.parameters:,}",
        f"{row.flops:.2f}x",
        "" if row.speed is None else f"{row.speed:.2f}x",
        f"{statistics.fmean(scores):.4f}" if scores else "",
        f"{min(scores):.4f} to {max(scores):.4f}" if len(scores) > 1 else "",
        str(len(row.cells)),
        "" if found is None else f"{found.mean:+.4f}",
        "" if found is None or found.n == 1 else f"{found.low:+.4f} to {found.high:+.4f}",
        row.verdict,
        "yes" if below == len(row.cells) else f"no ({below} of {len(row.cells)})",
    ]
