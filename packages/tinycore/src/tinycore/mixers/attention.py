"""Causal softmax attention with grouped queries (GQA, arXiv 2305.13245), RoPE and what is built around them.

    q = RoPE(norm(W_q x)) (B, H, T, h);  k = RoPE(norm(W_k x)), v = W_v x (B, G, T, h)
    query head i reads key/value head i // (H / G)
    y = W_o softmax(q k^T / sqrt(h) + mask) v

Causal by the order of tokens in the row; a token sees tokens of its own document only, with `window` w only those at
positions closer than w. (The seed also grouped the queries, leaving half of its heads distinct; here all are.)
With `causal: false` a token sees its whole document: for models that predict in place, which keep no state.
The state holds rotated keys, values, positions and documents, so rows may be ragged.

Options: `qk_norm`, RMSNorm on each head of q and k; under norm placement hybrid (HybridNorm, arXiv 2503.04598) on each head
of q, k and v. `qk_gain`, a learned factor per query head on the logits, so that normed heads may become sharp. `rotary`,
RoPE on the first channels of a head only (GPT-NeoX), 0 = no positions (Jamba). `soft_cap`, logits bounded by cap tanh(./cap)
(Gemma 2). `fan`, periodic features before q, k and v (`fan_input`). `value_residual`, the first layer's values mixed into the
later ones' (`value_residual`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinycore.config import ConfigError
from tinycore.context import Context
from tinycore.count import Cost
from tinycore.families import Aux, Carry, LocalState, MixerConfig, Scope
from tinycore.mixers.fan_input import PROJECTIONS, FanInput, fan_cost, periodic_channels
from tinycore.mixers.key_values import KeyValueState, append, keep
from tinycore.mixers.masks import first_visible, same_document, visible
from tinycore.mixers.rotary import rotary_tables, rotate
from tinycore.mixers.value_residual import ValueResidual, ValueResidualConfig
from tinycore.norms.rms import RMSNorm
from tinycore.ops.attention import block_bytes, causal_attention, mask_bytes
from tinycore.ops.capped_attention import capped_attention

BLOCKED_FROM = 16  # tokens; shorter rows are not worth the calls


class Attention(nn.Module):
    """(B, T, D) -> (B, T, D)."""

    @dataclass(frozen=True, kw_only=True)
    class Config(MixerConfig, kind="attention"):
        projections: ClassVar[tuple[str, ...]] = ("q", "k", "v", "o", *PROJECTIONS)
        has_qkv: ClassVar[bool] = True
        heads: int = field(metadata={"help": "query heads"})
        kv_heads: int | None = field(default=None, metadata={"help": "key/value heads; null = as many as query heads"})
        head_dim: int | None = field(default=None, metadata={"help": "channels per head; null = dim / heads"})
        theta: float = field(default=10000.0, metadata={"help": "RoPE base"})
        rotary: int | None = field(
            default=None, metadata={"help": "channels of a head that RoPE turns; null = all, 0 = none"}
        )
        qk_norm: bool = field(default=False, metadata={"help": "RMSNorm on each query and key head before RoPE"})
        qk_gain: float | None = field(
            default=None,
            metadata={"help": "factor on the logits, learned for each query head, at the start; null = none"},
        )
        soft_cap: float | None = field(
            default=None, metadata={"help": "bound on the logits, cap tanh(x / cap); null = none"}
        )
        causal: bool = field(
            default=True, metadata={"help": "see no later token; false in models that predict in place"}
        )
        window: int | None = field(default=None, metadata={"help": "tokens a token sees, itself included; null = all"})
        fan: float | None = field(
            default=None, metadata={"help": "share of cosines, and of sines, in the input of q, k and v; null = none"}
        )
        value_residual: ValueResidualConfig | None = field(
            default=None, metadata={"help": "mix the first layer's values into the later ones'; null = no"}
        )

        def __post_init__(self) -> None:
            for name in ("heads", "kv_heads", "head_dim", "window", "theta", "soft_cap"):
                value = getattr(self, name)
                if value is not None and not value > 0:
                    raise ConfigError(f"{name}: {value} is not positive")
            if self.window is not None and not self.causal:
                raise ConfigError("window: a window is of earlier tokens; leave it out where causal is false")
            if self.heads % self.groups:
                raise ConfigError(f"kv_heads: {self.groups} does not divide heads {self.heads}")
            if self.rotary is not None and (self.rotary < 0 or self.rotary % 2):
                raise ConfigError(f"rotary: {self.rotary} is not an even number of channels; RoPE rotates pairs")
            if self.fan is not None and not 0 < self.fan < 0.5:
                raise ConfigError(f"fan: {self.fan} is not between 0 and .5, the shares of cosines and of sines")

        @property
        def looks_ahead(self) -> bool:
            return not self.causal

        @property
        def groups(self) -> int:
            return self.kv_heads or self.heads

        @property
        def reads_first_values(self) -> bool:
            return self.value_residual is not None

        def value_channels(self, scope: Scope) -> int:
            return self.groups * self.width(scope)

        def check(self, scope: Scope) -> None:
            width = self.width(scope)
            if self.head_dim is None and scope.dim % self.heads:
                raise ConfigError(f"heads: {self.heads} does not divide dim {scope.dim}")
            if self.turned(scope) % 2:
                raise ConfigError(f"head_dim: {width} is odd; RoPE rotates pairs of channels")
            if self.turned(scope) > width:
                raise ConfigError(f"rotary: {self.rotary} channels are more than a head's {width}")
            if self.qk_norm and scope.norm.normalises_qkv:
                raise ConfigError(f"qk_norm: placement {scope.norm.kind} normalises queries, keys and values already")
            if self.fan is not None and not periodic_channels(self.fan, scope.dim):
                raise ConfigError(f"fan: a share of {self.fan} is less than one of {scope.dim} channels")

        def width(self, scope: Scope) -> int:
            return self.head_dim or scope.dim // self.heads

        def turned(self, scope: Scope) -> int:
            """Channels of a head that RoPE turns."""
            return self.width(scope) if self.rotary is None else self.rotary

        def normed(self, scope: Scope) -> int:
            """How many of queries, keys and values are normalised."""
            return 3 if scope.norm.normalises_qkv else 2 if self.qk_norm else 0

        def build(self, scope: Scope) -> Attention:
            return Attention(self, scope)

        def cost(self, scope: Scope, length: int) -> Cost:
            width, normed = self.width(scope), self.normed(scope)
            queries, shared = self.heads * width, self.groups * width
            name = "attention_projections"
            visible_tokens = length if self.window is None else min(length, self.window - 1)
            gains = normed * width if normed == 2 or scope.norm.affine else 0
            reads = self.value_residual is not None and scope.layer != scope.value_source
            total = (
                self.projection(scope, "q").cost(scope.dim, queries, name)
                + self.projection(scope, "k").cost(scope.dim, shared, name)
                + self.projection(scope, "v").cost(scope.dim, shared, name)
                + self.projection(scope, "o").cost(queries, scope.dim, "attention_output")
                + Cost(
                    parameters=gains
                    + (self.heads if self.qk_gain is not None else 0)
                    + (2 if reads and self.value_residual is not None and self.value_residual.learned else 0),
                    flops={"attention_scores": 4.0 * queries * length},
                    saved=self._saved(scope, queries, shared, length),
                    transient=self._transient(scope, queries, shared, length),
                    state=2 * shared * visible_tokens,
                    shared=self._shared(scope, length),
                )
            )
            return total if self.fan is None else total + fan_cost(self, self.fan, scope, name)

        def _shared(self, scope: Scope, length: int) -> dict[tuple[Any, ...], int]:
            """Bytes of what packed rows share among layers: the tables of RoPE and, on a CPU, the masks of blocks."""
            turned = self.turned(scope)
            found: dict[tuple[Any, ...], int] = {}
            if turned:
                found["rotary", turned, self.theta] = 4 * scope.rows * length * turned
            if scope.device == "cpu" and length >= BLOCKED_FROM and self.causal:
                found["masks", self.window] = mask_bytes(scope.rows, length, self.window)
            elif self.soft_cap is not None:
                found["mask", self.window] = scope.rows * length * length
            return found

        def _saved(self, scope: Scope, queries: int, shared: int, length: int) -> float:
            """Bytes per token: input, q, k, v, output; before their norm, q, k and v once more; with a cap, the scores, where
            they are not made in blocks."""
            normed = self.normed(scope)
            elements = scope.dim + 2 * queries + 2 * shared
            scales, wide = 0, 0.0
            if normed:
                elements += queries + (normed - 1) * shared
                scales = self.heads + (normed - 1) * self.groups
            if self.qk_gain is not None:
                elements += queries
            if self.value_residual is not None and self.value_residual.learned and scope.layer != scope.value_source:
                elements += shared
            if self.soft_cap is not None and scope.device != "cpu":
                wide += 2 * self.heads * length + (queries + shared if scope.product_bytes != 4 else queries)
                elements += (self.heads * length if scope.product_bytes != 4 else 0) - queries
            elif scope.device != "cpu":
                elements += length  # the mask, added to scores
            return scope.product_bytes * elements + 4.0 * (scales + wide)

        def _transient(self, scope: Scope, queries: int, shared: int, length: int) -> int:
            """Bytes: the gradients of output and q, those of k and v in float32, a product of q's size, the scores."""
            scores = block_bytes(scope.rows, self.heads, length, scope.cast_bytes) if scope.device == "cpu" else 0
            if self.soft_cap is not None and scope.device != "cpu":
                scores = 2 * 4 * scope.rows * self.heads * length * length
            return scope.rows * length * (scope.product_bytes * 2 * queries + 4 * (queries + 2 * shared)) + scores

    def __init__(self, config: Config, scope: Scope) -> None:
        super().__init__()
        width = config.width(scope)
        self.heads, self.groups, self.width = config.heads, config.groups, width
        self.theta, self.window, self.soft_cap = config.theta, config.window, config.soft_cap
        self.causal = config.causal
        self.rotary = config.turned(scope)
        self.q = config.projection(scope, "q").build(scope.dim, self.heads * width)
        self.k = config.projection(scope, "k").build(scope.dim, self.groups * width)
        self.v = config.projection(scope, "v").build(scope.dim, self.groups * width)
        self.o = config.projection(scope, "o").build(self.heads * width, scope.dim, scope.residual_gain)
        self.q_norm, self.k_norm, self.v_norm = self._head_norms(config, scope)
        self.q_gain = None if config.qk_gain is None else nn.Parameter(torch.full((self.heads,), config.qk_gain))
        self.fan = None if config.fan is None else FanInput(config, config.fan, scope)
        self.value_residual = None
        if config.value_residual is not None:
            self.value_residual = ValueResidual(config.value_residual, scope.layer == scope.value_source)

    @staticmethod
    def _head_norms(config: Config, scope: Scope) -> tuple[RMSNorm | None, ...]:
        width, norm = config.width(scope), scope.norm
        if norm.normalises_qkv:
            return tuple(RMSNorm(width, norm.eps, norm.affine) for _ in range(3))
        return (RMSNorm(width), RMSNorm(width), None) if config.qk_norm else (None, None, None)

    def forward(
        self, x: Tensor, carry: Carry, ctx: Context, state: LocalState | None
    ) -> tuple[Tensor, Carry, LocalState | None, Aux]:
        rows, length, _ = x.shape
        if self.fan is not None:
            x = self.fan(x)
        q = self.q(x).view(rows, length, self.heads, self.width).transpose(1, 2)  # (B, H, T, h)
        if self.q_norm is not None:
            q = self.q_norm(q)
        if self.q_gain is not None:
            q = q * self.q_gain.to(q.dtype)[:, None, None]
        if self.rotary:
            q = rotate(q, rotary_tables(ctx, self.rotary, self.theta, x.dtype))

        past: KeyValueState | None = state.get("kv") if state is not None else None
        seen, carry = self._seen(x, carry, ctx, past)
        y = self._read(q, seen, past, ctx, ctx.positions.expand(rows, -1))
        y = self.o(y.transpose(1, 2).reshape(rows, length, self.heads * self.width))
        if state is None:
            return y, carry, None, {}
        return y, carry, {"kv": keep(seen, self.window)}, {}

    def remember(self, x: Tensor, carry: Carry, ctx: Context, state: LocalState) -> tuple[Carry, LocalState]:
        """See `Layer.remember`: keys and values alone."""
        if self.fan is not None:
            x = self.fan(x)
        seen, carry = self._seen(x, carry, ctx, state.get("kv"))
        return carry, {"kv": keep(seen, self.window)}

    def _seen(self, x: Tensor, carry: Carry, ctx: Context, past: KeyValueState | None) -> tuple[KeyValueState, Carry]:
        """Keys and values of x (B, T, D), behind those of the past."""
        rows, length, _ = x.shape
        k = self.k(x).view(rows, length, self.groups, self.width).transpose(1, 2)  # (B, G, T, h)
        v = self.v(x).view(rows, length, self.groups, self.width).transpose(1, 2)
        if self.k_norm is not None:
            k = self.k_norm(k)
        if self.v_norm is not None:
            v = self.v_norm(v)
        if self.value_residual is not None:
            v, carry = self.value_residual(v, carry)
        if self.rotary:
            k = rotate(k, rotary_tables(ctx, self.rotary, self.theta, x.dtype))
        new = KeyValueState(k, v, ctx.positions.expand(rows, -1), ctx.documents)
        return (new if past is None else append(past, new)), carry

    def _read(
        self, q: Tensor, seen: KeyValueState, past: KeyValueState | None, ctx: Context, positions: Tensor
    ) -> Tensor:
        """(B, H, T, h): what each query reads."""
        length = q.shape[2]
        blocked = self.causal and past is None and ctx.contiguous and q.device.type == "cpu" and length >= BLOCKED_FROM
        if blocked:
            starts = first_visible(ctx, length, self.window or length)
            return causal_attention(q, seen.keys, seen.values, starts, self.soft_cap or 0.0)
        mask, causal = visible(ctx, positions, past, seen, self.window) if self.causal else (same_document(ctx), False)
        if self.soft_cap is not None:
            return capped_attention(q, seen.keys, seen.values, mask, causal, self.soft_cap)
        return F.scaled_dot_product_attention(
            q, seen.keys, seen.values, attn_mask=mask, is_causal=causal, enable_gqa=self.groups != self.heads
        )
