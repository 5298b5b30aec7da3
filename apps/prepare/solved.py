"""Which exercises a given run solves sometimes: from what it always or never solves there is little to learn.

Each problem of the training side is answered several times; its pass rate is the share of answers that are right by value,
tools answered. Rates are written as they come, so that whoever is stopped goes on where it was: an answer follows from its
prompt, the seed and its number, whatever was asked before.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from apps.common import files, practice, problems
from apps.common.console import Console
from apps.common.errors import BadRequest
from apps.common.problem_config import ExerciseData
from apps.common.problems import Written
from tinydata import within_reach
from tinyreason import Answers, Completion, final_answer

MEASURED, KEPT = "measured.jsonl", "kept.jsonl"
AT_ONCE = 16  # problems between two writes
TEMPERATURE = 0.8


class Generator(Protocol):
    """As `tinyreason.Generator`."""

    def generate(
        self, prompts: list[str], *, n: int, max_tokens: int, temperature: float, seed: int
    ) -> list[list[Completion]]: ...


def bounds(text: str) -> tuple[float, float]:
    """What `--keep 0.2-0.8` asks for. Raises BadRequest."""
    found = re.fullmatch(r"(0|1|0?\.\d+|1\.0+)-(0|1|0?\.\d+|1\.0+)", text, re.ASCII)
    low, high = (float(found[1]), float(found[2])) if found is not None else (1.0, 0.0)
    if low > high:
        raise BadRequest(f"--keep: {text!r} is not of the form 0.2-0.8, from 0 to 1, the lower one first")
    return low, high


def asked(data: ExerciseData, count: int) -> list[Written]:
    """The first `count` problems that are trained on."""
    return list(itertools.islice(problems.written(data, "train"), count))


def measure(
    path: Path,
    settings: dict[str, Any],
    of: Sequence[Written],
    generator: Generator,
    samples: int,
    max_tokens: int,
    console: Console,
) -> dict[str, float]:
    """The pass rate of each problem by its prompt, written to `path` as they come; those that are there already are not asked
    again. Raises BadRequest where `path` is of other settings."""
    there = _there(path, settings)
    left = [problem for problem in of if problem.prompt not in there]
    if there:
        console.say(f"{path}: {len(there):,} problems were measured before")
    with console.counting(f"answering {len(left):,} problems {samples} times", len(left)) as counting:
        for first in range(0, len(left), AT_ONCE):
            some = left[first : first + AT_ONCE]
            answered = generator.generate(
                [problem.prompt for problem in some],
                n=samples,
                max_tokens=max_tokens,
                temperature=TEMPERATURE,
                seed=settings["seed"],
            )
            for problem, completions in zip(some, answered, strict=True):
                found = [final_answer(completion.text) for completion in completions]
                right = sum(one is not None and Answers().equal(one, problem.answer) for one in found)
                there[problem.prompt] = right / samples
                files.append_line(path, _line(problem, right / samples))
                counting.advance()
    return {problem.prompt: there[problem.prompt] for problem in of}


def keep(path: Path, of: Sequence[Written], rates: dict[str, float], low: float, high: float) -> int:
    """Write the problems within reach, with their pass rates; how many they are."""
    kept = set(within_reach(rates, low, high))
    chosen = [problem for problem in of if problem.prompt in kept]
    files.write_text(path, "".join(f"{_line(problem, rates[problem.prompt])}\n" for problem in chosen))
    return len(chosen)


def _line(problem: Written, rate: float) -> str:
    told = {
        "prompt": problem.prompt,
        "solution": problem.solution,
        "answer": problem.answer,
        "form": problem.label,
        "pass_rate": rate,
    }
    return json.dumps(told, ensure_ascii=False)


def _there(path: Path, settings: dict[str, Any]) -> dict[str, float]:
    """What was measured before with the same settings; an empty file with these in its first line otherwise."""
    head = json.dumps({"settings": settings})
    if not path.is_file():
        files.write_text(path, head + "\n")
        return {}
    content = path.read_bytes()
    if content.partition(b"\n")[0].decode(errors="replace") != head:
        raise BadRequest(
            f"{path}: was measured with another run or other options; prepare into another folder, or remove it"
        )
    whole, _, rest = content.rpartition(b"\n")
    if rest:  # a kill in the middle of a line
        files.write_bytes(path, whole + b"\n")
    return practice.pass_rates(path) if whole.count(b"\n") else {}
