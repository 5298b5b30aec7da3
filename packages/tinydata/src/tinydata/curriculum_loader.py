"""Problems in the order of a curriculum: which level a row is of, and which of its rows, is a function of its number alone.

Problems of different levels never share a row, so that a row is what the curriculum says it is: each level is packed for
itself, and the curriculum draws rows. Its shares are therefore shares of rows, which are of tokens as far as rows are full.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tinydata.batch import Batch
from tinydata.curriculum import Curriculum
from tinydata.problem_loader import EncodedProblem, ProblemLoader, full_rows
from tinydata.tokenizer import Tokenizer

_BLOCK = 2**16  # rows of a run that are counted at once


class CurriculumLoader(ProblemLoader):
    """Batches of `batch_size` rows of `sequence_length` slots, out of `levels`: the problems of each of `curriculum.levels`.

    A saved place may be continued under another curriculum of the same levels (a run that forks at a stage).
    """

    def __init__(
        self,
        levels: Sequence[Sequence[EncodedProblem]],
        curriculum: Curriculum,
        tokenizer: Tokenizer,
        sequence_length: int,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        prefetch: int = 2,
        packed: bool = False,
    ) -> None:
        """packed: as many problems a row as fit, instead of one.

        Raises ValueError for as many levels as the curriculum does not have, one that is empty, a problem that is longer than
        a row, and sizes that make no sense.
        """
        if len(levels) != len(curriculum.levels):
            raise ValueError(f"curriculum: {len(levels)} sets of problems for {len(curriculum.levels)} levels")
        problems = [problem for level in levels for problem in level]
        super().__init__(
            problems, tokenizer, sequence_length, batch_size, rank, world, curriculum.seed, prefetch, packed=False
        )
        self.curriculum = curriculum
        self.sizes: dict[str, int] = {}  # rows of each level
        rows: list[list[int]] = []
        first = 0
        for name, level in zip(curriculum.levels, levels, strict=True):
            if not level:
                raise ValueError(f"curriculum: level {name!r} has no problems")
            sizes = [len(problem.ids) for problem in level]
            own = full_rows(sizes, sequence_length) if packed else [[index] for index in range(len(level))]
            rows += [[first + index for index in row] for row in own]
            self.sizes[name] = len(own)
            first += len(level)
        self._members = rows
        self._begins = np.cumsum([0, *self.sizes.values()])[:-1]  # of each level's rows

    @property
    def stage(self) -> int:
        """The number of the stage, from 0, that the last row handed out was of."""
        return self.curriculum.stage(max(self._place - 1, 0))

    def _maker(self) -> Callable[[int, int], Batch]:
        return lambda first, stop: self._assemble([self._members[row] for row in self._drawn(np.arange(first, stop))])

    def _drawn(self, samples: np.ndarray) -> list[int]:
        """Which of all rows each sample of the run is."""
        levels, rows = self.curriculum.rows(samples, self.sizes)
        return (self._begins[levels] + rows).tolist()

    def depths(self, of: Sequence[float]) -> list[dict[float, int]]:
        """How many problems of each depth every stage of the run has, for a report: {depth: count}, by depth. of: the depth of
        each problem, in the order of the levels."""
        counted: list[dict[float, int]] = [{} for _ in self.curriculum.stages]
        for first in range(0, self.curriculum.examples, _BLOCK):
            samples = np.arange(first, min(first + _BLOCK, self.curriculum.examples))
            stages = self.curriculum.choices(samples).stage
            for stage, row in zip(stages.tolist(), self._drawn(samples), strict=True):
                for problem in self._members[row]:
                    counted[stage][of[problem]] = counted[stage].get(of[problem], 0) + 1
        return [dict(sorted(stage.items())) for stage in counted]
