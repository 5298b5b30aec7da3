"""The one table of an experiment as Markdown, with the notes that it needs to be read."""

from __future__ import annotations

from collections.abc import Sequence

from apps.ablate.comparison import Comparison, Row
from apps.common.markdown import table

COLUMNS = (
    "variant",
    "parameters",
    "FLOPs",
    "memory",
    "tok/s",
    "rate",
    "val_bpb",
    "least to most",
    "seeds",
    "- plain",
    "95 % interval",
    "p",
    "verdict",
    "below bigram",
)
MEASURED = ("memory", "tok/s")  # of two runs of the same experiment, all other columns are the same


def markdown(comparison: Comparison) -> str:
    """The table, without the columns that no row has anything to say in, and its notes."""
    bound = comparison.baseline.val_bpb
    lines = [_cells_of(row, bound) for row in comparison.rows]
    shown = [
        index for index, name in enumerate(COLUMNS) if name not in ("memory", "rate") or any(_column(lines, index))
    ]
    head = [COLUMNS[index] for index in shown]
    return "\n\n".join([table(head, [[line[index] for index in shown] for line in lines]), *comparison.notes])


def _verdict(row: Row) -> str:
    """What holds among all comparisons, or else of this one alone."""
    alone = row.alone or row.verdict
    return f"{alone} alone" if row.alone is not None and row.verdict != alone else row.verdict


def _column(lines: Sequence[Sequence[str]], index: int) -> list[str]:
    return [line[index] for line in lines]


def _cells_of(row: Row, bound: float) -> list[str]:
    first, scores = row.first, list(row.scores.values())
    found, below = row.difference, row.below(bound)
    return [
        row.variant,
        f"{first.parameters:,}",
        f"{row.flops:.2f}x",
        "" if row.memory is None else f"{row.memory / 2**20:,.0f} MiB",
        "" if row.speed is None else f"{row.speed:.2f}x",
        "" if first.tuned is None else f"{first.tuned.learning_rate:g}{'*' if first.tuned.edge else ''}",
        "" if row.mean is None else f"{row.mean:.4f}",
        f"{min(scores):.4f} to {max(scores):.4f}" if len(scores) > 1 else "",
        str(len(row.cells)),
        "" if found is None else f"{found.mean:+.4f}",
        "" if found is None or found.n == 1 else f"{found.low:+.4f} to {found.high:+.4f}",
        "" if row.holm is None else f"{row.holm:.2g}",
        _verdict(row),
        "yes" if below == len(row.cells) else f"no ({below} of {len(row.cells)})",
    ]
