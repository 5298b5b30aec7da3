"""Groups of tokens made into one vector, and what came of it given back to the tokens.

Shortening a group w_1 ... w_m, m <= k (arXiv 2110.13711):

    average     p = mean of w
    linear      p = sum over j of A_j w_{j - m + k}, A_j (D, D), nothing where a group is shorter; A_j = I / k at the start
    attention   p = mean of w + O attention(Q mean, K w, V w), all of them normed first, O zero at the start

Lengthening, d (D) what the layers added to the newest group that a token reads, r how many tokens back that was closed:

    repeat      u = d
    linear      u = B_r d, B_r (D, D), the identity at the start
    attention   u = d + O attention(Q (x + d), K, V of the groups), over all groups of the document up to that one
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinycore.context import PADDING, Context
from tinycore.count import Cost
from tinycore.families import Scope
from tinycore.linears.dense import Dense
from tinycore.mixers.compaction import take
from tinycore.mixers.key_values import KeyValueState, append
from tinycore.ops.rms_norm import EPSILON, rms_norm

ShortenKind = Literal["average", "linear", "attention"]
LengthenKind = Literal["repeat", "linear", "attention"]


def average(tokens: Tensor, present: Tensor) -> Tensor:
    """Means (B, G, D) of tokens (B, G, k, D) where they are present (B, G, k); 0 of none."""
    total = torch.where(present[..., None], tokens, 0).sum(2)
    return total / present.sum(-1, keepdim=True).clamp(min=1)


class Shorten(nn.Module):
    """(tokens (B, G, k, D), present (B, G, k) bool) -> (B, G, D)."""

    def __init__(self, kind: ShortenKind, size: int, dim: int) -> None:
        super().__init__()
        self.kind = kind
        self.linear, self.attention = None, None
        if kind == "linear":
            self.linear = Dense(size * dim, dim, False, 0.0)
            with torch.no_grad():
                self.linear.weight.copy_(torch.eye(dim).repeat(1, size) / size)
        if kind == "attention":
            self.attention = _Attention(dim)

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        if self.linear is not None:
            return self.linear(torch.where(present[..., None], tokens, 0).flatten(2))
        mean = average(tokens, present)
        if self.attention is None:
            return mean
        rows, count, _, dim = tokens.shape
        # a group that is not there reads anything
        mask = (present | ~present.any(-1, keepdim=True)).flatten(0, 1)[:, None, None]
        keys, values = self.attention.keys_values(tokens.flatten(0, 1))
        read = self.attention(mean.reshape(rows * count, 1, dim), keys, values, mask)
        return mean + read.view(rows, count, dim)


class Lengthen(nn.Module):
    """(x (B, T, D), groups, what they read) -> what is added to x."""

    def __init__(self, kind: LengthenKind, size: int, dim: int) -> None:
        super().__init__()
        self.size = size
        self.linear, self.attention = None, None
        if kind == "linear":
            self.linear = Dense(dim, size * dim, False, 0.0)
            with torch.no_grad():
                self.linear.weight.copy_(torch.eye(dim).repeat(size, 1))
        if kind == "attention":
            self.attention = _Attention(dim)

    def expand(self, gained: Tensor) -> Tensor:
        """What is read of the gained (B, G, D): itself, or one vector for each offset, (B, G, size D)."""
        return gained if self.linear is None else self.linear(gained)

    def at_offset(self, read: Tensor, offset: Tensor) -> Tensor:
        """What tokens at `offset` (B, T) take of `read` (B, T, D or size D): (B, T, D)."""
        if self.linear is None:
            return read
        parts = read.unflatten(2, (self.size, -1))
        return take(parts.flatten(0, 1), offset.flatten()[:, None])[:, 0].view(*offset.shape, -1)

    def attended(
        self, x: Tensor, output: Tensor, ctx: Context, groups: Context, number: Tensor, past: KeyValueState | None
    ) -> tuple[Tensor, KeyValueState | None]:
        """What tokens x (B, T, D) read of all the groups of their documents up to `number` (B, T), -1 = of none; output
        (B, G, D) are the groups, in their context."""
        if self.attention is None:
            return torch.zeros((), dtype=x.dtype, device=x.device), None
        keys, values = self.attention.keys_values(output)
        positions = groups.positions.expand(len(x), output.shape[1])
        seen = KeyValueState(keys, values, positions, groups.documents)
        seen = seen if past is None else append(past, seen)
        mask = seen.positions[:, None, :] <= number[..., None]
        if seen.documents is not None:
            own = torch.zeros_like(number) if ctx.documents is None else ctx.documents
            mask = mask & (own[..., None] == seen.documents[:, None, :]) & (seen.documents != PADDING)[:, None]
        some = mask.any(-1, keepdim=True)
        if seen.keys.shape[2] == 0:
            return torch.zeros_like(x), seen
        read = self.attention(x, seen.keys, seen.values, (mask | ~some)[:, None])
        return torch.where(some, read, 0), seen


class _Attention(nn.Module):
    """One head without positions; its output starts at zero."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (Dense(dim, dim, False, 1.0) for _ in range(3))
        self.o = Dense(dim, dim, False, 0.0)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, S, D) each, of x (B, S, D)."""
        normed = rms_norm(x, None, EPSILON)
        return self.k(normed)[:, None], self.v(normed)[:, None]

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """What x (B, T, D) reads of keys and values (B, 1, S, D) under mask (B, 1, T or 1, S) bool."""
        q = self.q(rms_norm(x, None, EPSILON))[:, None]
        return self.o(F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)[:, 0])


def shorten_cost(kind: ShortenKind, size: int, scope: Scope) -> Cost:
    """Of one group of `size` tokens."""
    square, width = scope.dim**2, scope.product_bytes * scope.dim
    if kind == "linear":
        return Cost(parameters=size * square, flops={"depth": 2.0 * size * square}, saved=width * size)
    if kind == "attention":
        flops = 2.0 * square * (2 + 2 * size) + 4.0 * size * scope.dim
        return Cost(parameters=4 * square, flops={"depth": flops}, saved=width * (3 * size + 4))
    return Cost(saved=4.0 * size * scope.dim)


def lengthen_cost(kind: LengthenKind, size: int, scope: Scope, tokens: int, groups: int) -> Cost:
    """Of one token, where `tokens` tokens read `groups` groups."""
    square, width = scope.dim**2, scope.product_bytes * scope.dim
    share = groups / tokens
    if kind == "linear":
        return Cost(parameters=size * square, flops={"depth": 2.0 * size * square * share}, saved=width * 2)
    if kind == "attention":
        flops = 2.0 * square * (2 + 2 * share) + 4.0 * scope.dim * groups
        return Cost(parameters=4 * square, flops={"depth": flops}, saved=width * 5, state=2 * scope.dim * groups)
    return Cost()
