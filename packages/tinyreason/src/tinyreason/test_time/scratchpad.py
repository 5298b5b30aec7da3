"""Scratchpads: intermediate states that are written down before the answer (arXiv 2112.00114, inductive: 2406.06467).

    plain       question s1 # s2 # s3 ... answer        one text: each state is written with all before it in view
    inductive   question s_(i-1) -> s_i                 each state from the question and the state before it alone

In the inductive form nothing older than the last state is in the text that the model sees, so no state can reach through it,
whatever the number of layers, and every step looks like the steps of training however many there are.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tinyreason.completion import Generator, Spent
from tinyreason.test_time.one import one

Ended = Literal["done", "steps", "length", "error", "repeated"]


@dataclass(frozen=True)
class Scratchpad:
    """The states in order, the answer (None where it did not end well), why it ended, and what it cost."""

    states: tuple[str, ...]
    answer: str | None
    ended: Ended
    spent: Spent


@dataclass(frozen=True)
class Pad:
    """How states are written: `mark` ends each of them, `done` begins the answer, which `stop` ends."""

    mark: str = "#"
    done: str = "Answer:"
    stop: str = "\n"

    def answer(self, text: str) -> str | None:
        _, found, rest = text.partition(self.done)
        return rest.split(self.stop, 1)[0].strip() or None if found else None


def plain(
    generator: Generator, question: str, pad: Pad | None = None, *, max_tokens: int = 512, seed: int = 0
) -> Scratchpad:
    """All states and the answer in one greedy text."""
    pad = Pad() if pad is None else pad
    began = time.perf_counter()
    found = one(generator, question, max_tokens, stop=[pad.stop], seed=seed)
    states, _, _ = found.text.partition(pad.done)
    answer = pad.answer(found.text)
    ended: Ended = "done" if answer is not None else "error" if found.finish == "error" else "length"
    written = tuple(state.strip() for state in states.split(pad.mark) if state.strip())
    return Scratchpad(written, answer, ended, Spent(found.tokens, 1, 0, time.perf_counter() - began))


def inductive(
    generator: Generator,
    question: str,
    first: str,
    pad: Pad | None = None,
    *,
    join: Callable[[str, str], str] = lambda question, state: f"{question}{state}",
    max_steps: int = 64,
    max_tokens: int = 64,
    seed: int = 0,
) -> Scratchpad:
    """State after state, each from the question and the one before, until one begins with `pad.done`.

    first: the state to begin with. join(question, state): what the model sees. max_tokens: of one state. A state that occurs
    a second time would come for ever: it ends the pad.
    """
    pad = Pad() if pad is None else pad
    began = time.perf_counter()
    states, seen = [first.strip()], {first.strip()}
    spent = Spent()
    ended: Ended = "steps"
    answer: str | None = None
    for _ in range(max_steps):
        found = one(generator, join(question, states[-1]), max_tokens, stop=[pad.mark, pad.stop], seed=seed)
        spent += Spent(found.tokens, 1)
        if found.finish != "stop" or not found.text.strip():
            ended = "error" if found.finish == "error" or not found.text.strip() else "length"
            break
        state = found.text.strip()
        if pad.done in state:
            answer, ended = pad.answer(state), "done"
            break
        states.append(state)
        if state in seen:
            ended = "repeated"
            break
        seen.add(state)
    return Scratchpad(tuple(states), answer, ended, spent + Spent(seconds=time.perf_counter() - began))
