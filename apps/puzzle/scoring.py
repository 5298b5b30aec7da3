"""How well a model solves puzzles: exact boards and right cells, after each supervision step, and by a vote over copies."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from apps.common.puzzle_task import answers_by_step
from tinycore import Decoder
from tinycore.objectives import solved
from tinydata.batch import NOTHING_ASKED
from tinydata.puzzles import Boards
from tinydata.synthetic.chance import Chance


@dataclass
class Share:
    """How many of how many."""

    right: int = 0
    of: int = 0

    @property
    def value(self) -> float:
        return self.right / max(self.of, 1)

    @property
    def error(self) -> float:
        """Standard error of the share: of puzzles, which are independent; cells of one puzzle are not."""
        return math.sqrt(self.value * (1 - self.value) / max(self.of, 1))


@dataclass
class Scores:
    """exact, cells: after each supervision step. halted: puzzles by the step at which the halting head first said that it is
    done, and how many of these were right then. voted: with what most of `votes` copies say,
    or, where a puzzle allows two attempts (ARC), one of the two answers that most say."""

    exact: list[Share] = field(default_factory=list)
    cells: list[Share] = field(default_factory=list)
    halted: list[Share] = field(default_factory=list)
    voted: Share | None = None
    votes: int = 1


@torch.no_grad()
def score(
    model: Decoder,
    boards: Boards,
    limit: int,
    votes: int = 1,
    batch: int = 64,
    tell: Callable[[int], None] = lambda n: None,
) -> Scores:
    """The first `limit` puzzles of `boards`. votes: copies that are answered for each, itself included; 1 asks for none.

    `tell` hears how many puzzles are done. A vote is for whole boards; of boards with as many votes the first answered wins.
    """
    total = min(limit, len(boards))
    device = next(model.parameters()).device
    scores = Scores(votes=votes, voted=Share() if votes > 1 else None)
    for first in range(0, total, batch):
        indices = range(first, min(first + batch, total))
        rows = [boards.row(index) for index in indices]
        inputs, answers = (torch.from_numpy(np.stack(part)).to(device) for part in zip(*rows, strict=True))
        asked = answers != NOTHING_ASKED
        waiting = torch.ones(len(indices), dtype=torch.bool, device=device)
        logits = None
        for number, (logits, halt) in enumerate(answers_by_step(model, inputs)):
            if number == len(scores.exact):
                for column in (scores.exact, scores.cells, scores.halted):
                    column.append(Share())
            right = solved(logits, answers)
            _add(scores.exact[number], int(right.sum()), len(indices))
            _add(scores.cells[number], int(((logits.argmax(-1) == answers) & asked).sum()), int(asked.sum()))
            if halt is not None:
                done = waiting & (halt > 0)
                _add(scores.halted[number], int((done & right).sum()), int(done.sum()))
                waiting &= ~done
        if scores.voted is not None and logits is not None:
            own = logits.argmax(-1)[:, boards.slots :].cpu().numpy()
            for wanted, attempts in zip(rows, elected(model, boards, indices, own, votes, batch), strict=True):
                cells = wanted[1][boards.slots :]
                asked = cells != NOTHING_ASKED
                _add(scores.voted, int(any((chosen == cells)[asked].all() for chosen in attempts)), 1)
        tell(indices.stop)
    return scores


def elected(
    model: Decoder, boards: Boards, indices: Sequence[int], own: np.ndarray, votes: int, batch: int
) -> list[list[np.ndarray]]:
    """Of each puzzle the answers that most of its copies agree on, its own among them: as many as it allows attempts."""
    answers = [[cells] for cells in own]
    asked = [(place, number) for number in range(1, votes) for place in range(len(indices))]
    device = next(model.parameters()).device
    for first in range(0, len(asked), batch):
        part = asked[first : first + batch]
        copies = [
            boards.disguised(indices[place], Chance(f"vote {indices[place]} {number}", 0)) for place, number in part
        ]
        inputs = torch.from_numpy(np.stack([given for given, _ in copies])).to(device)
        found = model(inputs).logits.argmax(-1)[:, boards.slots :].cpu().numpy()
        for (place, _), (_, restore), cells in zip(part, copies, found, strict=True):
            answers[place].append(restore(cells))
    return [
        [np.frombuffer(cells, dtype=np.int64) for cells, _ in Counter(map(bytes, ballots)).most_common(boards.attempts)]
        for ballots in answers
    ]


def _add(share: Share, right: int, of: int) -> None:
    share.right += right
    share.of += of
