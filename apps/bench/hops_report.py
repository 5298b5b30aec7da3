"""What `apps/bench hops` shows: a table, and the accuracy by number of lookups."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from apps.common import plots
from apps.common.markdown import table

LEFT = ("plain 2", "looped 2x2", "looped 2x4", "plain 4", "plain 8")


def by_model(cells: dict[str, Any]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """The answers of all seeds, by model and by how it was asked."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for key, entry in cells.items():
        for how, answers in entry["asked"].items():
            found.setdefault((key.rpartition(" | ")[0], how), []).append(answers)
    return found


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """Mean and standard error over seeds; nan of one seed."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.fmean(values), error


def markdown(cells: dict[str, Any], settings: dict[str, Any]) -> str:
    """One row for each model and way of asking it."""
    learned = settings["steps"]
    first = {key.rpartition(" | ")[0]: entry for key, entry in reversed(cells.items())}
    rows = []
    for (name, how), seeds in by_model(cells).items():
        entry = first[name]
        shown = []
        for step in range(len(seeds[0]["accuracy"])):
            mean, error = mean_and_error([100 * seed["accuracy"][step] for seed in seeds])
            shown.append(f"{mean:.0f}" + ("" if math.isnan(error) else f" ±{error:.0f}"))
        taken = ""
        if "steps_taken" in seeds[0]:
            means = [statistics.fmean(seed["steps_taken"][step] for seed in seeds) for step in range(learned)]
            taken = " ".join(f"{mean:.1f}" for mean in means)
        own = entry["parameters"], entry["flops_per_token"]
        rows.append([name, how, f"{own[0]:,}", f"{own[1] / 1e6:.2f}M", *shown, taken])
    lookups = [f"{step}" for step in range(1, 1 + len(rows[0]) - 5)]
    head = ["model", "asked with", "parameters", "FLOPs/token", *lookups, f"steps taken, 1 to {learned}"]
    text = (
        f"Exact answers in %, by lookups one after the other; learned are 1 to {learned}. Mean and standard error of "
        f"{max(map(len, by_model(cells).values()))} seeds, {settings['train_steps']:,} optimizer steps, {settings['nodes']} "
        "nodes. FLOPs: forward, as trained. Steps: applications of the shared layers, of those that decide it by token."
    )
    return f"{text}\n\n{table(head, rows)}"


def draw(path: Path, cells: dict[str, Any], settings: dict[str, Any]) -> None:
    """Two panels: the models as trained; looped ones asked with other numbers of loops."""
    found = by_model(cells)
    with matplotlib.rc_context(plots.STYLE):
        figure = Figure(figsize=(10.5, 4.6), dpi=150, layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        first: dict[str, str] = {}
        for name, how in found:
            first.setdefault(name, how)
        trained = [(name, how) for name, how in first.items() if name in LEFT]
        other = [pair for pair in found if pair[0].startswith("looped 2x4, drawn") or pair[0] == "looped 2x4"]
        _panel(left, [(pair[0], found[pair]) for pair in trained], "As trained", settings["steps"])
        _panel(right, [(f"{a}: {b}", found[a, b]) for a, b in other], "Other numbers of loops", settings["steps"])
        left.set_ylabel("exact answers")
        plots.write(figure, path)


def _panel(axes: Axes, lines: list[tuple[str, list[dict[str, Any]]]], title: str, learned: int) -> None:
    axes.set_title(title, loc="left", fontsize=11.5, fontweight="bold", pad=10)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="y", color=plots.GRID, linewidth=0.8)
    axes.tick_params(length=0, pad=6)
    axes.axvline(learned + 0.5, color=plots.FAINT, linewidth=0.8, linestyle=":")
    for color, (name, seeds) in zip(plots.RUNS, lines, strict=False):
        steps = range(1, 1 + len(seeds[0]["accuracy"]))
        pairs = [mean_and_error([seed["accuracy"][step - 1] for seed in seeds]) for step in steps]
        errors = [0.0 if math.isnan(error) else error for _, error in pairs]
        axes.errorbar(
            list(steps),
            [mean for mean, _ in pairs],
            yerr=errors,
            color=color,
            marker="o",
            markersize=4,
            linewidth=1.8,
            capsize=2,
            label=name,
        )
    axes.set_ylim(-0.02, 1.04)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel(f"lookups one after the other (learned: up to {learned})")
    axes.legend(frameon=False, fontsize=8.5)
