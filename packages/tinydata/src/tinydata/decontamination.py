"""Keeps evaluation texts out of training: documents that share a word n-gram with them are dropped or cut (13-grams, as in
arXiv 2005.14165, appendix C).

Words are runs of letters and digits, case folded, so that punctuation and line breaks hide nothing. The n-grams are passed in:
`ngram_set` makes them of texts, and any set of tuples of words will do, such as those of an evaluation package that counts the
same way. A text of fewer than n words is looked for whole; one of fewer than `least` words is too common to say anything.

    drop   a document that holds an n-gram is left out
    cut    the n-gram and `margin` characters around it are left out, and what stands before and behind are documents of their
           own if they have `shortest` characters; a document that would fall into more than `pieces` is left out

Memory: the n-grams, and one document at a time.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Set
from dataclasses import replace
from itertools import accumulate
from typing import Literal

from tinydata.documents import Document

Ngram = tuple[str, ...]

N = 13
LEAST = 8

_WORD = re.compile(r"[^\W_]+")


def words_of(text: str) -> list[str]:
    """The words that are compared."""
    return _WORD.findall(text.casefold())


def word_ngrams(text: str, n: int = N) -> Iterator[Ngram]:
    """The word n-grams of a text in order; none for a text of fewer words."""
    found = words_of(text)
    return (tuple(found[at : at + n]) for at in range(len(found) - n + 1))


def ngram_set(texts: Iterable[str], n: int = N, least: int = LEAST) -> set[Ngram]:
    """The n-grams of evaluation texts (prompt, choices and answer together are one text).

    Raises ValueError unless 1 <= least <= n.
    """
    if not 1 <= least <= n:
        raise ValueError(f"decontamination: least {least} is not between 1 and n = {n}")
    found: set[Ngram] = set()
    for text in texts:
        count = len(words_of(text))
        if count >= least:
            found.update(word_ngrams(text, min(n, count)))
    return found


class Decontamination:
    """Passes on documents without the n-grams.

    kept, dropped: documents by their source; of a document that was cut, `kept` has the pieces. cut: documents that were cut,
    by their source.
    """

    def __init__(
        self,
        ngrams: Set[Ngram],
        action: Literal["drop", "cut"] = "drop",
        *,
        margin: int = 200,
        shortest: int = 200,
        pieces: int = 10,
    ) -> None:
        """Raises ValueError for another action, numbers below zero, and an n-gram without words."""
        if action not in ("drop", "cut"):
            raise ValueError(f"decontamination: unknown action {action!r}, expected 'drop' or 'cut'")
        if min(margin, shortest, pieces) < 0:
            raise ValueError("decontamination: margin, shortest and pieces must not be negative")
        if any(not gram for gram in ngrams):
            raise ValueError("decontamination: an n-gram has no words")
        self.action, self.margin, self.shortest, self.pieces = action, margin, shortest, pieces
        self.kept: dict[str, int] = {}
        self.dropped: dict[str, int] = {}
        self.cut: dict[str, int] = {}
        self._ngrams = ngrams
        # By their first words, as many as the shortest has: most places in a text begin none of them.
        self._begin = min(map(len, ngrams), default=1)
        self._lengths: dict[Ngram, tuple[int, ...]] = {}
        for gram in ngrams:
            known = self._lengths.get(gram[: self._begin], ())
            if len(gram) not in known:
                self._lengths[gram[: self._begin]] = tuple(sorted((*known, len(gram))))
        self._first = frozenset(gram[0] for gram in ngrams)

    def clean(self, documents: Iterable[Document]) -> Iterator[Document]:
        """The documents, or what is left of them, in their order."""
        for document in documents:
            if next(self._found(words_of(document.text)), None) is None:
                self._count(self.kept, document)
                yield document
                continue
            left = list(self._left(document.text)) if self.action == "cut" else []
            if not left or len(left) > self.pieces:
                self._count(self.dropped, document)
                continue
            self._count(self.cut, document)
            for piece in left:
                self._count(self.kept, document)
                yield replace(document, text=piece)

    def _count(self, counts: dict[str, int], document: Document) -> None:
        counts[document.source] = counts.get(document.source, 0) + 1

    def _found(self, words: list[str]) -> Iterator[tuple[int, int]]:
        """(first word, one past the last) of every n-gram in the text, by its first word."""
        first, lengths, begin, ngrams = self._first, self._lengths, self._begin, self._ngrams
        for at, word in enumerate(words):
            if word in first:
                for length in lengths.get(tuple(words[at : at + begin]), ()):
                    if tuple(words[at : at + length]) in ngrams:
                        yield at, at + length

    def _left(self, text: str) -> Iterator[str]:
        """What stands around the n-grams, in pieces that are long enough."""
        places = [match.span() for match in _WORD.finditer(text.casefold())]
        origin = _origins(text)
        start = 0
        for first, stop in self._found(words_of(text)):
            begins, ends = origin(places[first][0]), origin(places[stop - 1][1] - 1) + 1
            before = text[start : max(start, begins - self.margin)].strip()
            if self._usable(before):
                yield before
            start = max(start, min(len(text), ends + self.margin))
        rest = text[start:].strip()
        if self._usable(rest):
            yield rest

    def _usable(self, piece: str) -> bool:
        # A margin may end within a word, and what is left of it may be the word of another n-gram.
        return 0 < len(piece) >= self.shortest and next(self._found(words_of(piece)), None) is None


class _origins:
    """Which character of a text a character of the folded text comes from: some fold to several."""

    def __init__(self, text: str) -> None:
        lengths = [1] if text.isascii() else [len(character.casefold()) for character in text]
        self._ends = list(accumulate(lengths)) if max(lengths, default=1) > 1 else None

    def __call__(self, at: int) -> int:
        return at if self._ends is None else bisect_right(self._ends, at)
