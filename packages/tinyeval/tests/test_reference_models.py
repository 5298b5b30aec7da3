"""The controls do what their names say, and a counting model is the same by every road to its probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tinyeval import ByteNgram, CopyingOracle, NgramModel, RandomModel, Scripted
from tinyeval.model import LanguageModel, Tokenized, cut

PROMPT = "The code of Ada is 4711. The code of Bob is 0815. What is the code of Ada? The code of Ada is"


def test_all_are_models() -> None:
    made: list[LanguageModel] = [RandomModel(), CopyingOracle(), Scripted(str.upper), ByteNgram.train(["ab"])]
    assert all(isinstance(model, Tokenized) for model in made)


def test_the_oracle_copies_what_followed() -> None:
    oracle = CopyingOracle()
    assert oracle.generate_until([PROMPT, "nothing like it"], ["."], 20) == [" 4711", ""]
    assert oracle.generate_until([PROMPT], [], 3) == [" 47"]
    (right, greedy), (wrong, not_greedy) = oracle.loglikelihood([(PROMPT, " 4711"), (PROMPT, " 0815")])
    assert (right, greedy) == (pytest.approx(5 * math.log(0.999)), True)
    # the space is copied, the 0 is another byte than the 4, the rest is anyone's guess
    assert wrong == pytest.approx(math.log(0.999) + math.log(0.001 / 255) - 3 * math.log(256))
    assert not not_greedy


def test_the_oracle_prefers_the_longest_likeness_and_then_the_last() -> None:
    oracle = CopyingOracle(least=2)
    assert oracle.generate_until(["xab1 yab2 xab"], [], 1) == ["1"]
    assert oracle.generate_until(["ab1 ab2 zab"], [], 1) == ["2"]
    assert oracle.loglikelihood_rolling(["abab"]) == [pytest.approx(-4 * math.log(256))], (
        "nothing to copy before its end"
    )


def test_the_random_model_knows_nothing() -> None:
    model = RandomModel(3)
    assert model.loglikelihood([("a", "\u00e9b"), ("", "")]) == [
        (pytest.approx(-3 * math.log(256)), False),
        (0.0, True),
    ]
    assert model.generate_until(["p"], [], 200) == model.generate_until(["p"], [], 200)
    assert model.generate_until(["p"], [], 200) != RandomModel(4).generate_until(["p"], [], 200)
    assert len(model.generate_until(["p"], [], 200)[0]) == 200


def test_a_script_is_followed() -> None:
    model = Scripted(lambda prompt: " yes. no")
    assert model.generate_until(["?"], ["."], 9) == [" yes"]
    assert model.generate_until(["?"], ["."], 2) == [" y"]
    assert model.loglikelihood([("?", " yes"), ("?", " no")]) == [
        (0.0, True),
        (pytest.approx(-3 * math.log(256)), False),
    ]
    assert Scripted(str, lambda context, text: -2.0).loglikelihood([("a", "b")]) == [(-2.0, False)]


def test_cut() -> None:
    assert cut("a. b\nc", ["\n", "."]) == "a"
    assert cut("abc", ["", "x"]) == "abc"


TEXTS = ["the cat sat on the mat.", "the dog sat on the cat.", "a dog and a cat sat."]


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_distribution_sums_to_one_and_holds_the_targets(order: int) -> None:
    document = np.frombuffer(b"\0the cow sat\0", dtype=np.uint8)
    counts = NgramModel.train(
        [np.frombuffer(f"\0{text}\0".encode(), np.uint8) for text in TEXTS], vocab_size=256, order=order
    )
    targets = counts.log2_probabilities(document)
    for at in range(1, len(document)):
        found = counts.log2_distribution(document[:at])
        assert np.exp2(found).sum() == pytest.approx(1.0, abs=1e-12)
        assert found[document[at]] == targets[at - 1]
    with pytest.raises(ValueError, match="at least one token"):
        counts.log2_distribution(document[:0])


def test_the_counting_model_adds_up_and_writes_what_it_finds_likeliest() -> None:
    model = ByteNgram.train(TEXTS)
    (whole,) = model.loglikelihood_rolling(["the cat"])
    parts = model.loglikelihood([("", "the"), ("the", " cat")])
    assert whole == pytest.approx(sum(nats for nats, _ in parts), abs=1e-12)
    (written,) = model.generate_until(["the"], [], 12)
    ((_, greedy), (_, other)) = model.loglikelihood([("the", written), ("the", " zebra")])
    assert greedy
    assert not other
    assert model.generate_until(["the"], [written[3:5]], 12) == [written[:3]]
