"""Is it a refinement? Read from the prompt and the better answer alone: what the question comes to, what the attempt answers,
and whether the better answer is right (`exercise_check`); its form is the one that is asked for.
"""

from __future__ import annotations

import re
from typing import Literal

from tinydata.synthetic.exercise_check import exercise_fault
from tinydata.synthetic.question_reader import Unread, amount_asked_for

_PROMPT = re.compile(
    r"(?:Question|Pregunta): (?P<question>[^\n]+)\n(?P<form>[^\n]+):\n(?P<attempt>.+)\n(?:Better|Mejor):\n", re.DOTALL
)
_ANSWER = re.compile(r"(?:Answer|Respuesta): (\d+)\Z")
_MARKS = {
    "At once": r"(?!<)",
    "De una vez": r"(?!<)",
    "By hand": r"<think>(?!.*<calc>)",
    "A mano": r"<think>(?!.*<calc>)",
    "By calculator": r"<think>.*<calc>",
    "Con calculadora": r"<think>.*<calc>",
    "By program": r"<code>",
    "Con un programa": r"<code>",
}


def attempt_is(prompt: str) -> Literal["sound", "flawed"]:
    """Whether the attempt in a prompt answers rightly. Raises Unread for a prompt that cannot be read."""
    found = _PROMPT.fullmatch(prompt)
    answered = _ANSWER.search(found["attempt"]) if found is not None else None
    if found is None or answered is None:
        raise Unread("there is no attempt")
    return "sound" if int(answered[1]) == amount_asked_for(found["question"]) else "flawed"


def refinement_fault(prompt: str, better: str) -> str | None:
    """What is wrong with the better answer or what it is asked for with, in a few words; None where nothing is.

    The attempt may be sound or flawed (`attempt_is`); it must be a plain text, and the better one right in the form asked for.
    """
    found = _PROMPT.fullmatch(prompt)
    if found is None or found["form"] not in _MARKS:
        return "nothing is asked for"
    if re.search(r"</?(?:think|calc|code|result)>", found["attempt"]):
        return "the attempt has tags"
    try:
        attempt_is(prompt)
    except Unread as wrong:
        return str(wrong)
    if not re.match(_MARKS[found["form"]], better, re.DOTALL):
        return "the form is another one"
    return exercise_fault(found["question"], better)
