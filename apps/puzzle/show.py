"""`uv run apps/puzzle show RUN`: one board after every supervision step, what changed and what is given set apart."""

from __future__ import annotations

import numpy as np
import torch
from rich.console import Console as RichConsole
from rich.text import Text

from apps.common import command_help, command_line, processes
from apps.common.command_line import Grammar, Option
from apps.common.console import Console
from apps.common.errors import BadRequest
from apps.common.puzzle_config import SudokuData
from apps.common.puzzle_task import answers_by_step
from apps.puzzle import trained
from tinydata.batch import NOTHING_ASKED
from tinydata.puzzles import Boards, Sudoku, SudokuBoards, solve_sudoku
from tinydata.puzzles.sudoku_solver import shape_of

OPTIONS = {
    "puzzle": Option("which of the held-out puzzles (default: 0, the first)", "N"),
    "board": Option("a Sudoku of yours: rows of digits, . where empty, | between rows", "ROWS"),
    "device": command_line.DEVICE,
    "json": command_line.JSON,
    "help": command_line.HELP,
}
EXAMPLES = (
    ("the first held-out puzzle", "uv run apps/puzzle show runs/trm-sudoku-4x4"),
    (
        "another one, thinking for longer",
        "uv run apps/puzzle show runs/trm-sudoku-4x4 --puzzle 7 --model.depth.supervision 12",
    ),
    ("yours", "uv run apps/puzzle show runs/trm-sudoku-4x4 --board '1...|..3.|.4..|...2'"),
)
GIVEN, CHANGED, WRONG = "bold", "bold green", "bold red"


def run(argv: list[str]) -> int:
    """Show what `argv` names; the exit status."""
    arguments = command_line.take_apart(argv, Grammar(OPTIONS, dotted=True, words="RUN"))
    if "help" in arguments.options:
        summary = "Watch a model solve a puzzle; --model.depth.* change its recursion."
        command_help.print_app_help("puzzle show", summary, "RUN|CHECKPOINT", OPTIONS, EXAMPLES)
        return 0
    console = Console(json="json" in arguments.options)
    model = trained.load(arguments, processes.device_type(arguments.text("device", "auto"), 1))
    if "board" in arguments.options:
        boards, index = _yours(arguments.text("board", ""), model.data), 0
    else:
        boards = model.boards("test", console)
        index = arguments.whole("puzzle", 0, least=0)
        if index >= len(boards):
            raise BadRequest(f"--puzzle {index}: there are {len(boards):,}, from 0 on")
    return _solve(model, boards, index, console)


def _solve(model: trained.Trained, boards: Boards, index: int, console: Console) -> int:
    inputs, answers = (part[boards.slots :] if number else part for number, part in enumerate(boards.row(index)))
    given = inputs[boards.slots :]
    screen = RichConsole(stderr=console.json, highlight=False)
    screen.print("given", style="dim")
    screen.print(_drawn(boards, given, given, given, answers))
    device = next(model.model.parameters()).device
    rows = torch.from_numpy(inputs)[None].to(device)
    before, steps = given, []
    for number, (logits, halt) in enumerate(answers_by_step(model.model, rows), 1):
        cells = logits[0, boards.slots :].argmax(-1).cpu().numpy()
        sure = "" if halt is None else f", {torch.sigmoid(halt[0]).item():.0%} sure that it is solved"
        screen.print(f"\nsupervision step {number}: {int((cells != before).sum())} cells changed{sure}", style="dim")
        screen.print(_drawn(boards, given, before, cells, answers))
        steps.append(cells.tolist())
        before = cells
    asked = answers != NOTHING_ASKED
    wrong = int((before != answers)[asked].sum())
    unknown = not asked.any()
    screen.print(
        "\nno answer is known" if unknown else "\nsolved" if not wrong else f"\nnot solved: {wrong} cells are wrong"
    )
    console.result({"given": given.tolist(), "steps": steps, "solved": None if unknown else not wrong, "wrong": wrong})
    return 0


def _drawn(boards: Boards, given: np.ndarray, before: np.ndarray, cells: np.ndarray, answers: np.ndarray) -> Text:
    """The board; of boards whose characters stand for one cell each, cells in the colours of what happened to them."""
    written = boards.show(cells)
    text = Text(written)
    places = [at for at, letter in enumerate(written) if letter != "\n"]
    if isinstance(boards, SudokuBoards):
        places = [at for at in places if written[at] != " "]
    if len(places) != len(cells):
        return text
    known = answers != NOTHING_ASKED
    for at, was, old, now, wanted, asked in zip(places, given, before, cells, answers, known, strict=True):
        if asked and now != wanted and now != was:
            text.stylize(WRONG, at, at + 1)
        elif now == was:
            text.stylize(GIVEN, at, at + 1)
        elif now != old:
            text.stylize(CHANGED, at, at + 1)
    return text


def _yours(text: str, data: object) -> SudokuBoards:
    """A Sudoku from the command line. Raises BadRequest."""
    if not isinstance(data, SudokuData):
        raise BadRequest("--board: is for models of Sudoku")
    side = data.side
    rows = text.strip().split("|")
    digits = {str(digit) for digit in range(1, side + 1)} | {"."}
    if len(rows) != side or any(len(row) != side or not set(row) <= digits for row in rows):
        raise BadRequest(
            f"--board: expected {side} rows of {side} of 1..{side} or '.', with | between them, got {text[:120]!r}"
        )
    clues = np.array([[0 if cell == "." else int(cell) for cell in row] for row in rows], dtype=np.int8)
    solutions = solve_sudoku(clues)
    if len(solutions) != 1:
        how = "no solution" if not solutions else "several solutions"
        raise BadRequest(f"--board: has {how}; a Sudoku has exactly one")
    return SudokuBoards([Sudoku(shape_of(clues), clues, solutions[0], 0)], data.slots)
