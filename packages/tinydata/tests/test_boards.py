"""Puzzles as rows: what is given agrees with what is asked, copies are the same puzzle, and a loader goes on where it was."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tinydata import LoaderError
from tinydata.puzzles import (
    ArcBoards,
    ArcPair,
    ArcTask,
    Boards,
    MazeBoards,
    PuzzleError,
    PuzzleLoader,
    SudokuBoards,
    arc_augmentations,
    canonical_sudoku,
    maze,
    solve_sudoku,
    sudoku,
)
from tinydata.synthetic.chance import Chance


def sudokus(side: int = 4, count: int = 5, slots: int = 3) -> SudokuBoards:
    return SudokuBoards(itertools.islice(sudoku(side, seed=1), count), slots)


def mazes(height: int = 7, width: int = 9) -> MazeBoards:
    return MazeBoards(itertools.islice(maze(height, width, seed=1), 4), 2)


@pytest.mark.parametrize("side", [4, 6, 9])
def test_sudoku_rows(side: int) -> None:
    boards = sudokus(side, 3)
    assert (boards.vocabulary, boards.cells) == (side + 2, 3 + side * side)
    for index, chance in itertools.product(range(3), (None, Chance("a", 0))):
        inputs, answers = boards.row(index, chance)
        assert inputs.dtype == answers.dtype == np.int64
        assert (inputs[:3] == 0).all()
        assert (answers[:3] == -100).all()
        clues, solution = inputs[3:].reshape(side, side) - 1, answers[3:].reshape(side, side) - 1
        assert (clues[clues > 0] == solution[clues > 0]).all()
        assert [found.tolist() for found in solve_sudoku(clues)] == [solution.tolist()]
        original = canonical_sudoku(boards.row(index)[1][3:].reshape(side, side) - 1)
        assert (canonical_sudoku(solution) == original).all()
    assert boards.show(np.array([1, 2, *[3] * (side * side - 2)])).startswith(". 1 2")


def test_maze_rows() -> None:
    boards = mazes()
    for index, chance in itertools.product(range(4), (None, *(Chance(str(k), 0) for k in range(6)))):
        inputs, answers = (part[2:].reshape(7, 9) for part in boards.row(index, chance))
        assert (inputs != 5).all()
        assert ((answers == inputs) | ((answers == 5) & (inputs == 2))).all()
        assert (inputs == 3).sum() == (inputs == 4).sum() == 1
        on_path = np.argwhere(np.isin(answers, (3, 4, 5)))
        for place in on_path:  # the two ends have one neighbour on the path, the others two
            near = (np.abs(on_path - place).sum(1) == 1).sum()
            assert near == (1 if inputs[tuple(place)] in (3, 4) else 2)
    assert set(boards.show(boards.row(0)[1][2:])) <= set("# SGo\n")


def arc_task() -> ArcTask:
    grid = np.array([[0, 1, 2], [3, 4, 5]], dtype=np.int8)
    pairs = (ArcPair(grid, grid[:, ::-1].copy()), ArcPair(grid.T.copy(), grid))
    return ArcTask("flip", pairs, (ArcPair(grid[:1], None),))


def test_arc_rows_come_back_from_every_dress() -> None:
    boards = ArcBoards([arc_task(), arc_task()], side=5)
    assert (len(boards), boards.vocabulary, boards.cells) == (4, 12, 16 + 25)
    inputs, answers = boards.row(3)
    assert inputs[:16].tolist() == [2, 2, 2, 3, 2, *range(2, 12), 0]
    assert (answers[:16] == -100).all()
    assert inputs[16:].reshape(5, 5).tolist() == [
        [2, 5, 1, 0, 0],
        [3, 6, 1, 0, 0],
        [4, 7, 1, 0, 0],
        [1, 1, 1, 0, 0],
        [0, 0, 0, 0, 0],
    ]
    names = set()
    for augmentation in arc_augmentations(20, seed=3):
        inputs, answers = boards.dressed(0, augmentation)
        names.add(tuple(inputs[:16].tolist()))
        grid = boards.grid(np.where(answers < 0, 0, answers)[16:])
        assert grid is not None
        assert (augmentation.inverse(grid) == arc_task().train[0].output).all()
    assert len(names) == 20
    assert boards.grid(np.zeros(25, dtype=np.int64)) is None
    full = boards.grid(np.full(25, 3))
    assert full is not None
    assert full.shape == (5, 5)


def test_arc_tests_without_outputs_ask_for_nothing() -> None:
    boards = ArcBoards([arc_task()], tests=True, side=4)
    assert (boards.row(0)[1] == -100).all()
    for tasks, side, reason in (([], 30, "no pairs"), ([arc_task()], 2, "a grid has 3 rows or columns, the canvas 2")):
        with pytest.raises(PuzzleError, match=reason):
            ArcBoards(tasks, side=side)


@pytest.mark.parametrize("boards", [sudokus(), mazes(), ArcBoards([arc_task()], side=4)], ids=["sudoku", "maze", "arc"])
def test_a_loader_goes_on_where_it_was_and_ranks_share_the_samples(boards: Boards) -> None:
    def batches(count: int, loader: PuzzleLoader) -> list[list[list[int]]]:
        return [np.concatenate([b.inputs, b.answers], 1).tolist() for b in itertools.islice(loader, count)]

    whole = batches(6, PuzzleLoader(boards, 4, seed=5))
    loader = PuzzleLoader(boards, 4, seed=5)
    first = batches(2, loader)
    again = PuzzleLoader(boards, 4, seed=5)
    again.load_state_dict(loader.state_dict())
    assert first + batches(4, again) == whole
    ranks = [batches(3, PuzzleLoader(boards, 2, rank, 2, seed=5)) for rank in (0, 1)]
    assert [a + b for a, b in zip(*ranks, strict=True)] == whole[:3]
    assert batches(6, PuzzleLoader(boards, 4, seed=6)) != whole
    older = iter(again)
    next(older)
    next(iter(again))
    with pytest.raises(RuntimeError, match="lost its place"):
        next(older)
    with pytest.raises(LoaderError, match="seed was 5"):
        PuzzleLoader(boards, 4, seed=6).load_state_dict(loader.state_dict())


def test_an_epoch_has_every_puzzle_once_and_scoring_sees_them_as_they_are() -> None:
    boards = sudokus(count=7)
    plain = PuzzleLoader(boards, 7, copies=False)
    epochs = [batch.inputs for batch in itertools.islice(plain, 2)]
    rows = sorted(boards.row(index)[0].tolist() for index in range(7))
    assert [sorted(epoch.tolist()) for epoch in epochs] == [rows, rows]
    assert epochs[0].tolist() != epochs[1].tolist()
    scored = [batch for rank in (0, 1) for batch in PuzzleLoader(boards, 2, rank, 2).epoch_batches(5)]
    assert sorted(row for batch in scored for row in batch.inputs.tolist()) == sorted(
        boards.row(index)[0].tolist() for index in range(5)
    )
    assert sum(batch.target_count for batch in scored) == 5 * 16


@pytest.mark.parametrize(
    "boards",
    [sudokus(6), mazes(), mazes(7, 7), ArcBoards([arc_task()], side=4)],
    ids=["sudoku", "maze", "square", "arc"],
)
def test_answers_to_copies_come_back(boards: Boards) -> None:
    """The copy's answer, restored, is the puzzle's; the same chance gives the same copy."""
    for index, draw in itertools.product(range(len(boards)), range(8)):
        inputs, restore = boards.disguised(index, Chance(str(draw), 3))
        copied, answers = boards.row(index, Chance(str(draw), 3))
        assert inputs.tolist() == copied.tolist()
        asked = boards.row(index)[1][boards.slots :]
        restored = restore(np.where(answers < 0, 0, answers)[boards.slots :])
        assert (restored[asked >= 0] == asked[asked >= 0]).all()


def test_sizes_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(PuzzleError, match="puzzles of one size"):
        SudokuBoards([next(sudoku(4)), next(sudoku(6))])
    with pytest.raises(PuzzleError, match="got none"):
        MazeBoards([])
