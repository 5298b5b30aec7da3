"""Looking ahead never crosses a document, the row's end or an ignored target: compared with a loop."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycore.targets import IGNORED, ahead


@settings(deadline=None, derandomize=True, max_examples=100)
@given(
    row=st.lists(st.tuples(st.sampled_from([-100, 1, 2, 3]), st.integers(-1, 2)), min_size=1, max_size=9),
    steps=st.integers(0, 10),
    packed=st.booleans(),
)
def test_equals_the_loop(row: list[tuple[int, int]], steps: int, packed: bool) -> None:
    targets, documents = (list(column) for column in zip(*row, strict=True))
    expected = [
        targets[t + steps] if t + steps < len(row) and (not packed or documents[t] == documents[t + steps]) else IGNORED
        for t in range(len(row))
    ]
    found = ahead(torch.tensor([targets]), torch.tensor([documents]) if packed else None, steps)
    assert found.tolist() == [expected]


def test_next_token_targets_are_what_the_data_says() -> None:
    targets = torch.tensor([[4, 5, -100]])
    assert ahead(targets, None, 0) is targets


def test_backwards_is_refused() -> None:
    with pytest.raises(ValueError, match="steps must not be negative, got -1"):
        ahead(torch.zeros(1, 2, dtype=torch.long), None, -1)
