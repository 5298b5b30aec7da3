"""`report.md` of prepared data, and a picture of how long its documents are: the same bytes for the same data."""

from __future__ import annotations

import io
import itertools
import math
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from apps.common import files, phases, plots, recipes
from apps.common.data_config import TextData
from apps.common.markdown import table
from apps.common.recipe import Recipe
from apps.common.tasks import Prepared
from apps.prepare.figures import Figures, Group

PICTURE = "lengths.png"
MOST_CURVES = len(plots.RUNS)
MOST_DEPTHS = 16  # rows of the table of a curriculum


def write(home: Path, name: str, recipe: Recipe, prepared: Prepared, found: Figures) -> None:
    """report.md, its picture and recipe.yaml into `home`, each whole or not at all."""
    files.write_bytes(home / PICTURE, draw(found))
    files.write_text(home / "recipe.yaml", recipes.to_yaml(recipe))
    files.write_text(home / "report.md", render(name, recipe, found))


def draw(found: Figures) -> bytes:
    """A PNG: share of the documents by length, a curve for each group, lengths by powers of the square root of two."""
    groups = sorted(found.groups, key=lambda group: -group.tokens)[:MOST_CURVES]
    longest = max((group.quantile(1.0) for group in groups), default=1)
    shortest = min((group.quantile(0.0) for group in groups), default=1)
    first, last = math.floor(math.log2(max(shortest, 1))), math.log2(max(longest, 2))
    edges = 2.0 ** np.arange(first, last + 0.5, 0.5)
    with matplotlib.rc_context(plots.STYLE):
        figure = Figure(figsize=(8.0, 3.6), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        for group, color in zip(groups, plots.RUNS, strict=False):
            counts, _ = np.histogram(np.maximum(group.lengths, 1), edges)
            axes.stairs(counts / max(group.documents, 1), edges, color=color, linewidth=1.8, label=_short(group.name))
        axes.set_xscale("log", base=2)
        axes.set_title(
            f"Tokens of the {found.what}, share of each", loc="left", fontsize=11.5, fontweight="bold", pad=10
        )
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.grid(axis="y", color=plots.GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, pad=6)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        if groups:
            axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9)
        FigureCanvasAgg(figure)
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", metadata={"Software": None})  # the same numbers, the same bytes
    return drawn.getvalue()


def render(name: str, recipe: Recipe, found: Figures) -> str:
    """The report as Markdown."""
    blocks = [f"# Data of {name}", recipe.description or "No description."]
    blocks += [table(("", ""), list(found.facts.items())), f"## {found.what.capitalize()}", _groups(found)]
    blocks += [
        f"![share of the {found.what} by their length in tokens]({PICTURE})\n\n"
        "*Lengths are tokens of the text alone; `repeated`: the same tokens were there before, in this or an earlier row of "
        "the table.*"
    ]
    if any(group.drawn is not None for group in found.groups):
        blocks += ["## Over a run", _over_a_run(recipe, found)]
    if found.depths:
        blocks += ["## Curriculum", "How many problems of each depth a run learns from, by stage.", _curriculum(found)]
    left_out = [
        (source, reason, f"{count:,}") for source, why in found.skipped.items() for reason, count in why.items()
    ]
    left_out += [(group.name, "was there before", f"{group.dropped:,}") for group in found.groups if group.dropped]
    if left_out:
        blocks += ["## Left out", table(("source", "why", "documents"), left_out)]
    blocks += ["## Examples", *(block for group in found.groups for block in _examples(group))]
    return "\n\n".join(blocks) + "\n"


def _groups(found: Figures) -> str:
    learned = any(group.learned is not None for group in found.groups)
    licences = any(group.licence for group in found.groups)
    head = ["", found.what, "tokens", "share", *(["learned"] if learned else []), "bytes/token", "5 %", "50 %", "95 %"]
    head += ["longest", "repeated", *(["licence"] if licences else [])]
    rows = []
    for group in found.groups:
        row = [group.name, f"{group.documents:,}", f"{group.tokens:,}", f"{group.share:.1%}"]
        row += [f"{group.learned or 0:,}"] if learned else []
        row += [f"{group.size / group.tokens:.2f}" if group.size and group.tokens else ""]
        row += [f"{group.quantile(share):,}" for share in (0.05, 0.5, 0.95, 1.0)]
        rows.append([*row, f"{group.repeated:,}", *([group.licence] if licences else [])])
    return table(head, rows)


def _over_a_run(recipe: Recipe, found: Figures) -> str:
    assert isinstance(recipe.data, TextData)
    tokens = phases.sequences(recipe) * recipe.data.positions
    rows = [
        (group.name, f"{group.drawn or 0:.1%}", f"{(group.drawn or 0) * tokens:,.0f}", f"{group.passes or 0:.2f}")
        for group in found.groups
    ]
    said = table(("source", "share, mean", "tokens", "passes"), rows)
    if recipe.data.stages:
        ends = [0.0, *(stage.until for stage in recipe.data.stages)]
        head = ["stage", *(f"{first:.0%} to {last:.0%}" for first, last in itertools.pairwise(ends))]
        shares = [
            [
                name,
                *(f"{stage.weights.get(name, 0.0) / sum(stage.weights.values()):.1%}" for stage in recipe.data.stages),
            ]
            for name in recipe.data.mixed_names
        ]
        said += "\n\n" + table(head, shares)
    return said


def _curriculum(found: Figures) -> str:
    depths = sorted({depth for stage in found.depths for depth in stage})
    head = ["depth", *(f"stage {number}" for number in range(1, len(found.depths) + 1))]
    if len(depths) > MOST_DEPTHS:  # lengths: in classes of powers of two
        depths, found = _classed(found)
    return table(head, [[f"{depth:g}", *(f"{stage.get(depth, 0):,}" for stage in found.depths)] for depth in depths])


def _classed(found: Figures) -> tuple[list[float], Figures]:
    """Depths in classes, each named by the most that it has."""
    classed: list[dict[float, int]] = []
    for stage in found.depths:
        classed.append({})
        for depth, count in stage.items():
            top = 2.0 ** math.ceil(math.log2(max(depth, 1)))
            classed[-1][top] = classed[-1].get(top, 0) + count
    return sorted({depth for stage in classed for depth in stage}), replace(found, depths=classed)


def _examples(group: Group) -> list[str]:
    found = [f"### {group.name}"]
    for text in group.examples:
        ticks = "`" * max(4, 1 + max((len(run) for run in text.split("\n") if run.startswith("`")), default=0))
        found.append(f"{ticks}text\n{text}\n{ticks}")
    return found


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"...{name[-21:]}"
