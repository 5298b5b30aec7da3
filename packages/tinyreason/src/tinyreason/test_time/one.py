"""One completion of each prompt, whatever a generator does."""

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
    return each(generator, [prompt], max_tokens, stop=stop, temperature=temperature, seed=seed)[0]


def each(
    generator: Generator,
    prompts: Sequence[str],
    max_tokens: int,
    *,
    stop: Sequence[str] = (),
    temperature: float = 0.0,
    seed: int = 0,
) -> list[Completion]:
    """A completion of each prompt, asked for in one call; what the generator does not return is empty with finish "error"."""
    if not prompts:
        return []
    found = generator.generate(list(prompts), n=1, max_tokens=max_tokens, temperature=temperature, stop=stop, seed=seed)
    given = [*found, *([[]] * (len(prompts) - len(found)))]
    return [completions[0] if completions else Completion("", finish="error") for completions in given]
