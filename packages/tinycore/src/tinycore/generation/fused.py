"""Decoding of the plain Llama shape with few, large operations, on a CPU in float32 or float64.

For a tiny model the time of a decoding step goes into thin matrix products and into starting operations, not into
arithmetic. This session copies the weights once, packed for thin products, and then needs about fifteen operations a
layer:

    q, k, v are one product, gate and up one; residuals are added by the products that make the summands;
    RMSNorm is x / hypot(|x|, sqrt(D eps)), its gain and sqrt(D) folded into the weights that read it;
    the rows of W_q and W_k are reordered so that the two channels of a pair of RoPE are neighbours, one complex number:
    q, k and v are rotated by one complex product (v by the angle 0), and k and v stored with one copy, in place;
    at one token a row the H / G query heads of a group are rows of one product with their keys.

Tokens that leave early (`routing.early_exit`) have their keys and values stored in the calls that they skip, and no more.

The cache is the session's own and grows by blocks, so writing in place is safe here, where states elsewhere are values.
The results are the model's up to rounding. Weights changed after the session began are not seen.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tinycore.depth.stack import Stack
from tinycore.embed.table import Table
from tinycore.ffns.swiglu import SwiGLU
from tinycore.heads.lm import LanguageModelHead
from tinycore.layer import Layer
from tinycore.linears.dense import Dense
from tinycore.mixers.attention import Attention
from tinycore.model import Decoder
from tinycore.norms.pre import PreNorm
from tinycore.norms.rms import RMSNorm
from tinycore.ops.packed_linear import PackedLinear
from tinycore.ops.rms_norm import rms_norm
from tinycore.residual.plain import PlainResidual
from tinycore.routing.early_exit import EarlyExit, certainty

BLOCK = 64  # tokens by which a full cache grows, at least


def can_fuse(model: Decoder) -> bool:
    """Whether every part of the model is one whose computation this module knows."""
    parameters = list(model.parameters())
    return (
        all(p.device.type == "cpu" and p.dtype in (torch.float32, torch.float64) for p in parameters)
        and len({p.dtype for p in parameters}) == 1
        and not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
        and type(model) is Decoder
        and type(model.depth) is Stack
        and (model.depth.stream, model.depth.memory) == (None, None)
        and (model.depth.router is None or type(model.depth.router) is EarlyExit)
        and type(model.embed) is Table
        and model.embed.registers is None
        and type(model.norm) is RMSNorm
        and type(model.heads["lm"]) is LanguageModelHead
        and model.heads["lm"].matrix(model.embed) is not None
        and all(map(_is_plain, model.layers))
    )


def _is_plain(layer: Any) -> bool:
    if type(layer) is not Layer or layer.sublayers != {"mixer": ("mixer",), "ffn": ("ffn",)}:
        return False
    if layer.dropout is not None and layer.training:
        return False
    mixer, ffn = layer.branches["mixer"], layer.branches["ffn"]
    if type(mixer) is not Attention or type(ffn) is not SwiGLU or mixer.rotary != mixer.width or mixer.soft_cap:
        return False
    if any(part is not None for part in (mixer.q_gain, mixer.fan, mixer.value_residual, mixer.v_norm)):
        return False
    linears = (mixer.q, mixer.k, mixer.v, mixer.o, ffn.gate, ffn.up, ffn.down)
    return all(type(linear) is Dense and linear.bias is None for linear in linears) and all(
        type(norm) is PreNorm and type(norm.norm) is RMSNorm and type(norm.residual) is PlainResidual
        for norm in layer.norms.values()
    )


class FusedSession:
    """A `Session` for models that `can_fuse` accepts."""

    full: list[bool] | None = None

    @torch.inference_mode()
    def __init__(self, model: Decoder, rows: int) -> None:
        parts: Any = model  # `can_fuse` knows their classes
        self.embedding: Tensor = parts.embed.weight
        self.embedding_scale: float = parts.embed.scale
        head = parts.heads["lm"]
        weight = head.matrix(parts.embed)
        gain, self.floor = _scales(parts.norm, weight)
        self.head = PackedLinear(weight * (gain * head.scale), rows)
        layers = [_Weights(layer, rows) for layer in parts.layers]
        self.calls = [_Call(layers[site.layer]) for site in parts.depth.sites]
        router = parts.depth.router
        self.threshold = 1.0 if router is None else router.config.threshold
        self.exits = router.exits if self.threshold < 1 else ()
        self.length = 0
        self.positions = torch.zeros(0, dtype=torch.long)
        self.valid: Tensor | None = None  # (B, capacity) bool

    @torch.inference_mode()
    def prefill(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """See `Session`."""
        rows, length = tokens.shape
        positions = torch.arange(length).expand(rows, -1)
        if valid is not None:
            positions = (valid.long().cumsum(1) - 1).clamp(min=0)
            self.valid = valid
        self.positions = positions[:, -1] + 1
        x = self._run(tokens, positions)
        return self.read(x.view(rows, length, -1)[:, -1])

    @torch.inference_mode()
    def select(self, rows: Tensor) -> None:
        """See `Session`."""
        self.positions = self.positions[rows]
        if self.valid is not None:
            self.valid = self.valid[rows]
        for call in self.calls:
            call.cache = call.cache[rows]

    @torch.inference_mode()
    def extend(self, tokens: Tensor) -> Tensor:
        """Hidden states (T, D), before their norm, after each of tokens (T,), of a session of one row without padding."""
        positions = (
            self.positions[:, None] + torch.arange(len(tokens)) if self.length else torch.arange(len(tokens))[None]
        )
        self.positions = positions[:, -1] + 1
        return self._run(tokens[None], positions)

    def rewind(self, count: int) -> None:
        """Forget the newest `count` tokens."""
        self.length, self.positions = self.length - count, self.positions - count
        for call in self.calls:
            call.length -= count

    @torch.inference_mode()
    def step(self, tokens: Tensor) -> Tensor:
        """See `Session`."""
        if self.valid is not None:
            self.valid = F.pad(self.valid, (0, 1), value=True)
        x = self._run(tokens[:, None], self.positions[:, None])
        self.positions = self.positions + 1
        return self.read(x)

    def _run(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Final hidden states (B T, D), before their norm, of tokens (B, T)."""
        x = F.embedding(tokens.flatten(), self.embedding)
        if self.embedding_scale != 1.0:
            x = x * self.embedding_scale
        turns: dict[Any, Tensor] = {}
        masks: dict[int | None, Tensor | None] = {}
        running: Tensor | None = None  # (B T, 1) bool, tokens that have not left early
        going = True
        for index, call in enumerate(self.calls, 1):
            weights = call.weights
            if weights.rotary not in turns:
                turns[weights.rotary] = _turns(positions.flatten(), *weights.rotary, x.dtype)
            if weights.window not in masks:
                masks[weights.window] = self._mask(*tokens.shape, weights.window)
            normed = _norm(x, weights.mixer_floor)
            if not going:
                call.remember(normed, turns[weights.rotary], tokens.shape)
                continue
            before = x
            y = call.attend(normed, turns[weights.rotary], masks[weights.window], tokens.shape)
            x = weights.o.add(y, x)
            gate, up = weights.gate_up(_norm(x, weights.ffn_floor)).chunk(2, dim=-1)
            x = weights.down.add(F.silu(gate).mul_(up), x)
            x = x if running is None else torch.where(running, x, before)
            if index in self.exits:
                unsure = (certainty(self.read(x)) <= self.threshold)[:, None]
                running = unsure if running is None else running & unsure
                going = bool(running.any())
        self.length += tokens.shape[1]
        return x

    def _mask(self, rows: int, length: int, window: int | None) -> Tensor | None:
        """(B, 1, T, S) for several tokens, (B, 1, 1, S) for a step, over the slots in `window`; None: causality says it all."""
        if length == 1 and self.length:
            first = 0 if window is None else max(0, self.length + 1 - window)
            return None if self.valid is None else self.valid[:, None, None, first:]
        total = self.length + length
        if self.valid is None and not self.length and (window is None or window >= length):
            return None
        mask = torch.ones(length, total, dtype=torch.bool).tril(self.length)
        if window is not None:
            mask = mask.triu(
                self.length + 1 - window
            )  # padding stands on the left: slots are as far apart as positions
        mask = mask.expand(rows, 1, -1, -1)
        # padding sees padding, so that no row of a mask is empty
        return mask if self.valid is None else mask & (self.valid[:, None, :, None] == self.valid[:, None, None, :])

    def read(self, x: Tensor) -> Tensor:
        """Logits (N, V) of hidden states (N, D) before their norm."""
        return self.head(_norm(x, self.floor))


class _Weights:
    """A layer's weights, packed: what every application of the layer shares."""

    def __init__(self, layer: Any, rows: int) -> None:
        mixer, ffn = layer.branches["mixer"], layer.branches["ffn"]
        self.heads, self.groups, self.width, self.window = mixer.heads, mixer.groups, mixer.width, mixer.window
        self.rotary = (mixer.heads, mixer.groups, mixer.width, mixer.theta)
        pairs = torch.arange(self.width).view(2, -1).t().flatten()  # 0, h/2, 1, h/2 + 1, ...
        q, k = (linear.weight.view(-1, self.width, linear.in_features)[:, pairs] for linear in (mixer.q, mixer.k))
        qkv = torch.cat([q.flatten(0, 1), k.flatten(0, 1), mixer.v.weight])
        gain, self.mixer_floor = _scales(layer.norms["mixer"].norm, qkv)
        self.qkv = PackedLinear(qkv * gain, rows)
        self.o = PackedLinear(mixer.o.weight, rows)
        gate_up = torch.cat([ffn.gate.weight, ffn.up.weight])
        gain, self.ffn_floor = _scales(layer.norms["ffn"].norm, gate_up)
        self.gate_up = PackedLinear(gate_up * gain, rows)
        self.down = PackedLinear(ffn.down.weight, rows)
        self.qk_norms: list[tuple[Tensor, float]] | None = None
        if mixer.q_norm is not None:
            self.qk_norms = [(norm.weight[pairs], norm.eps) for norm in (mixer.q_norm, mixer.k_norm)]


class _Call:
    """One application of a layer, with its own cache (B, 2 G, capacity, h): keys, then values."""

    def __init__(self, weights: _Weights) -> None:
        self.weights = weights
        self.length = 0
        self.cache = torch.empty(0)

    def attend(self, x: Tensor, turns: Tensor, mask: Tensor | None, shape: torch.Size) -> Tensor:
        """What the queries of x (B T, D) read, (B T, H h); its keys and values are stored."""
        rows, length = shape
        weights = self.weights
        heads, groups, width = weights.heads, weights.groups, weights.width
        qkv = self.remember(x, turns, shape)
        end = self.length
        start = end - length
        if length == 1 and start:
            first = 0 if weights.window is None else max(0, end - weights.window)
            keys, values = self.cache.narrow(2, first, end - first).chunk(2, dim=1)
            q = qkv[:, 0, :heads].view(rows, groups, heads // groups, width)
            return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask).reshape(rows, heads * width)
        q, keys, values = qkv.transpose(1, 2).split([heads, groups, groups], dim=1)
        if start:
            keys, values = self.cache[:, :, :end].chunk(2, dim=1)
        y = F.scaled_dot_product_attention(
            q, keys, values, attn_mask=mask, is_causal=mask is None, enable_gqa=heads != groups
        )
        return y.transpose(1, 2).reshape(rows * length, heads * width)

    def remember(self, x: Tensor, turns: Tensor, shape: torch.Size) -> Tensor:
        """Store the keys and values of x (B T, D): its queries, keys and values (B, T, H + 2 G, h), turned."""
        rows, length = shape
        weights = self.weights
        heads, groups, width = weights.heads, weights.groups, weights.width
        qkv = weights.qkv(x).view(-1, heads + 2 * groups, width // 2, 2)
        if weights.qk_norms is not None:
            qkv = _norm_queries_and_keys(qkv.flatten(2), heads, weights.qk_norms).view_as(qkv)
        qkv = torch.view_as_real(torch.view_as_complex(qkv) * turns).view(rows, length, -1, width)
        start, self.length = self.length, self.length + length
        self._reserve(rows, self.length, start, x)
        if length == 1:
            self.cache.select(2, start).copy_(qkv[:, 0, heads:])
        else:
            self.cache[:, :, start : self.length] = qkv[:, :, heads:].transpose(1, 2)
        return qkv

    def _reserve(self, rows: int, length: int, filled: int, like: Tensor) -> None:
        capacity = self.cache.shape[2] if filled else 0
        if length <= capacity:
            return
        weights = self.weights
        grown = like.new_empty(rows, 2 * weights.groups, length + max(BLOCK, length // 2), weights.width)
        if filled:
            grown[:, :, :filled] = self.cache[:, :, :filled]
        self.cache = grown


def _scales(norm: RMSNorm, readers: Tensor) -> tuple[Tensor, Tensor]:
    """What the weights that read this norm are multiplied with, (D,), and the 0-d tensor sqrt(D eps)."""
    dim = readers.shape[1]
    gain = readers.new_ones(dim) if norm.weight is None else norm.weight
    return gain * math.sqrt(dim), readers.new_tensor(math.sqrt(dim * norm.eps))


def _norm(x: Tensor, floor: Tensor) -> Tensor:
    """x / sqrt(|x|^2 + D eps): RMSNorm (N, D) without its gain and divided by sqrt(D)."""
    return x / torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), floor)


def _norm_queries_and_keys(qkv: Tensor, heads: int, norms: list[tuple[Tensor, float]]) -> Tensor:
    groups = (qkv.shape[1] - heads) // 2
    q, k, v = qkv.split([heads, groups, groups], dim=1)
    q, k = (rms_norm(part, gain, eps) for part, (gain, eps) in zip((q, k), norms, strict=True))
    return torch.cat([q, k, v], dim=1)


def _turns(positions: Tensor, heads: int, groups: int, width: int, theta: float, dtype: torch.dtype) -> Tensor:
    """exp(i angle) (N, H + 2 G, h / 2), complex: the rotation of every pair of RoPE, none for the values."""
    pairs = torch.arange(0, width, 2, dtype=dtype)
    angles = positions.new_zeros(len(positions), heads + 2 * groups, width // 2, dtype=dtype)
    angles[:, : heads + groups] = (positions[:, None].to(dtype) * theta ** (-pairs / width))[:, None]
    return torch.polar(torch.ones_like(angles), angles)
