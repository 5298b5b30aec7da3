"""tinydata drops the documents that tinyeval would call contaminated, and no others: both packages count n-grams alike."""

from __future__ import annotations

import random

from tinydata import Decontamination, Document, ngram_set
from tinydata.decontamination import word_ngrams
from tinyeval.contamination import contamination, ngrams
from tinyeval.items import Item

ALPHABET = ["a", "B", "c", "İ", "ß", "ŉ", "'", "_", "1", " ", " ", "\n", "-", "ﬁ", "é", "e\u0301", "二"]


def test_ngrams_are_the_same() -> None:
    draw = random.Random(0)
    for _ in range(500):
        text = "".join(draw.choices(ALPHABET, k=draw.randrange(40)))
        assert list(word_ngrams(text, 3)) == list(ngrams(text, 3))


def test_what_one_finds_the_other_drops() -> None:
    draw = random.Random(1)
    words = ["one", "two", "three", "four", "five", "six"]
    items = [Item(id=str(number), prompt=" ".join(draw.choices(words, k=draw.randrange(1, 8)))) for number in range(30)]
    wanted = ngram_set((item.text for item in items), n=5, least=3)
    verdicts = set()
    for _ in range(300):
        text = ", ".join(draw.choices(words, k=draw.randrange(2, 16)))
        found = contamination(items, [text], n=5, least=3).contaminated > 0
        assert (list(Decontamination(wanted).clean([Document(text, "a")])) == []) == found
        verdicts.add(found)
    assert verdicts == {True, False}
