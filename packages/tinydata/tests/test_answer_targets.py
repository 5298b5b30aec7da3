"""Claim: of a row the answer and the first end after the question are learned, shifted by one, and nothing else: not the
question, not padding. Held against a loop over positions.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydata import answer_targets

END, PAD = 0, 1
ROWS = st.tuples(
    st.lists(st.integers(0, 9), max_size=6),  # a question may hold ends
    st.lists(st.integers(2, 9), max_size=6),
    st.booleans(),
)


def by_hand(question: list[int], answer: list[int], ended: bool, length: int) -> list[int]:
    learned = [-100] * len(question) + answer + [END] * ended
    return [*(learned + [-100] * length)[1:length], -100]


@given(st.lists(ROWS, min_size=1, max_size=5), st.integers(0, 5), st.sampled_from([END, PAD]))
def test_the_answer_and_the_first_end_are_learned(rows: list, extra: int, pad: int) -> None:
    # Without padding of its own an unfinished answer cannot be told from a finished one: those fill their row.
    rows = [(question, answer, ended or pad == END) for question, answer, ended in rows]
    length = max(len(question) + len(answer) + ended for question, answer, ended in rows) + extra
    filled = [(question + answer + [END] * ended + [pad] * length)[:length] for question, answer, ended in rows]
    tokens = np.array(filled, dtype=np.int64).reshape(len(rows), length)
    prompts = np.array([len(question) for question, _, _ in rows])
    targets = answer_targets(tokens, prompts, END, PAD)
    assert targets.dtype == np.int64
    assert targets.tolist() == [by_hand(*row, length)[:length] for row in rows]
    # More padding adds nothing to learn.
    wider = np.pad(tokens, ((0, 0), (0, 3)), constant_values=pad)
    assert answer_targets(wider, prompts, END, PAD)[:, length:].tolist() == [[-100] * 3] * len(rows)
    assert answer_targets(wider, prompts, END, PAD)[:, :length].tolist() == targets.tolist()


def test_every_finished_row_teaches_its_end_once() -> None:
    tokens = np.array([[5, 6, 7, 8, END, END, END], [5, END, 7, END, END, END, END]])
    targets = answer_targets(tokens, np.array([2, 2]), END)
    assert targets.tolist() == [
        [-100, 7, 8, END, -100, -100, -100],
        [-100, 7, END, -100, -100, -100, -100],
    ]


def test_an_answer_that_was_cut_is_learned_to_its_last_token() -> None:
    assert answer_targets(np.array([[5, 6, 7, 8]]), np.array([1]), END).tolist() == [[6, 7, 8, -100]]
    assert answer_targets(np.array([[5, 6, 7, PAD]]), np.array([1]), END, PAD).tolist() == [[6, 7, -100, -100]]
    assert answer_targets(np.array([[5, 6]]), np.array([2]), END).tolist() == [[-100, -100]]


@pytest.mark.parametrize(
    "tokens, prompts, message",
    [
        (np.zeros(4, int), [1], "tokens must be integers of shape"),
        (np.zeros((1, 4)), [1], "tokens must be integers of shape"),
        (np.zeros((2, 4), int), [1], "prompt_lengths must be 2 integers"),
        (np.zeros((1, 4), int), [1.0], "prompt_lengths must be 1 integers"),
        (np.zeros((1, 4), int), [5], "prompt_lengths must be 0 to 4"),
        (np.zeros((1, 4), int), [-1], "prompt_lengths must be 0 to 4"),
    ],
)
def test_what_does_not_fit_is_refused(tokens: np.ndarray, prompts: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        answer_targets(tokens, np.array(prompts), END)
