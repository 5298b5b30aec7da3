"""Evaluations as PNG files: scores with their intervals by task, what is found where in the haystack, curves of the
training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from apps.common import files, plots
from apps.common.run_record import RunRecord
from tinyeval import Results
from tinyeval.interval import interval

NEEDLE = "needle"


def tasks(path: Path, runs: Mapping[str, Results]) -> bool:
    """Scores between 0 and 1 of each run, one row a task, with 95 % intervals and chance; False where there are none."""
    names = [name for name in next(iter(runs.values())).results if any(_share(one, name) for one in runs.values())]
    if not names:
        return False
    with matplotlib.rc_context(plots.STYLE):
        height = 1.2 + len(names) * (0.28 + 0.2 * len(runs))
        figure = Figure(figsize=(8.0, height), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        for number, (run, found) in enumerate(runs.items()):
            color = plots.RUNS[number % len(plots.RUNS)]
            offset = (number - (len(runs) - 1) / 2) * 0.22
            for row, name in enumerate(names):
                result = found.results.get(name)
                if result is None or not _share(found, name):
                    continue
                mean, low, high = interval(result)
                label = run if row == next(i for i, one in enumerate(names) if _share(found, one)) else None
                axes.plot([low, high], [row + offset] * 2, color=color, linewidth=2.0, solid_capstyle="round")
                axes.plot([mean], [row + offset], "o", color=color, markersize=5.5, label=label, clip_on=False)
                if number == 0 and result.chance is not None:
                    axes.plot([result.chance] * 2, [row - 0.38, row + 0.38], color=plots.FAINT, linewidth=1.2)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.grid(axis="x", color=plots.GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0, pad=6)
        axes.set_title("Score, 95 % interval; grey: chance", loc="left", fontsize=11.5, fontweight="bold", pad=10)
        if len(runs) > 1:
            axes.legend(frameon=False, fontsize=9.5, loc="best")
        _write(figure, path)
    return True


def needle(path: Path, runs: Mapping[str, Results]) -> bool:
    """Share found by length (bytes) and depth of each run, side by side; False where no run was asked."""
    asked = {run: found[NEEDLE] for run, found in runs.items() if _share(found, NEEDLE)}
    if not asked:
        return False
    with matplotlib.rc_context(plots.STYLE):
        figure = Figure(figsize=(1.4 + 3.4 * len(asked), 3.4), dpi=150, layout="constrained")
        for number, (run, result) in enumerate(asked.items()):
            cells: dict[Any, tuple[float, int]] = result.grouped("depth", "length")
            depths, lengths = (sorted({key[part] for key in cells}) for part in (0, 1))
            shares = np.array([[cells.get((d, size), (np.nan, 0))[0] for size in lengths] for d in depths])
            axes = figure.add_subplot(1, len(asked), number + 1)
            axes.imshow(shares, vmin=0, vmax=1, cmap="Blues", aspect="auto")
            for (row, column), share in np.ndenumerate(shares):
                if not np.isnan(share):
                    ink = "white" if share > 0.6 else plots.INK
                    axes.text(column, row, f"{share:.0%}", ha="center", va="center", color=ink, fontsize=9)
            axes.set_xticks(range(len(lengths)), list(map(str, lengths)))
            axes.set_yticks(range(len(depths)), [f"{depth} %" for depth in depths])
            axes.set_xlabel("bytes of text")
            if not number:
                axes.set_ylabel("depth of the needle")
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            axes.set_title(run, loc="left", fontsize=10.5, fontweight="bold")
        _write(figure, path)
    return True


def curves(path: Path, runs: Mapping[str, RunRecord | None]) -> bool:
    """Loss of the training and bits per byte of the validation of each run, over its tokens; False where no log says them."""
    panels = []
    for metric, title, style in (
        ("loss", "Training loss (nats per token), smoothed", "smooth"),
        ("val_bpb", "Validation bits per byte", "points"),
        ("val_exact", "Held-out puzzles or problems solved", "points"),
    ):
        lines = [
            plots.Curve(
                run if len(runs) > 1 else "", *record.series(metric), plots.RUNS[number % len(plots.RUNS)], style
            )
            for number, (run, record) in enumerate(runs.items())
            if record is not None
        ]
        if any(len(line.values) for line in lines):
            panels.append((title, lines))
    if not panels:
        return False
    temporary = path.with_name(f"{files.TEMPORARY}{path.name}")
    plots.draw_stacked(temporary, panels, size=(8.0, 2.6 * len(panels)))
    temporary.replace(path)
    return True


def _share(found: Results, name: str) -> bool:
    """Whether the task was asked and its scores lie between 0 and 1."""
    result = found.results.get(name)
    if result is None or result.skipped is not None:
        return False
    return all(0.0 <= record.scores[result.metric] <= 1.0 for record in result.records) and result.higher_is_better


def _write(figure: Figure, path: Path) -> None:
    """Whole or not at all."""
    temporary = path.with_name(f"{files.TEMPORARY}{path.name}")
    plots.write(figure, temporary)
    temporary.replace(path)
