"""The forward chunks of a compiled graph on a CPU: the oracle's numbers with documents and states, and their limit."""

import pytest
import torch

from tinykernels import selective_scan
from tinykernels.selective_scan import compiled

CASES = [
    pytest.param([0, 5, 16, 40, 40, 100], False, id="documents"),
    pytest.param([0, 20, 40, 60, 70, 80], False, id="documents_in_rows", marks=pytest.mark.slow),
    pytest.param([0, 5, 16, 40, 40, 100], True, id="documents_with_states", marks=pytest.mark.slow),
    pytest.param(None, True, id="states", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("borders", "states"), CASES)
def test_bodies_equal_the_oracle(borders: list[int] | None, states: bool, assert_close, monkeypatch) -> None:
    monkeypatch.setattr(compiled, "_seen", set())
    torch.manual_seed(0)
    batch, length = (3, 50) if borders is None else (1, borders[-1])
    documents = batch if borders is None else len(borders) - 1
    cu_seqlens = None if borders is None else torch.tensor(borders, dtype=torch.int32)
    shapes = {"x": (batch, length, 24), "B": (batch, length, 8), "C": (batch, length, 8), "D": (24,)}
    drawn = {name: torch.randn(shape) for name, shape in shapes.items()}
    drawn |= {"z": torch.randn(batch, length, 24), "delta": torch.rand(batch, length, 24) * 0.1}
    drawn["A"] = -torch.rand(24, 8) - 0.1
    if states:
        drawn["initial_state"] = torch.randn(documents, 24, 8)
    upstream, final_upstream = torch.randn(batch, length, 24), torch.randn(documents, 24, 8)

    def outcome(dtype: torch.dtype, backend, through) -> list[torch.Tensor]:
        leaves = {name: value.to(dtype).requires_grad_() for name, value in drawn.items()}

        def scan(leaves: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
            return selective_scan(**leaves, cu_seqlens=cu_seqlens, backend=backend)

        y, final = through(scan)(leaves)
        loss = (y * upstream.to(dtype)).sum() + (final * final_upstream.to(dtype)).sum()
        return [y, final, *torch.autograd.grad(loss, list(leaves.values()))]

    actual = outcome(torch.float32, "torch", lambda scan: torch.compile(scan, fullgraph=True))
    assert compiled._seen, "the compiled bodies were not used"
    for found, exact in zip(actual, outcome(torch.float64, "naive", lambda scan: scan), strict=True):
        assert_close(found, exact, 2e-6)


def test_bodies_are_made_for_few_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_seen", set())
    transition = torch.zeros(2, 3)
    assert all(compiled.suits(transition, rows) for rows in range(1, compiled.SHAPES + 1))
    assert not compiled.suits(transition, compiled.SHAPES + 1)
    assert compiled.suits(transition, 1)
    assert not compiled.suits(transition.to("meta"), 1)
