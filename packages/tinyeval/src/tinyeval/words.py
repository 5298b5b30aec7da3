"""Share of sampled words that occur in a corpus: does a model spell, or does it invent letter strings?

A word is a maximal run of letters - precisely, of Unicode alphanumerics without decimal digits and
underscore, the pattern ``[^\\W\\d_]+`` - after case folding, so ``Self.x_2`` holds the words ``self`` and
``x``. Every occurrence counts, and a word that the end of a sample cuts off counts as it stands.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass

_WORD = re.compile(r"[^\W\d_]+")


def words(text: str) -> list[str]:
    """The words of ``text`` in order, case-folded."""
    return _WORD.findall(text.casefold())


def vocabulary(texts: Iterable[str]) -> frozenset[str]:
    """Every distinct word of ``texts``, read once."""
    found: set[str] = set()
    for text in texts:
        found.update(words(text))
    return frozenset(found)


@dataclass(frozen=True)
class WordCoverage:
    """``known`` of ``total`` sampled words occur in the corpus; ``unknown``: the others, by frequency."""

    total: int
    known: int
    unknown: tuple[tuple[str, int], ...]

    @property
    def share(self) -> float:
        """Known over total; 0 for a sample without a word, which is no sign of spelling."""
        return self.known / self.total if self.total else 0.0


def word_coverage(samples: Iterable[str], known_words: Set[str]) -> WordCoverage:
    """Look every word of ``samples`` up in ``known_words``, the :func:`vocabulary` of the corpus."""
    counts = Counter(word for text in samples for word in words(text))
    unknown = sorted(
        ((word, count) for word, count in counts.items() if word not in known_words),
        key=lambda entry: (-entry[1], entry[0]),
    )
    total = counts.total()
    return WordCoverage(total, total - sum(count for _, count in unknown), tuple(unknown))
