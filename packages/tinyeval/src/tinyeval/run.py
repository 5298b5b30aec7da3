"""Ask a model a task: items in, result out. Greedy and without any state, so the same model, task, limit and seed say the same.

Bits per byte of a test set are all bits over all bytes. An item's score is its bits over the mean bytes of an item, so that
their mean is just that; the standard error is of this ratio (delta method), not of the scores.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tinyeval.asking import ASKED
from tinyeval.items import DataError, Item, Unavailable
from tinyeval.model import GridModel, LanguageModel, Tokenized
from tinyeval.result import Record, Result, Results, Score
from tinyeval.scoring import answers, code
from tinyeval.sources import Generator, items_of
from tinyeval.task import Task
from tinyeval.tasks import load

OnItem = Callable[[Record, int, int], None]


def evaluate(
    model: LanguageModel | GridModel,
    tasks: Task | str | Sequence[Task | str],
    *,
    limit: int | None = None,
    seed: int = 0,
    name: str = "",
    items: Mapping[str, Sequence[Item]] | None = None,
    files: Mapping[str, Path] | None = None,
    generators: Mapping[str, Generator] | None = None,
    runner: code.CodeRunner | None = None,
    checker: answers.Checker | None = None,
    on_item: OnItem | None = None,
    batch: int = 16,
) -> Results:
    """The results of ``model``, called ``name``, on one or several tasks, given as tasks, names or paths of YAML files.

    limit: at most so many items of a task, drawn by ``seed``, which also makes generated ones. items: task name -> the items to
    ask instead of the task's own. files, generators: see `sources.items_of`. runner: executes programs; without it code tasks
    are skipped. checker: decides about numbers that `number` finds. on_item(record, done, total): after each item.
    batch: items that are given to the model together. A task that cannot be asked is skipped, with the reason; data that is
    damaged raises DataError, a task that is none TaskError, a model's own errors are passed on. ValueError for limit or batch
    below 1.
    """
    if batch < 1 or (limit is not None and limit < 1):
        raise ValueError(f"limit and batch start at 1, got {limit} and {batch}")
    given = [tasks] if isinstance(tasks, Task | str) else list(tasks)
    asked = [load(task) if isinstance(task, str) else task for task in given]
    found: dict[str, Result] = {}
    for task in asked:
        started = time.perf_counter()
        shared = _Shared(task, model, name, limit, seed)
        try:
            _require_model(model, task, runner)
            drawn = (items or {}).get(task.name)
            if drawn is None:
                drawn = items_of(task, limit=limit, seed=seed, files=files, generators=generators)
            elif limit is not None:
                drawn = drawn[:limit]
            if not drawn:
                raise DataError(f"task {task.name}: no item to ask")
        except Unavailable as error:
            found[task.name] = shared.skipped(str(error))
            continue
        records: list[Record] = []
        for start in range(0, len(drawn), batch):
            for record in ASKED[task.scoring](model, task, drawn[start : start + batch], runner, checker):
                records.append(record)
                if on_item is not None:
                    on_item(record, len(records), len(drawn))
        found[task.name] = shared.result(drawn, records, time.perf_counter() - started)
    return Results(found)


def _require_model(model: LanguageModel | GridModel, task: Task, runner: code.CodeRunner | None) -> None:
    """Raises Unavailable where ``task`` cannot be asked of ``model``."""
    if task.scoring == "code" and runner is None:
        raise Unavailable(f"task {task.name}: runs programs, which takes a sandbox; pass runner=")
    if (task.scoring == "grid") != isinstance(model, GridModel):
        needed = "fills in grids (solve)" if task.scoring == "grid" else "reads and writes text (loglikelihood)"
        raise Unavailable(f"task {task.name}: needs a model that {needed}; ask it of another one")
    if task.counts_tokens and not isinstance(model, Tokenized):
        raise Unavailable(f"task {task.name}: counts tokens; the model needs tokenizer_id and pieces(text)")


class _Shared:
    """What every result of a task on a model says."""

    def __init__(self, task: Task, model: LanguageModel | GridModel, name: str, limit: int | None, seed: int) -> None:
        self.task = task
        self.tokenizer = model.tokenizer_id if isinstance(model, Tokenized) else None
        self.name, self.limit, self.seed = name or type(model).__name__, limit, seed

    def skipped(self, reason: str) -> Result:
        return self._made({}, (), None, 0.0, reason)

    def result(self, items: Sequence[Item], records: list[Record], seconds: float) -> Result:
        if self.task.scoring == "perplexity":
            scores, records = _of_texts(items, records)
        else:
            names = list(records[0].scores)
            scores = {name: _score([record.scores[name] for record in records]) for name in names}
        chance = self.task.chance
        if chance is None and self.task.scoring == "multiple_choice":
            chance = statistics.fmean(1 / len(item.choices) for item in items)
        return self._made(scores, tuple(records), chance, seconds, None)

    def _made(
        self,
        scores: Mapping[str, Score],
        records: tuple[Record, ...],
        chance: float | None,
        seconds: float,
        skipped: str | None,
    ) -> Result:
        task = self.task
        return Result(
            task=task.name,
            version=task.version,
            identity=task.identity,
            model=self.name,
            metric=task.metric,
            higher_is_better=task.higher_is_better,
            n=len(records),
            seed=self.seed,
            limit=self.limit,
            scores=scores,
            chance=chance,
            seconds=seconds,
            skipped=skipped,
            tokenizer_id=self.tokenizer,
            records=records,
        )


def _score(values: Sequence[float]) -> Score:
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return Score(statistics.fmean(values), error)


def _of_texts(items: Sequence[Item], records: Sequence[Record]) -> tuple[dict[str, Score], list[Record]]:
    """All bits over all bytes, with the standard error of a ratio, and records whose scores have it as their mean."""
    n = len(records)
    bits = [-record.nats[0] / math.log(2) for record in records]
    sizes = [int(record.meta["bytes"]) for record in records]
    ratio, mean_size = math.fsum(bits) / sum(sizes), sum(sizes) / n
    left = [one - ratio * size for one, size in zip(bits, sizes, strict=True)]
    error = math.sqrt(math.fsum(one * one for one in left) / (n - 1) / n) / mean_size if n > 1 else None
    scores = {"bits_per_byte": Score(ratio, error)}
    tokens = [int(record.meta.get("tokens", 0)) for record in records]
    if all(tokens):
        try:
            per_token = math.exp(-math.fsum(record.nats[0] for record in records) / sum(tokens))
        except OverflowError:
            per_token = math.inf
        scores["perplexity"] = Score(per_token, None)
    scored = [
        Record(record.id, {"bits_per_byte": one / mean_size}, nats=record.nats, meta=record.meta)
        for record, one in zip(records, bits, strict=True)
    ]
    return scores, scored
