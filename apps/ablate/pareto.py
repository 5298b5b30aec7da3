"""What a variant costs and what it gives, as a picture: bits per byte over parameters, FLOPs and time, the front marked.

A variant is on the front where no other has both at most its cost and at most its bits per byte, and less of one of them.
Means over seeds; time is that of training alone. Differences within the noise of a few seeds decide who is on it: the verdicts
are the table's to give.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from apps.ablate.comparison import Comparison, Row
from apps.common.console import short
from apps.common.errors import BadRequest
from apps.common.plots import FAINT, GRID, INK, STYLE, THIRD, VALIDATION, write
from apps.common.variants import PLAIN

COSTS: dict[str, Callable[[Row], float | None]] = {
    "parameters": lambda row: row.first.parameters,
    "FLOPs of the run": lambda row: row.first.total_flops,
    "seconds of training": lambda row: row.training_seconds,
}


@dataclass(frozen=True)
class Point:
    """A variant's cost and its bits per byte."""

    name: str
    cost: float
    score: float


def points(rows: Sequence[Row], cost: Callable[[Row], float | None]) -> list[Point]:
    """Of the rows that have both."""
    found = [(row.variant, cost(row), row.mean) for row in rows]
    return [Point(name, there, score) for name, there, score in found if there is not None and score is not None]


def front(found: Sequence[Point]) -> list[Point]:
    """Those that no other is better than, cheapest first."""
    kept: list[Point] = []
    for point in sorted(found, key=lambda each: (each.cost, each.score)):
        same = bool(kept) and (point.cost, point.score) == (kept[-1].cost, kept[-1].score)
        if not kept or point.score < kept[-1].score or same:
            kept.append(point)
    return kept


def draw(comparison: Comparison, path: Path) -> None:
    """Write the picture to `path` (PNG). Raises BadRequest, one line, where every cell diverged."""
    panels = {name: points(comparison.rows, cost) for name, cost in COSTS.items()}
    panels = {name: found for name, found in panels.items() if found}
    if not panels:
        raise BadRequest("--plot: no cell has a val_bpb to draw")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * len(panels), 4.6), dpi=150, layout="constrained")
        for index, (name, found) in enumerate(panels.items(), 1):
            axes = figure.add_subplot(1, len(panels), index)
            _panel(axes, name, found)
            if index == 1:
                axes.set_ylabel("bits per byte")
        write(figure, path)


def _panel(axes: Axes, name: str, found: Sequence[Point]) -> None:
    best = front(found)
    axes.set_title(f"over {name}", loc="left", fontsize=11.5, fontweight="bold", pad=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=6)
    axes.set_xscale("log")
    axes.plot(
        [each.cost for each in found], [each.score for each in found], "o", color=FAINT, markersize=4.0, alpha=0.7
    )
    axes.plot(
        [each.cost for each in best], [each.score for each in best], "o-", color=THIRD, markersize=5.5, linewidth=1.4
    )
    plain = [each for each in found if each.name == PLAIN]
    axes.plot([each.cost for each in plain], [each.score for each in plain], "o", color=VALIDATION, markersize=6.0)
    for each in {*best, *plain}:
        color = VALIDATION if each.name == PLAIN else INK
        axes.annotate(each.name, (each.cost, each.score), (4, 4), textcoords="offset points", fontsize=8.0, color=color)
    if max(each.cost for each in found) < 20 * min(each.cost for each in found):
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.margins(x=0.12, y=0.08)
