"""Scratchpads: intermediate states that are written down before the answer (arXiv 2112.00114, inductive: 2406.06467).

    plain       question s1 # s2 # s3 ... answer        one text: each state is written with all before it in view
    inductive   question s_(i-1) -> s_i                 each state from the question and the state before it alone

In the inductive form nothing older than the last state is in the text that the model sees, so no state can reach through it,
whatever the number of layers, and every step looks like the steps of training however many there are.

Many questions are asked at the same time by `plain_many` and `inductive_many`: each call of the generator has a row for each
pad that is not done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tinyreason.completion import Completion, Generator, Spent
from tinyreason.test_time.one import each

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
    return plain_many(generator, [question], pad, max_tokens=max_tokens, seed=seed)[0]


def plain_many(
    generator: Generator, questions: Sequence[str], pad: Pad | None = None, *, max_tokens: int = 512, seed: int = 0
) -> list[Scratchpad]:
    """`plain` of each question, in one call. The seconds are shared alike."""
    pad = Pad() if pad is None else pad
    began = time.perf_counter()
    found = each(generator, questions, max_tokens, stop=[pad.stop], seed=seed)
    seconds = _share(began, len(questions))
    return [_read(completion, pad, seconds) for completion in found]


def _read(found: Completion, pad: Pad, seconds: float) -> Scratchpad:
    states, _, _ = found.text.partition(pad.done)
    answer = pad.answer(found.text)
    ended: Ended = "done" if answer is not None else "error" if found.finish == "error" else "length"
    written = tuple(state.strip() for state in states.split(pad.mark) if state.strip())
    return Scratchpad(written, answer, ended, Spent(found.tokens, 1, 0, seconds))


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
    limits = {"max_steps": max_steps, "max_tokens": max_tokens, "seed": seed}
    return inductive_many(generator, [question], [first], pad, join=join, **limits)[0]


def inductive_many(
    generator: Generator,
    questions: Sequence[str],
    firsts: Sequence[str],
    pad: Pad | None = None,
    *,
    join: Callable[[str, str], str] = lambda question, state: f"{question}{state}",
    max_steps: int = 64,
    max_tokens: int = 64,
    seed: int = 0,
) -> list[Scratchpad]:
    """`inductive` of each question with its first state, a step of all that go on in one call. The seconds are shared alike."""
    pad = Pad() if pad is None else pad
    began = time.perf_counter()
    pads = [_Open(question, [first.strip()]) for question, first in zip(questions, firsts, strict=True)]
    for _ in range(max_steps):
        going = [one for one in pads if one.ended is None]
        prompts = [join(one.question, one.states[-1]) for one in going]
        for one, found in zip(
            going, each(generator, prompts, max_tokens, stop=[pad.mark, pad.stop], seed=seed), strict=True
        ):
            one.take(found, pad)
    seconds = Spent(seconds=_share(began, len(pads)))
    return [Scratchpad(tuple(one.states), one.answer, one.ended or "steps", one.spent + seconds) for one in pads]


@dataclass
class _Open:
    """A pad that is being written."""

    question: str
    states: list[str]
    answer: str | None = None
    ended: Ended | None = None
    spent: Spent = field(default_factory=Spent)

    def take(self, found: Completion, pad: Pad) -> None:
        """What was written next: a state, the answer, or nothing that helps."""
        self.spent += Spent(found.tokens, 1)
        state = found.text.strip()
        if found.finish != "stop" or not state:
            self.ended = "error" if found.finish == "error" or not state else "length"
        elif pad.done in state:
            self.answer, self.ended = pad.answer(state), "done"
        else:
            self.ended = "repeated" if state in self.states else None
            self.states.append(state)


def _share(began: float, count: int) -> float:
    return (time.perf_counter() - began) / max(count, 1)
