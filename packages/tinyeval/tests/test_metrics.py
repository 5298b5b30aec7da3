"""Perplexity, token accuracy, calibration and repetition, each against a case worked by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from tinyeval import ByteNgram, RandomModel
from tinyeval.metrics import (
    Perplexity,
    calibration,
    distinct_n,
    longest_loop,
    perplexity,
    repetition,
    strided_loglikelihood,
    token_accuracy,
)


class Remembers:
    """ln p of a character is -1 if it stands in the context, else -3; it notes what it was asked."""

    tokenizer_id = "characters"

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def pieces(self, text: str) -> list[str]:
        return list(text)

    def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        self.asked += pairs
        return [
            (float(sum(-1 if one in context + text[:at] else -3 for at, one in enumerate(text))), False)
            for context, text in pairs
        ]

    def loglikelihood_rolling(self, texts: Sequence[str]) -> list[float]:
        return [nats for nats, _ in self.loglikelihood([("", text) for text in texts])]

    def generate_until(self, prompts: Sequence[str], until: Sequence[str], max_tokens: int) -> list[str]:
        return [""] * len(prompts)


def test_windows_by_hand() -> None:
    model = Remembers()
    # abcd|ab|ca with window 4, stride 2: every piece once, up to two before it
    assert strided_loglikelihood(model, list("abcdabca"), 4, 2) == -3 * 4 - 3 * 2 - 3 - 1
    assert model.asked == [("", "abcd"), ("cd", "ab"), ("ab", "ca")]
    assert strided_loglikelihood(model, list("abcdabca"), 4, 4) == -3 * 7 - 1, "each window starts blind"
    assert strided_loglikelihood(model, list("abcab"), 9, 1) == -3 * 3 - 2


@pytest.mark.parametrize("length", range(12))
@pytest.mark.parametrize(("window", "stride"), [(1, 1), (4, 1), (4, 3), (5, 5)])
def test_every_piece_is_scored_once(length: int, window: int, stride: int) -> None:
    model, text = Remembers(), "abcdefghijkl"[:length]
    strided_loglikelihood(model, list(text), window, stride)
    assert "".join(scored for _, scored in model.asked) == text
    assert all(len(context) + len(scored) <= window for context, scored in model.asked)
    assert all(text.startswith(context, text.index(scored) - len(context)) for context, scored in model.asked)


def test_perplexity_by_hand() -> None:
    found = perplexity(Remembers(), ["aab", "b\u00e9"])
    assert (found.nats, found.tokens, found.bytes) == (3 + 1 + 3 + 3 + 3, 5, 6)
    assert found.value == pytest.approx(math.exp(13 / 5))
    assert found.bits_per_byte == pytest.approx(13 / math.log(2) / 6)
    assert perplexity(Remembers(), ["abab"], window=2, stride=1).nats == 3 + 3 + 3 + 3
    assert perplexity(Remembers(), ["abab"], window=3, stride=1).nats == 3 + 3 + 1 + 1
    assert perplexity(RandomModel(), ["any text"]).value == pytest.approx(256)


def test_a_model_with_two_bytes_of_memory_needs_two_bytes_of_context() -> None:
    texts = ["the cat sat on the mat", "a cat and a dog sat"]
    model = ByteNgram.train(texts, order=3)
    whole = perplexity(model, ["the dog sat on a cat"])
    assert perplexity(model, ["the dog sat on a cat"], window=64).nats == pytest.approx(whole.nats)


def test_perplexities_of_different_tokenizers_are_refused() -> None:
    first, second = Perplexity(10.0, 5, 12, "a"), Perplexity(10.0, 6, 12, "b")
    with pytest.raises(ValueError, match=r"bits per byte do: 1\.2022 and 1\.2022"):
        first.ratio(second)
    assert first.ratio(first) == 1.0

    class Untold:
        loglikelihood_rolling = RandomModel.loglikelihood_rolling

    with pytest.raises(TypeError, match="bits per byte does not"):
        perplexity(Untold(), ["a"])
    with pytest.raises(ValueError, match="needs text"):
        perplexity(RandomModel(), [""])
    with pytest.raises(ValueError, match="between 1 and the window of 4, not at 5"):
        perplexity(RandomModel(), ["abc"], window=4, stride=5)


def test_token_accuracy_by_hand() -> None:
    assert token_accuracy([[1, 2, 3], [4, 5, 6]], [[1, 0, 3], [-100, -100, 6]]) == 3 / 4
    with pytest.raises(ValueError, match="no target counts"):
        token_accuracy([1], [-100])
    with pytest.raises(ValueError, match="predictions for"):
        token_accuracy([1], [1, 2])


def test_calibration_by_hand() -> None:
    # bin (0.6, 0.8]: 0.7 0.8 -> mean 0.75, one of two right; bin (0.8, 1]: 0.9 0.9 1.0 -> mean 14/15, three of three right;
    # bin [0, 0.2]: 0.0, wrong
    found = calibration([0.7, 0.8, 0.9, 0.9, 1.0, 0.0], [True, False, True, True, True, False], bins=5)
    assert found.expected_error == pytest.approx((2 * 0.25 + 3 * (1 / 15)) / 6)
    assert found.largest_error == pytest.approx(0.25)
    assert found.brier == pytest.approx((0.09 + 0.64 + 0.01 + 0.01) / 6)
    assert [(one.low, one.high, one.count, one.accuracy) for one in found.table] == [
        (0.0, 0.2, 1, 0.0),
        (pytest.approx(0.6), 0.8, 2, 0.5),
        (0.8, 1.0, 3, 1.0),
    ]


def test_a_calibrated_model_has_little_error_and_an_overconfident_one_much() -> None:
    chance = np.random.default_rng(0)
    sure = chance.uniform(0.5, 1.0, 20_000)
    right = chance.random(20_000) < sure
    assert calibration(sure.tolist(), right.tolist()).expected_error < 0.02
    assert calibration(np.full(20_000, 0.95).tolist(), right.tolist()).expected_error == pytest.approx(0.2, abs=0.02)
    with pytest.raises(ValueError, match="1 confidences for 2 outcomes"):
        calibration([0.5], [True, False])
    with pytest.raises(ValueError, match="between 0 and 1"):
        calibration([1.5], [True])


def test_distinct_by_hand() -> None:
    assert distinct_n([list("abab")], 1) == 2 / 4
    assert distinct_n([list("abab")], 2) == 2 / 3
    assert distinct_n([["a", "b"], ["b", "a"]], 2) == 1.0, "no n-gram across two texts"
    assert math.isnan(distinct_n([["a"]], 2))


@pytest.mark.parametrize(
    ("text", "loop"),
    [
        ("a b c d e f g h", (0, 0)),
        ("very very very good", (0, 0)),
        ("no no no no no no no", (1, 7)),
        ("x go on go on go on y", (2, 3)),
        ("x go on go on y", (0, 0)),
        ("a b c a b c a b c a b", (3, 3)),
        ("", (0, 0)),
    ],
)
def test_loops_by_hand(text: str, loop: tuple[int, int]) -> None:
    assert longest_loop(text.split()) == loop


def test_repetition_by_hand() -> None:
    found = repetition(["a a a a a a a", "a b c d e"])
    assert (found.texts, found.looping) == (2, 0.5)
    assert found.distinct[0] == 5 / 12
    assert found.distinct[3] == 3 / 6
    assert found.repeated_4 == pytest.approx((3 / 4 + 0) / 2)
    with pytest.raises(ValueError, match="at least one text"):
        repetition([])
