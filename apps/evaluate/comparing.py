"""Several runs on the same items: each task of each run against the first run, with one correction for all of these looks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from apps.common import files
from apps.common.console import Console
from apps.evaluate import pages, pareto, pictures, spectra
from apps.evaluate.pages import Evaluated
from tinyeval import Incomparable, TaskComparison, compare_task
from tinyeval.statistics import verdicts

DIRECTORY = "comparison"


def run(found: Sequence[Evaluated], metric: str | None, console: Console) -> dict[str, Any]:
    """Say and write how the runs differ; the same as plain data. Raises Incomparable where no task was asked of two of them,
    or `metric` is one that does not compare, such as perplexity."""
    names = _names(found)
    rows = compare(found, metric)
    directory = found[0].where.directory / DIRECTORY
    directory.mkdir(parents=True, exist_ok=True)
    note = tokenizer_note(found)
    blocks = [f"# {' and '.join(names)}", *([note] if note else [])]
    for name, compared in zip(names[1:], rows, strict=True):
        blocks.append(pages.compared(name, names[0], compared))
    blocks.append(
        "Paired on the same items: McNemar's exact test, or random signs of the differences; verdicts corrected by Holm's "
        "method over all rows, at 5 %."
    )
    console.head("comparison", f"with {names[0]}")
    for block in blocks[1:]:
        console.say(block)
    costs = [one.measures.cost if one.measures is not None else None for one in found]
    if any(cost is not None for cost in costs):
        block = pages.costs(names, costs)
        console.say(block)
        blocks += ["## Speed and memory", block]
    by_name = dict(zip(names, found, strict=True))
    sources = {name: (one.results, one.record) for name, one in by_name.items()}
    points, source = pareto.points(sources)
    if points:
        noted = [pareto.shown(points), *pareto.caveats(sources, source)]
        for block in noted:
            console.say(block)
        said = f"Bits per byte of {source}; * where no other run has fewer at the same cost or less. Times: each machine's own."
        blocks += ["## Bits per byte and what they cost", said, *noted]
    runs = {name: one.results for name, one in by_name.items()}
    streams = {name: one.measures.blocks for name, one in by_name.items() if one.measures is not None}
    drawn = {
        "tasks.png": lambda path: pictures.tasks(path, runs),
        "needle.png": lambda path: pictures.needle(path, runs),
        "curves.png": lambda path: pictures.curves(path, {name: one.record for name, one in by_name.items()}),
        "spectra.png": lambda path: spectra.draw(path, streams),
        "pareto.png": lambda path: pareto.draw(path, points, source),
    }
    for file, draw in drawn.items():
        if draw(directory / file):
            blocks.append(f"![{file}]({file})")
    files.write_text(directory / "comparison.md", "\n\n".join(blocks) + "\n")
    console.say(f"comparison: {directory / 'comparison.md'}")
    return {
        "baseline": names[0],
        "note": note,
        "page": str(directory / "comparison.md"),
        "rows": _plain(names, rows),
        "pareto": {"bits_per_byte_of": source, "runs": pareto.rows(points)},
    }


def compare(found: Sequence[Evaluated], metric: str | None) -> list[list[TaskComparison]]:
    """For each run but the first, its tasks against the first's; verdicts corrected over all of them together."""
    first = found[0].results.results
    pairs = [
        [
            (result, first[name])
            for name, result in one.results.results.items()
            if result.skipped is None and name in first and first[name].skipped is None
        ]
        for one in found[1:]
    ]
    flat = [pair for row in pairs for pair in row]
    if not flat:
        raise Incomparable("the runs have no task in common that could be asked; see what each says above")
    differences = [compare_task(result, base, metric) for result, base in flat]
    words = iter(verdicts(differences, higher_is_better=[_up(result, metric) for result, _ in flat]))
    left = iter(differences)
    return [
        [
            TaskComparison(
                result.task,
                name := metric or result.metric,
                result.scores[name].mean,
                base.scores[name].mean,
                next(left),
                next(words),
            )
            for result, base in row
        ]
        for row in pairs
    ]


def tokenizer_note(found: Sequence[Evaluated]) -> str:
    """What to know where the runs cut texts differently; empty where they do not."""
    tokenizers = {result.tokenizer_id for one in found for result in one.results.results.values()}
    if len(tokenizers) < 2:
        return ""
    return "The tokenizers differ: perplexities per token do not compare; bits per byte and what is right or wrong do."


def _up(result: Any, metric: str | None) -> bool:
    """Whether more is better; of another metric than the task's own: of all but bits per byte."""
    return result.higher_is_better if metric in (None, result.metric) else metric != "bits_per_byte"


def _names(found: Sequence[Evaluated]) -> list[str]:
    """A name for each that no other has: with as many of its parents as it takes."""
    paths = [
        (one.where.directory.parent if one.where.directory.name == "evaluation" else one.where.checkpoint)
        for one in found
    ]
    whole = [Path(path).resolve().parts for path in paths]
    depth = 1
    while depth < 8 and len({parts[-depth:] for parts in whole}) < len(set(whole)):
        depth += 1
    return ["/".join(parts[-depth:]) for parts in whole]


def _plain(names: Sequence[str], rows: Sequence[Sequence[TaskComparison]]) -> list[dict[str, Any]]:
    return [
        {
            "run": name,
            "task": one.task,
            "metric": one.metric,
            "n": one.difference.n,
            "mean": one.mean,
            "baseline_mean": one.baseline_mean,
            "difference": one.difference.mean,
            "low": one.difference.low,
            "high": one.difference.high,
            "p": one.difference.p,
            "verdict": one.verdict,
        }
        for name, compared in zip(names[1:], rows, strict=True)
        for one in compared
    ]
