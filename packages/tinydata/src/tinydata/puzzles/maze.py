"""Mazes on a grid of cells, each with one shortest path from start to goal: the answer marks that path.

A maze is a random depth-first spanning tree over every second cell of every second row ("rooms"), with the cells between
joined rooms open and all others walls: long winding corridors, exactly one way between any two places. Then each wall
between two rooms is opened with probability `loops`, which makes detours and shortcuts, so that following the wall is
not enough. The goal is drawn among the cells whose number of shortest paths from the start, counted over the breadth-first
layers, is exactly one, and whose distance is the one asked for: the length of the path is the difficulty.

The outside of the grid counts as wall. An odd side has rooms along both of its borders; an even one has a spare line of
walls on one of them, at random.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import get_args

import numpy as np

from tinydata.documents import Split, split_of
from tinydata.puzzles.dihedral import TURNS, turned
from tinydata.puzzles.stream import PuzzleError, numbered
from tinydata.synthetic.chance import Chance

WALL, OPEN, START, GOAL, PATH = 1, 2, 3, 4, 5
MIN_SIDE, MAX_SIDE = 3, 255
DEFAULT_FRACTIONS: Mapping[str, float] = MappingProxyType({"validation": 0.1, "test": 0.1})

_CHARACTERS = np.array(list("?#.SGo"))

Place = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Maze:
    """walls (H, W) bool; start, goal: (row, column); path (H, W) bool: the only shortest path, both ends included."""

    walls: np.ndarray
    start: Place
    goal: Place
    path: np.ndarray

    @property
    def length(self) -> int:
        """Steps from start to goal."""
        return int(np.count_nonzero(self.path)) - 1

    @property
    def inputs(self) -> np.ndarray:
        """(H, W) int8: WALL, OPEN, START and GOAL; 0 is left for padding."""
        codes = np.where(self.walls, WALL, OPEN).astype(np.int8)
        codes[self.start], codes[self.goal] = START, GOAL
        return codes

    @property
    def answer(self) -> np.ndarray:
        """(H, W) int8: the inputs, with PATH at the open cells between start and goal."""
        codes = self.inputs
        codes[self.path & (codes == OPEN)] = PATH
        return codes

    def transformed(self, turn: int) -> Maze:
        """The same maze turned or flipped (`dihedral`)."""
        walls, path = turned(self.walls, turn), turned(self.path, turn)
        start, goal = (_moved(place, self.walls.shape, turn) for place in (self.start, self.goal))
        return replace(self, walls=walls, start=start, goal=goal, path=path)

    def __str__(self) -> str:
        return "\n".join("".join(_CHARACTERS[row]) for row in self.answer)


def maze(
    height: int = 15,
    width: int | None = None,
    *,
    seed: int = 0,
    split: Split | None = None,
    fractions: Mapping[str, float] = DEFAULT_FRACTIONS,
    loops: float = 0.0,
    min_length: int = 1,
    max_length: int | None = None,
    start: int = 0,
) -> Iterator[Maze]:
    """Endless mazes of height x width (square by default); number i depends on the arguments, the seed and i alone.

    split: only mazes whose walls, in any turn or flip, lie on this side; `fractions` are the shares of "validation" and
    "test". loops: the probability that a wall between two rooms is opened. min_length, max_length: steps from start to
    goal. Raises PuzzleError for a request that cannot be met, ValueError for fractions that `split_of` refuses.
    """
    width = height if width is None else width
    if not (MIN_SIDE <= height <= MAX_SIDE and MIN_SIDE <= width <= MAX_SIDE):
        raise PuzzleError(f"maze: sides must be {MIN_SIDE} to {MAX_SIDE}, got {height}x{width}")
    if split is not None and split not in get_args(Split):
        raise PuzzleError(f"maze: split must be one of {', '.join(get_args(Split))}, got {split!r}")
    if not 0.0 <= loops <= 1.0:
        raise PuzzleError(f"maze: loops is a probability, got {loops}")
    if min_length < 1 or (max_length is not None and max_length < min_length):
        raise PuzzleError(f"maze: lengths must be 1 <= min_length <= max_length, got {min_length} and {max_length}")
    longest = height * width if max_length is None else max_length

    def draw(chance: Chance) -> Maze | None:
        walls = _walls(height, width, loops, chance)
        if split is not None and side_of(walls, fractions) != split:
            return None
        return _with_ends(walls, min_length, longest, chance)

    asked = f"{split or 'on any side'} with a shortest path of {min_length} to {longest} steps"
    return numbered(f"maze {height}x{width}", seed, start, draw, asked)


def side_of(walls: np.ndarray, fractions: Mapping[str, float]) -> Split:
    """The side of these walls (H, W) and all their turns and flips, wherever start and goal are."""
    copies = [turned(walls, turn) for turn in TURNS]
    height, width, cells = min((*copy.shape, copy.astype(np.uint8).tobytes()) for copy in copies)
    return split_of(f"maze {height}x{width} {cells.hex()}", fractions)


def _walls(height: int, width: int, loops: float, chance: Chance) -> np.ndarray:
    walls = np.ones((height, width), dtype=bool)
    # The first room's row and column: an even side has one line to spare, above or below.
    top = chance.below(2) if height % 2 == 0 else 0
    left = chance.below(2) if width % 2 == 0 else 0

    def neighbours(place: Place) -> list[Place]:
        row, column = place
        around = ((row - 2, column), (row, column - 2), (row, column + 2), (row + 2, column))
        return [(r, c) for r, c in around if 0 <= r < height and 0 <= c < width]

    room = (top + 2 * chance.below((height + 1) // 2), left + 2 * chance.below((width + 1) // 2))
    walls[room] = False
    trail = [room]
    while trail:
        ahead = [place for place in neighbours(trail[-1]) if walls[place]]
        if not ahead:
            trail.pop()
            continue
        room = chance.choose(ahead)
        walls[_between(trail[-1], room)] = walls[room] = False
        trail.append(room)
    if loops:
        for row in range(top, height, 2):
            for column in range(left, width, 2):
                for other in neighbours((row, column)):
                    wall = _between((row, column), other)
                    if other > (row, column) and walls[wall] and chance.happens(loops):
                        walls[wall] = False
    return walls


def _between(one: Place, other: Place) -> Place:
    return (one[0] + other[0]) // 2, (one[1] + other[1]) // 2


def _with_ends(walls: np.ndarray, shortest: int, longest: int, chance: Chance) -> Maze | None:
    """A random start, and a random goal at the right distance with one shortest path; None if there is none."""
    places = [(row, column) for row, column in np.argwhere(~walls).tolist()]
    start = chance.choose(places)
    distance, paths = _breadth_first(walls, start)
    goals = [place for place in places if paths[place] == 1 and shortest <= distance[place] <= longest]
    if not goals:
        return None
    goal = place = chance.choose(goals)
    path = np.zeros_like(walls)
    path[place] = True
    while place != start:
        # One of the neighbours is a step nearer: two would be two shortest paths.
        place = next(near for near in _steps(place) if distance.get(near) == distance[place] - 1)
        path[place] = True
    return Maze(walls, start, goal, path)


def _breadth_first(walls: np.ndarray, start: Place) -> tuple[dict[Place, int], dict[Place, int]]:
    """Steps from `start` to every place that can be reached, and in how many ways so few steps suffice."""
    free = set(zip(*(line.tolist() for line in np.nonzero(~walls)), strict=True))
    distance, paths = {start: 0}, {start: 1}
    layer = [start]
    while layer:
        beyond: list[Place] = []
        for place in layer:
            for near in _steps(place):
                if near not in free:
                    continue
                if near not in distance:
                    distance[near], paths[near] = distance[place] + 1, 0
                    beyond.append(near)
                if distance[near] == distance[place] + 1:
                    paths[near] += paths[place]
        layer = beyond
    return distance, paths


def _steps(place: Place) -> tuple[Place, Place, Place, Place]:
    row, column = place
    return (row - 1, column), (row, column - 1), (row, column + 1), (row + 1, column)


def _moved(place: Place, shape: tuple[int, ...], turn: int) -> Place:
    mark = np.zeros(shape, dtype=bool)
    mark[place] = True
    row, column = np.argwhere(turned(mark, turn))[0].tolist()
    return row, column
