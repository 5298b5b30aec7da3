"""Labels for the steps of a solution, from execution: what a process verifier learns from (arXiv 2305.20050, 2312.08935).

A step is right if its own computation is, and a solution is on its way until its first wrong step: nothing after an error
counts as right. If the answer is known to be wrong although every computation is right (the wrong operation was chosen),
the fault cannot be placed by execution alone: only the last step is then known to be wrong, and earlier ones are unlabelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tinyreason.verifiers.execution import Step


class StepLabel(NamedTuple):
    """A label (1 right, 0 wrong, None unknown) for what stands up to character `end` of the text."""

    end: int
    label: int | None


def step_labels(steps: Sequence[Step], right: bool) -> list[StepLabel]:
    """steps: the computations of a solution in order (`ExecutionVerifier.steps`); right: whether its answer is."""
    if right:
        return [StepLabel(step.end, 1) for step in steps]
    wrong = next((index for index, step in enumerate(steps) if not step.right), None)
    if wrong is not None:
        return [StepLabel(step.end, int(index < wrong)) for index, step in enumerate(steps)]
    return [StepLabel(step.end, None if index < len(steps) - 1 else 0) for index, step in enumerate(steps)]
