"""What training has summed up since its last log line: each quantity as a sum and a count, over all processes.

Sums stay on the device in float64, so that no step waits for it, and travel with the checkpoint: a log line is the mean
over everything since the one before, stopped in between or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from apps.common.errors import RunError
from apps.common.processes import World

PLAIN = ("loss", "correct")  # the two pairs of a row that names none, as earlier versions wrote them
Pairs = Mapping[str, tuple[Tensor | float, Tensor | float]]


class Tally:
    """Sums and counts by name. Every process adds the same names."""

    def __init__(self, world: World, saved: list[Any]) -> None:
        """`saved`: the rows of a checkpoint, one a process; with another number of processes the main one takes all.

        Raises RunError for rows that are none.
        """
        self.world = world
        self.precise = torch.float32 if world.device.type == "mps" else torch.float64
        self.names: tuple[str, ...] = ()
        self.sums = torch.zeros(0, 2, dtype=self.precise, device=world.device)
        rows = [_pairs(row) for row in saved]
        if len(rows) == world.size:
            rows = [rows[world.index]]
        elif world.index != 0:  # the names, so that all processes have the same
            rows = [dict.fromkeys(row, (0.0, 0.0)) for row in rows]
        for row in rows:
            self.add(row)

    def add(self, pairs: Pairs) -> None:
        """Add (sum, count) under each name, without waiting for the device."""
        names = tuple(pairs)
        if names != self.names:
            self._make_room(names)
            pairs = {name: pairs.get(name, (0.0, 0.0)) for name in self.names}
        values = [
            torch.as_tensor(value, dtype=self.precise, device=self.sums.device)
            for pair in pairs.values()
            for value in pair
        ]
        if values:
            self.sums += torch.stack(values).view(-1, 2)

    def means(self) -> dict[str, tuple[float, float]]:
        """(mean, count) by name over all processes, and begin anew; the mean of nothing is 0."""
        totals = self.world.total(*self.sums.flatten().tolist())
        self.sums.zero_()
        pairs = zip(self.names, totals[::2], totals[1::2], strict=True)
        return {name: (total / max(count, 1), count) for name, total, count in pairs}

    def row(self) -> dict[str, list[float]]:
        """This process's sums and counts, as a checkpoint keeps them."""
        return dict(zip(self.names, self.sums.tolist(), strict=True))

    def _make_room(self, names: tuple[str, ...]) -> None:
        known = dict(zip(self.names, self.sums, strict=True))
        self.names = tuple(dict.fromkeys([*self.names, *names]))
        nothing = self.sums.new_zeros(2)
        self.sums = torch.stack([known.get(name, nothing) for name in self.names])


def _pairs(row: Any) -> dict[str, tuple[float, float]]:
    """The row of a checkpoint, in whichever form it was written. Raises RunError."""
    if isinstance(row, list) and len(row) == 2 * len(PLAIN):
        row = {name: row[2 * index : 2 * index + 2] for index, name in enumerate(PLAIN)}
    found: dict[str, tuple[float, float]] = {}
    for name, pair in row.items() if isinstance(row, dict) else [("", None)]:
        if not isinstance(pair, list) or len(pair) != 2 or not all(type(value) in (int, float) for value in pair):
            raise RunError("trainer.json: recent is not what a run writes there; take an older checkpoint")
        found[name] = (float(pair[0]), float(pair[1]))
    return found
