"""What an evaluation found, item by item, as data that reads back equal: nothing has to be computed again to compare runs.

JSON: {"schema": 1, "results": [{"task": ..., "scores": {"acc": {"mean": ..., "standard_error": ...}}, "records": [...]}]}.
A task that could not be asked has `skipped`, its reason, and no score: never 0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

SCHEMA = 1


class ResultError(ValueError):
    """A file of results that cannot be read; the message is one line."""


@dataclass(frozen=True)
class Record:
    """One item: its scores by metric, what was written (or ""), the ln p of each choice (or of the text), and its `meta`."""

    id: str
    scores: Mapping[str, float]
    written: str = ""
    nats: tuple[float, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """Mean over the items, and its standard error: None where one item leaves it unknown."""

    mean: float
    standard_error: float | None

    def __str__(self) -> str:
        return f"{self.mean:.4f}" + (f" +- {self.standard_error:.4f}" if self.standard_error is not None else "")


@dataclass(frozen=True)
class Result:
    """A model on a task. `scores` by metric, of which `metric` is the one to compare; `chance` is what guessing gives in it.

    identity: hash of the task as it was asked. seed, limit: which items. tokenizer_id: None for a model that does not say.
    """

    task: str
    version: int
    identity: str
    model: str
    metric: str
    higher_is_better: bool
    n: int
    seed: int
    limit: int | None = None
    scores: Mapping[str, Score] = field(default_factory=dict)
    chance: float | None = None
    seconds: float = 0.0
    skipped: str | None = None
    tokenizer_id: str | None = None
    records: tuple[Record, ...] = ()

    @property
    def score(self) -> Score | None:
        """Of the metric to compare; None for a skipped task."""
        return self.scores.get(self.metric)

    def grouped(self, *keys: str, metric: str | None = None) -> dict[tuple[Any, ...], tuple[float, int]]:
        """(mean, items) by the values of ``keys`` in the items' meta, sorted: a grid's cells. None: items without a key.

        Bits per byte of a cell are its bits over its bytes.
        """
        name = self.metric if metric is None else metric
        cells: dict[tuple[Any, ...], list[Record]] = {}
        for record in self.records:
            cells.setdefault(tuple(record.meta.get(key) for key in keys), []).append(record)
        ordered = sorted(cells, key=lambda cell: [_place(value) for value in cell])
        return {cell: (_mean(cells[cell], name), len(cells[cell])) for cell in ordered}

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> Result:
        """Back from plain data. Raises ResultError for anything else."""
        if unknown := set(mapping) - {one.name for one in fields(cls)}:
            raise ResultError(f"a result with unknown keys: {', '.join(sorted(unknown))}")
        try:
            read: dict[str, Any] = dict(mapping)
            read["records"] = tuple(_record(one) for one in mapping["records"])
            read["scores"] = {name: Score(**score) for name, score in mapping["scores"].items()}
            return cls(**read)
        except (TypeError, KeyError, AttributeError) as error:
            raise ResultError(f"not a result of schema {SCHEMA}: {' '.join(str(error).split())}") from None


def _record(mapping: Mapping[str, Any]) -> Record:
    read: dict[str, Any] = {**mapping, "nats": tuple(mapping["nats"])}
    return Record(**read)


def _mean(records: list[Record], name: str) -> float:
    if name == "bits_per_byte":  # a record's own score is its bits over the mean bytes of all records
        bits = -math.fsum(record.nats[0] for record in records) / math.log(2)
        return bits / sum(record.meta["bytes"] for record in records)
    return math.fsum(record.scores[name] for record in records) / len(records)


def _place(value: Any) -> tuple[int, float, str]:
    """Sorts nothing before numbers before words."""
    if value is None:
        return (0, 0.0, "")
    return (1, float(value), "") if isinstance(value, (int, float)) else (2, 0.0, str(value))


@dataclass(frozen=True)
class Results:
    """A model's results by task name, in the order asked."""

    results: Mapping[str, Result]

    def __getitem__(self, task: str) -> Result:
        return self.results[task]

    def to_json(self) -> str:
        """One JSON document; :meth:`from_json` reads it back equal."""
        found = {"schema": SCHEMA, "results": [result.to_dict() for result in self.results.values()]}
        return json.dumps(found, ensure_ascii=False, allow_nan=True)

    @classmethod
    def from_json(cls, text: str) -> Results:
        """Raises ResultError, one line, for what is no such document or one of another schema."""
        try:
            found = json.loads(text)
        except ValueError as error:
            raise ResultError(f"results: not JSON ({error})") from None
        schema = found.get("schema") if isinstance(found, dict) else None
        if schema != SCHEMA:
            raise ResultError(f"results: schema {schema!r}, and this version of tinyeval reads schema {SCHEMA}")
        read = [Result.from_dict(one) for one in found["results"]]
        return cls({result.task: result for result in read})

    def to_markdown(self) -> str:
        """A table: task, metric, items, score with standard error, chance; skipped tasks say why."""
        lines = ["| task | metric | items | score | chance |", "|---|---|---|---|---|"]
        for result in self.results.values():
            chance = "" if result.chance is None else f"{result.chance:.4f}"
            said = str(result.score) if result.skipped is None else f"skipped: {result.skipped}".replace("|", "\\|")
            lines.append(f"| {result.task} | {result.metric} | {result.n} | {said} | {chance} |")
        return "\n".join(lines)
