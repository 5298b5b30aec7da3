"""MLGRU, the gated linear recurrence of MatMul-free language models (arXiv 2406.02528), after HGRN (arXiv 2311.04823):

    f_t = lb + (1 - lb) sigmoid(W_f x_t)        forget gate, not below the layer's bound lb (C,)
    i_t = silu(W_i x_t) * (1 - f_t)             input
    h_t = f_t * h_{t-1} + i_t                   state (B, C), elementwise; C = dim
    y_t = W_o (RMSNorm(W_g x_t) * silu(h_t))    gate "normed", or
    y_t = W_o (sigmoid(W_g x_t) * h_t)          gate "sigmoid"

lb of layer l is sum_{0 < j <= l} softmax(Gamma)_j, Gamma (layers, C) one table of the whole model, softmax over layers: 0 in
the first layer, rising with l, so that later layers remember longer. A layer that is called twice keeps its own bound.

Causal: h_t reads tokens up to t of its own document; a document begins with h = 0, padding leaves h as it is. With ternary
linears (`linear: {kind: bit}`) no product of matrices is left here; between the linears everything is elementwise.

"normed" is the default: it is what the authors' published code and models compute; the paper prints the other one. (The seed
computes cumulative sums of logarithms, which underflow in long rows: here the scan is chunked and multiplies gates.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinycore.context import PADDING, Context
from tinycore.count import Cost
from tinycore.families import Aux, Carry, LocalState, MixerConfig, Scope
from tinycore.norms.rms import RMSNorm
from tinycore.ops.documents import document_after, document_starts, document_within
from tinycore.ops.gated_scan import gated_scan

KIND = "mlgru"


class RecurrentState(NamedTuple):
    """What a row keeps, however long it gets."""

    hidden: Tensor  # (B, C), at least float32
    document: Tensor | None  # (B,) int64, the id of the document it is of; None while rows are single documents


class ForgetBounds(nn.Module):
    """The lower bounds of all layers' forget gates, () -> (layers, C)."""

    undecayed: ClassVar[tuple[str, ...]] = ("gamma",)

    def __init__(self, layers: int, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(layers, channels))

    def forward(self) -> Tensor:
        shares = self.gamma.to(torch.promote_types(self.gamma.dtype, torch.float32)).softmax(0)
        return shares.cumsum(0) - shares[:1]


class MLGRU(nn.Module):
    """(B, T, D) -> (B, T, D)."""

    @dataclass(frozen=True, kw_only=True)
    class Config(MixerConfig, kind=KIND):
        exempt: ClassVar[Mapping[str, str]] = {"identity": "is a mixer of its own, no add-on to another"}
        projections: ClassVar[tuple[str, ...]] = ("forget", "input", "gate", "output")
        gate: Literal["normed", "sigmoid"] = field(
            default="normed",
            metadata={
                "help": "output gate: normed = RMSNorm(W x) * silu(h) as in the published code, sigmoid = the paper's"
            },
        )
        lower_bound: bool = field(
            default=True, metadata={"help": "forget gates have a learned lower bound that rises from layer to layer"}
        )

        def bounded(self, scope: Scope) -> bool:
            """Whether there are bounds: the first layer's is 0, so a single layer has none."""
            return self.lower_bound and scope.layers > 1

        def build(self, scope: Scope) -> MLGRU:
            return MLGRU(self, scope)

        def build_shared(self, scope: Scope) -> ForgetBounds:
            return ForgetBounds(scope.layers, scope.dim)

        def shared_cost(self, scope: Scope) -> Cost:
            return Cost(parameters=scope.layers * scope.dim if self.bounded(scope) else 0)

        def cost(self, scope: Scope, length: int) -> Cost:
            dim, normed = scope.dim, self.gate == "normed"
            # in float32: both gates' activations, 1 - f, f and i as the scan takes them, h; silu(h). In products'
            # precision: input, gate before and after the norm (or after the sigmoid), the last linear's input
            total = Cost(
                parameters=dim if normed else 0,
                state=dim,
                saved=float(4 * (7 if normed else 6) + scope.product_bytes * (4 if normed else 3)) * dim,
                transient=4 * scope.rows * length * 4 * dim,
            )
            for name in ("forget", "input", "gate"):
                total += self.projection(scope, name).cost(dim, dim, "recurrence_projections")
            return total + self.projection(scope, "output").cost(dim, dim, "recurrence_output")

    def __init__(self, config: Config, scope: Scope) -> None:
        super().__init__()
        self.forget = config.projection(scope, "forget").build(scope.dim, scope.dim)
        self.input = config.projection(scope, "input").build(scope.dim, scope.dim)
        self.gate = config.projection(scope, "gate").build(scope.dim, scope.dim)
        self.output = config.projection(scope, "output").build(scope.dim, scope.dim, scope.residual_gain)
        self.norm = RMSNorm(scope.dim) if config.gate == "normed" else None
        self.layer = scope.layer if config.bounded(scope) else None

    def forward(
        self, x: Tensor, carry: Carry, ctx: Context, state: LocalState | None
    ) -> tuple[Tensor, Carry, LocalState | None, Aux]:
        past: RecurrentState | None = None if state is None else state.get("recurrence")
        compute = torch.promote_types(x.dtype, torch.float32)
        forget = self.forget(x).to(compute).sigmoid()
        if self.layer is not None:
            bound = carry[KIND][self.layer].to(compute)
            forget = bound + (1 - bound) * forget
        value = F.silu(self.input(x).to(compute)) * (1 - forget)
        current = None if past is None else document_within(past.document, past.hidden)
        if ctx.documents is not None:
            starts = document_starts(ctx.documents, current)[..., None]
            padding = (ctx.documents == PADDING)[..., None]
            forget = torch.where(starts, 0, torch.where(padding, 1, forget))
            value = torch.where(padding, 0, value)
        hidden, final = gated_scan(forget, value, None if past is None else past.hidden)
        gate = self.gate(x)
        y = F.silu(hidden) * self.norm(gate) if self.norm is not None else hidden * gate.sigmoid()
        y = self.output(y)
        if state is None:
            return y, carry, None, {}
        document = past.document if past is not None else None
        if ctx.documents is not None:
            document = document_after(ctx.documents, current)
        return y, carry, {"recurrence": RecurrentState(final, document)}, {}
