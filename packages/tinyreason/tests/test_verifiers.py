"""Verifiers: by execution, by the answer, by what is plausible, step by step."""

from __future__ import annotations

import pytest

from tinyreason import AllOf, AnswerVerifier, CodeResult, Completion, ExecutionVerifier, PlausibleVerifier
from tinyreason.verifiers import step_labels


class Prints:
    """A runner for programs of one print of one sum."""

    def run(self, source: str, seconds: float = 2.0, bytes: int = 2**26) -> CodeResult:
        if source == "print(6*7)":
            return CodeResult("42\n", None, 0.0)
        return CodeResult("", "ValueError: no", 0.0)


def scores(verifier: ExecutionVerifier | AnswerVerifier | AllOf | PlausibleVerifier, *texts: str) -> list[float]:
    return verifier.score("?", [Completion(text) for text in texts])


def test_what_was_computed_is_computed_again() -> None:
    assert scores(
        ExecutionVerifier(Prints()),
        "<calc>347*892</calc><result>309524</result>\nAnswer: 309,524",
        "<calc>347*892</calc><result>309525</result>\nAnswer: 309525",
        "<calc>347*892</calc><result>309524</result>\nAnswer: 7",
        "<calc>347*892</calc>\nAnswer: 309524",
        "12 * 7 = 84, then 84 - 4 = 80.\nAnswer: 80",
        "12 * 7 = 85, then 84 - 4 = 80.\nAnswer: 80",
        "<code>print(6*7)</code><result>42</result>\nAnswer: 42",
        "<code>print(6*8)</code><result>42</result>\nAnswer: 42",
        "Answer: 42",
        "<calc>open('/etc/passwd')</calc><result>x</result>\nAnswer: x",
        "",
    ) == [1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0]
    assert scores(ExecutionVerifier(), "<code>print(6*7)</code><result>42</result>\nAnswer: 42") == [0]


def test_steps_and_their_labels() -> None:
    text = "<calc>1+1</calc><result>2</result> 2*3 = 7 <calc>7-1</calc><result>6</result>\nAnswer: 6"
    steps = ExecutionVerifier().steps(text)
    assert [(step.kind, step.claimed, step.right) for step in steps] == [
        ("calc", "2", True),
        ("text", "7", False),
        ("calc", "6", True),
    ]
    assert text[: steps[1].end].endswith("= 7")
    assert [label for _, label in step_labels(steps, right=False)] == [1, 0, 0]
    assert [label for _, label in step_labels(steps, right=True)] == [1, 1, 1]
    assert [label for _, label in step_labels([steps[0], steps[2]], right=False)] == [None, 0]
    assert step_labels([], right=True) == []


def test_the_oracle() -> None:
    oracle = AnswerVerifier({"?": "1/2"})
    assert scores(oracle, "Answer: 0.5", "#### 50%", "Answer: 2", "half") == [1, 1, 0, 0]
    with pytest.raises(KeyError):
        oracle.score("another", [Completion("Answer: 1")])


def test_what_can_be_an_answer() -> None:
    children = PlausibleVerifier(least=0, most=100, whole=True)
    assert scores(children, "Answer: 7", "Answer: 7.5", "Answer: -1", "Answer: 101", "Answer: many", "") == [
        1,
        0,
        0,
        0,
        0,
        0,
    ]
    way = PlausibleVerifier(least=1, most=10, unit="km")
    assert scores(way, "Answer: 5000 m", "Answer: 5", "Answer: 5 kg", "Answer: 500 m", "Answer: 3 miles") == [
        1,
        1,
        0,
        0,
        1,
    ]
    with pytest.raises(ValueError, match="unit 'parsec'"):
        PlausibleVerifier(unit="parsec")


def test_all_of_them() -> None:
    both = AllOf([AnswerVerifier({"?": "80"}), ExecutionVerifier()])
    assert scores(both, "80 * 1 = 80\nAnswer: 80", "Answer: 80", "80 * 1 = 81\nAnswer: 80") == [1, 0, 0]
