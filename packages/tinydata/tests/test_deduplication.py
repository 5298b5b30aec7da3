"""Claim: of all copies of a text the first one is kept, whatever the sources; what is dropped is counted; memory is bounded."""

from __future__ import annotations

import random
import tracemalloc
import unicodedata

import pytest

from tinydata import Deduplication, Document, SourceError


def kept(texts: list[str], source: str = "a") -> list[str]:
    return [document.text for document in Deduplication().unique(Document(text, source) for text in texts)]


def test_the_first_copy_is_kept_as_it_is() -> None:
    assert kept(["One two", "three", "one  TWO\n", "\tthree ", "One two"]) == ["One two", "three"]
    assert kept(["straße", "STRASSE", "ﬁsh", "fish", "Café", "Cafe\u0301"]) == ["straße", "ﬁsh", "Café"]
    assert kept(["ab", "a b", "b a"]) == ["ab", "a b", "b a"]
    assert kept(["\ud800", "\ud800", "\ud801"]) == ["\ud800", "\ud801"], "not Unicode, but not a reason to fail"


def test_it_agrees_with_a_set_on_many_texts() -> None:
    draw = random.Random(0)
    texts = [" " * draw.randrange(3) + str(draw.randrange(4000)) + "\n" * draw.randrange(2) for _ in range(12_000)]
    seen: set[str] = set()
    expected = []
    for text in texts:
        key = unicodedata.normalize("NFKC", text).strip()
        expected += [] if key in seen else [text]
        seen.add(key)
    assert len(seen) > 3000
    assert kept(texts) == expected


def test_sources_are_counted_and_known_to_each_other() -> None:
    once = Deduplication()
    first = list(once.unique([Document("x", "a"), Document("x", "a"), Document("y", "a")]))
    second = list(once.unique([Document("Y ", "b"), Document("z", "b")]))
    assert [document.text for document in first + second] == ["x", "y", "z"]
    assert (once.kept, once.dropped) == ({"a": 2, "b": 1}, {"a": 1, "b": 1})


def test_our_tags_are_not_a_strangers_characters() -> None:
    both = [Document("<calc>", "a"), Document("<calc>", "a", allow_special=True)]
    assert list(Deduplication().unique(both)) == both


def test_nothing_is_read_before_it_is_asked_for() -> None:
    read = []

    def documents():
        for number in range(100):
            read.append(number)
            yield Document(str(number), "a")

    stream = Deduplication().unique(documents())
    next(stream)
    assert read == [0]


def test_more_texts_than_allowed_are_one_line_and_not_a_hole() -> None:
    once = Deduplication(most=3)
    stream = once.unique(Document(text, "a") for text in "aabbccd")
    assert [next(stream).text for _ in range(3)] == ["a", "b", "c"]
    with pytest.raises(SourceError, match=r"^deduplication: more than 3 different texts: allow more with `most`$"):
        next(stream)
    with pytest.raises(ValueError, match="below 1"):
        Deduplication(most=0)


def test_a_text_takes_43_bytes_at_most() -> None:
    count = 20_000
    once = Deduplication()
    tracemalloc.start()
    try:
        for _ in once.unique(Document(str(number), "a") for number in range(count)):
            pass
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert once.kept == {"a": count}
    assert held < 44 * count + 10_000
