"""Attention that reads what depth `feedback` remembers of earlier tokens, the same for all layers.

    q = RoPE(W_q x) (B, H, T, h);   y = W_o softmax(q k^T / sqrt(h)) v;   query head i reads key/value head i // (H / G)

k and v (B, G, S, h) are the memory's, made once for all layers by the depth (`MemoryShape` of the scope), which alone decides
what a token sees: the memories of earlier chunks. Where a chunk has several tokens, those of the same chunk before a token
have no memory yet: of them it reads K and V (the memory's projections) of what this layer reads itself, as in ordinary
attention. A token never reads itself. One that sees nothing gives 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinycore.config import ConfigError
from tinycore.context import PADDING, Context
from tinycore.count import Cost
from tinycore.families import Aux, Carry, LocalState, MemoryShape, MixerConfig, Scope
from tinycore.mixers.key_values import KeyValueState, append
from tinycore.mixers.rotary import rotary_tables, rotate

KEYS, VALUES, SEEN, PROJECTION = "memory/keys", "memory/values", "memory/seen", "memory/projection"


class MemoryAttention(nn.Module):
    """(B, T, D) -> (B, T, D), T at most a chunk; the memory stands in the carry."""

    @dataclass(frozen=True, kw_only=True)
    class Config(MixerConfig, kind="memory_attention"):
        exempt: ClassVar[Mapping[str, str]] = {
            "identity": "is a mixer of its own, no add-on to another",
        }
        projections: ClassVar[tuple[str, ...]] = ("q", "o")
        heads: int = field(metadata={"help": "query heads"})

        def __post_init__(self) -> None:
            if self.heads < 1:
                raise ConfigError(f"heads: {self.heads} is not positive")

        @property
        def reads_memory(self) -> bool:
            return True

        def check(self, scope: Scope) -> None:
            if scope.memory is None:
                raise ConfigError("kind: memory_attention reads the memory of depth feedback, which this model lacks")
            if self.heads % scope.memory.kv_heads:
                raise ConfigError(f"heads: depth.kv_heads {scope.memory.kv_heads} does not divide {self.heads}")

        def build(self, scope: Scope) -> MemoryAttention:
            return MemoryAttention(self, scope)

        def cost(self, scope: Scope, length: int) -> Cost:
            assert scope.memory is not None
            memory, chunk = scope.memory, scope.memory.chunk
            queries, channels = self.heads * memory.head_dim, 2 * memory.kv_heads * memory.head_dim
            chunks = -(-length // chunk)
            # scores of a chunk: its tokens with the memories before it, and with one another
            pairs = sum(
                min(chunk, length - start) * (start + (min(chunk, length - start) if chunk > 1 else 0))
                for start in range(0, length, chunk)
            )
            own = {} if chunk == 1 else {"attention_projections": 2.0 * scope.dim * channels}
            read = memory.kv_heads * memory.head_dim * 2 * (length + chunks * chunk) / 2 / chunk
            return (
                self.projection(scope, "q").cost(scope.dim, queries, "attention_projections")
                + self.projection(scope, "o").cost(queries, scope.dim, "attention_output")
                + Cost(
                    flops={"attention_scores": 4.0 * queries * pairs / length, **own},
                    saved=scope.product_bytes * (scope.dim + 2 * queries + read),
                    state=channels * (chunk - 1),
                )
            )

    def __init__(self, config: Config, scope: Scope) -> None:
        super().__init__()
        assert scope.memory is not None
        self.memory: MemoryShape = scope.memory
        self.heads, self.width = config.heads, scope.memory.head_dim
        self.q = config.projection(scope, "q").build(scope.dim, self.heads * self.width)
        self.o = config.projection(scope, "o").build(self.heads * self.width, scope.dim, scope.residual_gain)

    def forward(
        self, x: Tensor, carry: Carry, ctx: Context, state: LocalState | None
    ) -> tuple[Tensor, Carry, LocalState | None, Aux]:
        rows, length, _ = x.shape
        q = self.q(x).view(rows, length, self.heads, self.width).transpose(1, 2)
        q = rotate(q, rotary_tables(ctx, self.width, self.memory.theta, x.dtype))
        keys, values, seen = carry[KEYS].to(q.dtype), carry[VALUES].to(q.dtype), carry[SEEN]
        local: KeyValueState | None = None
        if self.memory.chunk > 1:
            local = memory_of(x, carry[PROJECTION], ctx, self.memory)
            if state:
                local = append(state["local"], local)
            keys, values = torch.cat([keys, local.keys], dim=2), torch.cat([values, local.values], dim=2)
            seen = torch.cat([seen, self._in_chunk(local, ctx, rows)], dim=2)
        y = torch.zeros_like(q)
        if keys.shape[2]:
            some = seen.any(-1, keepdim=True)
            mask = (seen | ~some)[:, None]
            y = F.scaled_dot_product_attention(
                q, keys, values, attn_mask=mask, enable_gqa=self.memory.kv_heads != self.heads
            )
            y = torch.where(some[:, None], y, 0)
        y = self.o(y.transpose(1, 2).reshape(rows, length, self.heads * self.width))
        kept = None if state is None else {} if local is None else {"local": newest(local, self.memory.chunk - 1)}
        return y, carry, kept, {}

    def _in_chunk(self, local: KeyValueState, ctx: Context, rows: int) -> Tensor:
        """(B, T, S) bool: which of the tokens whose keys are there stand in a token's chunk, before it."""
        own, chunk = ctx.positions.expand(rows, -1)[..., None], self.memory.chunk
        there = local.positions[:, None]
        assert local.documents is not None
        return (there < own) & (there // chunk == own // chunk) & (local.documents[:, None] != PADDING)


def memory_of(x: Tensor, projection: Tensor, ctx: Context, shape: MemoryShape) -> KeyValueState:
    """Keys and values of x (B, T, D) under the projection (2 G h, D), as attention reads them."""
    rows, length, _ = x.shape
    both = F.linear(x, projection.to(x.dtype)).view(rows, length, 2, shape.kv_heads, shape.head_dim)
    keys, values = both.permute(2, 0, 3, 1, 4)
    keys = rotate(keys, rotary_tables(ctx, shape.head_dim, shape.theta, x.dtype))
    positions = ctx.positions.expand(rows, -1)
    documents = torch.zeros_like(positions) if ctx.documents is None else ctx.documents
    return KeyValueState(keys, values, positions, documents)


def newest(state: KeyValueState, count: int) -> KeyValueState:
    """The newest `count` slots of each row that are not padding, behind padding where there are fewer."""
    assert state.documents is not None
    valid = state.documents != PADDING
    order = torch.argsort(valid.long(), dim=1, stable=True)
    if order.shape[1] < count:
        missing = count - order.shape[1]
        state = KeyValueState(
            F.pad(state.keys, (0, 0, missing, 0)),
            F.pad(state.values, (0, 0, missing, 0)),
            F.pad(state.positions, (missing, 0)),
            F.pad(state.documents, (missing, 0), value=PADDING),
        )
        return newest(state, count)
    order = order[:, order.shape[1] - count :]
    at = order[:, None, :, None].expand(-1, state.keys.shape[1], -1, state.keys.shape[3])
    assert state.documents is not None
    return KeyValueState(
        state.keys.gather(2, at),
        state.values.gather(2, at),
        state.positions.gather(1, order),
        state.documents.gather(1, order),
    )
