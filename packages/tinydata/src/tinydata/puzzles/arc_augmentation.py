"""Many dresses of one ARC task, and the vote over the answers they get.

A rule that holds for coloured grids mostly holds for their turns and flips, and under other colours. A model answers each
copy of a task, every answer is brought back by the exact inverse, and the grids that most copies agree on are the
attempts (two, as ARC counts). Black, colour 0, is the background in most tasks and keeps its colour by default.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tinydata.puzzles.arc import COLOURS, ArcPair, ArcTask, checked_grid
from tinydata.puzzles.dihedral import TURNS, turned, undoing
from tinydata.puzzles.stream import PuzzleError
from tinydata.synthetic.chance import Chance


@dataclass(frozen=True, slots=True)
class ArcAugmentation:
    """turn: 0..7 (`dihedral`). colours: the new colour of each of the ten."""

    turn: int = 0
    colours: tuple[int, ...] = tuple(range(COLOURS))

    def __post_init__(self) -> None:
        if self.turn not in TURNS or sorted(self.colours) != list(range(COLOURS)):
            raise PuzzleError(f"arc: turn must be 0 to 7 and colours a permutation of 0 to 9, got {self}")

    @property
    def inverse(self) -> ArcAugmentation:
        """What undoes it: colours and turns do not meet, so each is undone by itself."""
        return ArcAugmentation(undoing(self.turn), tuple(self.colours.index(colour) for colour in range(COLOURS)))

    def __call__(self, grid: np.ndarray) -> np.ndarray:
        """(H, W) of 0..9 -> (H, W) or (W, H) int8."""
        return np.array(self.colours, dtype=np.int8)[turned(grid, self.turn)]

    def task(self, task: ArcTask) -> ArcTask:
        """Every grid of the task in the same dress, so that its rule shows in its copies as it did."""
        train, test = (tuple(self._pair(pair) for pair in pairs) for pairs in (task.train, task.test))
        return ArcTask(task.name, train, test)

    def _pair(self, pair: ArcPair) -> ArcPair:
        return ArcPair(self(pair.input), None if pair.output is None else self(pair.output))


@dataclass(frozen=True, eq=False)
class ArcVote:
    """grid (H, W) int8, in the task's own colours and direction; how many answers were it; their mean score."""

    grid: np.ndarray
    votes: int
    score: float


def arc_augmentations(count: int, seed: int = 0, keep_black: bool = True) -> list[ArcAugmentation]:
    """`count` different ones, the identity first; a smaller count gives the beginning of a larger one.

    There are 8 * 9! = 2,903,040, and ten times as many where black may change too. Raises PuzzleError for more than half
    of them, from where on drawing until a new one comes up takes long.
    """
    kept = 1 if keep_black else 0
    most = len(TURNS) * math.factorial(COLOURS - kept) // 2
    if not 1 <= count <= most:
        raise PuzzleError(f"arc: 1 to {most} augmentations, got {count}")
    chance = Chance("arc augmentations", seed)
    found = {ArcAugmentation(): None}
    while len(found) < count:
        turn = chance.below(len(TURNS))
        colours = (*range(kept), *chance.distinct(range(kept, COLOURS), COLOURS - kept))
        found[ArcAugmentation(turn, colours)] = None
    return list(found)


def arc_vote(
    answers: Iterable[tuple[ArcAugmentation, np.ndarray]], scores: Sequence[float] | None = None, attempts: int = 2
) -> list[ArcVote]:
    """The `attempts` grids with the most votes, best first, among the answers to augmented copies of one test.

    answers: each with the augmentation of the copy it answers. scores: the model's confidence in each; of grids with as
    many votes, the higher mean score goes first, then the smaller grid, then the smaller colours, so that the order in
    which answers come never matters. Raises PuzzleError for an answer that is no grid, ValueError for another number of
    scores.
    """
    answers = list(answers)
    confidence = [0.0] * len(answers) if scores is None else list(scores)
    ballots: dict[tuple[int, int, bytes], list[float]] = {}
    for number, ((augmentation, answer), score) in enumerate(zip(answers, confidence, strict=True)):
        grid = augmentation.inverse(checked_grid(answer, f"arc: answer {number}"))
        ballots.setdefault((*grid.shape, grid.tobytes()), []).append(score)
    ranked = [
        ArcVote(np.frombuffer(cells, np.int8).reshape(height, width), len(given), math.fsum(given) / len(given))
        for (height, width, cells), given in ballots.items()
    ]
    ranked.sort(key=lambda vote: (-vote.votes, -vote.score, vote.grid.size, vote.grid.shape, vote.grid.tobytes()))
    return ranked[:attempts]
