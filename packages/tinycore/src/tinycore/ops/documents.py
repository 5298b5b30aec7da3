"""Where packed documents begin in rows of tokens, for recurrences: what resets a state, and what passes it through.

A recurrence walks a row from left to right with one state. At the first token of a document it forgets; at padding
(id -1, which may stand anywhere) it stands still. Whether a row's first tokens go on with the document that the state
comes from is known from that document's id, which the state keeps.
"""

from __future__ import annotations

import torch
from torch import Tensor

PADDING = -1


def document_before(documents: Tensor, current: Tensor) -> Tensor:
    """The document (B, T) of the newest token before each that is not padding; for the first ones `current` (B,)."""
    length = documents.shape[1]
    steps = torch.arange(length, device=documents.device).expand_as(documents)
    newest = torch.where(documents != PADDING, steps, -1).cummax(1).values  # the last valid token up to t, or -1
    before = torch.cat([torch.full_like(newest[:, :1], -1), newest[:, :-1]], dim=1)
    return torch.where(before >= 0, documents.gather(1, before.clamp(min=0)), current[:, None])


def document_starts(documents: Tensor, current: Tensor | None) -> Tensor:
    """(B, T) bool: true at the first token of every document but the one that the state is in.

    documents (B, T): an id per token, -1 = padding; current (B,): the id that the state is in, None = a fresh state.
    """
    if current is None:
        current = torch.full_like(documents[:, 0], PADDING)
    return (documents != PADDING) & (documents != document_before(documents, current))


def document_after(documents: Tensor, current: Tensor | None) -> Tensor:
    """The id (B,) of the document that a state is in after the tokens of `documents` (B, T)."""
    if current is None:
        current = torch.full_like(documents[:, 0], PADDING)
    steps = torch.arange(documents.shape[1], device=documents.device)
    last = torch.where(documents != PADDING, steps, -1).amax(1)  # -1: nothing but padding
    return torch.where(last >= 0, documents.gather(1, last.clamp(min=0)[:, None])[:, 0], current)


def document_within(document: Tensor | None, rows: Tensor) -> Tensor:
    """The ids (B,) that states of `rows` (B, ...) are in; rows without ids are in document 0 (`tinycore.context`)."""
    return torch.zeros(len(rows), dtype=torch.long, device=rows.device) if document is None else document
