"""Claim: ARC files are read as they are or refused in one line, in bounded memory; augmentations are exactly undone; the
vote counts grids in the task's own dress, whatever the order of the answers.
"""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinydata import puzzles
from tinydata.puzzles.arc import MAX_FILE_BYTES
from tinydata.puzzles.arc_augmentation import ArcAugmentation, arc_augmentations, arc_vote

GRID = [[0, 1, 2], [3, 4, 5]]
PAIR = {"input": GRID, "output": [[9]]}
TASK = {"train": [PAIR, PAIR], "test": [{"input": [[7, 8]]}]}


def write(folder: Path, content: object, name: str = "tasks.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def as_json(task: puzzles.ArcTask) -> dict:
    def pairs(given: tuple[puzzles.ArcPair, ...]) -> list[dict]:
        return [
            {"input": pair.input.tolist()} | ({} if pair.output is None else {"output": pair.output.tolist()})
            for pair in given
        ]

    return {"train": pairs(task.train), "test": pairs(task.test)}


# --- reading ----------------------------------------------------------------------------------------------------------


def test_a_task_a_collection_and_a_folder_are_read_as_written(tmp_path: Path) -> None:
    one = puzzles.read_arc(write(tmp_path, TASK, "0a1b.json"))
    assert list(one) == ["0a1b"]
    assert as_json(one["0a1b"]) == TASK
    assert one["0a1b"].train[0].input.dtype == np.int8
    other = {"train": [PAIR], "test": [PAIR]}
    both = puzzles.read_arc(write(tmp_path, {"b": TASK, "a": other}))
    assert {name: as_json(task) for name, task in both.items()} == {"b": TASK, "a": other}
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, task in (("y", TASK), ("x", other)):
        write(folder, task, f"{name}.json")
    write(folder, "not a task", "LICENSE")
    assert {name: as_json(task) for name, task in puzzles.read_arc(folder).items()} == {"x": other, "y": TASK}


def test_solutions_fill_in_the_outputs_of_tests(tmp_path: Path) -> None:
    path = write(tmp_path, {"a": TASK})
    tasks = puzzles.read_arc(path, write(tmp_path, {"a": [[[5, 5]]], "unasked": []}, "solutions.json"))
    assert as_json(tasks["a"]) == TASK | {"test": [{"input": [[7, 8]], "output": [[5, 5]]}]}


def replaced(*path: object, by: object) -> dict:
    """TASK in a collection, with one place changed."""
    content = json.loads(json.dumps({"a": TASK}))
    place = content["a"]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = by
    return content


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"a": ' * 100_000, "not JSON"),
        ("\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), "not JSON"),
        ([TASK], "not a JSON object"),
        ({}, "no task in it"),
        ({"a": 3}, "task 'a': a task is an object with 'train' and 'test', got int"),
        ({"x" * 999 + "\n": 3}, "task '" + "x" * 40 + "': a task is"),
        ({"a\nb": 3}, r"task 'a\\nb': a task is"),
        ({"train": [PAIR]}, "'test' is not a list of pairs"),
        (replaced("train", by=[]), "task 'a': 'train' is not a list of pairs"),
        (replaced("test", by={}), "task 'a': 'test' is not a list of pairs"),
        (replaced("train", 1, by=[]), "train 1: a pair is an object"),
        (replaced("train", 1, by={"input": GRID}), "train 1: no output"),
        (replaced("train", 0, "input", by=[]), "train 0: input: expected 1 to 30 rows, got 0"),
        (replaced("train", 0, "input", by=[[0]] * 31), "train 0: input: expected 1 to 30 rows, got 31"),
        (replaced("train", 0, "output", by=[[0] * 31]), "train 0: output: row 0: expected 1 to 30 colours, got 31"),
        (replaced("train", 0, "output", by=[[]]), "row 0: expected 1 to 30 colours, got 0"),
        (replaced("test", 0, "input", by=[[0, 1], [0]]), "test 0: input: row 1 has 1 colours, row 0 has 2"),
        (replaced("test", 0, "input", by=[[0], 0]), "test 0: input: row 1: expected 1 to 30 colours, got int"),
        (replaced("test", 0, "input", by="0"), "test 0: input: expected 1 to 30 rows, got str"),
        *(
            (replaced("test", 0, "input", by=[[0, bad]]), "row 0, column 1 is not a whole number from 0 to 9")
            for bad in (10, -1, True, 1.0, None, "1", [1], 10**30, float("nan"), float("inf"))
        ),
    ],
)
def test_what_is_no_task_is_refused_in_one_line(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(puzzles.PuzzleError, match=message) as raised:
        puzzles.read_arc(write(tmp_path, content))
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 200 + len(str(tmp_path))


def test_files_that_cannot_be_are_refused(tmp_path: Path) -> None:
    large = tmp_path / "large.json"
    with large.open("wb") as stream:
        stream.truncate(MAX_FILE_BYTES + 1)
    collection = write(tmp_path, {"a": TASK})
    cases = [
        ((tmp_path / "none.json",), "no such file"),
        ((large,), "larger than 8 MiB"),
        ((collection, write(tmp_path, {}, "1.json")), "task 'a': no list of outputs in"),
        ((collection, write(tmp_path, {"a": []}, "2.json")), "1 tests, 0 solutions"),
        ((collection, write(tmp_path, {"a": [[[10]]]}, "3.json")), "solution 0: row 0, column 0 is not"),
        ((write(tmp_path, TASK, "one.json"), collection), "this is one task"),
        ((tmp_path, collection), "not with a folder"),
    ]
    for arguments, message in cases:
        with pytest.raises(puzzles.PuzzleError, match=message):
            puzzles.read_arc(*arguments)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(puzzles.PuzzleError, match=r"0 files that end in \.json"):
        puzzles.read_arc(empty)


# --- augmentation -----------------------------------------------------------------------------------------------------

GRIDS = st.integers(1, 30).flatmap(
    lambda width: st.lists(st.lists(st.integers(0, 9), min_size=width, max_size=width), min_size=1, max_size=30)
)
AUGMENTATIONS = st.builds(ArcAugmentation, st.integers(0, 7), st.permutations(range(10)).map(tuple))


@settings(deadline=None)
@given(GRIDS, AUGMENTATIONS)
def test_the_inverse_gives_back_the_grid(rows: list[list[int]], augmentation: ArcAugmentation) -> None:
    grid = np.array(rows, dtype=np.int8)
    copy = augmentation(grid)
    assert np.array_equal(augmentation.inverse(copy), grid)
    assert np.array_equal(augmentation(augmentation.inverse(grid)), grid)
    assert augmentation.inverse.inverse == augmentation
    # Colours by counting, turns by neighbours: cells that touched still touch.
    assert [np.count_nonzero(copy == augmentation.colours[c]) for c in range(10)] == [
        np.count_nonzero(grid == c) for c in range(10)
    ]
    assert touching(copy) == sorted(
        sorted((augmentation.colours[a], augmentation.colours[b])) for a, b in touching(grid)
    )


def touching(grid: np.ndarray) -> list[list[int]]:
    across = zip(grid[:, 1:].ravel().tolist(), grid[:, :-1].ravel().tolist(), strict=True)
    down = zip(grid[1:].ravel().tolist(), grid[:-1].ravel().tolist(), strict=True)
    return sorted(sorted(pair) for pair in itertools.chain(across, down))


def test_augmentations_differ_begin_with_the_identity_and_keep_black() -> None:
    drawn = arc_augmentations(1000, seed=2)
    assert drawn[0] == ArcAugmentation()
    assert len(set(drawn)) == 1000
    assert arc_augmentations(10, seed=2) == drawn[:10]
    assert arc_augmentations(10, seed=3)[1:] != drawn[1:10]
    assert all(augmentation.colours[0] == 0 for augmentation in drawn)
    assert {augmentation.turn for augmentation in drawn} == set(range(8))
    free = arc_augmentations(200, keep_black=False)
    assert {augmentation.colours[0] for augmentation in free} == set(range(10))
    for count in (0, 2_000_000):
        with pytest.raises(puzzles.PuzzleError, match="1 to 1451520 augmentations"):
            arc_augmentations(count)


@pytest.mark.parametrize("turn, colours", [(8, range(10)), (-1, range(10)), (0, range(9)), (0, [0] * 10)])
def test_what_is_no_augmentation_is_refused(turn: int, colours: list[int]) -> None:
    with pytest.raises(puzzles.PuzzleError, match="turn must be 0 to 7 and colours a permutation"):
        ArcAugmentation(turn, tuple(colours))


def test_a_task_is_dressed_as_a_whole(tmp_path: Path) -> None:
    task = puzzles.read_arc(write(tmp_path, TASK, "a.json"))["a"]
    augmentation = ArcAugmentation(1, (0, 2, 1, 3, 4, 5, 6, 7, 9, 8))
    copy = augmentation.task(task)
    assert copy.train[1].input.tolist() == [[1, 5], [2, 4], [0, 3]]
    assert copy.train[0].output is not None
    assert copy.train[0].output.tolist() == [[8]]
    assert copy.test[0].input.tolist() == [[9], [7]]
    assert copy.test[0].output is None
    assert as_json(augmentation.inverse.task(copy)) == TASK


# --- the vote ---------------------------------------------------------------------------------------------------------


def test_the_vote_finds_what_most_copies_agree_on() -> None:
    right, near = np.array(GRID, dtype=np.int8), np.array([[0, 1, 2], [3, 4, 6]], dtype=np.int8)
    drawn = arc_augmentations(60, seed=1)
    random_ = random.Random(0)
    answers = [(augmentation, augmentation(right)) for augmentation in drawn[:25]]
    answers += [(augmentation, augmentation(near)) for augmentation in drawn[25:45]]
    # Wrong in the copy's own dress: brought back, these are all different grids.
    answers += [(augmentation, right) for augmentation in drawn[45:]]
    for _ in range(3):
        random_.shuffle(answers)
        first, second = arc_vote(answers)
        assert (first.votes, first.grid.tolist()) == (25, GRID)
        assert (second.votes, second.grid.tolist()) == (20, near.tolist())
    assert sum(vote.votes for vote in arc_vote(answers, attempts=100)) == 60
    assert arc_vote([]) == []


def test_ties_go_to_the_confident_then_to_an_order_of_grids() -> None:
    plain = ArcAugmentation()
    one, two, wide = np.array([[1]]), np.array([[2]]), np.array([[0, 0]])
    ballots = [(plain, two), (plain, wide), (plain, one)]
    for order in itertools.permutations(range(3)):
        shuffled = [ballots[index] for index in order]
        assert [vote.grid.tolist() for vote in arc_vote(shuffled, attempts=3)] == [[[1]], [[2]], [[0, 0]]]
        scores = [[0.1, 0.9, 0.3][index] for index in order]
        assert [vote.score for vote in arc_vote(shuffled, scores, attempts=3)] == [0.9, 0.3, 0.1]
    # Two votes beat one, whatever their confidence; the same colours in another shape are another grid.
    assert arc_vote([*ballots, (plain, two)], [0.0, 5.0, 5.0, 0.0])[0].grid.tolist() == [[2]]
    assert len(arc_vote([(plain, np.zeros((2, 3), int)), (plain, np.zeros((3, 2), int))])) == 2


def test_bad_ballots_are_refused() -> None:
    plain = ArcAugmentation()
    for bad in (np.array([[10]]), np.zeros((31, 1), int), np.zeros(3, int), np.array([[0.5]]), np.zeros((0, 0), int)):
        with pytest.raises(puzzles.PuzzleError, match=r"^arc: answer 0: "):
            arc_vote([(plain, bad)])
    with pytest.raises(ValueError):
        arc_vote([(plain, np.array([[1]]))], [])
