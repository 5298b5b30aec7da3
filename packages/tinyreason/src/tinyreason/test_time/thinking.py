"""Thinking with a budget (budget forcing, arXiv 2501.19393): at most so many tokens of thought, then an answer.

    prompt <think> ... at most `budget` tokens ... </think> answer

A thought that does not end in time is ended for the model. least: a thought that ends sooner is asked to go on with `wait`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from tinyreason.completion import Completion, Generator, Spent
from tinyreason.test_time.one import one


@dataclass(frozen=True)
class Thought:
    """What was thought, whether its end was forced, the completion behind it, and what it cost."""

    thinking: str
    forced: bool
    answer: Completion
    spent: Spent


def think(
    generator: Generator,
    prompt: str,
    budget: int,
    *,
    answer_tokens: int = 64,
    tags: tuple[str, str] = ("<think>", "</think>"),
    least: int = 0,
    wait: str = " Wait,",
    temperature: float = 0.0,
    stop: Sequence[str] = (),
    seed: int = 0,
) -> Thought:
    """Raises ValueError for a negative budget, and a least above it. budget 0: an empty thought."""
    if not 0 <= least <= budget:
        raise ValueError(f"think: at least {least} of a budget of {budget} tokens")
    began = time.perf_counter()
    opened, closed = tags
    thinking, used, generations, ended = "", 0, 0, budget == 0
    while not ended:
        found = one(
            generator,
            prompt + opened + thinking,
            budget - used,
            stop=[closed],
            temperature=temperature,
            seed=seed + generations,
        )
        thinking, used, generations = thinking + found.text, used + found.tokens, generations + 1
        if found.finish != "stop":
            break
        if used >= least or used >= budget or not found.tokens:
            ended = True
        else:
            thinking += wait
    answer = one(
        generator,
        f"{prompt}{opened}{thinking}{closed}",
        answer_tokens,
        stop=stop,
        temperature=temperature,
        seed=seed,
    )
    spent = Spent(used + answer.tokens, generations + 1, len(answer.calls), time.perf_counter() - began)
    return Thought(thinking, not ended, answer, spent)
