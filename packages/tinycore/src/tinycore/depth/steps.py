"""What tells the applications of shared layers apart, and when a token has had enough of them.

Steps: `add`, a vector on the stream before an application, or `adaln`, a scale and a shift of every normed input inside it
(adaptive layer norm, arXiv 2212.09748, without the gate of adaLN-zero, which at zero would make a fresh application do
nothing). Both start at zero. Applications beyond the last step use that one's.

Halting: a linear readout of the RMS-normalised stream, p = sigmoid(w . norm(h) + b), one number a token. A token that has
halted stays as it is; layers still keep of it what later tokens read (arXiv 2207.07061).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from tinycore.context import Context
from tinycore.count import Cost
from tinycore.depth.calls import Calls
from tinycore.families import CallSite, Carry
from tinycore.layer import MODULATION
from tinycore.ops.rms_norm import EPSILON, rms_norm

StepKind = Literal["none", "add", "adaln"]


class Steps(nn.Module):
    """(index of an application, x (B, T, D), carry) -> (x, carry) as its layers see them."""

    undecayed = ("weight",)

    def __init__(self, kind: StepKind, count: int, dim: int) -> None:
        super().__init__()
        self.kind = kind
        self.weight = nn.Parameter(torch.zeros((count, dim) if kind == "add" else (count, 2, dim)))

    def forward(self, index: int, x: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        own = self.weight[min(index, len(self.weight) - 1)]
        if self.kind == "add":
            return x + own.to(x.dtype), carry
        return x, {**carry, MODULATION: own}


def build_steps(kind: StepKind, count: int, dim: int) -> Steps | None:
    """The steps of `count` applications, or None for none."""
    return None if kind == "none" else Steps(kind, count, dim)


def steps_cost(kind: StepKind, count: int, dim: int) -> Cost:
    """Of `build_steps`."""
    return Cost(parameters={"none": 0, "add": 1, "adaln": 2}[kind] * count * dim)


class Halting(nn.Module):
    """The logit (B, T) of halting, of x (B, T, D), in at least float32."""

    def __init__(self, dim: int, bias: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(dim))
        self.bias = nn.Parameter(torch.tensor(bias))

    def forward(self, x: Tensor) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        return rms_norm(x.to(wide), self.weight, EPSILON).sum(-1) + self.bias


def halting_cost(dim: int) -> Cost:
    """Of one readout; its sum of products is none of matrices."""
    return Cost(parameters=dim + 1, saved=4.0 * (dim + 1))


def apply(
    calls: Calls, sites: list[CallSite], x: Tensor, carry: Carry, running: Tensor | None, any_running: bool = True
) -> tuple[Tensor, Carry]:
    """Layers in a row on the tokens that are `running` (B, T) bool, None = all; the others stay as they are.

    any_running: False where it is known that none runs; then layers only keep what later tokens read.
    """
    for site in sites:
        if not any_running:
            carry = calls.remember(site, x, carry)
            continue
        y, carry = calls(site, x, carry)
        x = y if running is None else torch.where(running[..., None], y, x)
        calls.tap(site, x)
    return x, carry


def anyone(running: Tensor, ctx: Context) -> bool:
    """Whether a token that is not padding runs; True in a graph, whose shape cannot depend on it."""
    if torch.compiler.is_compiling() or running.device.type == "meta":
        return True
    return bool((running if ctx.valid is None else running & ctx.valid).any())


def counted(values: Tensor, ctx: Context) -> tuple[Tensor, Tensor]:
    """(sum, number) of values (B, T) over tokens that are not padding."""
    mask = torch.ones_like(values, dtype=torch.bool) if ctx.valid is None else ctx.valid.expand(values.shape)
    return torch.where(mask, values, 0).sum(), mask.sum()
