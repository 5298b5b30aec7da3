"""What `apps/bench width` shows: a table of best rates and what the narrow model's loses, and the score by rate."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from apps.common import plots
from apps.common.markdown import table

Cells = Mapping[str, float | None]
WORST = 1.45  # times the best score: what is worse is not drawn, or the rest would be flat


def scores(found: Cells, settings: dict[str, Any], width: int, transfer: bool) -> dict[float, list[float]]:
    """By rate the scores of all seeds; rates of which one diverged are left out."""
    way = "transfer" if transfer or width == settings["widths"][0] else "plain"
    whole: dict[float, list[float]] = {}
    for rate in settings["rates"]:
        each = [found.get(f"{width} | {way} | {rate:g} | {seed}") for seed in range(settings["seeds"])]
        known = [score for score in each if score is not None]
        if len(known) == settings["seeds"]:
            whole[rate] = known
    return whole


def best(by_rate: Mapping[float, list[float]]) -> float:
    """The rate with the lowest mean."""
    return min(by_rate, key=lambda rate: statistics.fmean(by_rate[rate]))


def lost(by_rate: Mapping[float, list[float]], rate: float) -> list[float]:
    """What `rate` scores above the best one of the same width, seed by seed; empty where it diverged."""
    chosen = by_rate[best(by_rate)]
    return [mine - other for mine, other in zip(by_rate.get(rate, []), chosen, strict=False)]


def markdown(found: Cells, settings: dict[str, Any]) -> str:
    """One row for each width, the way without transfer and the one with it."""
    first = settings["widths"][0]
    narrow = best(scores(found, settings, first, True))
    rows = []
    for width in settings["widths"]:
        for transfer in (True,) if width == first else (False, True):
            by_rate = scores(found, settings, width, transfer)
            chosen, other = best(by_rate), lost(by_rate, narrow)
            shown = f"+{statistics.fmean(other):.4f} ({min(other):+.4f} to {max(other):+.4f})" if other else "diverged"
            way = "itself" if width == first else "with transfer" if transfer else "without"
            rows.append([f"{width}", way, f"{chosen:g}", _spread(by_rate[chosen]), shown])
    text = (
        f"Validation bits per byte after {settings['steps']} steps of {settings['optimizer']}, mean and range of "
        f"{settings['seeds']} seeds. Last column: what {narrow:g}, the best rate at width {first}, scores above the best at "
        "that width, seed by seed."
    )
    return f"{text}\n\n{table(['width', '', 'best rate', 'its score', f'{narrow:g} instead'], rows)}"


def _spread(values: list[float]) -> str:
    return f"{statistics.fmean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def draw(path: Path, found: Cells, settings: dict[str, Any]) -> None:
    """Two panels, without transfer and with it: the score by rate, a line for each width."""
    with matplotlib.rc_context(plots.STYLE):
        figure = Figure(figsize=(10.5, 4.4), dpi=150, layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, transfer in zip(panels, (False, True), strict=True):
            title = "With width transfer" if transfer else "One rate for every width"
            _panel(axes, found, settings, transfer, title)
        panels[0].set_ylabel("validation bits per byte")
        plots.write(figure, path)


def _panel(axes: Axes, found: Cells, settings: dict[str, Any], transfer: bool, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=11.5, fontweight="bold", pad=10)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="y", color=plots.GRID, linewidth=0.8)
    axes.tick_params(length=0, pad=6)
    axes.set_xscale("log", base=2)
    least = min(score for score in found.values() if score is not None)
    for color, width in zip(plots.RUNS, settings["widths"], strict=False):
        by_rate = scores(found, settings, width, transfer)
        drawn = {rate: values for rate, values in by_rate.items() if statistics.fmean(values) < WORST * least}
        means = [statistics.fmean(values) for values in drawn.values()]
        below = [mean - min(values) for mean, values in zip(means, drawn.values(), strict=True)]
        above = [max(values) - mean for mean, values in zip(means, drawn.values(), strict=True)]
        axes.errorbar(
            list(drawn),
            means,
            yerr=[below, above],
            color=color,
            marker="o",
            markersize=4,
            linewidth=1.8,
            capsize=2,
            label=f"width {width}",
        )
        rate = best(by_rate)
        axes.plot([rate], [statistics.fmean(by_rate[rate])], marker="*", markersize=13, color=color, linestyle="none")
    axes.set_xticks(settings["rates"], [f"{rate:g}" for rate in settings["rates"]])
    axes.minorticks_off()
    axes.set_xlabel("learning rate (star: the best)")
    axes.legend(frameon=False, fontsize=9)
