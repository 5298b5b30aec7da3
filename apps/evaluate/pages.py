"""What an evaluation found, as tables for a terminal and as `report.md`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apps.common.markdown import table
from apps.evaluate.stored import Place
from tinyeval import Result, Results, Task, TaskComparison

MOST_GROUPS = 32  # a table of more rows is no summary
SHOWN = 3  # answers a task
SHOWN_CHARACTERS = 160


@dataclass(frozen=True)
class Evaluated:
    """One run's results; `before`: tasks whose results were there already."""

    where: Place
    results: Results
    before: frozenset[str]


def rows(found: Evaluated) -> list[dict[str, Any]]:
    """Tasks as plain data; `mean` and `standard_error` are in the unit of the metric."""
    made = []
    for name, result in found.results.results.items():
        score = result.score
        made.append(
            {
                "task": name,
                "version": result.version,
                "metric": result.metric,
                "n": result.n,
                "mean": None if score is None else score.mean,
                "standard_error": None if score is None else score.standard_error,
                "chance": result.chance,
                "seconds": round(result.seconds, 3),
                "skipped": result.skipped,
                "done_before": name in found.before,
            }
        )
    return made


def shown(found: Evaluated) -> str:
    """The table of tasks that were asked, and a line for each that was not."""
    cells = [
        [
            row["task"],
            row["metric"],
            f"{row['n']:,}",
            _number(row["mean"]),
            _number(row["standard_error"]),
            _number(row["chance"]),
            "stored" if row["done_before"] else f"{row['seconds']:.0f} s",
        ]
        for row in rows(found)
        if row["skipped"] is None
    ]
    head = ["task", "metric", "n", "mean", "standard error", "chance", "time"]
    said = [f"{row['task']}: not measured ({row['skipped']})" for row in rows(found) if row["skipped"] is not None]
    return "\n\n".join(([table(head, cells)] if cells else []) + (["\n".join(said)] if said else []))


def compared(name: str, baseline: str, found: Sequence[TaskComparison]) -> str:
    """The table of one run against another."""
    cells = [
        [
            one.task,
            one.metric,
            f"{one.difference.n:,}",
            _number(one.mean),
            _number(one.baseline_mean),
            f"{one.difference.low:+.4f} to {one.difference.high:+.4f}",
            f"{one.difference.p:.3g}",
            one.verdict,
        ]
        for one in found
    ]
    head = ["task", "metric", "n", name, baseline, "difference, 95 %", "p", f"{name} is"]
    return table(head, cells)


def report(found: Evaluated, tasks: Mapping[str, Task], pictures: Sequence[str]) -> str:
    """The page of one run."""
    first = next(iter(found.results.results.values()))
    blocks = [
        f"# {found.where.name}: tasks",
        f"Checkpoint `{found.where.checkpoint.name}`, weights and tokenizer sha256 `{found.where.sha256[:16]}`, "
        f"seed {first.seed}. Greedy answers; the standard error is over items.",
        shown(found),
        *(f"![{name}]({name})" for name in pictures),
    ]
    for name, result in found.results.results.items():
        if result.skipped is None:
            blocks += _details(result, tasks[name])
    return "\n\n".join(blocks) + "\n"


def _details(result: Result, task: Task) -> list[str]:
    """Scores by group, and the first answers."""
    blocks = [f"## {result.task}", task.description]
    others = {name: score for name, score in result.scores.items() if name != result.metric}
    if others:
        blocks.append(", ".join(f"{name} {score}" for name, score in others.items()))
    keys = task.group_by
    groups = result.grouped(*keys) if keys else {}
    if 1 < len(groups) <= MOST_GROUPS:
        cells = [[*map(str, group), str(n), _number(mean)] for group, (mean, n) in groups.items()]
        blocks.append(table([*keys, "n", result.metric], cells))
    written = [record for record in result.records if record.written][:SHOWN]
    lines = [f"    {record.scores[result.metric]:g}  {record.written[:SHOWN_CHARACTERS]!r}" for record in written]
    return [*blocks, "What it wrote, and the score of it:\n\n" + "\n".join(lines)] if lines else blocks


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
