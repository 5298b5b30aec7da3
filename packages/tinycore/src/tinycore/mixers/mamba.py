"""Mamba, the selective state space mixer (S6, arXiv 2312.00752; with norms on dt, B and C as Jamba's, arXiv 2403.19887).

    x, z = W_in u                                      (B, T, E) each, E = expand * D
    x    = silu(conv(x))                               causal, depthwise, `conv` taps
    dt, B, C = W_x x                                   (B, T, R), (B, T, N), (B, T, N)
    step = softplus(W_dt dt + dt_bias)                 (B, T, E)
    h_t  = exp(step_t A) * h_{t-1} + (step_t x_t) B_t^T    (B, E, N), A = -exp(A_log)
    y    = W_out ((h C + D_skip x) * silu(z))

Causal by the order of tokens in a row. A document starts with h = 0 and an empty convolution; padding is skipped by both.
What a row keeps is h and the `conv` - 1 newest inputs of the convolution, however long it gets. A_log starts at log(1..N),
dt_bias where softplus gives steps drawn log-uniformly from [.001, .1]; neither A_log nor the taps decay, and the scan is
at least float32. (The seed names the mixer and gives no formula.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from tinycore.config import ConfigError
from tinycore.context import PADDING, Context
from tinycore.count import Cost
from tinycore.families import Aux, Carry, LocalState, MixerConfig, Scope
from tinycore.norms.rms import RMSNorm
from tinycore.ops.causal_conv1d import Taps, causal_conv1d, newest_inputs, taps
from tinycore.ops.documents import document_after, document_starts, document_within
from tinycore.ops.selective_scan import Marks, selective_scan
from tinycore.ops.selective_scan_chunks import length_of, workspace

SMALLEST_STEP, LARGEST_STEP = 1e-3, 1e-1
GRADIENTS = 4  # of (B, T, E) that exist at one time while the scan or the convolution runs backward


class MambaState(NamedTuple):
    """What a row keeps of the tokens so far, in whatever document it is."""

    hidden: Tensor  # (B, E, N), at least float32
    inputs: Tensor  # (B, conv - 1, E), the newest ones of the convolution, zeros before a document's first
    document: Tensor | None  # (B,); None = single documents without padding


class Mamba(nn.Module):
    """(B, T, D) -> (B, T, D)."""

    undecayed = ("A_log", "D", "conv_weight")

    @dataclass(frozen=True, kw_only=True)
    class Config(MixerConfig, kind="mamba"):
        projections: ClassVar[tuple[str, ...]] = ("in", "x", "dt", "out")
        expand: int = field(default=2, metadata={"help": "channels of the scan per channel of the model"})
        state: int = field(default=16, metadata={"help": "states per channel"})
        conv: int = field(default=4, metadata={"help": "taps of the convolution before the scan"})
        dt_rank: int | None = field(
            default=None, metadata={"help": "rank of the step sizes; null = dim / 16, rounded up"}
        )
        norms: bool = field(default=False, metadata={"help": "RMSNorm on dt, B and C, as Jamba"})

        def __post_init__(self) -> None:
            for name, least in (("expand", 1), ("state", 1), ("conv", 2), ("dt_rank", 1)):
                value = getattr(self, name)
                if value is not None and value < least:
                    raise ConfigError(f"{name}: {value} is less than {least}")

        def rank(self, scope: Scope) -> int:
            return self.dt_rank or -(-scope.dim // 16)

        def build(self, scope: Scope) -> Mamba:
            return Mamba(self, scope)

        def cost(self, scope: Scope, length: int) -> Cost:
            width, rank = self.expand * scope.dim, self.rank(scope)
            read = rank + 2 * self.state
            return (
                self.projection(scope, "in").cost(scope.dim, 2 * width, "mamba_projections")
                + self.projection(scope, "x").cost(width, read, "mamba_projections")
                + self.projection(scope, "dt").cost(rank, width, "mamba_projections")
                + self.projection(scope, "out").cost(width, scope.dim, "mamba_output")
                + Cost(
                    # taps and their bias, bias of the steps, A_log, D
                    parameters=width * (self.conv + 1 + 1 + self.state + 1) + (read if self.norms else 0),
                    saved=self._saved(scope, width, rank),
                    held=2 * 4 * width * self.state,  # A and the exponential of A_log
                    transient=self._transient(scope, width, length),
                    state=width * (self.state + self.conv - 1),
                )
            )

        def _saved(self, scope: Scope, width: int, rank: int) -> float:
            """Bytes per token: input, x and z, x after the convolution, dt with B and C, W_dt dt, y; states of chunks."""
            elements = scope.dim + 2 * width + width + rank + 2 * self.state + width + width
            if self.norms:
                elements += rank + 2 * self.state
            chunk = length_of(scope.rows, width, self.state)
            return float(scope.product_bytes * elements + 4 * width * self.state / chunk + (12 if self.norms else 0))

        def _transient(self, scope: Scope, width: int, length: int) -> int:
            """Bytes: gradients of y, x, z and the steps, x and z joined again; the arrays of the scan."""
            gradients = scope.rows * length * scope.product_bytes * GRADIENTS * width
            return gradients + workspace(scope.rows, length, width, self.state)

    def __init__(self, config: Config, scope: Scope) -> None:
        super().__init__()
        width, rank, states = config.expand * scope.dim, config.rank(scope), config.state
        self.splits = (rank, states, states)
        self.fused = {"in_proj": (width, width), "x_proj": self.splits}
        self.in_proj = config.projection(scope, "in").build(scope.dim, 2 * width)
        self.x_proj = config.projection(scope, "x").build(width, rank + 2 * states)
        self.dt_proj = config.projection(scope, "dt").build(
            rank, width, 3**-0.5
        )  # the deviation of U(-1, 1) / sqrt(rank)
        self.out_proj = config.projection(scope, "out").build(width, scope.dim, scope.residual_gain)
        self.conv_weight = nn.Parameter(torch.empty(width, config.conv))
        self.conv_bias = nn.Parameter(torch.empty(width))
        self.dt_bias = nn.Parameter(torch.empty(width))
        self.A_log = nn.Parameter(torch.empty(width, states))
        self.D = nn.Parameter(torch.empty(width))
        self.norms = nn.ModuleList(RMSNorm(size) for size in self.splits) if config.norms else None
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """The recurrence's own parameters; linears have theirs."""
        bound = self.conv_weight.shape[1] ** -0.5
        nn.init.uniform_(self.conv_weight, -bound, bound)
        nn.init.uniform_(self.conv_bias, -bound, bound)
        nn.init.uniform_(self.dt_bias, math.log(SMALLEST_STEP), math.log(LARGEST_STEP)).exp_()
        self.dt_bias.copy_(self.dt_bias + torch.log(-torch.expm1(-self.dt_bias)))  # softplus of it is what it was
        self.A_log.copy_(torch.arange(1.0, self.A_log.shape[1] + 1).log().expand_as(self.A_log))
        nn.init.ones_(self.D)

    def forward(
        self, x: Tensor, carry: Carry, ctx: Context, state: LocalState | None
    ) -> tuple[Tensor, Carry, LocalState | None, Aux]:
        past: MambaState | None = state.get("mamba") if state is not None else None
        marks, where = self._places(ctx, past)
        previous, initial = (None, None) if past is None else (past.inputs, past.hidden)
        width = self.conv_weight.shape[1]

        raw, gate = self.in_proj(x).chunk(2, -1)  # (B, T, E)
        u = causal_conv1d(raw, self.conv_weight, self.conv_bias, previous, where)
        read = self.x_proj(u).split(self.splits, -1)
        if self.norms is not None:
            read = [norm(part) for norm, part in zip(self.norms, read, strict=True)]
        dt, B, C = read
        A = -self.A_log.to(torch.promote_types(self.A_log.dtype, torch.float32)).exp()  # (E, N)
        y, hidden = selective_scan(u, self.dt_proj(dt), A, B, C, self.D, gate, self.dt_bias, marks, initial)
        y = self.out_proj(y)
        if state is None:
            return y, carry, None, {}
        kept = MambaState(hidden, newest_inputs(raw, width, previous, where), self._document(ctx, past))
        return y, carry, {"mamba": kept}, {}

    def _places(self, ctx: Context, past: MambaState | None) -> tuple[Marks | None, Taps | None]:
        """What documents and padding mean to the scan and to the convolution; None where rows are single documents."""
        if ctx.documents is None:
            return None, None
        width = self.conv_weight.shape[1]
        key = (
            ("mamba", width) if past is None else None
        )  # all layers begin alike; later ones may have seen other tokens
        if key is not None and key in ctx.memo:
            return ctx.memo[key]
        current = None if past is None else document_within(past.document, past.hidden)
        found = (
            Marks(document_starts(ctx.documents, current), ctx.documents != PADDING),
            taps(ctx.documents, current, width),
        )
        if key is not None:
            ctx.memo[key] = found
        return found

    def _document(self, ctx: Context, past: MambaState | None) -> Tensor | None:
        if ctx.documents is None:
            return None if past is None else past.document
        current = None if past is None else document_within(past.document, past.hidden)
        return document_after(ctx.documents, current)
