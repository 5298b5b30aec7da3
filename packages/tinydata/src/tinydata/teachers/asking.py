"""What a teacher is asked, and what it, a checker and a sandbox must offer: anything with these methods will do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol


class TeacherError(ValueError):
    """Why teachers' answers cannot be imported: a damaged cache, one that is in use, problems that make no sense. One line."""


class Completion(Protocol):
    """A text that continues a prompt. finish: "stop", "length", or "error" where nothing came."""

    @property
    def text(self) -> str: ...

    @property
    def finish(self) -> str: ...


class Generator(Protocol):
    """Continues texts: a model on this machine, or a server."""

    def generate(
        self,
        prompts: list[str],
        *,
        n: int,
        max_tokens: int,
        temperature: float,
        stop: Sequence[str],
        seed: int,
    ) -> Sequence[Sequence[Completion]]:
        """`n` completions of each prompt."""
        ...


class Checker(Protocol):
    """Says whether two answers are the same one; never raises for what they say."""

    def equal(self, a: str, b: str) -> bool: ...


class CodeResult(Protocol):
    """What a program printed, and why it did not end well (None: it did)."""

    @property
    def output(self) -> str: ...

    @property
    def error(self) -> str | None: ...


class CodeRunner(Protocol):
    """Runs Python that nobody has read, within limits."""

    def run(self, source: str, seconds: float, bytes: int) -> CodeResult: ...


@dataclass(frozen=True, slots=True)
class Problem:
    """What is asked, and its answer where it is known."""

    question: str
    answer: str | None = None


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How a teacher is asked. prompt: what stands around the question, `{question}` in it; n: samples of each problem."""

    prompt: str = "{question}\n"
    n: int = 4
    max_tokens: int = 512
    temperature: float = 0.7
    stop: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if "{question}" not in self.prompt:
            raise ValueError("teachers: the prompt has no {question} in it")
        if self.n < 1 or self.max_tokens < 1:
            raise ValueError(f"teachers: n {self.n} and max_tokens {self.max_tokens} must be positive")
        if not self.temperature >= 0:
            raise ValueError(f"teachers: temperature {self.temperature} is below 0")

    def asked(self, problem: Problem) -> str:
        """The prompt for a problem; braces in a question stay as they are."""
        return self.prompt.replace("{question}", problem.question)

    def key(self, teacher: str, problem: Problem) -> str:
        """What an answer depends on, as a hash in hex."""
        everything = {**asdict(self), "prompt": self.asked(problem), "teacher": teacher}
        return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()
