"""Long texts in windows that overlap: a window begins with tokens that the one before has shown, and learns none of them again.

    ids       0 1 2 3 4 5 6 7 8          length 5, overlap 2
    window 0  0 1 2 3 4                  targets  1 2 3 4 5
    window 1        3 4 5 6 7            targets  . . 6 7 8          . is -100: learned in window 0
    window 2              (ends: 8 has no successor)

Cut without overlap, the first tokens of a piece are predicted from almost nothing, at evaluation (sliding windows) as in
training. With it each has at least `overlap` tokens before it, and still every token is a target exactly once. It costs
length / (length - overlap) times as many slots.

`windows` is for arrays of ids; `split_long` for questions and conversations longer than a row, which `ProblemLoader` refuses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from tinydata.batch import NOTHING_ASKED
from tinydata.problem_loader import EncodedProblem


class Window(NamedTuple):
    """tokens (N,) int64, N at most the length; targets (N,) int64, -100 where nothing is learned."""

    tokens: np.ndarray
    targets: np.ndarray


def windows(ids: np.ndarray, length: int, overlap: int = 0) -> Iterator[Window]:
    """The windows of one document, ids (M,), in order; none of a document without a target (M < 2).

    Raises ValueError unless 0 <= overlap < length.
    """
    _check(length, overlap, 0)
    ids = np.asarray(ids, dtype=np.int64)
    following = np.append(ids[1:], NOTHING_ASKED)
    for start in _starts(len(ids) - 1, length, overlap):
        targets = following[start : start + length].copy()
        if start:
            targets[:overlap] = NOTHING_ASKED
        yield Window(ids[start : start + length], targets)


def split_long(problems: Iterable[EncodedProblem], length: int, overlap: int) -> list[EncodedProblem]:
    """Problems of at most `length` ids: those that are longer in overlapping pieces, whatever they learn learned once.

    A piece in which nothing is left to learn is left out, such as the first ones of a long question. At least one id must be
    shared, since a problem's first id is never learned. Raises ValueError unless 1 <= overlap < length.
    """
    _check(length, overlap, 1)
    found = []
    for problem in problems:
        if len(problem.ids) <= length:
            found.append(problem)
            continue
        learned = (np.arange(len(problem.ids)) >= problem.prompt) & ~problem.given
        # In a row of `length` ids one fewer is learned, so that windows of targets are those of one fewer.
        for start in _starts(len(problem.ids) - 1, length - 1, overlap - 1):
            piece = slice(start, start + length)
            known = overlap if start else 0
            if not learned[piece][max(known, 1) :].any():
                continue
            prompt = min(max(known, problem.prompt - start), len(problem.ids[piece]))
            found.append(EncodedProblem(problem.ids[piece], prompt, problem.given[piece]))
    return found


def _starts(targets: int, length: int, overlap: int) -> range:
    """Where windows of `length` targets start that cover all of them."""
    if targets < 1:
        return range(0)
    stride = length - overlap
    count = 1 + max(0, -(-(targets - length) // stride))
    return range(0, count * stride, stride)


def _check(length: int, overlap: int, least: int) -> None:
    if not least <= overlap < length:
        raise ValueError(f"windows: overlap {overlap} is not between {least} and the length {length} less one")
