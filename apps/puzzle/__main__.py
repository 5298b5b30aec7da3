"""`uv run apps/puzzle`: train a model that solves puzzles, evaluate it, watch it think. Exit status: see apps.common.errors.

uv run apps/puzzle [--recipe trm-sudoku-4x4] [options]    train, exactly resumable, as apps/pretrain does
uv run apps/puzzle evaluate RUN                           score it on puzzles that it has never seen
uv run apps/puzzle show RUN                               one board, solved step by step
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from apps.common import command_line
from apps.puzzle import evaluate, show, train

COMMANDS: dict[str, Callable[[list[str]], int]] = {"train": train.run, "evaluate": evaluate.run, "show": show.run}


def run() -> int:
    """Do what the command line asks; the exit status."""
    arguments = sys.argv[1:]
    if arguments and arguments[0] in COMMANDS:
        return COMMANDS[arguments[0]](arguments[1:])
    return train.run(arguments)


if __name__ == "__main__":
    command_line.main(run)
