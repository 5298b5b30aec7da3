"""One batch of a task's items, asked of a model and scored: a function for each kind of scoring.

multiple_choice   ln p of each choice behind the prompt                      acc, acc_norm (and acc_token where it is the
metric) continuation      ln p of the answer behind the prompt, greedy or not        acc, nats (and acc_first: its first token
alone) greedy_answer     what is written, compared with the answer                  exact needle            the same, its first
number                                 exact perplexity        ln p of whole texts
bits_per_byte (and perplexity per token) code              what is written, run with its tests by a `CodeRunner`      passed
rules             what is written, against the item's rules                  all_rules, rules (the share that is kept) grid
what a `GridModel` fills in, any of its attempts           exact, cells (of the first attempt)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tinyeval.items import DataError, Item
from tinyeval.metrics.perplexity import strided_loglikelihood
from tinyeval.model import GridModel, LanguageModel, Pair, Tokenized
from tinyeval.result import Record
from tinyeval.scoring import answers, choices, code, rules
from tinyeval.task import Scoring, Task

WRITTEN_CHARACTERS = 2000  # kept of what a model wrote


def _fields(item: Item) -> dict[str, str]:
    return {"prompt": item.prompt, **item.fields}


def _prompt(task: Task, item: Item) -> str:
    try:
        return task.asked(_fields(item))
    except ValueError as error:
        raise DataError(f"task {task.name}: item {item.id}: {error}") from None


def _meta(item: Item) -> dict[str, object]:
    """What results are grouped by; not tests and rules, which can be long."""
    return {
        key: value for key, value in item.meta.items() if isinstance(value, (str, int, float, bool)) and key != "test"
    }


def _multiple_choice(
    model: LanguageModel, task: Task, items: Sequence[Item], runner: object, checker: object
) -> list[Record]:
    pairs, records = [], []
    for item in items:
        if item.right is None:
            raise DataError(f"task {task.name}: item {item.id} has no choice that is right")
        contexts = item.contexts or (_prompt(task, item),) * len(item.choices)
        pairs += [
            (context, task.choice.render({"choice": choice}))
            for context, choice in zip(contexts, item.choices, strict=True)
        ]
    answers_given = model.loglikelihood(pairs)
    if len(answers_given) != len(pairs):
        raise ValueError(f"task {task.name}: the model scored {len(answers_given)} of {len(pairs)} pairs")
    scored = iter(answers_given)
    counts = iter(_counts(model, pairs)) if task.metric == "acc_token" else None
    for item in items:
        nats = tuple(next(scored)[0] for _ in item.choices)
        assert item.right is not None  # looked at above
        tokens = None if counts is None else [next(counts) for _ in item.choices]
        found = choices.accuracies(nats, item.choices, item.right, tokens)
        records.append(Record(item.id, found, nats=nats, meta=_meta(item)))
    return records


def _continuation(
    model: LanguageModel, task: Task, items: Sequence[Item], runner: object, checker: object
) -> list[Record]:
    pairs = [(_prompt(task, item), task.choice.render({"choice": item.answer})) for item in items]
    records = [
        Record(item.id, {"acc": float(greedy), "nats": nats}, nats=(nats,), meta=_meta(item))
        for item, (nats, greedy) in zip(items, model.loglikelihood(pairs), strict=True)
    ]
    if task.metric != "acc_first":
        return records
    first = model.loglikelihood([(context, _first_piece(model, context, text)) for context, text in pairs])
    return [
        replace(record, scores={**record.scores, "acc_first": float(greedy)})
        for record, (_, greedy) in zip(records, first, strict=True)
    ]


def _counts(model: LanguageModel, pairs: Sequence[Pair]) -> list[int]:
    """Tokens that each continuation adds to its context."""
    assert isinstance(model, Tokenized)  # evaluate skips the task without
    return [len(model.pieces(context + text)) - len(model.pieces(context)) for context, text in pairs]


def _first_piece(model: LanguageModel, context: str, text: str) -> str:
    """The text of the first token of ``text`` behind ``context``; of all of them that one character takes."""
    assert isinstance(model, Tokenized)
    whole, found = model.pieces(context + text), ""
    for piece in whole[min(len(model.pieces(context)), len(whole) - 1) :]:
        found += piece
        if found.strip():
            break
    return found or text


def _texts(model: LanguageModel, task: Task, items: Sequence[Item], runner: object, checker: object) -> list[Record]:
    prompts = [_prompt(task, item) for item in items]
    if task.window is not None:
        assert isinstance(model, Tokenized)
        cut = [model.pieces(text)[: task.most_tokens] for text in prompts]
        prompts = ["".join(pieces) for pieces in cut]
        scored = [strided_loglikelihood(model, pieces, task.window, task.window) for pieces in cut]
    else:
        scored = model.loglikelihood_rolling(prompts)
    records = []
    for item, text, nats in zip(items, prompts, scored, strict=True):
        size = len(text.encode())
        if not size:
            raise DataError(f"task {task.name}: item {item.id} is empty")
        meta = {**_meta(item), "bytes": size}
        if isinstance(model, Tokenized):
            meta["tokens"] = len(model.pieces(text))
        records.append(Record(item.id, {"bits_per_byte": -nats / math.log(2) / size}, nats=(nats,), meta=meta))
    return records


def _written(model: LanguageModel, task: Task, items: Sequence[Item]) -> list[str]:
    return model.generate_until([_prompt(task, item) for item in items], task.until, task.max_tokens)


def _greedy_answer(
    model: LanguageModel, task: Task, items: Sequence[Item], runner: object, checker: answers.Checker | None
) -> list[Record]:
    scorer = "first_number" if task.scoring == "needle" else task.scorer
    return [
        Record(
            item.id,
            {"exact": float(answers.is_right(text, item.answer, scorer, checker))},
            written=text[:WRITTEN_CHARACTERS],
            meta={**_meta(item), "answer": item.answer[:WRITTEN_CHARACTERS]},
        )
        for item, text in zip(items, _written(model, task, items), strict=True)
    ]


def _code(
    model: LanguageModel, task: Task, items: Sequence[Item], runner: code.CodeRunner | None, checker: object
) -> list[Record]:
    assert runner is not None  # evaluate skips the task without one
    untested = next((item for item in items if "test" not in item.meta), None)
    if untested is not None:
        raise DataError(f"task {task.name}: item {untested.id} has no test")
    return [
        Record(
            item.id,
            {"passed": float(code.passes(item, text, runner))},
            written=text[:WRITTEN_CHARACTERS],
            meta=_meta(item),
        )
        for item, text in zip(items, _written(model, task, items), strict=True)
    ]


def _rules(model: LanguageModel, task: Task, items: Sequence[Item], runner: object, checker: object) -> list[Record]:
    records = []
    for item, text in zip(items, _written(model, task, items), strict=True):
        if not item.meta.get("rules"):
            raise DataError(f"task {task.name}: item {item.id} has no rules")
        try:
            kept = rules.kept(text, item.meta["rules"])
        except ValueError as error:
            raise DataError(f"task {task.name}: item {item.id}: {error}") from None
        scores = {"all_rules": float(all(kept)), "rules": sum(kept) / len(kept)}
        records.append(Record(item.id, scores, written=text[:WRITTEN_CHARACTERS], meta=_meta(item)))
    return records


def _grids(model: GridModel, task: Task, items: Sequence[Item], runner: object, checker: object) -> list[Record]:
    records = []
    for item, attempts in zip(items, model.solve(items), strict=True):
        wanted, given = item.answer.split(), [attempt.split() for attempt in attempts]
        if not wanted or not given:
            raise DataError(f"task {task.name}: item {item.id} has no answer")
        right = sum(one == other for one, other in zip(given[0], wanted, strict=False))
        cells = right / len(wanted) if len(given[0]) == len(wanted) else 0.0
        scores = {"exact": float(wanted in given), "cells": cells}
        records.append(Record(item.id, scores, written=attempts[0][:WRITTEN_CHARACTERS], meta=_meta(item)))
    return records


ASKED: Mapping[Scoring, Callable[..., list[Record]]] = {
    "multiple_choice": _multiple_choice,
    "continuation": _continuation,
    "greedy_answer": _greedy_answer,
    "needle": _greedy_answer,
    "perplexity": _texts,
    "code": _code,
    "rules": _rules,
    "grid": _grids,
}
