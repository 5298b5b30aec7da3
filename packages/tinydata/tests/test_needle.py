"""Needles: found again by reading the document, at the depth and in the length that were asked for."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinydata import Document, ProblemLoader, Tokenizer, encode_parts, train_tokenizer
from tinydata.synthetic.arithmetic_phrases import Language
from tinydata.synthetic.needle import needle

CODES = {
    "english": r"The code of the (\w+ \w+) is (\d+)\.",
    "spanish": r"El código del (\w+ \w+) es (\d+)\.",
}


def words(text: str) -> int:
    return len(text.split())


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    tokens=st.integers(60, 900),
    depth=st.floats(0, 1),
    needles=st.integers(1, 5),
    language=st.sampled_from(("english", "spanish")),
)
def test_the_needle_stands_where_it_should_and_alone_answers(
    seed: int, tokens: int, depth: float, needles: int, language: Language
) -> None:
    made = needle(seed, tokens, depth, words, needles, language)
    assert made == needle(seed, tokens, depth, words, needles, language)
    assert made.tokens == words(made.document)
    assert tokens - 12 < made.tokens <= tokens, "no sentence has more than 11 words"
    found = re.findall(CODES[language], made.document)
    assert len(found) == len(dict(found)) == needles
    assert len(re.findall(r"\d+", made.document)) == needles == len({value for _, value in found})
    key = made.question.rstrip("?").split()[-2:]
    assert dict(found)[" ".join(key)] == made.answer
    assert made.document.count(made.needle) == 1
    # the share of the words of everything that is no needle before the one that is asked for
    before, after = (re.sub(CODES[language], "", side) for side in made.document.split(made.needle))
    reached = words(before) / (words(before) + words(after))
    assert reached == pytest.approx(made.depth)
    assert abs(reached - depth) * (words(before) + words(after)) <= 6, "half a sentence"


def test_the_ends_are_the_ends() -> None:
    for seed in range(50):
        first, last = needle(seed, 200, 0.0), needle(seed, 200, 1.0)
        assert first.document.startswith(first.needle)
        assert last.document.endswith(last.needle)
        assert (first.depth, last.depth) == (0, 1)
        assert first.needle == last.needle, "the same needle, deeper"
        assert sorted(first.document.split()) == sorted(last.document.split()), "and the same hay"
    assert needle(1, 200, 0.5) != needle(2, 200, 0.5)


def test_lengths_are_those_of_a_tokenizer_and_the_answer_is_what_is_learned() -> None:
    texts = [needle(seed, 300, 0.5).document for seed in range(5)]
    tokenizer: Tokenizer = train_tokenizer([Document(text, "x") for text in texts], 400)
    for length in (100, 1000, 4000):
        made = needle(7, length, 0.3, lambda text: len(tokenizer.encode(text)))
        size = len(tokenizer.encode(made.document))
        assert length - 60 < size <= length
        assert made.tokens == size
        assert abs(made.depth - 0.3) < 30 / length
    problem = encode_parts(made.parts(), tokenizer)
    (batch,) = ProblemLoader([problem], tokenizer, len(problem.ids), 1).epoch_batches()
    learned = batch.targets[0][batch.targets[0] != -100].tolist()
    assert tokenizer.decode(learned) == f"{made.answer}<|endoftext|>"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 100, 1.5), "depth 1.5"),
        ((0, 100, float("nan")), "depth nan"),
        ((0, 5, 0.5), "5 tokens have no room for 1 needles, which take 8"),
        ((0, 100, 0.5, words, 0), "0 needles"),
        ((0, 100, 0.5, words, 1, "latin"), "unknown language 'latin'"),
        ((0, 100, 0.5, lambda text: 0), "has 0 tokens"),
    ],
)
def test_what_cannot_be_says_so(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        needle(*arguments)
