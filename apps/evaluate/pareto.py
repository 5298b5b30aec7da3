"""Several runs by what they cost: bits per byte against parameters, training FLOPs and time, and which of them nobody beats.

Bits per byte are those of a task that all were asked (`embedded_text`, `wikitext2`), else of each run's own validation, which
compare only where the text is the same. FLOPs are tinycore's closed form of training times the tokens of the run; seconds are
those that the run took, on whatever machine it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

import tinycore
from apps.common import comparison, files, plots
from apps.common.markdown import table
from apps.common.run_record import RunRecord
from tinyeval import Results
from tinyeval.pareto import front

TICKS = 4  # an axis has room for
TASKS = ("embedded_text", "wikitext2")
COSTS = (("parameters", "parameters"), ("flops", "training FLOPs"), ("seconds", "training time (s)"))


@dataclass(frozen=True)
class Point:
    """A run; a cost is None where its files do not say."""

    run: str
    bits_per_byte: float
    parameters: float | None
    flops: float | None
    seconds: float | None


def points(runs: Mapping[str, tuple[Results, RunRecord | None]]) -> tuple[list[Point], str]:
    """A point for each run that has bits per byte, and whose they are; ([], "") where fewer than two have."""
    source, values = _bits(runs)
    found = []
    for run, (_, record) in runs.items():
        if run not in values or record is None:
            continue
        last = record.metrics[-1] if record.metrics else {}
        tokens = last.get("tokens", 0)
        flops = tinycore.count(record.recipe.model).flops_per_token(record.recipe.data.positions) * tokens
        seconds = record.speed().get("seconds", 0.0)
        found.append(Point(run, values[run], float(record.parameters), flops or None, seconds or None))
    return (found, source) if len(found) > 1 else ([], "")


def caveats(runs: Mapping[str, tuple[Results, RunRecord | None]], source: str) -> list[str]:
    """Why the points may not compare."""
    if any(source.endswith(name) for name in TASKS):
        return []
    return comparison.caveats([record for _, record in runs.values() if record is not None])


def on_front(found: Sequence[Point], cost: str) -> set[str]:
    """The runs that no other beats in both bits per byte and `cost`."""
    known = [point for point in found if getattr(point, cost) is not None]
    return {known[index].run for index in front([(getattr(point, cost), point.bits_per_byte) for point in known])}


def rows(found: Sequence[Point]) -> list[dict[str, Any]]:
    """As plain data, with the costs in which a run is on the front."""
    fronts = {cost: on_front(found, cost) for cost, _ in COSTS}
    return [
        {
            "run": point.run,
            "bits_per_byte": point.bits_per_byte,
            **{cost: getattr(point, cost) for cost, _ in COSTS},
            "front": [cost for cost, _ in COSTS if point.run in fronts[cost]],
        }
        for point in found
    ]


def shown(found: Sequence[Point]) -> str:
    """The table; * marks what no other run beats at the same cost or less."""
    fronts = {cost: on_front(found, cost) for cost, _ in COSTS}
    head = ["run", "bits per byte", *(label for _, label in COSTS)]
    cells = [
        [
            point.run,
            f"{point.bits_per_byte:.4f}",
            *(
                ""
                if (value := getattr(point, cost)) is None
                else f"{_amount(value)}{' *' if point.run in fronts[cost] else ''}"
                for cost, _ in COSTS
            ),
        ]
        for point in found
    ]
    return table(head, cells)


def draw(path: Path, found: Sequence[Point], source: str) -> bool:
    """A panel for each cost, the front as steps; False for fewer than two runs."""
    if len(found) < 2:
        return False
    with matplotlib.rc_context(plots.STYLE):
        figure = Figure(figsize=(11.0, 3.8), dpi=150, layout="constrained")
        for axes, (cost, label) in zip(figure.subplots(1, len(COSTS), sharey=True), COSTS, strict=True):
            best = on_front(found, cost)
            line = sorted((getattr(one, cost), one.bits_per_byte) for one in found if one.run in best)
            axes.step(*zip(*line, strict=True), where="post", color=plots.FAINT, linewidth=1.2) if line else None
            for number, point in enumerate(found):
                value = getattr(point, cost)
                if value is None:
                    continue
                color = plots.RUNS[number % len(plots.RUNS)]
                hollow = {} if point.run in best else {"markerfacecolor": "white"}
                axes.plot([value], [point.bits_per_byte], "o", color=color, markersize=7, label=point.run, **hollow)
            values = sorted({value for one in found if (value := getattr(one, cost)) is not None})
            if values:
                axes.set_xscale("log")
                axes.set_xlim(values[0] / 1.5, values[-1] * 1.5)
                axes.xaxis.set_minor_locator(NullLocator())
                marked = values if len(values) <= TICKS else [values[0], values[-1]]
                axes.set_xticks(marked, [_amount(value) for value in marked])
            axes.set_xlabel(label)
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.grid(color=plots.GRID, linewidth=0.8)
            axes.tick_params(length=0, pad=6)
        first = figure.axes[0]
        first.set_ylabel("bits per byte")
        first.set_title(f"Pareto front, {source}", loc="left", fontsize=11.5, fontweight="bold", pad=10)
        first.legend(frameon=False, fontsize=9.0)
        temporary = path.with_name(f"{files.TEMPORARY}{path.name}")
        plots.write(figure, temporary)
        temporary.replace(path)
    return True


def _amount(value: float) -> str:
    """In three figures: 55.2, 919k, 4.31T."""
    for limit, unit in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def _bits(runs: Mapping[str, tuple[Results, RunRecord | None]]) -> tuple[str, dict[str, float]]:
    for task in TASKS:
        asked = {run: found.results[task] for run, (found, _) in runs.items() if task in found.results}
        if len(asked) == len(runs) and all(result.skipped is None for result in asked.values()):
            return f"task {task}", {run: result.scores["bits_per_byte"].mean for run, result in asked.items()}
    own = {run: record.last("val_bpb") for run, (_, record) in runs.items() if record is not None}
    return "each run's own validation", {run: value for run, value in own.items() if value is not None}
