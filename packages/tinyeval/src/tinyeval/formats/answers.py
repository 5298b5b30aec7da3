"""Formats whose answer is a text: written by the model, or scored as its continuation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tinyeval.items import Item

_FINAL = re.compile(r"####\s*(\S.*)\s*$")


def gsm8k(row: Mapping[str, Any], identity: str) -> list[Item]:
    """GSM8K (arXiv 2110.14168): question, answer with its reasoning and `#### 72` at its end."""
    final = _FINAL.search(row["answer"].strip())
    if final is None:
        raise ValueError("the answer has no '#### number'")
    return [Item(identity, row["question"].strip(), answer=final[1].strip())]


def lambada(row: Mapping[str, Any], identity: str) -> list[Item]:
    """LAMBADA (arXiv 1606.06031): the last word of `text`, which needs all of it; all of its tokens count."""
    context, space, word = row["text"].rpartition(" ")
    if not space or not word:
        raise ValueError("the text has no last word")
    return [Item(identity, context, answer=word)]


def human_eval(row: Mapping[str, Any], identity: str) -> list[Item]:
    """HumanEval (arXiv 2107.03374): task_id, prompt, test, entry_point; canonical_solution is the answer."""
    tests = {"test": row["test"], "entry_point": row["entry_point"]}
    return [Item(row["task_id"], row["prompt"], answer=row.get("canonical_solution", ""), meta=tests)]


def text(row: Mapping[str, Any], identity: str) -> list[Item]:
    """A document to be scored whole: `text`. One without a letter is left out."""
    return [Item(identity, row["text"])] if row["text"].strip() else []


def items(row: Mapping[str, Any], identity: str) -> list[Item]:
    """Items as they are: prompt, and answer or choices with right; fields and meta where there are any."""
    unknown = next((key for key in row if key not in _ITEM), None)
    if unknown is not None:
        raise ValueError(f"unknown key {unknown!r}, not one of {', '.join(_ITEM)}")
    return [
        Item(
            str(row.get("id", identity)),
            row.get("prompt", ""),
            str(row.get("answer", "")),
            tuple(row.get("choices", ())),
            row.get("right"),
            tuple(row.get("contexts", ())),
            row.get("fields", {}),
            row.get("meta", {}),
        )
    ]


_ITEM = ("id", "prompt", "answer", "choices", "right", "contexts", "fields", "meta")
