"""Generators whose every word is known beforehand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinyreason import Completion


@dataclass
class Scripted:
    """Continues a prompt by `write(prompt, sample)`, word by word as tokens, cut at the first stop string and at max_tokens."""

    write: Callable[[str, int], str]
    asked: list[dict[str, Any]] = field(default_factory=list)

    def generate(
        self, prompts: list[str], *, n: int, max_tokens: int, temperature: float, stop: Sequence[str], seed: int
    ) -> list[list[Completion]]:
        settings = {"n": n, "max_tokens": max_tokens, "temperature": temperature, "stop": list(stop), "seed": seed}
        self.asked.append({"prompts": list(prompts), **settings})
        return [[self._completion(self.write(p, seed + s), max_tokens, stop) for s in range(n)] for p in prompts]

    @staticmethod
    def _completion(text: str, max_tokens: int, stop: Sequence[str]) -> Completion:
        cuts = [at for at in (text.find(one) for one in stop) if at >= 0]
        text = text[: min(cuts)] if cuts else text
        words = text.split(" ")
        if len(words) > max_tokens:
            return Completion(" ".join(words[:max_tokens]), max_tokens, "length")
        return Completion(text, len(words), "stop", -float(len(words)))


def silent(prompt: str, sample: int) -> str:
    """Writes nothing."""
    return ""


class Nothing:
    """Returns no completion at all."""

    def generate(self, prompts: list[str], **settings: Any) -> list[list[Completion]]:
        return [[] for _ in prompts]
