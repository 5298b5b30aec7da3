"""Curves of runs as PNG files: few marks, the value beside the line, the same look everywhere.

Drawn with matplotlib's Agg canvas and no global state. Raw training values are faint and their smoothed curve strong
(a Gaussian over neighbouring log lines, so without the lag of a running mean); validation is drawn as measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

INK, FAINT, GRID = "#1f2933", "#7b8794", "#e4e7eb"
TRAIN, VALIDATION, THIRD = "#3d6fb4", "#c8553d", "#2f7d5b"
RUNS = ("#3d6fb4", "#c8553d", "#2f7d5b", "#8a5fb0", "#b7892b", "#4a8fa3", "#a04668", "#5b6770")
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}
MOST_POINTS = 40  # more are not marked one by one
SMOOTHING_LINES = 40  # the Gaussian's width is one part in this many of the log lines


Style = Literal["smooth", "points", "line"]


@dataclass(frozen=True)
class Curve:
    """One line to draw: `values` over `tokens`, its name and its colour.

    style: "smooth" draws the values faint and their smoothed curve strong, "points" marks each measurement.
    """

    name: str
    tokens: Sequence[float]
    values: Sequence[float]
    color: str
    style: Style = "points"


def smoothed(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """(N,) float64, N >= 1: each value the Gaussian-weighted mean of its neighbours; at the ends of those there are."""
    raw = np.asarray(values, dtype=np.float64)
    width = len(raw) / SMOOTHING_LINES
    reach = min(len(raw) - 1, math.ceil(4 * width))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    total = np.convolve(raw, kernel)[reach : reach + len(raw)]
    return total / np.convolve(np.ones(len(raw)), kernel)[reach : reach + len(raw)]


def draw(
    path: Path,
    curves: Sequence[Curve],
    title: str,
    *,
    logarithmic: bool = False,
    percent: bool = False,
    size: tuple[float, float] = (8.0, 4.4),
) -> None:
    """One panel of curves over tokens, written to `path` (PNG)."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, dpi=150, layout="constrained")
        _panel(figure.add_subplot(), curves, title, logarithmic, percent, label_x=True)
        write(figure, path)


def draw_stacked(path: Path, panels: Sequence[tuple[str, Sequence[Curve]]], size: tuple[float, float]) -> None:
    """Panels one above the other that share the axis of tokens: (title, curves) each."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, dpi=150, layout="constrained")
        for index, (title, curves) in enumerate(panels):
            last = index == len(panels) - 1
            _panel(figure.add_subplot(len(panels), 1, index + 1), curves, title, False, False, label_x=last)
        write(figure, path)


def _panel(axes: Axes, curves: Sequence[Curve], title: str, logarithmic: bool, percent: bool, label_x: bool) -> None:
    curves = [curve for curve in curves if len(curve.values)]
    axes.set_title(title, loc="left", fontsize=11.5, fontweight="bold", pad=10)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=6)
    ends = []
    for curve in curves:
        tokens, raw = np.asarray(curve.tokens, dtype=np.float64), np.asarray(curve.values, dtype=np.float64)
        values = smoothed(raw) if curve.style == "smooth" else raw
        if curve.style == "smooth":
            axes.plot(tokens, raw, color=curve.color, alpha=0.35, linewidth=0.8)
        marker = "o" if curve.style == "points" and len(raw) <= MOST_POINTS else None
        axes.plot(tokens, values, color=curve.color, linewidth=2.0, marker=marker, markersize=4.0, clip_on=False)
        ends.append((float(tokens[-1]), float(values[-1]), curve))
    if logarithmic and curves:
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_yticks(_steps_between(*axes.get_ylim()))
    elif not logarithmic:
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(_percent if percent else _plain))
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(_round))
    axes.set_xlim(left=0)
    if label_x:
        axes.set_xlabel("tokens trained on")
    else:
        axes.tick_params(labelbottom=False)
    _label_ends(axes, ends, percent)


def _label_ends(axes: Axes, ends: list[tuple[float, float, Curve]], percent: bool) -> None:
    """Name and last value to the right of each curve, moved apart where they would overlap."""
    to_axes: Callable[[float], float] = lambda value: float(  # noqa: E731
        axes.transAxes.inverted().transform(axes.transData.transform((0.0, value)))[1]
    )
    right = max((tokens for tokens, _, _ in ends), default=1.0)
    axes.set_xlim(right=right * 1.005 or 1.0)
    ordered = sorted(ends, key=lambda end: end[1])
    gap = 14.5 / (axes.get_window_extent().height * 72 / axes.figure.dpi)
    places: list[float] = []
    for _, value, _ in ordered:
        wanted = to_axes(value)
        places.append(max(wanted, places[-1] + gap) if places else wanted)
    for (tokens, value, curve), place in zip(ordered, places, strict=True):
        shown = f"{value:.1%}" if percent else f"{value:.3g}" if value < 0.1 else f"{value:.3f}"
        at = (1.0 if tokens >= right else tokens / (right * 1.005)) + 0.012
        axes.annotate(
            f"{curve.name} {shown}".strip(),
            xy=(at, place),
            xycoords="axes fraction",
            va="center",
            color=curve.color,
            fontweight="bold",
            fontsize=9.5,
            annotation_clip=False,
        )


def _steps_between(low: float, high: float) -> list[float]:
    """Round numbers for a logarithmic axis that spans less than a decade or two."""
    for step in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0):
        ticks = [step * k for k in range(math.ceil(low / step), math.floor(high / step) + 1) if k > 0]
        if len(ticks) <= 8:
            return ticks
    return [10.0**k for k in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]


def _plain(value: float, _: object) -> str:
    return f"{value:g}" if abs(value) >= 1e-3 or value == 0 else f"{value:.0e}".replace("e-0", "e-")


def _percent(value: float, _: object) -> str:
    return f"{value:.1%}" if 0 < abs(value) < 0.1 else f"{value:.0%}"


def _round(value: float, _: object) -> str:
    """A tick in as few figures as it has: 0, 500k, 1M, 1.5M."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{unit}"
    return f"{value:g}"


def write(figure: Figure, path: Path) -> None:
    """Save the figure as PNG, the same bytes for the same numbers."""
    FigureCanvasAgg(figure)
    # without the version of the software the same numbers give the same bytes
    figure.savefig(path, format="png", metadata={"Software": None})
