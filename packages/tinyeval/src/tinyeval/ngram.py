"""Interpolated modified Kneser-Ney n-gram model over token ids: the baseline a neural model must beat.

Chen and Goodman, "An Empirical Study of Smoothing Techniques for Language Modeling" (TR-10-98, Harvard,
1998), equations for p_KN with three discounts. With h the n-1 tokens before w, h' = h without its oldest
token and V the vocabulary size:

    p_n(w | h) = (c(hw) - D(c(hw))) / c(h.)  +  gamma(h) p_{n-1}(w | h'),        p_0(w) = 1 / V
    gamma(h)   = (D1 N1(h.) + D2 N2(h.) + D3 N3+(h.)) / c(h.)

c is the count for the highest order and, for every lower one, the number of distinct tokens seen before hw.
A context never seen contributes nothing: p_n(w | h) = p_{n-1}(w | h'). So every token has a probability
above zero and each distribution sums to one.

A document is an integer array. Its first token (the separator, as documents are stored) is context only;
every later token is predicted once, from tokens of the same document alone. Where fewer than n-1 tokens
precede, a start symbol outside the vocabulary fills the context. Scores therefore cover exactly the targets
of a language model's own loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK_TOKENS = 4_000_000  # counted at a time: memory holds one block and the distinct n-grams
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)  # as KenLM's --discount_fallback, where counts of counts cannot say


@dataclass(frozen=True)
class _Order:
    """One order's table, sorted by key: an n-gram is its tokens as digits of an integer in base V + 1."""

    grams: NDArray[np.int64]  # (G,)
    shares: NDArray[np.float64]  # (G,) discounted count over the count of the context
    contexts: NDArray[np.int64]  # (C,)
    backoffs: NDArray[np.float64]  # (C,) gamma


class NgramModel:
    """Train with :meth:`train`; then :meth:`bits` scores documents, :meth:`log2_probabilities` one."""

    def __init__(self, order: int, vocab_size: int, tables: Sequence[_Order]) -> None:
        self.order = order
        self.vocab_size = vocab_size
        self._tables = tuple(tables)  # from unigram to the highest order

    @classmethod
    def train(cls, documents: Iterable[NDArray[np.integer]], *, vocab_size: int, order: int = 3) -> NgramModel:
        """Count the n-grams of ``documents`` (1-D integer arrays, read once) and estimate the discounts.

        Raises ValueError for an order outside 1..3, a vocabulary that 64-bit keys cannot hold, a token
        outside the vocabulary, or documents without a single target.
        """
        if order not in (1, 2, 3):
            raise ValueError(f"order must be 1, 2 or 3, not {order}")
        if vocab_size < 1 or (vocab_size + 1) ** order > np.iinfo(np.int64).max:
            raise ValueError(f"vocab_size {vocab_size} does not fit 64-bit keys of order {order}")
        grams = np.empty(0, dtype=np.int64)
        counts = np.empty(0, dtype=np.int64)
        for block in _windows(documents, order, vocab_size):
            grams, counts = _merge(grams, counts, *np.unique(block, return_counts=True))
        if grams.size == 0:
            raise ValueError("an n-gram model needs documents of two tokens or more, and got none")
        tables: list[_Order] = []
        base = vocab_size + 1
        for length in range(order, 0, -1):
            tables.append(_estimate(grams, counts, base))
            # Less its oldest token, a gram is left once for each such token: the continuation count.
            grams, counts = np.unique(grams % base ** (length - 1), return_counts=True)
        return cls(order, vocab_size, tables[::-1])

    def bits(self, documents: Iterable[NDArray[np.integer]]) -> float:
        """Sum of -log2 p over every target of ``documents`` (each document's tokens after its first)."""
        total = 0.0
        for block in _windows(documents, self.order, self.vocab_size):
            grams, counts = np.unique(block, return_counts=True)
            total -= float(np.dot(counts, self._log2(grams)))
        return total

    def log2_probabilities(self, document: NDArray[np.integer]) -> NDArray[np.float64]:
        """log2 p of each target of one document: (T,) tokens -> (max(T - 1, 0),) float64."""
        blocks = [self._log2(block) for block in _windows([document], self.order, self.vocab_size)]
        return np.concatenate(blocks) if blocks else np.empty(0)

    def log2_distribution(self, context: NDArray[np.integer]) -> NDArray[np.float64]:
        """log2 p of every token after ``context``, a document's first token and more: (T >= 1,) -> (V,) float64."""
        tokens = np.asarray(context)[
            -self.order :
        ]  # one more than is looked at: the first token of these is context only
        if not tokens.size:
            raise ValueError("a distribution needs a context of at least one token, the one a document starts with")
        (block,) = _windows([np.append(tokens.astype(np.int64), 0)], self.order, self.vocab_size)
        return self._log2(block[-1] + np.arange(self.vocab_size))

    def _log2(self, grams: NDArray[np.int64]) -> NDArray[np.float64]:
        base = self.vocab_size + 1
        probability = np.full(grams.shape, 1.0 / self.vocab_size)
        for length, table in enumerate(self._tables, start=1):
            suffix = grams % base**length
            backoff = _look_up(table.contexts, table.backoffs, suffix // base, missing=1.0)
            probability = _look_up(table.grams, table.shares, suffix, missing=0.0) + backoff * probability
        return np.log2(probability)


def _windows(documents: Iterable[NDArray[np.integer]], order: int, vocab_size: int) -> Iterator[NDArray[np.int64]]:
    """Keys of the ``order``-gram that ends at each target, in order, about BLOCK_TOKENS at a time."""
    pending: list[NDArray[np.integer]] = []
    held = 0
    for document in documents:
        tokens = np.asarray(document)
        if tokens.ndim != 1 or not np.issubdtype(tokens.dtype, np.integer):
            raise ValueError(f"documents must be 1-D integer arrays, not {tokens.dtype} {tokens.shape}")
        if tokens.size < 2:
            continue
        pending.append(tokens)
        held += tokens.size
        if held >= BLOCK_TOKENS:
            yield _keys(pending, order, vocab_size)
            pending, held = [], 0
    if pending:
        yield _keys(pending, order, vocab_size)


def _keys(documents: Sequence[NDArray[np.integer]], order: int, vocab_size: int) -> NDArray[np.int64]:
    tokens = np.concatenate(documents).astype(np.int64)
    outside = tokens[(tokens < 0) | (tokens >= vocab_size)]
    if outside.size:
        raise ValueError(
            f"token {outside[0]} lies outside the vocabulary of {vocab_size};"
            " were the documents made by another tokenizer?"
        )
    starts = np.cumsum([0, *(document.size for document in documents[:-1])])
    is_target = np.ones(tokens.size, dtype=bool)
    is_target[starts] = False
    if order == 3:  # a document's second token has one token before it: the start symbol is the other
        tokens = np.insert(tokens, starts, vocab_size)
        is_target = np.insert(is_target, starts, False)
    at = np.flatnonzero(is_target)
    keys = np.zeros(at.size, dtype=np.int64)
    for back in range(order - 1, -1, -1):
        keys = keys * (vocab_size + 1) + tokens[at - back]
    return keys


def _merge(
    grams: NDArray[np.int64],
    counts: NDArray[np.int64],
    more: NDArray[np.int64],
    its_counts: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Add two sorted count tables."""
    if grams.size == 0:
        return more, its_counts
    merged, place = np.unique(np.concatenate((grams, more)), return_inverse=True)
    total = np.zeros(merged.size, dtype=np.int64)
    np.add.at(total, place, np.concatenate((counts, its_counts)))
    return merged, total


def _estimate(grams: NDArray[np.int64], counts: NDArray[np.int64], base: int) -> _Order:
    contexts, first = np.unique(grams // base, return_index=True)  # grams are sorted: one stretch each
    totals = np.add.reduceat(counts, first)
    discounts = np.array((0.0, *_discounts(counts)))[np.minimum(counts, 3)]
    backoffs = np.add.reduceat(discounts, first) / totals
    lengths = np.diff(np.append(first, grams.size))
    return _Order(grams, (counts - discounts) / np.repeat(totals, lengths), contexts, backoffs)


def _discounts(counts: NDArray[np.int64]) -> tuple[float, float, float]:
    """D1, D2, D3+ from the numbers n1..n4 of n-grams counted once, twice, three and four times.

    A small or repetitive corpus can leave an n_i empty or push a D_i out of (0, i]: then all fall back.
    """
    n1, n2, n3, n4 = (int(np.count_nonzero(counts == times)) for times in (1, 2, 3, 4))
    if min(n1, n2, n3, n4) == 0:
        return FALLBACK_DISCOUNTS
    ratio = n1 / (n1 + 2 * n2)
    estimated = (1 - 2 * ratio * n2 / n1, 2 - 3 * ratio * n3 / n2, 3 - 4 * ratio * n4 / n3)
    return estimated if all(0 < d <= i for i, d in enumerate(estimated, start=1)) else FALLBACK_DISCOUNTS


def _look_up(
    keys: NDArray[np.int64], values: NDArray[np.float64], wanted: NDArray[np.int64], *, missing: float
) -> NDArray[np.float64]:
    place = np.minimum(np.searchsorted(keys, wanted), keys.size - 1)
    return np.where(keys[place] == wanted, values[place], missing)
