"""The table of what models of a size are said to be able to do, as tests: `capabilities.yaml` is the data, this reads and
judges it.

A cell is a capability under a condition at a scale. A result passes where its whole 95 % interval is at or above the row's
`pass`, fails where the whole interval is below, and is open in between, as is any result of fewer items than the table asks
for. What the seed says of the cell holds or does not in the same way, at the mark of its word. Cells without a result are not
measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from tinyeval import strict_yaml
from tinyeval.interval import interval
from tinyeval.result import Result
from tinyeval.strict_yaml import TaskError

Condition = Literal["standard", "scratchpad", "tools", "recursion"]
Outcome = Literal["pass", "fail", "open"]
Held = Literal["holds", "does not hold", "open"]
MARKS: Mapping[str, str] = MappingProxyType(
    {
        "can": "pass",
        "good": "pass",
        "moderate": "some",
        "basic": "some",
        "limited": "some",
        "marginal": "some",
        "minimal": "some",
        "cannot": "below",
    }
)
NOT_MEASURED = "not measured"
_ROW = ("capability", "condition", "task", "dataset", "some", "pass", "says", "in_place")


@dataclass(frozen=True)
class Row:
    """See the data file. `dataset`: what the test's dataset has of its own."""

    capability: str
    condition: Condition
    task: str
    dataset: Mapping[str, Any]
    some: float
    passes: float
    says: Mapping[str, str]
    in_place: bool

    @property
    def name(self) -> str:
        return f"{self.capability}, {self.condition}"


@dataclass(frozen=True)
class Measured:
    """A run's result in a row."""

    run: str
    result: Result


@dataclass(frozen=True)
class Table:
    """rows; scales: name -> the fewest parameters and the first that are too many; items: of a test, at the least."""

    rows: tuple[Row, ...]
    scales: Mapping[str, tuple[int, int]]
    items: int

    def scale(self, parameters: int) -> str:
        """The scale of a model; one that is none of the table's has a column of its own, named by its size."""
        for name, (least, beyond) in self.scales.items():
            if least <= parameters < beyond:
                return name
        return size_name(parameters)

    def outcome(self, row: Row, result: Result) -> Outcome:
        """Whether a result passes the row's test."""
        _, low, high = interval(result)
        if result.n < self.items or low < row.passes <= high:
            return "open"
        return "pass" if low >= row.passes else "fail"

    def holds(self, row: Row, scale: str, result: Result) -> Held | None:
        """Whether what is said of a scale agrees with a result; None where nothing is said."""
        if scale not in row.says:
            return None
        mark = MARKS[row.says[scale]]
        _, low, high = interval(result)
        border = row.passes if mark == "pass" else row.some
        if result.n < self.items or low < border <= high:
            return "open"
        return "holds" if (low >= border) != (mark == "below") else "does not hold"


def size_name(parameters: int) -> str:
    """Parameters in two figures: 0.92M, 11M, 1.3B."""
    value, unit = (parameters / 1e9, "B") if parameters >= 1e9 else (parameters / 1e6, "M")
    return f"{value:.2g}{unit}"


def load() -> Table:
    """The table that comes with this package."""
    return read(Path(__file__).with_suffix(".yaml"))


def read(path: Path) -> Table:
    """A table from its file. Raises TaskError, one line, for what is none."""
    written = strict_yaml.read(path)
    try:
        scales = {str(name): (int(least), int(beyond)) for name, (least, beyond) in written["scales"].items()}
        rows = tuple(_row(entry, scales, str(path)) for entry in written["rows"])
        return Table(rows, MappingProxyType(scales), int(written["items"]))
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, TaskError):
            raise
        raise TaskError(f"{path}: not a table of capabilities: {' '.join(str(error).split())}") from None


def _row(entry: Mapping[str, Any], scales: Mapping[str, Any], origin: str) -> Row:
    unknown = next((key for key in entry if key not in _ROW), None)
    if unknown is not None:
        raise TaskError(f"{origin}: unknown key {unknown!r}, not one of {', '.join(_ROW)}")
    odd = [word for word in entry["says"].values() if word not in MARKS]
    odd += [scale for scale in entry["says"] if scale not in scales]
    if odd or not 0 <= entry["some"] <= entry["pass"] <= 1:
        raise TaskError(
            f"{origin}: {entry['capability']}: marks from 0 to 1, the lower first, and words and scales that it has"
        )
    return Row(
        entry["capability"],
        entry["condition"],
        entry["task"],
        MappingProxyType(dict(entry.get("dataset", {}))),
        float(entry["some"]),
        float(entry["pass"]),
        MappingProxyType(dict(entry["says"])),
        bool(entry.get("in_place", False)),
    )


def columns(table: Table, found: Mapping[str, Sequence[tuple[Row, Measured]]]) -> list[str]:
    """The table's scales and those of the runs that are none of them, by size. found: scale -> what was measured."""
    units = {"M": 1e6, "B": 1e9}
    return sorted({*table.scales, *found}, key=lambda scale: float(scale[:-1]) * units[scale[-1]])


def to_rows(table: Table, found: Mapping[str, Sequence[tuple[Row, Measured]]]) -> list[dict[str, Any]]:
    """Every cell as plain data, one for each run that fills it; a cell that none fills says that it is not measured."""
    made = []
    for row in table.rows:
        for scale in columns(table, found):
            cell: dict[str, Any] = {
                "capability": row.capability,
                "condition": row.condition,
                "scale": scale,
                "says": row.says.get(scale),
                "pass": row.passes,
            }
            here = [measured for other, measured in found.get(scale, ()) if other is row]
            for one in here:
                score = one.result.score
                assert score is not None  # a task that was skipped fills no cell
                made.append(
                    {
                        **cell,
                        "run": one.run,
                        "task": one.result.task,
                        "n": one.result.n,
                        "mean": score.mean,
                        "standard_error": score.standard_error,
                        "outcome": table.outcome(row, one.result),
                        "claim": table.holds(row, scale, one.result),
                    }
                )
            if not here:
                made.append({**cell, "outcome": NOT_MEASURED})
    return made


def to_markdown(table: Table, found: Mapping[str, Sequence[tuple[Row, Measured]]]) -> str:
    """The whole table: of each cell what is said, and what was measured."""
    scales = columns(table, found)
    cells = to_rows(table, found)
    lines = [
        "| capability | condition | test, passed from | " + " | ".join(scales) + " |",
        "|---" * (3 + len(scales)) + "|",
    ]
    for row in table.rows:
        shown = []
        for scale in scales:
            here = [
                one
                for one in cells
                if (one["capability"], one["condition"], one["scale"]) == (row.capability, row.condition, scale)
            ]
            said = f"said: {row.says[scale]}" if scale in row.says else ""
            shown.append("; ".join(part for part in (said, *map(_shown, here)) if part))
        lines.append(
            f"| {row.capability} | {row.condition} | `{row.task}`, {row.passes:g} | " + " | ".join(shown) + " |"
        )
    return "\n".join(lines)


def _shown(cell: Mapping[str, Any]) -> str:
    if cell["outcome"] == NOT_MEASURED:
        return NOT_MEASURED
    error = "" if cell["standard_error"] is None else f" +- {cell['standard_error']:.3f}"
    claim = "" if cell["claim"] is None else f", the claim {'is open' if cell['claim'] == 'open' else cell['claim']}"
    return f"**{cell['outcome']}** {cell['mean']:.3f}{error} (n={cell['n']}, `{cell['run']}`: {cell['task']}){claim}"
