"""LaTeX answers: by value, in a process that hostile ones cannot keep."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

pytest.importorskip("math_verify")

from tinyreason import Answers
from tinyreason.latex import LatexAnswers


@pytest.fixture(scope="module")
def latex() -> Iterator[LatexAnswers]:
    found = LatexAnswers(seconds=5.0)
    yield found
    found.close()


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("\\sqrt{8}", "2\\sqrt{2}", True),
        ("$\\frac{1}{2}$", "\\frac{2}{4}", True),
        ("\\{1, 2\\}", "\\{2, 1\\}", True),
        ("\\frac{\\pi}{2}", "0.5\\pi", True),
        ("\\sqrt{8}", "2\\sqrt{3}", False),
        ("\\text{yes}", "\\sqrt{2}", False),
    ],
)
def test_by_value(latex: LatexAnswers, a: str, b: str, same: bool) -> None:
    assert Answers(latex=latex.equal).equal(a, b) is same


def test_hostile_answers_end_in_time() -> None:
    latex = LatexAnswers(seconds=0.5)
    latex.equal("\\sqrt{4}", "\\sqrt{4}")  # started
    for text in ("9^{9^{9^9}}", "(10^8)!", "\\frac{" * 50, "x" * 10_000):
        began = time.perf_counter()
        assert not latex.equal(f"\\sqrt{{{text}}}", "\\sqrt{2}")
        assert time.perf_counter() - began < 30  # with a new start of the process in it
    latex.close()


def test_from_a_thread(latex: LatexAnswers) -> None:
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(latex.equal("\\sqrt{9}", "3")))
    thread.start()
    thread.join()
    assert found == [True]
