"""Answers of a generator, sampled in bulk and labelled: by the answer's value, or step by step by computing again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from apps.common import files
from apps.common.errors import BadRequest
from apps.common.generator import ModelGenerator
from tinydata import Verdict
from tinydata.synthetic.exercise import Exercise, Form
from tinyreason import Answers, ExecutionVerifier, final_answer
from tinyreason.test_time import TEMPERATURES
from tinyreason.verifiers import step_labels

Labels = Literal["outcome", "process"]


@dataclass(frozen=True)
class Sampled:
    """A problem as it was asked, its answer, and what a generator answered: texts, with the answer found in each (None: none)
    and whether it is right; tokens that they have together."""

    prompt: str
    gold: str
    texts: tuple[str, ...]
    answers: tuple[str | None, ...]
    right: tuple[bool, ...]
    tokens: int


def sample(
    generator: ModelGenerator,
    problems: Sequence[Exercise],
    form: Form,
    samples: int,
    max_tokens: int,
    seed: int,
    told: Callable[[int], None],
) -> list[Sampled]:
    """`samples` answers to each of `problems`, a third at each temperature; told(rows) after each batch of so many rows."""
    prompts = [problem.prompt(form) for problem in problems]
    texts: list[list[str]] = [[] for _ in problems]
    tokens = [0] * len(problems)
    shares = [len(range(at, samples, len(TEMPERATURES))) for at in range(len(TEMPERATURES))]
    for at, (temperature, share) in enumerate(zip(TEMPERATURES, shares, strict=True)):
        if not share:
            continue
        done = 0

        def tell(now: int, of: int) -> None:
            nonlocal done
            told(now - done)
            done = now

        generator.told = tell
        rows = generator.generate(prompts, n=share, max_tokens=max_tokens, temperature=temperature, seed=seed + at)
        for index, row in enumerate(rows):
            texts[index] += [completion.text for completion in row]
            tokens[index] += sum(completion.tokens for completion in row)
    generator.told = None
    found = []
    for problem, prompt, written, spent in zip(problems, prompts, texts, tokens, strict=True):
        # by turns over the temperatures, so that the first N of them are N of all kinds
        order = sorted(range(len(written)), key=lambda index: _turn(index, shares))
        ordered = tuple(written[index] for index in order)
        answers = tuple(final_answer(text) for text in ordered)
        right = tuple(answer is not None and Answers().equal(answer, problem.answer) for answer in answers)
        found.append(Sampled(prompt, problem.answer, ordered, answers, right, spent))
    return found


def _turn(index: int, shares: Sequence[int]) -> tuple[int, int]:
    for at, share in enumerate(shares):
        if index < share:
            return index, at
        index -= share
    raise IndexError(index)


def verdicts(sampled: Sequence[Sampled], labels: Labels) -> list[Verdict]:
    """What a verifier learns from: each different answer once.

    outcome: every token is labelled by whether the answer is right. process: by whether its step is, as far as computing
    again can tell; what stands behind the last step by whether the answer is right.
    """
    found = []
    for row in sampled:
        for text, right in dict(zip(row.texts, row.right, strict=True)).items():
            if not text:
                continue
            parts: list[tuple[int, int | None]] = []
            if labels == "process":
                parts += step_labels(ExecutionVerifier().steps(text), right)
            if not parts or parts[-1][0] < len(text):
                parts.append((len(text), int(right)))
            found.append(Verdict(row.prompt, text, tuple(parts), right))
    return found


def keep(path: Path, sampled: Sequence[Sampled], settings: dict[str, Any]) -> None:
    """Write them beside what they were sampled with."""
    lines = [json.dumps(settings), *(json.dumps(asdict(row), ensure_ascii=False) for row in sampled)]
    files.write_text(path, "\n".join(lines) + "\n")


def kept(path: Path, settings: dict[str, Any]) -> list[Sampled] | None:
    """What `keep` wrote with the same settings; None where nothing was. Raises BadRequest where it was other settings."""
    if not path.is_file():
        return None
    first, *lines = path.read_text(encoding="utf-8").splitlines()
    try:
        before = json.loads(first)
        rows = [json.loads(line) for line in lines]
        found = [
            Sampled(
                row["prompt"],
                row["gold"],
                tuple(row["texts"]),
                tuple(row["answers"]),
                tuple(row["right"]),
                row["tokens"],
            )
            for row in rows
        ]
    except (ValueError, KeyError, TypeError):
        raise BadRequest(f"{path}: damaged; delete it to sample again") from None
    changed = [name for name in settings if before.get(name) != settings[name]]
    if changed:
        name = changed[0]
        raise BadRequest(
            f"{path}: was sampled with {name} {before.get(name)!r}, now {settings[name]!r}; give another --out"
        )
    return found
