"""Claim: what is summed up between log lines survives a checkpoint, in the form of earlier versions too, and is refused in
one line when it is none."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from apps.common.errors import RunError
from apps.common.tally import Tally

CPU = torch.device("cpu")


@dataclass
class Alone:
    """One process's view of several."""

    size: int = 1
    index: int = 0
    device: torch.device = CPU

    def total(self, *values: float) -> list[float]:
        return list(values)


def tally(saved: list[Any], size: int = 1, index: int = 0) -> Tally:
    world: Any = Alone(size, index)
    return Tally(world, saved)


def test_sums_go_on_after_a_checkpoint() -> None:
    whole, first = tally([]), tally([])
    for number in range(4):
        pairs = {"loss": (torch.tensor(0.1 * number), 3), "usage": (torch.tensor(number), torch.tensor(2))}
        whole.add(pairs)
        first.add(pairs)
        first = tally(json.loads(json.dumps([first.row()])))
    assert whole.row() == first.row()
    assert whole.means() == first.means() == {"loss": (pytest.approx(0.05, abs=1e-8), 12), "usage": (0.75, 8)}
    assert whole.means() == {"loss": (0, 0), "usage": (0, 0)}


def test_a_name_may_come_late_or_stay_away() -> None:
    one = tally([])
    one.add({"loss": (1.0, 2)})
    one.add({"loss": (2.0, 2), "routing": (3.0, 1)})
    one.add({"loss": (3.0, 2)})
    assert one.means() == {"loss": (1.0, 6), "routing": (3.0, 1)}


def test_rows_of_another_number_of_processes_go_to_the_first() -> None:
    saved = [{"loss": [1.0, 2.0], "late": [1.0, 1.0]}, {"loss": [3.0, 4.0]}]
    assert tally(saved, size=1).row() == {"loss": [4.0, 6.0], "late": [1.0, 1.0]}
    assert tally(saved, size=2, index=1).row() == {"loss": [3.0, 4.0]}
    assert tally(saved, size=3, index=2).row() == {"loss": [0.0, 0.0], "late": [0.0, 0.0]}


def test_rows_of_earlier_versions_are_read() -> None:
    assert tally([[1.0, 2.0, 3.0, 4.0]]).row() == {"loss": [1.0, 2.0], "correct": [3.0, 4.0]}


@pytest.mark.parametrize("row", [7, None, [1.0, 2.0], {"loss": 1}, {"loss": [1]}, {"loss": ["a", 1]}, [[], [], 1, 2]])
def test_what_is_no_row_is_refused_in_one_line(row: Any) -> None:
    with pytest.raises(RunError) as caught:
        tally([row])
    assert "\n" not in str(caught.value)
    assert "recent" in str(caught.value)
