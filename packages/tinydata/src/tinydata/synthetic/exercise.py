"""A problem and its solution as values, and the forms in which a solution can be written down.

    at once         Answer: 80
    by hand         <think>Multiply 12 by 7: 12*7=84\\nTake 4 from 84: 84-4=80</think>\\nAnswer: 80
    by calculator   <think>Multiply 12 by 7: <calc>12*7</calc><result>84</result>\\n...</think>\\nAnswer: 80
    by program      <code>a = 12 * 7\\nb = a - 4\\nprint(b)</code><result>80</result>\\nAnswer: 80       (arXiv 2312.09241)

Which form is asked for stands in the line behind the question, so that one model knows all of them. A better answer than the
one that is there already is asked for by `Better:` behind it (arXiv 2303.17651). What stands between
<result> and </result> is a tool's to write and never learned (`problem_loader`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, get_args

from tinydata.synthetic.arithmetic_phrases import Language
from tinydata.synthetic.chance import Chance

Form = Literal["once", "hand", "calculator", "program"]
FORMS: tuple[Form, ...] = get_args(Form)

_ASKS = MappingProxyType(
    {
        "english": {
            "once": "At once:",
            "hand": "By hand:",
            "calculator": "By calculator:",
            "program": "By program:",
        },
        "spanish": {
            "once": "De una vez:",
            "hand": "A mano:",
            "calculator": "Con calculadora:",
            "program": "Con un programa:",
        },
    }
)
_AGAIN = MappingProxyType({"english": "Better:", "spanish": "Mejor:"})
_WORDS = MappingProxyType({"english": ("Question", "Answer"), "spanish": ("Pregunta", "Respuesta")})


@dataclass(frozen=True, slots=True)
class Step:
    """One calculation: why, of what, and what comes out."""

    explanation: str
    left: int
    operator: str
    right: int
    value: int

    @property
    def expression(self) -> str:
        return f"{self.left}{self.operator}{self.right}"


@dataclass(frozen=True, slots=True)
class Exercise:
    """A question, the steps to its answer (the last one's value), and what kind of problem it is."""

    kind: str
    question: str
    steps: tuple[Step, ...]
    language: Language = "english"

    @property
    def answer(self) -> str:
        return str(self.steps[-1].value)

    def prompt(self, form: Form) -> str:
        """What is asked: the question, and in the next line how to answer."""
        return f"{_WORDS[self.language][0]}: {self.question}\n{_ASKS[self.language][form]}\n"

    def prompt_again(self, form: Form, attempt: str) -> str:
        """What is asked after an attempt at `prompt(form)`, which is shown without its tags: a better one."""
        return f"{self.prompt(form)}{without_tags(attempt)}\n{_AGAIN[self.language]}\n"

    def flawed(self, chance: Chance) -> Exercise:
        """The same question with one wrong step, an operand or the operator, and all that follows from it: every calculation
        is right, and the answer is not. Raises ValueError where no such change was found in a hundred."""
        for _ in range(100):
            at = chance.below(len(self.steps))
            step = self.steps[at]
            if chance.happens(0.5):
                changed = replace(step, operator=chance.choose([one for one in "+-*" if one != step.operator]))
            elif chance.happens(0.5):
                changed = replace(step, left=max(1, step.left + chance.choose((-10, -1, 1, 10))))
            else:
                changed = replace(step, right=max(1, step.right + chance.choose((-10, -1, 1, 10))))
            steps = _followed(self.steps, at, changed)
            if steps is not None and steps[-1].value != self.steps[-1].value:
                return replace(self, steps=steps)
        raise ValueError("flawed: no wrong step was found")

    def solution(self, form: Form) -> str:
        """What is answered, with its tags."""
        answer = f"{_WORDS[self.language][1]}: {self.answer}"
        if form == "once":
            return answer
        if form == "program":
            return f"<code>{self.program()}</code><result>{self.answer}</result>\n{answer}"
        return f"<think>{self.thoughts(form)}</think>\n{answer}"

    def thoughts(self, form: Form = "calculator") -> str:
        """One line a step, each calculation as a call of the calculator, or, by hand, as an equation."""
        lines = []
        for step in self.steps:
            call = f"<calc>{step.expression}</calc><result>{step.value}</result>"
            worked = f"{step.expression}={step.value}" if form == "hand" else call
            lines.append(f"{step.explanation}: {worked}" if step.explanation else worked)
        return "\n".join(lines)

    def program(self) -> str:
        """The steps as Python: a value that an earlier step found is used by its name, divisions are exact."""
        lines: list[str] = []
        names: dict[int, str] = {}
        for step, name in zip(self.steps, "abcdefgh", strict=False):
            left, right = (names.get(operand, str(operand)) for operand in (step.left, step.right))
            lines.append(f"{name} = {left} {'//' if step.operator == '/' else step.operator} {right}")
            names[step.value] = name
        return "\n".join([*lines, f"print({'abcdefgh'[len(self.steps) - 1]})"])


def without_tags(solution: str) -> str:
    """A solution as plain text: `12*7=84` for a call, a program and what it printed."""
    solution = re.sub(r"<calc>([^<]*)</calc><result>([^<]*)</result>", r"\1=\2", solution)
    solution = re.sub(r"<code>([^<]*)</code><result>([^<]*)</result>", r"\1\n\2", solution)
    return re.sub(r"</?[a-z]+>", "", solution)


def _followed(steps: tuple[Step, ...], at: int, changed: Step) -> tuple[Step, ...] | None:
    """`steps` with step `at` changed and later ones computed from the values that come out; None where a value would be below
    zero or no whole number."""
    values: dict[int, int] = {}  # what an earlier step found -> what it finds now
    made: list[Step] = []
    for index, step in enumerate(steps):
        now = changed if index == at else step
        left, right = (values.get(operand, operand) for operand in (now.left, now.right))
        if now.operator == "/" and (not right or left % right):
            return None
        value = {"+": left + right, "-": left - right, "*": left * right}.get(now.operator, left // max(right, 1))
        if value < 0:
            return None
        values[step.value] = value
        said = step.explanation
        for before, after in ((step.left, left), (step.right, right)):
            said = re.sub(rf"\b{before}\b", str(after), said)
        made.append(replace(now, explanation=said, left=left, right=right, value=value))
    return tuple(made)
