"""A problem and its solution as values, and the forms in which a solution can be written down.

    at once         Answer: 80
    by hand         <think>Multiply 12 by 7: 12*7=84\\nTake 4 from 84: 84-4=80</think>\\nAnswer: 80
    by calculator   <think>Multiply 12 by 7: <calc>12*7</calc><result>84</result>\\n...</think>\\nAnswer: 80
    by program      <code>a = 12 * 7\\nb = a - 4\\nprint(b)</code><result>80</result>\\nAnswer: 80       (arXiv 2312.09241)

Which form is asked for stands in the line behind the question, so that one model knows all of them. What stands between
<result> and </result> is a tool's to write and never learned (`problem_loader`).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

from tinydata.synthetic.arithmetic_phrases import Language

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
