"""The table of an experiment as a picture: each variant's difference to plain, with its interval.

A line a variant, the best on top; left of the middle is better than plain. The strong mark is the mean over seeds, the bar its
95 % interval, small marks are the seeds. Coloured only where the interval leaves out 0, and filled where the verdict holds
among all comparisons of the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from apps.ablate.comparison import Comparison, Row
from apps.common.errors import BadRequest
from apps.common.plots import FAINT, GRID, INK, STYLE, THIRD, VALIDATION, write
from apps.common.variants import PLAIN

COLORS = {"better": THIRD, "worse": VALIDATION}
LINE = 0.27  # inches a variant


def draw(comparison: Comparison, path: Path) -> None:
    """Write the picture to `path` (PNG). Raises BadRequest, one line, where no variant has two seeds yet."""
    rows = [row for row in comparison.rows if row.difference is not None and row.difference.n > 1]
    if not rows:
        raise BadRequest("--plot: no variant has two seeds beside plain yet, so there is no interval to draw")
    rows.sort(key=lambda row: -row.difference.mean if row.difference else 0.0)
    plain = next(row for row in comparison.rows if row.variant == PLAIN)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.0, 1.3 + LINE * len(rows)), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        axes.set_title("bits per byte, difference to plain", loc="left", fontsize=11.5, fontweight="bold", pad=10)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.grid(axis="x", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, pad=6)
        axes.axvline(0, color=INK, linewidth=1.0)
        for height, row in enumerate(rows):
            color = COLORS.get(row.alone or "", FAINT)
            found = row.difference
            assert found is not None
            axes.plot([found.low, found.high], [height, height], color=color, linewidth=2.0, solid_capstyle="butt")
            axes.plot(_by_seed(row, plain), [height] * found.n, "o", color=color, markersize=2.5, alpha=0.6)
            face = color if row.judged == row.alone else "white"
            axes.plot([found.mean], [height], "o", color=color, markerfacecolor=face, markersize=6.0)
        axes.set_yticks(range(len(rows)), [row.variant for row in rows])
        axes.set_ylim(-0.7, len(rows) - 0.3)
        left, right = _limits(rows)
        axes.set_xlim(left, right)
        axes.set_xlabel("better  <   bits per byte   >  worse")
        write(figure, path)


def _by_seed(row: Row, plain: Row) -> list[float]:
    return [score - plain.scores[seed] for seed, score in row.scores.items() if seed in plain.scores]


def _limits(rows: Sequence[Row]) -> tuple[float, float]:
    """From the means, so that one wide interval does not squeeze the others; longer bars are cut at the edge."""
    means = [row.difference.mean for row in rows if row.difference is not None]
    widths = sorted(row.difference.high - row.difference.low for row in rows if row.difference is not None)
    margin = max(0.75 * widths[len(widths) // 2], 0.08 * (max(means) - min(means)), 1e-3)
    return min(0.0, *means) - margin, max(0.0, *means) + margin
