"""What `apps/bench scratchpads` shows: a table, and the accuracy by length."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from apps.bench.hops_report import mean_and_error
from apps.common import plots
from apps.common.markdown import table

UNITS = {"addition": "digits", "parity": "bits", "sorting": "numbers", "notes": "sentences"}
COLORS = {"direct": plots.FAINT, "plain": plots.RUNS[0], "inductive": plots.RUNS[1], "notes": plots.RUNS[2]}

Group = dict[tuple[str, str], list[dict[str, Any]]]


def by_form(cells: dict[str, Any]) -> Group:
    """The cells of all seeds, by task and form."""
    found: Group = {}
    for key, entry in cells.items():
        task, form, _ = key.split(" | ")
        found.setdefault((task, form), []).append(entry)
    return found


def summary(cells: dict[str, Any]) -> dict[str, Any]:
    """Of each task, form and multiple of the length learned: mean, standard error, least and most of the seeds' accuracies."""
    found: dict[str, Any] = {}
    for (task, form), seeds in by_form(cells).items():
        for times in seeds[0]["asked"]:
            shares = [seed["asked"][times]["accuracy"] for seed in seeds]
            mean, error = mean_and_error(shares)
            entry = {"mean": mean, "standard_error": None if math.isnan(error) else error, "seeds": len(shares)}
            found.setdefault(f"{task} | {form}", {})[times] = {**entry, "least": min(shares), "most": max(shares)}
    return found


def markdown(cells: dict[str, Any], settings: dict[str, Any]) -> str:
    """One row for each task and form."""
    rows, groups = [], by_form(cells)
    for (task, form), seeds in sorted(groups.items(), key=lambda item: list(UNITS).index(item[0][0])):
        shown = []
        for times in seeds[0]["asked"]:
            mean, error = mean_and_error([100 * seed["asked"][times]["accuracy"] for seed in seeds])
            shown.append(f"{mean:.0f}" + ("" if math.isnan(error) else f" ±{error:.0f}"))
        sizes = "/".join(str(asked["size"]) for asked in seeds[0]["asked"].values())
        written = "/".join(f"{asked['tokens_written']:.0f}" for asked in seeds[0]["asked"].values())
        rows.append([f"{task}, {form}", f"{sizes} {UNITS[task]}", *shown, written])
    first = next(iter(groups.values()))[0]
    multiples = [f"{times}x" for times in first["asked"]]
    n = next(iter(first["asked"].values()))["n"]
    text = (
        f"Exact answers in %, of {n} problems of each length; learned are lengths up to 1x. Mean and standard error of up to "
        f"{max(map(len, groups.values()))} seeds, {settings['steps']:,} optimizer steps, {first['tokens']:,} tokens, about "
        f"{first['parameters']:,} parameters. Tokens: written for one problem, first seed."
    )
    return f"{text}\n\n{table(['task, form', 'asked', *multiples, 'tokens'], rows)}"


def draw(path: Path, cells: dict[str, Any]) -> None:
    """A panel for each task, a line for each form."""
    groups = by_form(cells)
    tasks = [task for task in UNITS if any(task == other for other, _ in groups)]
    with matplotlib.rc_context(plots.STYLE):
        figure = Figure(figsize=(1.4 + 2.9 * len(tasks), 3.9), dpi=150, layout="constrained")
        panels = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
        for axes, task in zip(panels, tasks, strict=True):
            _panel(axes, task, {form: seeds for (other, form), seeds in groups.items() if other == task})
        panels[0].set_ylabel("exact answers")
        plots.write(figure, path)


def _panel(axes: Axes, task: str, forms: dict[str, list[dict[str, Any]]]) -> None:
    axes.set_title(task, loc="left", fontsize=11.5, fontweight="bold", pad=10)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="y", color=plots.GRID, linewidth=0.8)
    axes.tick_params(length=0, pad=6)
    sizes: list[int] = []
    for form, seeds in forms.items():
        sizes = [asked["size"] for asked in seeds[0]["asked"].values()]
        shares = [[seed["asked"][times]["accuracy"] for seed in seeds] for times in seeds[0]["asked"]]
        for seed in zip(*shares, strict=True):
            axes.plot(sizes, seed, color=COLORS[form], linewidth=0.7, alpha=0.35)
        means = [mean_and_error(values)[0] for values in shares]
        axes.plot(sizes, means, color=COLORS[form], linewidth=2, marker="o", markersize=4, label=form)
    axes.axvline(sizes[0], color=plots.FAINT, linewidth=0.8, linestyle=":")
    axes.set_xticks(sizes)
    axes.set_ylim(-0.02, 1.04)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel(f"{UNITS[task]} (learned: up to {sizes[0]})")
    axes.legend(frameon=False, fontsize=8.5)
