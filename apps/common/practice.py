"""Exercises sorted into the stages of a curriculum by what is measured of each: steps, length, how seldom it is solved."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from apps.common.console import Console
from apps.common.curriculum_config import CurriculumConfig, PracticeStage
from apps.common.errors import BadRequest
from tinydata import EncodedProblem

MAX_FILE_BYTES = 2**31
MAX_LINE_CHARACTERS = 2**16


@dataclass(frozen=True)
class Practised:
    """An exercise as it is encoded, and what stages look at: its prompt, kind, form and number of calculations."""

    row: EncodedProblem
    prompt: str
    kind: str
    form: str
    steps: int


def sorted_into(
    config: CurriculumConfig, exercises: Sequence[Practised], console: Console
) -> tuple[list[EncodedProblem], tuple[int, ...], tuple[float, ...]]:
    """The exercises of all stages one after another, how many each stage has, and how deep each exercise is.

    What no stage takes, and what was not measured, is left out and said. Raises BadRequest for a stage that takes none.
    """
    rates = pass_rates(Path(config.measured)) if config.measured is not None else {}
    taken: list[list[tuple[EncodedProblem, float]]] = [[] for _ in config.stages]
    unmeasured = 0
    depths = []
    for exercise in exercises:
        depth = _depth(config, exercise, rates)
        if depth is None:
            unmeasured += 1
            continue
        depths.append(depth)
        stage = next((at for at, stage in enumerate(config.stages) if _takes(stage, exercise, depth)), None)
        if stage is not None:
            taken[stage].append((exercise.row, depth))
    empty = next((at for at, found in enumerate(taken) if not found), None)
    if empty is not None:
        there = f"they go from {min(depths):g} to {max(depths):g}" if depths else "none was measured"
        raise BadRequest(
            f"data.curriculum.stages.{empty}: takes none of the problems that earlier stages left; by {config.by} {there}"
        )
    if unmeasured:
        console.say(f"curriculum: left out {unmeasured:,} problems that {config.measured} does not tell of")
    if left := len(depths) - sum(map(len, taken)):
        console.say(f"curriculum: left out {left:,} problems that no stage takes")
    console.say(f"curriculum: {', '.join(f'{len(found):,}' for found in taken)} problems in {len(taken)} stages")
    flat = [pair for found in taken for pair in found]
    return [row for row, _ in flat], tuple(map(len, taken)), tuple(depth for _, depth in flat)


def pass_rates(path: Path) -> dict[str, float]:
    """Pass rates by prompt. Raises BadRequest for a file that cannot be read or has none."""
    if not path.is_file():
        raise BadRequest(f"{path}: no such file; uv run apps/prepare --solved-by RUN writes one")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise BadRequest(f"{path}: larger than {MAX_FILE_BYTES >> 30} GiB")
    found: dict[str, float] = {}
    with path.open(encoding="utf-8", errors="replace") as handle:
        while line := handle.readline(MAX_LINE_CHARACTERS + 1):
            try:
                told = json.loads(line)
                prompt, rate = told["prompt"], told["pass_rate"]
            except (ValueError, TypeError, KeyError, RecursionError):
                continue
            if isinstance(prompt, str) and isinstance(rate, int | float) and 0 <= rate <= 1:
                found[prompt] = float(rate)
    if not found:
        raise BadRequest(f"{path}: has no line with a prompt and its pass_rate, from 0 to 1")
    return found


def _depth(config: CurriculumConfig, exercise: Practised, rates: dict[str, float]) -> float | None:
    if config.by == "steps":
        return float(exercise.steps)
    if config.by == "length":
        return float(len(exercise.row.ids) - exercise.row.prompt)
    rate = rates.get(exercise.prompt)
    return None if rate is None else round(1 - rate, 6)


def _takes(stage: PracticeStage, exercise: Practised, depth: float) -> bool:
    kinds = not stage.kinds or exercise.kind in stage.kinds
    forms = not stage.forms or exercise.form in stage.forms
    return kinds and forms and stage.depth[0] <= depth <= stage.depth[1]
