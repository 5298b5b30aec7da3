"""Claim: a maze's marked path is its only shortest one; size, loops and length are as asked; sides share no walls, turned or
flipped. Shortest paths are counted again here as walks, by powers of the adjacency matrix.
"""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinydata import puzzles
from tinydata.puzzles.dihedral import TURNS, turned, undoing
from tinydata.puzzles.maze import Maze, maze, side_of

# When it changes, mazes that somebody trained on are not the ones that are generated any more.
GOLDEN = "c20ce942f348ec1605a4c9e3e9589d57d37f60259607b0481d0affba68560379"


def some(count: int, *size: int, **request: object) -> list[Maze]:
    return list(itertools.islice(maze(*size, **request), count))  # ty: ignore[invalid-argument-type]


def adjacency(walls: np.ndarray) -> tuple[np.ndarray, dict[tuple[int, int], int]]:
    """(N, N) of the N open cells, as Python numbers so that counts of walks never overflow."""
    number = {(int(r), int(c)): n for n, (r, c) in enumerate(np.argwhere(~walls))}
    matrix = np.zeros((len(number), len(number)), dtype=object)
    for (r, c), n in number.items():
        for near in ((r + 1, c), (r, c + 1)):
            if near in number:
                matrix[n, number[near]] = matrix[number[near], n] = 1
    return matrix, number


def shortest_walks(puzzle: Maze) -> tuple[int, int]:
    """Length of the shortest walk from start to goal and how many there are: the first power that joins them."""
    matrix, number = adjacency(puzzle.walls)
    walks = np.zeros(len(number), dtype=object)
    walks[number[puzzle.start]] = 1
    for length in range(1, len(number)):
        walks = walks @ matrix
        if walks[number[puzzle.goal]]:
            return length, walks[number[puzzle.goal]]
    raise AssertionError("start and goal are not joined")


@settings(deadline=None, max_examples=40)
@given(st.integers(3, 12), st.integers(3, 12), st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.integers(0, 1000))
def test_the_marked_path_is_the_only_shortest_one(height: int, width: int, loops: float, seed: int) -> None:
    puzzle = next(maze(height, width, loops=loops, seed=seed))
    assert puzzle.walls.shape == puzzle.path.shape == (height, width)
    assert shortest_walks(puzzle) == (puzzle.length, 1)
    assert not (puzzle.walls & puzzle.path).any()
    assert puzzle.path[puzzle.start]
    assert puzzle.path[puzzle.goal]
    assert puzzle.start != puzzle.goal
    # length + 1 marked cells that join the ends can be nothing but a path of that length.
    assert shortest_walks(Maze(~puzzle.path, puzzle.start, puzzle.goal, puzzle.path)) == (puzzle.length, 1)


@pytest.mark.parametrize("size", [(9, 9), (8, 8), (7, 12)])
def test_without_loops_a_maze_is_a_spanning_tree_of_its_rooms(size: tuple[int, int]) -> None:
    for puzzle in some(20, *size):
        matrix, number = adjacency(puzzle.walls)
        rooms = ((size[0] + 1) // 2) * ((size[1] + 1) // 2)
        assert len(number) == 2 * rooms - 1
        assert matrix.sum() // 2 == len(number) - 1
        reached = np.linalg.matrix_power(np.eye(len(number)) + matrix.astype(float), len(number))
        assert (reached > 0).all()


def test_loops_open_their_share_of_walls() -> None:
    rooms, tries = 8 * 8, 60
    inner = 2 * 8 * 7 - (rooms - 1)
    opened = [np.count_nonzero(~puzzle.walls) - (2 * rooms - 1) for puzzle in some(tries, 15, loops=0.25)]
    assert abs(sum(opened) / tries - 0.25 * inner) < 4 * np.sqrt(inner * 0.25 * 0.75 / tries)
    assert all(np.count_nonzero(~puzzle.walls) == 2 * rooms - 1 + inner for puzzle in some(2, 15, loops=1.0))


def test_spare_lines_of_even_sides_are_on_either_side() -> None:
    assert {bool(puzzle.walls[0].all()) for puzzle in some(30, 8)} == {True, False}
    assert {bool(puzzle.walls[:, 0].all()) for puzzle in some(30, 8)} == {True, False}


def test_length_can_be_asked_for() -> None:
    assert all(40 <= puzzle.length <= 60 for puzzle in some(20, 21, loops=0.02, min_length=40, max_length=60))
    assert all(puzzle.length == 1 for puzzle in some(5, 9, max_length=1))


def test_the_stream_is_pinned_and_can_be_entered_anywhere() -> None:
    stream = some(30, 10, 13, loops=0.1, seed=3)
    assert hashlib.sha256("\n\n".join(map(str, stream)).encode()).hexdigest() == GOLDEN
    assert [str(puzzle) for puzzle in some(5, 10, 13, loops=0.1, seed=3, start=25)] == [str(p) for p in stream[25:]]
    assert {str(puzzle) for puzzle in some(30, 10, 13, loops=0.1, seed=4)}.isdisjoint(map(str, stream))


def test_inputs_hide_the_path_and_the_answer_adds_nothing_else() -> None:
    for puzzle in some(10, 9, 12, loops=0.2):
        text = {1: "#", 2: ".", 3: "S", 4: "G", 5: "o"}
        assert [[text[code] for code in row] for row in puzzle.answer.tolist()] == [
            list(r) for r in str(puzzle).split("\n")
        ]
        assert np.count_nonzero(puzzle.inputs == 3) == np.count_nonzero(puzzle.inputs == 4) == 1
        changed = puzzle.inputs != puzzle.answer
        assert (puzzle.inputs[changed] == 2).all()
        assert (puzzle.answer[changed] == 5).all()
        assert np.count_nonzero(changed) == puzzle.length - 1


def test_turned_mazes_remain_mazes() -> None:
    puzzle = some(1, 7, 10, loops=0.3)[0]
    copies = [puzzle.transformed(turn) for turn in TURNS]
    for copy in copies:
        assert shortest_walks(copy) == (puzzle.length, 1)
        assert copy.path[copy.start]
        assert copy.path[copy.goal]
    assert len({str(copy) for copy in copies}) == 8
    assert np.array_equal(copies[5].answer, turned(puzzle.answer, 5))


def test_turns_are_the_eight_of_the_square_and_are_undone() -> None:
    grid = np.arange(12).reshape(3, 4)
    # Written out: identity and quarter turns against the clock; then the same of the transposed grid.
    corners = [(0, 3, 8, 11), (3, 11, 0, 8), (11, 8, 3, 0), (8, 0, 11, 3)]
    corners += [(0, 8, 3, 11), (8, 11, 0, 3), (11, 3, 8, 0), (3, 0, 11, 8)]
    for turn in TURNS:
        copy = turned(grid, turn)
        assert (copy[0, 0], copy[0, -1], copy[-1, 0], copy[-1, -1]) == corners[turn]
        assert np.array_equal(turned(copy, undoing(turn)), grid)
    with pytest.raises(ValueError, match="a turn is 0 to 7, got 8"):
        turned(grid, 8)


def test_sides_share_no_walls_in_any_turn() -> None:
    def forms(split: str) -> set[bytes]:
        stream = some(60, 6, split=split, seed=1)
        return {turned(puzzle.walls, turn).tobytes() for puzzle in stream for turn in TURNS}

    sides = [forms(split) for split in ("train", "validation", "test")]
    for one, other in itertools.combinations(sides, 2):
        assert not one & other
    puzzle = some(1, 8, 11)[0]
    fractions = {"test": 0.5}
    assert len({side_of(turned(puzzle.walls, turn), fractions) for turn in TURNS}) == 1
    assert {side_of(puzzle.walls, fractions) for puzzle in some(20, 9)} == {"train", "test"}


@pytest.mark.parametrize(
    "request_, message",
    [
        ({"height": 2}, "sides must be 3 to 255, got 2x2"),
        ({"height": 9, "width": 256}, "sides must be 3 to 255, got 9x256"),
        ({"split": "dev"}, "split must be one of"),
        ({"loops": 1.5}, "loops is a probability, got 1.5"),
        ({"loops": float("nan")}, "loops is a probability, got nan"),
        ({"min_length": 0}, "lengths must be"),
        ({"min_length": 9, "max_length": 8}, "lengths must be"),
        ({"height": 5, "min_length": 25}, "none of 2000 draws was on any side with a shortest path of 25 to 25 steps"),
    ],
)
def test_a_request_that_cannot_be_met_is_one_line(request_: dict, message: str) -> None:
    with pytest.raises(puzzles.PuzzleError, match=message) as raised:
        next(maze(**request_))
    assert "\n" not in str(raised.value)
