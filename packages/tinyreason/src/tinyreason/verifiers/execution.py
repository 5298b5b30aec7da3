"""Verifiers that need no gold answer: what a text computed is computed again, and must be what it says.

They judge whether an answer follows from its own work. A program that runs and answers another question passes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tinyreason.answers import Answers, final_answer
from tinyreason.calculator import Calculator, CalculatorError
from tinyreason.completion import Completion
from tinyreason.sandbox import CodeRunner

_BLOCK = re.compile(r"<(calc|code)>(.*?)</\1>(?:<result>(.*?)</result>)?", re.DOTALL)
_EQUATION = re.compile(r"([\d(][\d\s,.+*/×÷()-]*[\d)])\s*=\s*(-?\d+(?:,\d{3})*(?:\.\d+)?(?:/\d+)?)")


@dataclass(frozen=True, slots=True)
class Step:
    """One computation of a text: its expression or program, what it says is the result, and whether it is."""

    kind: str
    source: str
    claimed: str
    right: bool
    end: int
    """Characters of the text up to the end of this step."""


@dataclass(frozen=True)
class ExecutionVerifier:
    """Scores 1 where every computation of a text gives what stands behind it and the answer is the last result, else 0.

    runner: for `<code>`; without one, a text with a program scores 0. A text that computes nothing scores 0.
    """

    runner: CodeRunner | None = None
    seconds: float = 2.0
    memory: int = 2**26

    def score(self, prompt: str, completions: list[Completion]) -> list[float]:
        return [float(self._holds(completion)) for completion in completions]

    def _holds(self, completion: Completion) -> bool:
        found = self.steps(completion.text)
        answer = final_answer(completion.text)
        return (
            bool(found)
            and answer is not None
            and all(step.right for step in found)
            and Answers().equal(found[-1].claimed, answer)
        )

    def steps(self, text: str) -> list[Step]:
        """The computations of `text` in order: tool calls with their results, and equations `a op b = c` outside of them."""
        found: list[Step] = []
        at = 0
        for block in [*_BLOCK.finditer(text), None]:
            outside = text[at : len(text) if block is None else block.start()]
            for equation in _EQUATION.finditer(outside):
                claimed = equation[2]
                right = _value_is(equation[1].replace("×", "*").replace("÷", "/"), claimed)
                found.append(Step("text", equation[1], claimed, right, at + equation.end()))
            if block is not None:
                kind, source, claimed = block[1], block[2], (block[3] or "").strip()
                right = _value_is(source, claimed) if kind == "calc" else self._prints(source, claimed)
                found.append(Step(kind, source, claimed, right, block.end()))
                at = block.end()
        return found

    def _prints(self, source: str, claimed: str) -> bool:
        if self.runner is None:
            return False
        result = self.runner.run(source, self.seconds, self.memory)
        return result.error is None and bool(claimed) and result.output.strip() == claimed


def _value_is(expression: str, claimed: str) -> bool:
    try:
        return Answers().equal(Calculator()(expression), claimed)
    except CalculatorError:
        return False
