"""The n-gram model is interpolated modified Kneser-Ney as published, over documents that never see each
other.

Reference: the formula written as float64 loops over dictionaries (Chen and Goodman 1998), no code shared.
"""

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest

from tinyeval import NgramModel, ngram

VOCAB = 5


def documents(seed: int, count: int, longest: int, vocab: int = VOCAB) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.full(vocab, 0.4))
    return [rng.choice(vocab, size=rng.integers(0, longest), p=share).astype(np.uint16) for _ in range(count)]


class Reference:
    """p_KN by definition: counts in dictionaries, one probability at a time."""

    def __init__(self, texts: list[np.ndarray], vocab: int, order: int, fallback: tuple[float, ...]) -> None:
        self.vocab, self.order = vocab, order
        grams: dict[tuple[str | int, ...], int] = defaultdict(int)
        for text in texts:
            row = ["<s>"] * (order - 2) + [int(t) for t in text]
            for at in range(max(order - 2, 0) + 1, len(row)):
                grams[tuple(row[at - order + 1 : at + 1])] += 1
        self.counts = {order: dict(grams)}
        for length in range(order - 1, 0, -1):
            left = defaultdict(set)
            for gram in self.counts[length + 1]:
                left[gram[1:]].add(gram[0])
            self.counts[length] = {gram: len(seen) for gram, seen in left.items()}
        self.discounts = {}
        for length, table in self.counts.items():
            n = [0] + [sum(1 for c in table.values() if c == times) for times in (1, 2, 3, 4)]
            d = fallback
            if all(n[1:]):
                y = n[1] / (n[1] + 2 * n[2])
                d = (1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3])
                if not all(0 < value <= i for i, value in enumerate(d, start=1)):
                    d = fallback
            self.discounts[length] = (0.0, *d)

    def probability(self, context: tuple[str | int, ...], token: int) -> float:
        length = len(context) + 1
        lower = 1 / self.vocab if length == 1 else self.probability(context[1:], token)
        table, d = self.counts[length], self.discounts[length]
        followers = {g: c for g, c in table.items() if g[:-1] == context}
        total = sum(followers.values())
        if not total:
            return lower
        count = table.get((*context, token), 0)
        mass = sum(d[min(c, 3)] for c in followers.values())
        return (count - d[min(count, 3)]) / total + mass / total * lower

    def log2(self, text: np.ndarray) -> list[float]:
        row = ["<s>"] * (self.order - 2) + [int(t) for t in text]
        first = max(self.order - 2, 0) + 1
        return [
            math.log2(self.probability(tuple(row[at - self.order + 1 : at]), int(row[at])))
            for at in range(first, len(row))
        ]


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize(("seed", "count"), [(0, 3), (1, 12), (2, 40)])
def test_equals_the_published_formula(order: int, seed: int, count: int) -> None:
    train, held_out = documents(seed, count, 30), documents(seed + 100, 6, 20)
    model = NgramModel.train(train, vocab_size=VOCAB, order=order)
    reference = Reference(train, VOCAB, order, ngram.FALLBACK_DISCOUNTS)
    expected = [reference.log2(text) for text in held_out]
    for text, row in zip(held_out, expected, strict=True):
        np.testing.assert_allclose(model.log2_probabilities(text), row, rtol=0, atol=1e-12)
    assert model.bits(held_out) == pytest.approx(-sum(map(sum, expected)), abs=1e-9)


def test_estimated_discounts_are_exercised() -> None:
    """With enough text every n_i is positive, and the estimate replaces the fallback at the highest order."""
    train = documents(3, 150, 40, vocab=12)
    model = NgramModel.train(train, vocab_size=12, order=3)
    reference = Reference(train, 12, 3, ngram.FALLBACK_DISCOUNTS)
    assert reference.discounts[3][1:] != ngram.FALLBACK_DISCOUNTS
    for text in documents(4, 3, 12, vocab=12):
        np.testing.assert_allclose(model.log2_probabilities(text), reference.log2(text), rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_probabilities_sum_to_one_in_every_context(order: int) -> None:
    """Seen, unseen and document-start contexts alike; token 4 never occurs in training."""
    train = [text[text != 4] for text in documents(5, 20, 25)]
    model = NgramModel.train(train, vocab_size=VOCAB, order=order)
    for length in (1, 2, 3):
        for context in itertools.product(range(VOCAB), repeat=length):
            last = [model.log2_probabilities(np.array([*context, token]))[-1] for token in range(VOCAB)]
            assert np.exp2(last).sum() == pytest.approx(1.0, abs=1e-12)
            assert np.isfinite(last).all()


def test_documents_never_see_each_other() -> None:
    """Order and neighbours of documents change nothing; one long document is another model."""
    train = documents(6, 15, 20)
    model = NgramModel.train(train, vocab_size=VOCAB)
    backwards = NgramModel.train(train[::-1], vocab_size=VOCAB)
    probe = documents(7, 5, 20)
    assert model.bits(probe) == backwards.bits(probe)
    assert model.bits(probe) == pytest.approx(sum(model.bits([text]) for text in probe), abs=1e-9)
    assert model.bits([np.concatenate(probe)]) != pytest.approx(model.bits(probe), abs=1e-3)


def test_blocks_do_not_change_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    train, probe = documents(8, 60, 30), documents(9, 10, 30)
    whole = NgramModel.train(train, vocab_size=VOCAB).bits(probe)
    monkeypatch.setattr(ngram, "BLOCK_TOKENS", 37)
    assert NgramModel.train(iter(train), vocab_size=VOCAB).bits(iter(probe)) == pytest.approx(whole, abs=1e-9)


def test_more_context_helps_where_there_is_structure() -> None:
    """x[t+2] = x[t] + x[t+1] mod 7 is noise to a bigram and certain to a trigram."""
    rng = np.random.default_rng(10)
    made = []
    for _ in range(300):
        row = [0, *rng.integers(0, 7, size=2).tolist()]
        while len(row) < 40:
            row.append((row[-1] + row[-2]) % 7)
        made.append(np.array(row))
    held_out, train = made[:20], made[20:]
    targets = sum(text.size - 1 for text in held_out)
    models = {order: NgramModel.train(train, vocab_size=7, order=order) for order in (1, 2, 3)}
    per_token = {order: model.bits(held_out) / targets for order, model in models.items()}
    assert per_token[3] < 0.4 < 2.0 < per_token[2] <= per_token[1] + 0.05


def test_the_first_token_is_context_only() -> None:
    model = NgramModel.train(documents(11, 10, 20), vocab_size=VOCAB)
    assert model.log2_probabilities(np.array([1])).size == 0
    assert model.bits([np.array([1]), np.array([], dtype=np.int64)]) == 0.0
    assert model.log2_probabilities(np.array([1, 2, 3])).shape == (2,)


@pytest.mark.parametrize(
    ("texts", "settings", "message"),
    [
        ([np.array([0, 1])], {"order": 4}, "order must be 1, 2 or 3, not 4"),
        ([np.array([0, 1])], {"vocab_size": 2**22}, "does not fit 64-bit keys"),
        ([np.array([0, 9])], {}, "token 9 lies outside the vocabulary of 5"),
        ([np.array([0, -1])], {}, "token -1 lies outside"),
        ([np.array([0.0, 1.0])], {}, r"1-D integer arrays, not float64 \(2,\)"),
        ([np.zeros((2, 2), dtype=int)], {}, r"1-D integer arrays, not int64 \(2, 2\)"),
        ([np.array([3])], {}, "needs documents of two tokens or more, and got none"),
        ([], {}, "needs documents of two tokens or more, and got none"),
    ],
)
def test_bad_input_is_one_clear_line(texts: list[np.ndarray], settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        NgramModel.train(texts, **{"vocab_size": VOCAB, **settings})
    assert "\n" not in str(caught.value)
