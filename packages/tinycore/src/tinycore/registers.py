"""Register tokens (arXiv 2309.16588): R learned vectors in front of every document, which all of its tokens may read.

    r_0 .. r_{R-1}, x_0, x_1, ...      rows of (B, T, D) become rows of (B, W, D); r (R, D), drawn as the embedding's rows

They are tokens to every layer: at positions 0 .. R-1 of their document, the tokens following from R on. Standing first,
they see one another only, so nothing about causality changes, and what a mixer keeps of a stream holds them like any
other token: a document that goes on from an earlier chunk gets no new ones. Heads never see them: hidden states are taken
back to (B, T, D), so that registers are neither scored nor predicted. (The paper's images are not causal and see them from
both sides; brandon-tiny has them as here, at the beginning of a row, where ours stand at that of each packed document.)

A row of packed documents grows by R for each that begins in it; the rows of a batch are filled up with padding. The
documents are taken up to a power of two, so that layers compiled for a shape see few of them; in a graph of the whole
model, whose shapes cannot depend on the data, there is room for a document at every token.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinycore.context import PADDING, Context, contiguous_starts
from tinycore.count import Cost

INITIAL_STD = 0.02
UNKNOWN = -1  # the route of a register
INDEX_BYTES = 8


class Widened(NamedTuple):
    """Rows with their registers."""

    x: Tensor  # (B, W, D)
    context: Context  # of the W slots
    tokens: Tensor | slice  # where the T tokens stand: (B, T) slots, or the same ones in all rows

    def narrowed(self, x: Tensor) -> Tensor:
        """What stands at the tokens: (B, W, D) -> (B, T, D)."""
        return x[:, self.tokens] if isinstance(self.tokens, slice) else _rows(x, self.tokens)


class Registers(nn.Module):
    """The vectors (R, D), times `scale`."""

    undecayed: ClassVar[tuple[str, ...]] = ("weight",)

    def __init__(self, count: int, dim: int, scale: float) -> None:
        super().__init__()
        self.count, self.scale = count, scale
        self.weight = nn.Parameter(torch.empty(count, dim))
        nn.init.normal_(self.weight, std=INITIAL_STD)

    def forward(self, x: Tensor, ctx: Context, begins: bool) -> Widened:
        """x (B, T, D) and its context with registers put in front of each document's first token.

        begins: whether a document may begin here; else every token goes on with its row's. Waits for the device, to know
        how many documents there are, where tokens have document ids.
        """
        positions = ctx.positions + self.count
        if ctx.valid is not None:
            positions = torch.where(ctx.valid, positions, 0)
        if not begins:
            return Widened(x, Context(positions, ctx.documents, routes=ctx.routes), slice(None))
        vectors = self.weight if self.scale == 1.0 else self.weight * self.scale
        if ctx.documents is None:
            positions = torch.arange(self.count + x.shape[1], device=x.device)[None]
            routes = None if ctx.routes is None else F.pad(ctx.routes, (self.count, 0), value=UNKNOWN)
            x = torch.cat([vectors.expand(len(x), -1, -1), x], dim=1)
            return Widened(x, Context(positions, contiguous=True, routes=routes), slice(self.count, None))
        return self._packed(x, vectors, ctx, ctx.documents, positions)

    def _packed(self, x: Tensor, vectors: Tensor, ctx: Context, documents: Tensor, shifted: Tensor) -> Widened:
        rows, length, _ = x.shape
        first = (documents != PADDING) & (ctx.positions == 0)
        begun = first.long().cumsum(1)
        slots = torch.arange(length, device=x.device) + self.count * begun  # (B, T), of the tokens
        width = length + self.count * _room(begun)

        # of each slot: the token that stands there or follows its registers (`length`: none), and how far ahead it is
        here = torch.arange(width, device=x.device)
        token = torch.searchsorted(slots, here.expand(rows, -1).contiguous())  # (B, W)
        ahead = F.pad(slots, (0, 1)).gather(1, token) - here
        is_token, nothing = ahead == 0, token == length

        def placed(values: Tensor, missing: int) -> Tensor:
            """(B, T) by token -> (B, W): the same at a document's registers, `missing` behind the last token."""
            return F.pad(values, (0, 1), value=missing).gather(1, token)

        documents = placed(documents, PADDING)
        positions = torch.where(is_token, placed(shifted, 0), torch.where(nothing, 0, self.count - ahead))
        routes = None if ctx.routes is None else torch.where(is_token, placed(ctx.routes, UNKNOWN), UNKNOWN)
        starts = contiguous_starts(documents, positions) if ctx.contiguous else None
        context = Context(positions, documents, starts is not None, starts, routes)

        base = length * torch.arange(rows, device=x.device)[:, None]
        register = rows * length + torch.where(nothing, 0, self.count - ahead)
        source = torch.where(is_token, base + token, register)
        return Widened(F.embedding(source, torch.cat([x.flatten(0, 1), vectors])), context, slots)


def registers_cost(count: int, dim: int) -> Cost:
    """Of `count` registers: their parameters and, of packed rows, where tokens come from and where they stand."""
    return Cost(parameters=count * dim, saved=2.0 * INDEX_BYTES if count else 0.0)


def widths(length: int) -> int:
    """How many widths rows of `length` tokens can have, whatever begins in them."""
    return len({min(length, 1 << power) for power in range(length.bit_length() + 1)}) + 1


def _room(begun: Tensor) -> int:
    """For how many documents a row has room, of `begun` (B, T), those that begin up to each token."""
    rows, length = begun.shape
    if torch.compiler.is_compiling():
        return length
    most = int(begun[:, -1].max()) if rows else 0
    return min(length, 1 << (most - 1).bit_length()) if most else 0


def _rows(x: Tensor, slots: Tensor) -> Tensor:
    """x (B, W, D) at slots (B, T)."""
    base = x.shape[1] * torch.arange(len(x), device=x.device)[:, None]
    return F.embedding(base + slots, x.flatten(0, 1))
