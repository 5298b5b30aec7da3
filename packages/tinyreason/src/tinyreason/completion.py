"""What generates text and what judges it, as tinyreason sees them: anything with these methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

Finish = Literal["stop", "length", "error"]


@dataclass(frozen=True, slots=True)
class Spent:
    """What was paid for: tokens that a model wrote or was given within answers, generations, tool calls, seconds."""

    tokens: int = 0
    generations: int = 0
    calls: int = 0
    seconds: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.tokens + other.tokens,
            self.generations + other.generations,
            self.calls + other.calls,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool: its name, what was asked, and what was answered (`error: ...` where it failed)."""

    tool: str
    request: str
    result: str

    @property
    def failed(self) -> bool:
        return self.result.startswith("error: ")


@dataclass(frozen=True, slots=True)
class Completion:
    """A text that continues a prompt, without the stop string that ended it.

    tokens: how many it has. logprob: the sum of their log-probabilities, where the generator tells. finish: "stop", "length"
    (max_tokens or context), or "error" (nothing came; `text` is then empty). calls: the tools it called, in order.
    """

    text: str
    tokens: int = 0
    finish: Finish = "stop"
    logprob: float | None = None
    calls: tuple[Call, ...] = field(default=())


class Generator(Protocol):
    """Continues texts."""

    def generate(
        self,
        prompts: list[str],
        *,
        n: int,
        max_tokens: int,
        temperature: float,
        stop: Sequence[str],
        seed: int,
    ) -> list[list[Completion]]:
        """`n` completions of each prompt. The same arguments give the same completions where the generator can."""
        ...


class Scorer(Protocol):
    """Judges completions: higher is better, 0 to 1 where it is a probability of being right."""

    def score(self, prompt: str, completions: list[Completion]) -> list[float]: ...
