"""What tinyeval asks of a language model: lm-eval's three methods, on plain texts instead of its request objects.

Any object with these methods will do; nothing is inherited. `harness` turns an lm-eval model into one and one into an
lm-eval model. Log-probabilities are natural logarithms, summed over the tokens of the text that is scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from tinyeval.items import Item

Pair = tuple[str, str]
Likelihood = tuple[float, bool]


class LanguageModel(Protocol):
    """Scores and continues texts."""

    def loglikelihood(self, pairs: Sequence[Pair]) -> list[Likelihood]:
        """ln p(continuation | context) of each (context, continuation), and whether greedy decoding would write it.

        A space between the two belongs to the continuation. An empty context is the start of a document.
        """
        ...

    def loglikelihood_rolling(self, texts: Sequence[str]) -> list[float]:
        """ln p of each whole text from the start of a document, each token scored once with as much context as fits."""
        ...

    def generate_until(self, prompts: Sequence[str], until: Sequence[str], max_tokens: int) -> list[str]:
        """Greedy continuations of at most ``max_tokens`` tokens, cut before the first string of ``until``."""
        ...


@runtime_checkable
class Tokenized(Protocol):
    """A model that also says what its tokens are: needed for anything counted per token, such as perplexity."""

    @property
    def tokenizer_id(self) -> str:
        """Equal for two models exactly if they cut every text into the same tokens, such as the tokenizer file's hash."""
        ...

    def pieces(self, text: str) -> list[str]:
        """The texts of the tokens of ``text``; joined, they are ``text``."""
        ...


@runtime_checkable
class GridModel(Protocol):
    """A model that answers puzzles in place: it sees a whole grid and fills it, and has no next token."""

    def solve(self, items: Sequence[Item]) -> list[list[str]]:
        """Of each item the attempts at its answer, the best first: its cells in order, as words with spaces between them."""
        ...


def cut(text: str, until: Sequence[str]) -> str:
    """``text`` up to the first occurrence of any string of ``until``."""
    ends = [at for at in (text.find(one) for one in until if one) if at >= 0]
    return text[: min(ends)] if ends else text
