"""One completion of one prompt, whatever a generator does."""

from __future__ import annotations

from collections.abc import Sequence

from tinyreason.completion import Completion, Generator


def one(
    generator: Generator,
    prompt: str,
    max_tokens: int,
    *,
    stop: Sequence[str] = (),
    temperature: float = 0.0,
    seed: int = 0,
) -> Completion:
    """The completion; a generator that returns nothing gives an empty one with finish "error"."""
    found = generator.generate([prompt], n=1, max_tokens=max_tokens, temperature=temperature, stop=stop, seed=seed)
    return found[0][0] if found and found[0] else Completion("", finish="error")
