"""What an evaluation found, as tables for a terminal and as `report.md`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apps.common.markdown import table
from apps.common.run_record import RunRecord
from apps.evaluate import spectra
from apps.evaluate.costs import Cost
from apps.evaluate.measures import Measures
from apps.evaluate.stored import Place
from tinyeval import Record, Result, Results, Task, TaskComparison
from tinyeval.suites import Suite

MOST_GROUPS = 32  # a table of more rows is no summary
SHOWN = 3  # answers a task
SHOWN_CHARACTERS = 160


@dataclass(frozen=True)
class Evaluated:
    """One run's results; `before`: tasks whose results were there already; measures: None where nothing could be asked; record:
    the run's own logs, None for a checkpoint without."""

    where: Place
    results: Results
    before: frozenset[str]
    measures: Measures | None = None
    record: RunRecord | None = None
    suites: tuple[Suite, ...] = ()


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


def cost(found: Cost) -> str:
    """The table of what using the model costs."""
    return table([f"one text at a time, {found.device}", "measured"], found.rows())


def costs(names: Sequence[str], found: Sequence[Cost | None]) -> str:
    """The same of several runs beside each other."""
    known = [(name, one) for name, one in zip(names, found, strict=True) if one is not None]
    head = ["one text at a time", *(name for name, _ in known)]
    columns = [one.rows() for _, one in known]
    cells = [[what, *(column[line][1] for column in columns)] for line, (what, _) in enumerate(columns[0])]
    return table(head, cells)


def suite(asked: Suite, found: Evaluated) -> str:
    """The table of a protocol: its number, that of the standard rules on the same items, and what was published."""
    cells = []
    for pair in asked.pairs:
        protocol, standard = (found.results.results[task.name] for task in (pair.protocol, pair.standard))
        cells.append(
            [
                pair.standard_name,
                f"{protocol.n:,}" if protocol.skipped is None else "0",
                pair.shows,
                _scored(protocol, pair.shows),
                standard.metric,
                _scored(standard, standard.metric),
                "" if pair.published is None else f"{pair.published:g}",
            ]
        )
    head = [asked.name, "n", "its metric", "by its rules", "standard metric", "by ours", "published there"]
    return table(head, cells)


def _scored(result: Result, metric: str) -> str:
    if result.skipped is not None:
        return "not measured"
    return str(result.scores[metric]) if metric in result.scores else "not measured"


def bits(found: Evaluated) -> str:
    """One line on bits per byte: of the tasks that have them, and of the run's own validation."""
    said = [
        f"{result.scores['bits_per_byte']} on `{name}`"
        for name, result in found.results.results.items()
        if "bits_per_byte" in result.scores
    ]
    own = None if found.record is None else found.record.last("val_bpb")
    if own is not None:
        said.append(f"{own:.4f} at the last validation of the run")
    return f"Bits per byte: {', '.join(said)}." if said else ""


def report(found: Evaluated, tasks: Mapping[str, Task], pictures: Sequence[str]) -> str:
    """The page of one run."""
    first = next(iter(found.results.results.values()))
    blocks = [
        f"# {found.where.name}: tasks",
        f"Checkpoint `{found.where.checkpoint.name}`, weights and tokenizer sha256 `{found.where.sha256[:16]}`, "
        f"seed {first.seed}. Greedy answers; the standard error is over items.",
        *([line] if (line := bits(found)) else []),
        shown(found),
        *(suite(one, found) for one in found.suites),
        *(f"![{name}]({name})" for name in pictures if name != "spectra.png"),
    ]
    if found.measures is not None:
        blocks += _measured(found.measures, "spectra.png" in pictures)
    for name, result in found.results.results.items():
        if result.skipped is None:
            blocks += _details(result, tasks[name])
    return "\n\n".join(blocks) + "\n"


def _measured(found: Measures, drawn: bool) -> list[str]:
    """What the model costs to use, and how many directions its blocks use."""
    blocks = [] if found.cost is None else ["## Speed and memory", cost(found.cost)]
    if not found.blocks:
        return blocks
    return [
        *blocks,
        "## Activation spectra",
        "Of the stream behind each call of a layer, on held-out tokens, in float64: the least number of directions with 95 % "
        "of the energy (squares of singular values), about the mean over the tokens; without centring the mean is a direction.",
        *(["![spectra.png](spectra.png)"] if drawn else []),
        spectra.shown(found.blocks),
    ]


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
    lines = [
        f"    {record.scores[result.metric]:g}  {record.written[:SHOWN_CHARACTERS]!r}{_right(record)}"
        for record in written
    ]
    return [*blocks, "What it wrote, and the score of it:\n\n" + "\n".join(lines)] if lines else blocks


def _right(record: Record) -> str:
    """The answer that was right, where there is one."""
    answer = record.meta.get("answer")
    return f"   (right: {str(answer)[:SHOWN_CHARACTERS]!r})" if answer else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
