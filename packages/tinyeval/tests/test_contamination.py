"""Overlap of items and training texts against a search of the texts for each stretch of words, one by one."""

from __future__ import annotations

import numpy as np
import pytest

from tinyeval import Item, contamination
from tinyeval.contamination import ngrams


def test_by_hand() -> None:
    items = [
        Item("seen", "How many apples has Tom if he buys three bags of four apples each today?", answer="12"),
        Item("new", "Which of the planets that go round the sun is the one with the most rings?"),
        Item("short", "one two three four five six seven eight"),
        Item("tiny", "What is 2 + 2?", answer="4"),
    ]
    texts = [
        "... HOW many apples has Tom,\nif he buys three bags of four apples - each ...",
        "He counted: one, two, three, four, five, six, seven, eight!",
        "What is 2 + 2? 4",
    ]
    found = contamination(items, iter(texts))
    assert (found.items, found.contaminated, found.uncounted, found.texts) == (3, 2, 1, 3)
    assert found.overlaps == {"seen": 2 / 4, "short": 1.0}
    assert found.share == 2 / 3
    assert contamination(items, texts, n=15).overlaps == {"short": 1.0}, "14 of its 16 words in a row are not 15"
    assert contamination([], texts).share == 0.0
    with pytest.raises(ValueError, match="least 8 is not between 1 and n = 5"):
        contamination(items, texts, n=5)


def test_against_a_search_of_every_stretch() -> None:
    chance = np.random.default_rng(0)

    def text(length: int) -> str:
        return " ".join(f"w{n}" for n in chance.integers(0, 3, length))

    items = [Item(str(n), text(int(chance.integers(2, 12)))) for n in range(60)]
    texts = [text(40) for _ in range(5)]
    found = contamination(items, texts, n=6, least=4)
    padded = [f" {one} " for one in texts]
    for item in items:
        words = item.prompt.split()
        if len(words) < 4:
            assert item.id not in found.overlaps
            continue
        stretches = {" ".join(words[at : at + 6]) for at in range(max(1, len(words) - 5))}
        share = sum(any(f" {one} " in each for each in padded) for one in stretches) / len(stretches)
        assert found.overlaps.get(item.id, 0.0) == share
    assert 0 < found.contaminated < found.items


def test_ngrams() -> None:
    assert list(ngrams("A, b c!", 2)) == [("a", "b"), ("b", "c")]
    assert list(ngrams("a", 2)) == []
