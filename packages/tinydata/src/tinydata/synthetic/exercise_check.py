"""Is a worked exercise right? Read from its question and its solution alone; nothing is shared with what wrote them.

The question is read by `question_reader`. A solution is right if its answer is what the question comes to, and if its steps,
where it shows any, are calculations that are true, of numbers that the question or an earlier step has, and lead to the answer.
What an explanation says in numbers must be what its step computes with; its words are not judged. Whatever cannot be read is
wrong. English and Spanish, all forms of `exercise`.
"""

from __future__ import annotations

import re

from tinydata.synthetic.question_reader import Unread, amount_asked_for, computed


def exercise_fault(question: str, solution: str) -> str | None:
    """What is wrong with `solution` as an answer to `question`, in a few words; None where nothing is."""
    try:
        expected = amount_asked_for(question)
        known = {int(number) for number in re.findall(r"\d+", question)}
        if re.search(r"\bmeters?\b|\bmetros?\b", question):
            known.add(2)  # around a rectangle there are two of each side
        body, _, last = solution.rpartition("\n")
        said = re.fullmatch(r"(?:Answer|Respuesta): (0|[1-9]\d*)", last)
        if said is None:
            return "there is no answer"
        if int(said[1]) != expected:
            return f"the answer is {expected}"
        if body and _worked(body, known) != expected:
            return "the steps lead to another answer"
    except Unread as wrong:
        return str(wrong)
    return None


def _worked(body: str, known: set[int]) -> int:
    """What the thoughts or the program find in the end."""
    if program := re.fullmatch(r"<code>([^<]*)</code><result>(\d+)</result>", body):
        if _ran(program[1], known) != int(program[2]):
            raise Unread("the program prints something else")
        return int(program[2])
    thoughts = re.fullmatch(r"<think>(.*)</think>", body, re.DOTALL)
    if thoughts is None:
        raise Unread("there are no steps")
    value = 0
    for line in thoughts[1].split("\n"):
        step = _STEP.fullmatch(line)
        if step is None:
            raise Unread(f"{line!r} is no step")
        left, sign, right = int(step[2] or step[6]), step[3] or step[7], int(step[4] or step[8])
        value = int(step[5] or step[9])
        if computed(left, sign, right) != value:
            raise Unread(f"{left}{sign}{right} is not {value}")
        if not {left, right} <= known:
            raise Unread(f"{left}{sign}{right} comes from nowhere")
        if not {int(number) for number in re.findall(r"\d+", step[1] or "")} <= {left, right}:
            raise Unread(f"{line!r} explains another step")
        known.add(value)
    return value


_STEP = re.compile(
    r"(?:([^<>=]+): )?(?:<calc>(\d+)([-+*/])(\d+)</calc><result>(0|[1-9]\d*)</result>"
    r"|(\d+)([-+*/])(\d+)=(0|[1-9]\d*))"
)


def _ran(program: str, known: set[int]) -> int:
    *lines, last = program.split("\n")
    names: dict[str, int] = {}
    for line in lines:
        found = re.fullmatch(r"([a-z]) = (\w+) (\+|-|\*|//) (\w+)", line)
        if found is None:
            raise Unread(f"{line!r} is no step")
        operands = []
        for text in found.group(2, 4):
            if not text.isdecimal() and text not in names:
                raise Unread(f"{text} is not defined")
            if text.isdecimal() and int(text) not in known:
                raise Unread(f"{text} comes from nowhere")
            operands.append(int(text) if text.isdecimal() else names[text])
        names[found[1]] = computed(operands[0], found[3][0], operands[1])
    printed = re.fullmatch(r"print\(([a-z])\)", last)
    if printed is None or printed[1] not in names:
        raise Unread("the program prints nothing")
    return names[printed[1]]
