"""The immutable context of a forward pass: where every token stands, and which tokens belong together.

`documents` (B, T) holds an id per token: tokens talk only within the same id; -1 marks padding, which influences
nothing and is ignored. `None` means that every row is one document without padding, the fast case. `positions` count
the tokens of a document, so a packed document sees the positions it would see alone; shape (B, T), or (1, T) where all
rows agree.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tinycore.ops.documents import PADDING, document_before
from tinycore.state import STREAM, State, StreamState


@dataclass(frozen=True)
class Context:
    """See the module's docstring. `memo` keeps what several layers derive from the same context (RoPE, masks).

    contiguous: every document is one run of slots at consecutive positions, from position 0 on, so what a token sees of
    it are the slots from `starts` (B, T) to its own; starts None: from the first. False where that was not looked at.
    gaps: positions of neighbouring slots may lie apart, since tokens between them were left out.
    routes: (B, T) which cognitive expert a token belongs to, -1 unknown; None: nothing is known of any.
    """

    positions: Tensor
    documents: Tensor | None = None
    contiguous: bool = False
    starts: Tensor | None = None
    routes: Tensor | None = None
    gaps: bool = False
    memo: dict[Any, Any] = field(default_factory=dict, compare=False)

    @property
    def valid(self) -> Tensor | None:
        """(B, T) bool, false at padding; None when nothing is padding."""
        return None if self.documents is None else self.documents != PADDING

    def gather(self, index: Tensor) -> Context:
        """The context of the tokens at `index` (B, K), with their original positions."""
        rows = index.shape[0]
        positions = self.positions.expand(rows, -1).gather(1, index)
        documents = None if self.documents is None else self.documents.gather(1, index)
        routes = None if self.routes is None else self.routes.gather(1, index)
        return Context(positions, documents, routes=routes, gaps=True)

    def pool(self, size: int) -> Context:
        """The context of groups of `size` tokens, each standing where its last token stands; a rest is left out."""
        ends = slice(size - 1, None, size)
        documents, routes = (None if part is None else part[:, ends] for part in (self.documents, self.routes))
        return Context(self.positions[:, ends], documents, routes=routes)


def begin(tokens: Tensor, doc_ids: Tensor | None, state: State | None) -> tuple[Context, StreamState]:
    """The context of a chunk of tokens (B, T) that continues `state`, and the stream's state after it."""
    rows, length = tokens.shape
    stream: StreamState | None = None if not state else state[STREAM]
    if doc_ids is None and (stream is None or stream.documents is None):
        steps = torch.arange(length, device=tokens.device)
        if stream is None:
            after = torch.full((rows,), length, dtype=torch.long, device=tokens.device)
            return Context(steps[None], contiguous=True), StreamState(after, None)
        return Context(stream.positions[:, None] + steps), StreamState(stream.positions + length, None)

    seen = torch.zeros(rows, dtype=torch.long, device=tokens.device) if stream is None else stream.positions
    current = torch.zeros_like(seen) if stream is None or stream.documents is None else stream.documents
    if stream is None:
        current = torch.full_like(seen, PADDING)  # a fresh stream stands in no document yet
    documents = current[:, None].expand(rows, length) if doc_ids is None else doc_ids
    positions = _positions(documents, current, seen)
    valid = documents != PADDING
    last = (
        torch.where(valid, torch.arange(length, device=tokens.device), -1).amax(1)
        if length
        else seen.new_full((rows,), -1)
    )
    any_valid = last >= 0
    at = last.clamp(min=0)[:, None]
    after = StreamState(
        torch.where(any_valid, positions.gather(1, at)[:, 0] + 1, seen) if length else seen,
        torch.where(any_valid, documents.gather(1, at)[:, 0], current) if length else current,
    )
    starts = contiguous_starts(documents, positions) if stream is None else None
    return Context(positions, documents, starts is not None, starts), after


def contiguous_starts(documents: Tensor, positions: Tensor) -> Tensor | None:
    """The first slot (B, T) of each token's document, or None where padding lies within a document.

    None as well where looking would cost more than it saves: in a graph, or on a device that would have to be waited for.
    """
    if documents.device.type != "cpu" or torch.compiler.is_compiling():
        return None
    slots = torch.arange(documents.shape[1])
    fresh = torch.ones_like(documents, dtype=torch.bool)
    fresh[:, 1:] = documents[:, 1:] != documents[:, :-1]
    starts = torch.where(fresh, slots, 0).cummax(1).values
    whole = (slots - starts == positions) | (documents == PADDING)
    return starts if bool(whole.all()) else None


def _positions(documents: Tensor, current: Tensor, seen: Tensor) -> Tensor:
    """Positions within documents (B, T): valid tokens are counted from their document's first one on.

    `current` (B,) is the document the stream stands in, of which `seen` (B,) tokens came before. Padding
    has position 0.
    """
    valid = documents != PADDING
    starts = valid & (documents != document_before(documents, current))
    counted = valid.long().cumsum(1)  # valid tokens up to and including t
    offset = torch.where(starts, counted - 1, -1).cummax(1).values  # valid tokens before this document's start
    continued = counted - 1 + seen[:, None]
    return torch.where(valid, torch.where(offset >= 0, counted - 1 - offset, continued), 0)
