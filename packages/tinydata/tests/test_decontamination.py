"""Claim: no document that is passed on holds an n-gram of the evaluation texts; what is dropped or cut is counted; a cut takes
away the n-gram and its surroundings and nothing else.

The reference searches every place of a text for every n-gram.
"""

from __future__ import annotations

import random

import pytest

from tinydata import Decontamination, Document, ngram_set
from tinydata.decontamination import word_ngrams, words_of

WORDS = ["ein", "zwei", "İstanbul", "Straße", "ﬁsh", "don't", "x_1", "42", "The", "SEVEN", "naïve", "ŉ"]


def drawn(draw: random.Random, count: int) -> str:
    return "".join(draw.choice(WORDS) + draw.choice([" ", ", ", "\n", " - "]) for _ in range(count))


def holds(text: str, ngrams: set[tuple[str, ...]]) -> bool:
    words = words_of(text)
    return any(tuple(words[at : at + len(gram)]) == gram for gram in ngrams for at in range(len(words)))


def test_words_are_letters_and_digits_folded() -> None:
    assert words_of("The CAT's Straße, x_1 - 42!") == ["the", "cat", "s", "strasse", "x", "1", "42"]
    assert list(word_ngrams("a b c", 2)) == [("a", "b"), ("b", "c")]
    assert list(word_ngrams("a b", 3)) == []


def test_short_texts_are_looked_for_whole_and_shorter_ones_not_at_all() -> None:
    texts = ["a b c d e", "a b", "a b c"]
    assert ngram_set(texts, n=4, least=3) == {("a", "b", "c", "d"), ("b", "c", "d", "e"), ("a", "b", "c")}
    assert ngram_set(["one two three four five six seven"]) == set()
    with pytest.raises(ValueError, match="least 5 is not between 1 and n = 4"):
        ngram_set(texts, n=4, least=5)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_dropped_are_exactly_those_that_hold_an_ngram(n: int) -> None:
    draw = random.Random(n)
    ngrams = ngram_set((drawn(draw, draw.randrange(1, 8)) for _ in range(40)), n=n, least=1 if n == 2 else 2)
    documents = [Document(drawn(draw, draw.randrange(30)), draw.choice("ab")) for _ in range(600)]
    judge = Decontamination(ngrams)
    clean = list(judge.clean(documents))
    assert clean == [document for document in documents if not holds(document.text, ngrams)]
    assert 0 < len(clean) < len(documents)
    assert sum(judge.kept.values()) == len(clean)
    for source in "ab":
        assert judge.kept[source] + judge.dropped[source] == sum(document.source == source for document in documents)
    assert judge.cut == {}


def test_a_cut_takes_the_ngram_with_its_margin_and_leaves_the_rest() -> None:
    secret = "which planet is the largest of all"
    before, behind = "a" * 40 + " bcd ", " efg" + "h" * 50
    judge = Decontamination(ngram_set([secret], n=7, least=7), "cut", margin=4, shortest=10)
    text = f"{before}Which planet -- is the LARGEST of all{behind}"
    found = list(judge.clean([Document(text, "a", allow_special=True)]))
    assert [document.text for document in found] == ["a" * 40, "h" * 50]
    assert all(document.allow_special and document.source == "a" for document in found)
    assert (judge.kept, judge.cut, judge.dropped) == ({"a": 2}, {"a": 1}, {})


def test_cut_pieces_are_clean_and_stand_in_the_text() -> None:
    draw = random.Random(3)
    ngrams = ngram_set((drawn(draw, 4) for _ in range(30)), n=3, least=3)
    documents = [Document(drawn(draw, 60), "a") for _ in range(200)]
    judge = Decontamination(ngrams, "cut", margin=3, shortest=15, pieces=4)
    for document in documents:
        at = 0
        for piece in judge.clean([document]):
            at = document.text.index(piece.text, at) + len(piece.text)
            assert not holds(piece.text, ngrams)
            assert len(piece.text) >= 15 or piece == document
    assert judge.cut["a"] > 20
    assert judge.dropped["a"] > 20


def test_what_would_fall_to_pieces_is_dropped() -> None:
    ngrams = {("x", "y")}
    text = " ".join(["word word word x y"] * 5)
    assert len(list(Decontamination(ngrams, "cut", margin=0, shortest=3, pieces=5).clean([Document(text, "a")]))) == 5
    judge = Decontamination(ngrams, "cut", margin=0, shortest=3, pieces=4)
    assert list(judge.clean([Document(text, "a")])) == []
    assert judge.dropped == {"a": 1}


def test_folding_that_changes_lengths_does_not_move_the_cut() -> None:
    text = "ﬁﬁﬁ İİ ŉ" + " straße" * 3 + " one two three " + "tail of the text"
    (before, behind) = Decontamination({("one", "two", "three")}, "cut", margin=0, shortest=1).clean(
        [Document(text, "a")]
    )
    assert before.text == "ﬁﬁﬁ İİ ŉ" + " straße" * 3
    assert behind.text == "tail of the text"


def test_without_ngrams_everything_stays() -> None:
    documents = [Document("a b", "a"), Document("", "a")]
    assert list(Decontamination(set()).clean(documents)) == documents


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"action": "burn"}, "unknown action 'burn'"),
        ({"margin": -1}, "must not be negative"),
        ({"ngrams": {()}}, "has no words"),
    ],
)
def test_what_makes_no_sense_is_one_line(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Decontamination(**{"ngrams": {("a",)}, **arguments})
