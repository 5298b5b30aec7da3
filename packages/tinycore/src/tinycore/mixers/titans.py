"""Neural memory as a mixer (Titans, arXiv 2501.00663; self-modifying as in HOPE, arXiv 2512.24695).

Every sequence writes into weights of its own, those of a small network M per head (see `tinycore.ops.neural_memory`):

    q, k = unit(silu(conv(W_q x))), unit(silu(conv(W_k x)));  v = silu(conv(W_v x))     (B, T, H h)
    theta_t = ceiling * sigmoid(W_theta x_t + b)   per token and head: the inner learning rate
    eta_c, alpha_c = sigmoid(mean over the chunk of W x_t + b)   per chunk and head: momentum and forgetting
    S_c = eta_c S_{c-1} - sum_{t in chunk c} theta_t grad |M_{c-1}(k_t) - v_t|^2        gradients at M_{c-1}
    M_c = (1 - alpha_c) M_{c-1} + S_c
    y_t = W_o (RMSNorm(M_{c-1}(q_t)) * silu(W_g x_t))        t in chunk c

Causal: a token reads what the chunks before its own have written, never its own chunk. Chunks are counted from each
document's first token, M_0 is a parameter, and the outer gradient goes through every write. Only the per-sequence weights
change; parameters do not. `self_modifying`: the memory makes the values itself, v^ = M_{c-1}(v) (constant to the inner
gradient), and unlearns before it learns, M (I - theta k k^T) - theta grad, all at the chunk's first weights.

Ours, where the papers leave it open: momentum and forgetting by chunk, as the reference implementation; silu in M; no
norm inside M; the ceiling of theta is 1 / (2 chunk), at which a linear memory cannot diverge even if a chunk's keys are all
the same; the convolution starts as the identity. A memory of two layers, or one that makes its own values, does diverge once
training has made its weights large, so a write is no longer than `write_limit` (a smooth bound on its norm, as the reference
implementation has as an option); without one, the demo recipe ends in a loss that is not finite within 70 steps. (The seed
has a drawing only.)

Every document's chunks are whole when they are written, so a row of T tokens has at most T / chunk writes, however many
documents it holds; tokens of first chunks all read M_0. The state holds the weights, the momentum, and the newest
chunk - 1 keys, values and rates, of constant size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinycore.config import ConfigError
from tinycore.context import Context
from tinycore.count import Cost
from tinycore.families import Aux, Carry, LocalState, MixerConfig, Scope
from tinycore.mixers.chunk_grid import ChunkGrid, chunk_grid
from tinycore.mixers.compaction import compaction, newest, own_context, take
from tinycore.norms.rms import RMSNorm
from tinycore.ops.causal_conv1d import Taps, causal_conv1d, newest_inputs, taps
from tinycore.ops.documents import document_within
from tinycore.ops.neural_memory import EPS, bounded, descent, memory_rows, read
from tinycore.ops.precision import without_autocast
from tinycore.state import StreamState

FORGETTING_BIAS = -3.0  # sigmoid: .05 of the memory a chunk


class MemoryState(NamedTuple):
    """What a sequence has written, and its newest tokens, which are not written yet."""

    weights: Tensor  # (B, H, R, h)
    momentum: Tensor | None  # (B, H, R, h)
    keys: Tensor  # (B, chunk - 1, H h), of unit length by head
    values: Tensor  # (B, chunk - 1, H h)
    rates: Tensor  # (B, chunk - 1, G H), before their sigmoid
    inputs: Tensor | None  # (B, taps - 1, 3 H h), of the convolution
    seen: Tensor  # (B,) int64, tokens of the current document
    document: Tensor | None  # (B,) int64, its id; None while rows are single documents


class Titans(nn.Module):
    """(B, T, D) -> (B, T, D)."""

    undecayed: ClassVar[tuple[str, ...]] = ("memory", "rates_bias", "conv_weight")
    gating: ClassVar[tuple[str, ...]] = ("rates",)

    @dataclass(frozen=True, kw_only=True)
    class Config(MixerConfig, kind="titans"):
        projections: ClassVar[tuple[str, ...]] = ("q", "k", "v", "rates", "gate", "o")
        heads: int = field(metadata={"help": "memories; each has dim / heads channels"})
        chunk: int = field(default=64, metadata={"help": "tokens of a document written at one time"})
        depth: Literal[1, 2] = field(default=2, metadata={"help": "layers of a memory; 1 = a matrix"})
        expansion: int = field(default=4, metadata={"help": "hidden channels of a memory of depth 2, by its width"})
        learning_rate: float | None = field(
            default=None, metadata={"help": "ceiling of the inner learning rate; null = 1 / (2 chunk)"}
        )
        write_limit: float | None = field(
            default=0.1,
            metadata={"help": "largest norm of a write's gradient part, in norms of a fresh memory; null = none"},
        )
        momentum: bool = field(default=True, metadata={"help": "writes go on in the direction of earlier ones"})
        conv: int = field(default=4, metadata={"help": "taps of the convolution on q, k and v; 0 = none"})
        self_modifying: bool = field(
            default=False, metadata={"help": "values made by the memory, and the delta rule's forgetting (HOPE)"}
        )

        def __post_init__(self) -> None:
            for name in ("heads", "chunk", "expansion"):
                if getattr(self, name) < 1:
                    raise ConfigError(f"{name}: {getattr(self, name)} is not positive")
            if self.conv < 0 or self.conv == 1:
                raise ConfigError(f"conv: {self.conv} taps; give 2 or more, or 0 for none")
            if self.learning_rate is not None and self.learning_rate < 0:
                raise ConfigError(f"learning_rate: {self.learning_rate} is negative")
            if self.write_limit is not None and self.write_limit <= 0:
                raise ConfigError(f"write_limit: {self.write_limit} is not positive; null is no limit")

        def check(self, scope: Scope) -> None:
            if scope.dim % self.heads:
                raise ConfigError(f"heads: {self.heads} does not divide dim {scope.dim}")

        @property
        def ceiling(self) -> float:
            return 0.5 / self.chunk if self.learning_rate is None else self.learning_rate

        @property
        def gates(self) -> int:
            """Rates per head: theta, alpha and, with momentum, eta."""
            return 3 if self.momentum else 2

        def longest_write(self, width: int) -> float | None:
            """The limit as a Frobenius norm; a fresh memory between `width` channels has about the root in it."""
            if self.write_limit is None:
                return None
            return self.write_limit * (width * (1 if self.depth == 1 else self.expansion + 1)) ** 0.5

        def memory(self, scope: Scope) -> tuple[int, int]:
            """(R, h) of one memory's weights."""
            width = scope.dim // self.heads
            return memory_rows(self.depth, self.expansion, width), width

        def build(self, scope: Scope) -> Titans:
            return Titans(self, scope)

        def writes(self, length: int) -> int:
            """Writes into a memory that tokens of a row of `length` read; while training, one is made in any case."""
            return max(1, (length - 1) // self.chunk)

        def cost(self, scope: Scope, length: int) -> Cost:
            dim, (tall, width) = scope.dim, self.memory(scope)
            rates, weights = self.gates * self.heads, self.heads * tall * width
            writes = self.writes(length)
            once = 2.0 * weights  # FLOPs of M on one token, and of a gradient with respect to all of its weights
            # a write: M(k), the gradient with respect to the hidden channels (half of the matrices), to the weights; v^
            write = once * (2 if self.depth == 1 else 2.5) + (once if self.self_modifying else 0)
            name = "memory_projections"
            total = Cost(
                parameters=weights + rates + width + 3 * dim * self.conv,
                flops={
                    "memory_reads": once * (1 + writes * min(self.chunk, length) / length),
                    "memory_writes": write * writes * self.chunk / length,
                },
                state=weights * (2 if self.momentum else 1)
                + (self.chunk - 1) * (2 * dim + rates)
                + max(0, self.conv - 1) * 3 * dim,
                saved=self._saved(scope, length),
                transient=self._transient(scope, length),
            )
            for projection in ("q", "k", "v", "gate"):
                total += self.projection(scope, projection).cost(dim, dim, name)
            total += self.projection(scope, "rates").cost(dim, rates, name)
            return total + self.projection(scope, "o").cost(dim, dim, "memory_output")

        def _saved(self, scope: Scope, length: int) -> float:
            """Bytes per token. In products' precision: input, gate, its silu, the last linear's input."""
            dim, (tall, width) = scope.dim, self.memory(scope)
            hidden = self.expansion * dim if self.depth == 2 else 0
            writes = self.writes(length)
            read = 2 * hidden + dim
            write = 4 * hidden + (4 if self.depth == 2 else 3) * dim
            if self.self_modifying:
                write += read + (2 * dim if self.depth == 2 else 0)
            # weights before and after each write, the momentum before it, a write before its bound; what M_0 is for the
            # product with all tokens
            versions = (2 + self.momentum + (self.write_limit is not None)) * writes + 1
            elements = (
                (8 if self.conv else 7) * dim  # of q, k, v: before and after convolution and silu; M(q), normed
                + read
                + (writes * self.chunk / length) * (read + write)
                + versions * self.heads * tall * width / length
            )
            return 4.0 * elements + 4.0 * scope.product_bytes * dim

        def _transient(self, scope: Scope, length: int) -> int:
            """Bytes: a few gradients of the stream's size. Those inside the memory take the place of what it kept."""
            return 4 * scope.rows * length * 5 * scope.dim

    def __init__(self, config: Config, scope: Scope) -> None:
        super().__init__()
        self.config = config
        tall, width = config.memory(scope)
        rates = config.gates * config.heads
        self.q = config.projection(scope, "q").build(scope.dim, scope.dim)
        self.k = config.projection(scope, "k").build(scope.dim, scope.dim)
        self.v = config.projection(scope, "v").build(scope.dim, scope.dim)
        self.rates = config.projection(scope, "rates").build(scope.dim, rates)
        self.gate = config.projection(scope, "gate").build(scope.dim, scope.dim)
        self.o = config.projection(scope, "o").build(scope.dim, scope.dim, scope.residual_gain)
        self.conv_weight = nn.Parameter(torch.zeros(3 * scope.dim, config.conv)) if config.conv else None
        self.norm = RMSNorm(width)
        self.memory = nn.Parameter(torch.empty(config.heads, tall, width))
        self.rates_bias = nn.Parameter(torch.zeros(config.gates, config.heads))
        with torch.no_grad():
            self.rates_bias[1] = FORGETTING_BIAS
            self.memory.normal_(std=width**-0.5)
            if self.conv_weight is not None:
                self.conv_weight[:, -1] = 1.0
            if config.depth == 2:  # what the lower half maps from is wider
                self.memory[:, tall // 2 :] *= config.expansion**-0.5

    def forward(
        self, x: Tensor, carry: Carry, ctx: Context, state: LocalState | None
    ) -> tuple[Tensor, Carry, LocalState | None, Aux]:
        rows, length, dim = x.shape
        past: MemoryState | None = None if state is None else state.get("memory")
        kept = state is not None
        own, stream = own_context(ctx, rows, length, None if past is None else StreamState(past.seen, past.document))
        layout = compaction(own, rows, length, kept)
        grid = chunk_grid(own, layout, self.config.chunk, past is not None, kept)
        compute = torch.promote_types(x.dtype, torch.float32)
        q, k, v, rates = (part(x).to(compute) for part in (self.q, self.k, self.v, self.rates))
        with without_autocast(x):
            q, k, v, inputs = self._convolved(q, k, v, ctx, past, kept)
            q, k, v, rates = (layout.compacted(part) for part in (self._unit(q), self._unit(k), v, rates))
            if kept:
                k, v, rates = self._after_pending(k, v, rates, past)
            y, weights, momentum = self._remember(q, k, v, rates, grid, past)
            y = layout.restored(self.norm(y).reshape(rows, length, dim))
        y = self.o(y * F.silu(self.gate(x)))
        if not kept:
            return y, carry, None, {}
        k, v, rates = (newest(part, layout.tokens, self.config.chunk - 1) for part in (k, v, rates))
        after = MemoryState(weights, momentum, k, v, rates, inputs, stream.positions, stream.documents)
        return y, carry, {"memory": after}, {}

    def _convolved(
        self, q: Tensor, k: Tensor, v: Tensor, ctx: Context, past: MemoryState | None, kept: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """q, k and v after convolution and silu, and what the convolution keeps of its inputs."""
        if self.conv_weight is None:
            return F.silu(q), F.silu(k), F.silu(v), None
        where, width = self._taps(ctx, past), self.config.conv
        inputs, previous = torch.cat([q, k, v], dim=-1), None if past is None else past.inputs
        convolved = causal_conv1d(
            inputs, self.conv_weight, self.conv_weight.new_zeros(inputs.shape[-1]), previous, where
        )
        q, k, v = convolved.chunk(3, dim=-1)
        return q, k, v, newest_inputs(inputs, width, previous, where) if kept else None

    def _taps(self, ctx: Context, past: MemoryState | None) -> Taps | None:
        """Where the convolution's taps are in packed rows; None where rows are single documents."""
        if ctx.documents is None:
            return None
        if past is not None:
            return taps(ctx.documents, document_within(past.document, past.seen), self.config.conv)
        key = ("taps", self.config.conv)
        if key not in ctx.memo:
            ctx.memo[key] = taps(ctx.documents, None, self.config.conv)
        return ctx.memo[key]

    def _unit(self, x: Tensor) -> Tensor:
        """Each head's channels at length 1."""
        by_head = x.unflatten(-1, (self.config.heads, -1))
        return (by_head * torch.rsqrt(by_head.square().sum(-1, keepdim=True) + EPS)).flatten(-2)

    def _after_pending(self, k: Tensor, v: Tensor, rates: Tensor, past: MemoryState | None) -> list[Tensor]:
        """Each with the chunk - 1 tokens before it in front."""
        if past is None:
            return [F.pad(part, (0, 0, self.config.chunk - 1, 0)) for part in (k, v, rates)]
        pending = (past.keys, past.values, past.rates)
        return [torch.cat(pair, dim=1) for pair in zip(pending, (k, v, rates), strict=True)]

    def _by_chunk(self, x: Tensor, slots: Tensor) -> Tensor:
        """x (B, L, H n), slots (B, N, C) -> (N, B, H, C, n)."""
        return take(x, slots).unflatten(-1, (self.config.heads, -1)).permute(1, 0, 3, 2, 4).contiguous()

    def _remember(
        self, q: Tensor, k: Tensor, v: Tensor, rates: Tensor, grid: ChunkGrid, past: MemoryState | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Compacted q (B, T, H h), k, v and rates (B, L, H n) -> the memories' answers (B, T, H, h), their weights and
        momentum in the end."""
        config = self.config
        rows, length, _ = q.shape
        initial = self.memory.to(q.dtype).expand(rows, -1, -1, -1)
        weights = initial if past is None else past.weights
        momentum = torch.zeros_like(initial) if past is None or past.momentum is None else past.momentum

        queries = self._by_chunk(q, grid.readers)
        answers = [] if past is None else [read(weights, queries[0], config.depth)]
        queries = queries[len(answers) :]
        keys, values = self._by_chunk(k, grid.written), self._by_chunk(v, grid.written)
        rates = self._by_chunk(rates, grid.written)  # (N, B, H, C, G)
        bias = self.rates_bias.mT[:, None]  # (H, 1, G)
        steps = config.ceiling * (rates[..., :1] + bias[..., :1]).sigmoid()
        limit = config.longest_write(initial.shape[-1])
        by_chunk = (rates[..., 1:].mean(-2, keepdim=True) + bias[..., 1:]).sigmoid()
        for write in range(len(keys)):
            fresh, there = (flag[:, write, None, None, None] for flag in (grid.fresh, grid.there))
            start = torch.where(fresh, initial, weights)
            value = values[write]
            if config.self_modifying:
                value = read(start, value, config.depth)
            change = -descent(start, keys[write], value, steps[write], config.depth, config.self_modifying)
            if limit is not None:
                change = bounded(change, limit)
            forget = by_chunk[write, ..., :1]
            if config.momentum:
                change = change + by_chunk[write, ..., 1:] * torch.where(fresh, 0, momentum)
                momentum = torch.where(there, change, momentum)
            weights = torch.where(there, (1 - forget) * start + change, weights)
            answers.append(read(weights, queries[write], config.depth))

        by_head = q.view(rows, length, config.heads, -1)
        y = read(initial, by_head.transpose(1, 2), config.depth).transpose(1, 2)
        if answers:
            cells = torch.stack(answers, dim=1).transpose(2, 3).flatten(1, 2)  # (B, cells R, H, h)
            y = torch.where(grid.first[..., None, None], y, take(cells, grid.answer))
        return y, weights, momentum if config.momentum else None
