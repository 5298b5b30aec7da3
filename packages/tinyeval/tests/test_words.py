"""Word coverage counts what its definition says, by hand-made examples."""

import pytest

from tinyeval import WordCoverage, bits_per_byte, vocabulary, word_coverage, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Self.x_2 = snake_case(42)", ["self", "x", "snake", "case"]),
        ("don't stop", ["don", "t", "stop"]),
        ("Ünïcode straße ΣΊΣΥΦΟΣ", ["ünïcode", "strasse", "σίσυφοσ"]),
        ("v1.2 a1b", ["v", "a", "b"]),
        ("123 + 4_5 !?", []),
        ("", []),
    ],
)
def test_words_are_runs_of_letters(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_vocabulary_reads_an_iterator_once() -> None:
    assert vocabulary(iter(["The cat", "the HAT"])) == {"the", "cat", "hat"}


def test_every_occurrence_counts() -> None:
    known = vocabulary(["the cat sat"])
    assert word_coverage(["The cat zat. The zat!", "dog"], known) == WordCoverage(6, 3, (("zat", 2), ("dog", 1)))
    assert word_coverage(["The cat zat. The zat!", "dog"], known).share == 0.5


def test_a_sample_without_words_is_not_covered() -> None:
    assert word_coverage(["123", ""], frozenset({"a"})).share == 0.0


def test_bits_per_byte() -> None:
    assert bits_per_byte(12.0, 8) == 1.5
    with pytest.raises(ValueError, match="needs text: got 0 bytes"):
        bits_per_byte(12.0, 0)
