"""Causal softmax attention with grouped queries (GQA, arXiv 2305.13245), RoPE, optional QK-norm and sliding window.

    q = RoPE(norm(W_q x)) (B, H, T, h);  k = RoPE(norm(W_k x)), v = W_v x (B, G, T, h)
    query head i reads key/value head i // (H / G)
    y = W_o softmax(q k^T / sqrt(h) + mask) v

Causal by the order of tokens in the row; a token sees tokens of its own document only, with `window` w only those at
positions closer than w. (The seed also grouped the queries, leaving half of its heads distinct; here all are.)
The state holds rotated keys, values, positions and documents, so rows may be ragged.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinycore.config import ConfigError
from tinycore.context import PADDING, Context
from tinycore.count import Cost
from tinycore.families import Aux, Carry, LocalState, MixerConfig, Scope
from tinycore.mixers.rotary import rotary_tables, rotate
from tinycore.norms.rms import RMSNorm
from tinycore.ops.attention import block_bytes, causal_attention, mask_bytes

BLOCKED_FROM = 16  # tokens; shorter rows are not worth the calls


class KeyValueState(NamedTuple):
    """What attention keeps of the tokens so far."""

    keys: Tensor  # (B, G, S, h), rotated
    values: Tensor  # (B, G, S, h)
    positions: Tensor  # (B, S)
    documents: Tensor | None  # (B, S), -1 = padding; None = single documents without padding

    def truncate(self, length: int) -> KeyValueState:
        if self.documents is not None:
            raise ValueError("truncate: rows are packed or padded; use snapshot and restore")
        if self.positions.numel() == 0:
            return self
        kept = int((self.positions[0] < length).sum())
        if kept < self.positions.shape[1] and int(self.positions[0, 0]) > 0:
            raise ValueError("truncate: the window has forgotten tokens needed then; use snapshot and restore")
        return KeyValueState(self.keys[:, :, :kept], self.values[:, :, :kept], self.positions[:, :kept], None)


class Attention(nn.Module):
    """(B, T, D) -> (B, T, D)."""

    @dataclass(frozen=True, kw_only=True)
    class Config(MixerConfig, kind="attention"):
        projections: ClassVar[tuple[str, ...]] = ("q", "k", "v", "o")
        heads: int = field(metadata={"help": "query heads"})
        kv_heads: int | None = field(default=None, metadata={"help": "key/value heads; null = as many as query heads"})
        head_dim: int | None = field(default=None, metadata={"help": "channels per head; null = dim / heads"})
        theta: float = field(default=10000.0, metadata={"help": "RoPE base"})
        qk_norm: bool = field(default=False, metadata={"help": "RMSNorm on each query and key head before RoPE"})
        window: int | None = field(default=None, metadata={"help": "tokens a token sees, itself included; null = all"})

        def __post_init__(self) -> None:
            for name in ("heads", "kv_heads", "head_dim", "window"):
                value = getattr(self, name)
                if value is not None and value < 1:
                    raise ConfigError(f"{name}: {value} is not positive")
            if self.heads % self.groups:
                raise ConfigError(f"kv_heads: {self.groups} does not divide heads {self.heads}")
            if self.theta <= 0:
                raise ConfigError(f"theta: {self.theta} is not positive")

        @property
        def groups(self) -> int:
            return self.kv_heads or self.heads

        def check(self, scope: Scope) -> None:
            if self.head_dim is None and scope.dim % self.heads:
                raise ConfigError(f"heads: {self.heads} does not divide dim {scope.dim}")
            if self.width(scope) % 2:
                raise ConfigError(f"head_dim: {self.width(scope)} is odd; RoPE rotates pairs of channels")

        def width(self, scope: Scope) -> int:
            return self.head_dim or scope.dim // self.heads

        def build(self, scope: Scope) -> Attention:
            return Attention(self, scope)

        def cost(self, scope: Scope, length: int) -> Cost:
            width = self.width(scope)
            queries, shared = self.heads * width, self.groups * width
            name = "attention_projections"
            visible = length if self.window is None else min(length, self.window - 1)
            return (
                self.projection(scope, "q").cost(scope.dim, queries, name)
                + self.projection(scope, "k").cost(scope.dim, shared, name)
                + self.projection(scope, "v").cost(scope.dim, shared, name)
                + self.projection(scope, "o").cost(queries, scope.dim, "attention_output")
                + Cost(
                    parameters=2 * width if self.qk_norm else 0,
                    flops={"attention_scores": 4.0 * queries * length},
                    saved=self._saved(scope, queries, shared, length),
                    transient=self._transient(scope, queries, shared, length),
                    state=2 * shared * visible,
                    shared=self._shared(scope, width, length),
                )
            )

        def _shared(self, scope: Scope, width: int, length: int) -> dict[tuple[Any, ...], int]:
            """Bytes of what packed rows share among layers: the tables of RoPE and, on a CPU, the masks of blocks."""
            found = {("rotary", width, self.theta): 4 * scope.rows * length * width}
            if scope.device == "cpu" and length >= BLOCKED_FROM:
                found["masks", self.window] = mask_bytes(scope.rows, length, self.window)
            return found

        def _saved(self, scope: Scope, queries: int, shared: int, length: int) -> float:
            """Bytes per token: input, q, k, v, output; before their norm, q and k once more."""
            elements = scope.dim + 2 * queries + 2 * shared
            if self.qk_norm:
                elements += queries + shared
            if scope.device != "cpu":
                elements += length  # the mask, added to scores
            return float(scope.product_bytes * elements + (4 * (self.heads + self.groups) if self.qk_norm else 0))

        def _transient(self, scope: Scope, queries: int, shared: int, length: int) -> int:
            """Bytes: the gradients of output and q, those of k and v in float32, a product of q's size, the scores."""
            scores = block_bytes(scope.rows, self.heads, length, scope.cast_bytes) if scope.device == "cpu" else 0
            return scope.rows * length * (scope.product_bytes * 2 * queries + 4 * (queries + 2 * shared)) + scores

    def __init__(self, config: Config, scope: Scope) -> None:
        super().__init__()
        width = config.width(scope)
        self.heads, self.groups, self.width = config.heads, config.groups, width
        self.theta, self.window = config.theta, config.window
        self.q = config.projection(scope, "q").build(scope.dim, self.heads * width)
        self.k = config.projection(scope, "k").build(scope.dim, self.groups * width)
        self.v = config.projection(scope, "v").build(scope.dim, self.groups * width)
        self.o = config.projection(scope, "o").build(self.heads * width, scope.dim, scope.residual_gain)
        self.q_norm = RMSNorm(width) if config.qk_norm else None
        self.k_norm = RMSNorm(width) if config.qk_norm else None

    def forward(
        self, x: Tensor, carry: Carry, ctx: Context, state: LocalState | None
    ) -> tuple[Tensor, Carry, LocalState | None, Aux]:
        rows, length, _ = x.shape
        q = self.q(x).view(rows, length, self.heads, self.width).transpose(1, 2)  # (B, H, T, h)
        k = self.k(x).view(rows, length, self.groups, self.width).transpose(1, 2)  # (B, G, T, h)
        v = self.v(x).view(rows, length, self.groups, self.width).transpose(1, 2)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        tables = rotary_tables(ctx, self.width, self.theta, x.dtype)
        q, k = rotate(q, tables), rotate(k, tables)

        past: KeyValueState | None = state.get("kv") if state is not None else None
        positions = ctx.positions.expand(rows, -1)
        seen = KeyValueState(k, v, positions, ctx.documents)
        if past is not None:
            seen = _append(past, seen)
        if past is None and ctx.contiguous and length >= BLOCKED_FROM and x.device.type == "cpu":
            y = causal_attention(q, k, v, _starts(ctx, length, self.window or length))
        else:
            mask, causal = _mask(ctx, positions, past, seen, self.window)
            y = F.scaled_dot_product_attention(
                q, seen.keys, seen.values, attn_mask=mask, is_causal=causal, enable_gqa=self.groups != self.heads
            )
        y = self.o(y.transpose(1, 2).reshape(rows, length, self.heads * self.width))
        if state is None:
            return y, carry, None, {}
        return y, carry, {"kv": _keep(seen, self.window)}, {}


def _append(past: KeyValueState, new: KeyValueState) -> KeyValueState:
    documents = None
    if past.documents is not None or new.documents is not None:
        documents = torch.cat([_documents(past), _documents(new)], dim=1)
    return KeyValueState(
        torch.cat([past.keys, new.keys], dim=2),
        torch.cat([past.values, new.values], dim=2),
        torch.cat([past.positions, new.positions], dim=1),
        documents,
    )


def _documents(state: KeyValueState) -> Tensor:
    return torch.zeros_like(state.positions) if state.documents is None else state.documents


def _starts(ctx: Context, length: int, window: int) -> Tensor | None:
    """Each token's first visible slot (B or 1, T) in a contiguous context, None where that is 0 for all."""
    if window >= length:
        return ctx.starts
    key = ("starts", window)
    if key not in ctx.memo:
        recent = (torch.arange(length, device=ctx.positions.device) - window + 1).clamp(min=0)[None]
        ctx.memo[key] = recent if ctx.starts is None else torch.maximum(ctx.starts, recent)
    return ctx.memo[key]


def _mask(
    ctx: Context, positions: Tensor, past: KeyValueState | None, seen: KeyValueState, window: int | None
) -> tuple[Tensor | None, bool]:
    """What each token may read: (mask (B or 1, 1, T, S) or None, whether plain causality says it all)."""
    length, total = positions.shape[1], seen.keys.shape[2]
    windowed = window is not None and total > window
    if seen.documents is None and not windowed:
        if length == total:
            return None, True
        if length == 1:
            return None, False
    key = ("mask", window) if past is None else None
    if key is not None and key in ctx.memo:
        return ctx.memo[key], False
    # keys stand in the order of their arrival, so the slot decides what is past, whatever the rows' positions
    mask = torch.ones(length, total, dtype=torch.bool, device=positions.device).tril(total - length)[None]
    if windowed:
        mask = mask & (positions[:, :, None] - seen.positions[:, None, :] < window)
    if seen.documents is not None:
        own = seen.documents[:, total - length :]
        mask = mask & (own[:, :, None] == seen.documents[:, None, :])
    mask = mask[:, None]
    if key is not None:
        ctx.memo[key] = mask
    return mask, False


def _keep(seen: KeyValueState, window: int | None) -> KeyValueState:
    """Forget what no later token can see: all but each row's newest window - 1 tokens that are not padding."""
    if window is None or seen.keys.shape[2] < window:
        return seen
    needed = window - 1
    if seen.documents is not None:
        valid_after = (seen.documents != PADDING).long().flip(1).cumsum(1).flip(1)  # valid tokens from this slot on
        needed = int((valid_after <= window - 1).sum(1).max()) if len(valid_after) else 0
    start = seen.keys.shape[2] - needed
    documents = None if seen.documents is None else seen.documents[:, start:]
    return KeyValueState(seen.keys[:, :, start:], seen.values[:, :, start:], seen.positions[:, start:], documents)
