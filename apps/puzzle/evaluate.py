"""`uv run apps/puzzle evaluate RUN`: puzzles it has never seen, scored after every supervision step."""

from __future__ import annotations

from typing import Literal, cast

from apps.common import command_help, command_line, processes
from apps.common.command_line import Grammar, Option
from apps.common.console import Console
from apps.common.markdown import table
from apps.puzzle import trained
from apps.puzzle.scoring import Scores, score

OPTIONS = {
    "split": Option(
        "which puzzles: test, or those that are scored in training", "test|validation", choices=("test", "validation")
    ),
    "limit": Option("how many of them (default: all that the recipe holds out)", "N"),
    "votes": Option("answer so many random copies of each and let them vote (default: 1, none)", "N"),
    "batch": Option("puzzles at one time (default: 64)", "N"),
    "device": command_line.DEVICE,
    "json": command_line.JSON,
    "help": command_line.HELP,
}
EXAMPLES = (
    ("every held-out puzzle", "uv run apps/puzzle evaluate runs/trm-sudoku-4x4"),
    ("think twice as long", "uv run apps/puzzle evaluate runs/trm-sudoku-4x4 --model.depth.supervision 12"),
    ("let nine copies vote", "uv run apps/puzzle evaluate runs/trm-sudoku-4x4 --votes 9 --limit 100"),
)


def run(argv: list[str]) -> int:
    """Score what `argv` names; the exit status."""
    arguments = command_line.take_apart(argv, Grammar(OPTIONS, dotted=True, words="RUN"))
    if "help" in arguments.options:
        summary = "Score a puzzle model; --model.depth.* change its recursion."
        command_help.print_app_help("puzzle evaluate", summary, "RUN|CHECKPOINT", OPTIONS, EXAMPLES)
        return 0
    console = Console(json="json" in arguments.options)
    model = trained.load(arguments, processes.device_type(arguments.text("device", "auto"), 1))
    split = cast(Literal["test", "validation"], arguments.text("split", "test"))
    boards = model.boards(split, console)
    limit = min(arguments.whole("limit", len(boards)), len(boards))
    with console.counting(f"solving {limit:,} puzzles", limit) as counting:
        done = 0

        def tell(now: int) -> None:
            nonlocal done
            for _ in range(now - done):
                counting.advance()
            done = now

        found = score(model.model, boards, limit, arguments.whole("votes", 1), arguments.whole("batch", 64), tell)
    console.say(f"{model.checkpoint}: {limit:,} {split} puzzles")
    console.say(shown(found))
    last = found.exact[-1]
    console.result(
        {
            "checkpoint": str(model.checkpoint),
            "split": split,
            "puzzles": limit,
            "exact": last.value,
            "standard_error": last.error,
            "cells": found.cells[-1].value,
            "exact_by_step": [share.value for share in found.exact],
            "cells_by_step": [share.value for share in found.cells],
            "halted_by_step": [[share.of, share.right] for share in found.halted],
            "voted": None if found.voted is None else {"votes": found.votes, "exact": found.voted.value},
        }
    )
    return 0


def shown(scores: Scores) -> str:
    """The table of steps, and what the vote gives."""
    halting = any(share.of for share in scores.halted)
    head = [
        "supervision steps",
        "puzzles solved",
        "cells right",
        *(["halted here", "of these solved"] if halting else []),
    ]
    rows = []
    for number, (exact, cells, halted) in enumerate(zip(scores.exact, scores.cells, scores.halted, strict=True), 1):
        row = [str(number), f"{exact.value:.1%} +- {exact.error:.1%}", f"{cells.value:.2%}"]
        rows.append([*row, *([f"{halted.of:,}", f"{halted.value:.1%}" if halted.of else ""] if halting else [])])
    text = table(head, rows)
    if scores.voted is not None:
        text += f"\n\nvote of {scores.votes} copies: {scores.voted.value:.1%} +- {scores.voted.error:.1%} solved"
    return text
