"""An experiment's results, from the files of its cells alone: each variant beside plain, paired by seed.

Cells are compared only if they differ in nothing but their overrides: each recipe must be plain's with the variant's
overrides and the seed, the text the same (the data too, unless the variant cuts it otherwise), and the targets learned by a
seed equal in all arms, unless the overrides change the budget. Verdicts are tinyeval's: the noise of all variants pooled, seeds
as blocks (`many_runs`), Holm's correction over all that have two seeds.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from apps.ablate import baseline, cell
from apps.ablate.baseline import Baseline
from apps.ablate.cell import Cell
from apps.common import recipes, variants
from apps.common.console import rate, short
from apps.common.errors import BadRequest, RunError
from apps.common.variants import PLAIN
from tinycore.config import dump
from tinyeval.statistics import PairedComparison, Verdict, holm, many_runs, verdict, verdicts


@dataclass(frozen=True)
class Row:
    """One variant. `cells` by seed; `flops` of the whole run and `speed` over plain's, the latter the median over common seeds;
    `difference` of val_bpb to plain's over the seeds that both have finished, None for plain or without such a seed; `judged`:
    what the test says of it among all others, `holm` its corrected p, and `alone` what it says of it alone; None where there
    are no two seeds."""

    variant: str
    cells: dict[int, Cell]
    flops: float
    speed: float | None
    difference: PairedComparison | None
    judged: Verdict | None = None
    holm: float | None = None
    alone: Verdict | None = None

    @property
    def scores(self) -> dict[int, float]:
        """val_bpb by seed, of the cells that did not diverge."""
        return {seed: each.val_bpb for seed, each in self.cells.items() if each.val_bpb is not None}

    @property
    def first(self) -> Cell:
        """One of its cells, for what all of them share."""
        return next(iter(self.cells.values()))

    @property
    def mean(self) -> float | None:
        """Of val_bpb."""
        return statistics.fmean(self.scores.values()) if self.scores else None

    @property
    def memory(self) -> int | None:
        """The most bytes that one of its processes held."""
        return max((each.memory_bytes for each in self.cells.values() if each.memory_bytes), default=None)

    @property
    def rate(self) -> float | None:
        """Tokens a second of training, the median over seeds."""
        return _median([each.tokens_per_second for each in self.cells.values()])

    @property
    def training_seconds(self) -> float | None:
        """Of training alone, the median over seeds: targets over tokens a second."""
        return _median(
            [
                each.tokens / each.tokens_per_second if each.tokens and each.tokens_per_second else None
                for each in self.cells.values()
            ]
        )

    @property
    def verdict(self) -> str:
        """better, worse, not distinguishable, or why nothing can be said."""
        if self.variant == PLAIN:
            return ""
        if self.difference is None:
            return "diverged" if not self.scores else "no common seed"
        return self.judged or "one seed"

    def below(self, bound: float) -> int:
        """How many seeds ended below `bound` bits per byte."""
        return sum(score < bound for score in self.scores.values())

    def to_dict(self, bound: float) -> dict[str, Any]:
        """Plain data, for JSON; an interval of one seed has no ends."""
        found, first = self.difference, self.first
        many = found is not None and found.n > 1
        return {
            "variant": self.variant,
            "parameters": first.parameters,
            "steps": first.steps,
            "flops": first.total_flops,
            "flops_ratio": self.flops,
            "memory_bytes": self.memory,
            "predicted_bytes": first.predicted_bytes,
            "tokens_per_second": self.rate,
            "speed_ratio": self.speed,
            "training_seconds": self.training_seconds,
            "learning_rate": first.recipe["optim"]["learning_rate"],
            "tuned": None if first.tuned is None else dump(first.tuned),
            "matched": None if first.matched is None else dump(first.matched),
            "val_bpb": {str(seed): each.val_bpb for seed, each in self.cells.items()},
            "mean": self.mean,
            "difference": found.mean if found else None,
            "interval": [found.low, found.high] if found and many else None,
            "p": found.p if found and many else None,
            "holm": self.holm,
            "pairs": found.n if found else 0,
            "verdict": self.verdict,
            "alone": self.alone,
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
    scores = {
        name: {seed: each.val_bpb for seed, each in cells.items() if each.val_bpb is not None}
        for name, cells in by_variant.items()
    }
    differences = many_runs(scores, PLAIN)
    rows = _judged([_row(name, by_variant[name], plain, differences.get(name)) for name in names])
    return Comparison(rows, bound, tuple(_notes(rows, bound)))


def _require_comparable(folder: Path, each: Cell, plain: dict[int, Cell], bound: Baseline) -> None:
    reference = next(iter(plain.values()))
    base = recipes.to_dict(recipes.from_dict(reference.recipe))
    changes = variants.as_overrides({**each.overrides, "train.seed": each.seed}, each.name)
    wanted = cell.recorded(recipes.from_dict(recipes.merge(base, changes)))
    remedy = f"it does not compare with {reference.name}; move it elsewhere"
    cut_otherwise = cell.cuts_text_otherwise(each.overrides)
    cell.require_same(folder, each, wanted, each.data if cut_otherwise else reference.data, remedy)
    if cut_otherwise and (each.text is None or each.text != reference.text):
        raise RunError(f"{cell.path_of(folder, each.variant, each.seed)}: was trained on other texts; {remedy}")
    twin = plain.get(each.seed)
    budget = cell.has_another_budget(each.overrides)
    if not budget and twin is not None and None not in (twin.tokens, each.tokens) and twin.tokens != each.tokens:
        raise RunError(
            f"{cell.path_of(folder, each.variant, each.seed)}: learned {each.tokens:,} targets where {twin.name} learned "
            f"{twin.tokens:,}; the two saw different data"
        )
    if not cut_otherwise and bound.data != each.data:
        raise RunError(
            f"{folder / baseline.FILE}: is of other data than the cells; remove it, the next run makes it again"
        )


def _row(name: str, cells: dict[int, Cell], plain: dict[int, Cell], difference: PairedComparison | None) -> Row:
    pairs = [(cells[seed], plain[seed]) for seed in cells if seed in plain]
    speeds = [
        a.tokens_per_second / b.tokens_per_second for a, b in pairs if a.tokens_per_second and b.tokens_per_second
    ]
    first, reference = next(iter(cells.values())), next(iter(plain.values()))
    return Row(
        name,
        dict(sorted(cells.items())),
        first.total_flops / reference.total_flops,
        statistics.median(speeds) if speeds else None,
        difference,
    )


def _judged(rows: list[Row]) -> tuple[Row, ...]:
    """The rows with their verdicts, corrected for how many there are."""
    many = [row.difference for row in rows if row.difference is not None and row.difference.n > 1]
    found = iter(zip(verdicts(many, higher_is_better=False), holm([each.p for each in many]), strict=True))
    judged = []
    for row in rows:
        if row.difference is not None and row.difference.n > 1:
            word, p = next(found)
            row = replace(row, judged=word, holm=p, alone=verdict(row.difference, higher_is_better=False))
        judged.append(row)
    return tuple(judged)


def _intervals(judged: Sequence[Row]) -> str:
    """What the intervals are of."""
    own = [row.variant for row in judged if row.difference is not None and row.difference.method == "student"]
    if len(own) == len(judged):
        return "Intervals are Student's, over differences paired by seed, each for itself."
    exceptions = f" ({', '.join(own)}: its own, which is another)" if own else ""
    return f"Intervals are Student's, with seeds as blocks and the noise of all variants pooled{exceptions}."


def _median(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return statistics.median(there) if there else None


def _notes(rows: Sequence[Row], bound: Baseline) -> Iterator[str]:
    """What a reader has to know to read the table."""
    cells = [each for row in rows for each in row.cells.values()]
    first = cells[0]
    tokens = sorted(each.tokens for each in rows[0].cells.values() if each.tokens is not None)
    learned = f"{short(tokens[len(tokens) // 2])} tokens" if tokens else "no tokens"
    speed = f" at {rate(rows[0].rate)}" if rows[0].rate else ""
    yield (
        f"plain: {first.steps:,} steps, {learned} a cell, {short(first.total_flops)}FLOPs{speed}, data {first.data[:12]}; "
        f"val_bpb on {bound.targets:,} targets, where the corpus's bigram model has {bound.val_bpb:.4f}. FLOPs: matrix "
        "products of the run, forward and backward, over plain's. tok/s: of training, over plain's, not measured side by "
        "side (`uv run apps/bench blocks` is)."
    )
    for by in sorted({each.matched.by for each in cells if each.matched is not None} - {"tokens"}):
        names = [row.variant for row in rows if row.first.matched is not None and row.first.matched.by == by]
        yield f"Matched with plain by {by.replace('_', ' ')} and not by tokens: {', '.join(names)}."
    judged = [row for row in rows if row.judged is not None]
    if judged:
        yield (
            f"{_intervals(judged)} Verdicts are for all {len(judged)} comparisons at once: p is the test's after Holm's "
            "correction, and the chance that even one variant is called better or worse although none differs is at most 5 %. "
            "Alone: its own interval leaves out 0, as one in twenty does by chance; what matters of these deserves seeds of "
            "its own."
        )
    tuned = [row for row in rows if row.first.tuned is not None]
    if tuned and tuned[0].first.tuned is not None:
        how = tuned[0].first.tuned
        yield (
            f"rate: the learning rate that was best for the variant after {how.steps} steps of seed {how.seed}, of its own "
            f"times {', '.join(how.scores)}; * at an end of these, so that a better one may lie beyond."
        )
    for row in rows:
        gone = [str(seed) for seed, each in row.cells.items() if each.status == "diverged"]
        if gone:
            yield f"{row.variant}: seed {', '.join(gone)} diverged and is left out of its means and differences."
    for key in sorted({key for each in cells for key in each.environment}):
        values = {str(each.environment[key]) for each in cells if key in each.environment}
        if len(values) > 1:
            yield f"The cells were not trained alike: {key} was {' and '.join(sorted(values))}."
