"""Did the model see the test? n-grams of task items that also stand in training texts (13-grams, as in arXiv 2005.14165).

Words are runs of letters and digits, case-folded, so that punctuation and line breaks hide nothing. An item of fewer words
than n is looked for whole; one of fewer than `least` words is too common to say anything and is not counted. The n-grams of the
items are held in memory, the training texts are read once and never held.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from tinyeval.items import Item

DEFAULT_N = 13
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Contamination:
    """Of `items` counted, `contaminated` share an n-gram with the texts; `overlaps`: id -> share of its n-grams found there,
    of those alone. `uncounted` items were too short, `texts` were read."""

    items: int
    contaminated: int
    overlaps: Mapping[str, float]
    uncounted: int
    texts: int

    @property
    def share(self) -> float:
        """Contaminated of counted items; 0 where none was counted."""
        return self.contaminated / self.items if self.items else 0.0


def ngrams(text: str, n: int = DEFAULT_N) -> Iterator[tuple[str, ...]]:
    """The word n-grams of a text in order; none for a text of fewer words."""
    found = _WORD.findall(text.casefold())
    return (tuple(found[at : at + n]) for at in range(len(found) - n + 1))


def contamination(items: Iterable[Item], texts: Iterable[str], *, n: int = DEFAULT_N, least: int = 8) -> Contamination:
    """How much of ``items`` (prompt, choices and answer together) stands in ``texts``.

    Raises ValueError unless 1 <= least <= n.
    """
    if not 1 <= least <= n:
        raise ValueError(f"contamination: least {least} is not between 1 and n = {n}")
    of_item: dict[str, set[tuple[str, ...]]] = {}
    uncounted = 0
    for item in items:
        count = len(_WORD.findall(item.text.casefold()))
        if count < least:
            uncounted += 1
        else:
            of_item[item.id] = set(ngrams(item.text, min(n, count)))
    wanted: set[tuple[str, ...]] = set().union(*of_item.values())
    lengths: dict[
        tuple[str, ...], set[int]
    ] = {}  # by their first `least` words: most places in a text begin none of them
    for gram in wanted:
        lengths.setdefault(gram[:least], set()).add(len(gram))
    found: set[tuple[str, ...]] = set()
    read = 0
    for text in texts:
        read += 1
        found.update(_found(_WORD.findall(text.casefold()), wanted, lengths, least))
    overlaps = {name: len(grams & found) / len(grams) for name, grams in of_item.items() if grams & found}
    return Contamination(len(of_item), len(overlaps), overlaps, uncounted, read)


def _found(
    words: Sequence[str], wanted: Set[tuple[str, ...]], lengths: Mapping[tuple[str, ...], Set[int]], least: int
) -> Iterator[tuple[str, ...]]:
    for at in range(len(words) - least + 1):
        for length in lengths.get(tuple(words[at : at + least]), ()):
            gram = tuple(words[at : at + length])
            if gram in wanted:
                yield gram
