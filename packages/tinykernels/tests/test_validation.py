"""Claim: a bad argument is named in one line before any launch, and a tensor on a device is read once, not
every call.

uv run pytest packages/tinykernels/tests/test_validation.py
"""

import pytest
import torch

from tinykernels import validation


def test_shapes_bind_names() -> None:
    sizes = validation.shapes("op", a=(torch.zeros(2, 3), "B T"), b=(None, "B"), c=(torch.zeros(3, 4), "T 4"))
    assert sizes == {"B": 2, "T": 3}


@pytest.mark.parametrize(
    ("value", "spelled", "message"),
    [
        (torch.zeros(2, 5), "B T", r"op: x must have shape \(B T\) with T = 3, got \(2, 5\)"),
        (torch.zeros(2), "B T", r"op: x must have shape \(B T\), got \(2,\)"),
        (torch.zeros(2, 5), "B 4", "op: x must have shape .* with 4 = 4, got"),
        ([1.0], "B", r"op: x must be a tensor \(B\), got list"),
    ],
)
def test_shapes_contradicted(value, spelled, message) -> None:
    with pytest.raises(ValueError, match=message):
        validation.shapes("op", first=(torch.zeros(2, 3), "B T"), x=(value, spelled))


def test_device_and_dtype() -> None:
    with pytest.raises(ValueError, match="op: y must have x's device cpu, got meta"):
        validation.same_device("op", x=torch.zeros(1), none=None, y=torch.zeros(1, device="meta"))
    with pytest.raises(ValueError, match="op: y must have x's dtype float32, got float64"):
        validation.same_dtype("op", x=torch.zeros(1), y=torch.zeros(1, dtype=torch.float64))
    with pytest.raises(ValueError, match="op: x must be float32, float16, got int64"):
        validation.dtypes("op", (torch.float32, torch.float16), x=torch.zeros(1, dtype=torch.int64))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_finite(value) -> None:
    with pytest.raises(ValueError, match="op: scale must be finite, got NaN or infinity"):
        validation.finite("op", scale=torch.tensor([1.0, value]))


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_positive(value) -> None:
    with pytest.raises(ValueError, match="op: eps must be a finite number above 0"):
        validation.positive("op", eps=value)


def test_boundaries_need_documents() -> None:
    with pytest.raises(ValueError, match="must be a tensor"):
        validation.cu_seqlens("op", torch.zeros(1, dtype=torch.int32), 0)


def test_a_device_tensor_is_looked_at_once_until_it_changes() -> None:
    tensor = torch.zeros(3, device="meta")
    assert validation.may_look(tensor, "scale")
    assert not validation.may_look(tensor, "scale")
    assert validation.may_look(tensor, "another check")
    tensor.add_(1)
    assert validation.may_look(tensor, "scale")
    assert validation.may_look(torch.zeros(3, device="meta"), "scale")
    cpu = torch.zeros(3)
    assert validation.may_look(cpu, "scale")
    assert validation.may_look(cpu, "scale")
