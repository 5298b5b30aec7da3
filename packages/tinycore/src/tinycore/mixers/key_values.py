"""What attention keeps of the tokens so far: rotated keys, values, positions and documents, so that rows may be ragged."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tinycore.context import PADDING


class KeyValueState(NamedTuple):
    """Slots in the order of arrival; see `append` and `keep`."""

    keys: Tensor  # (B, G, S, h), rotated
    values: Tensor  # (B, G, S, h)
    positions: Tensor  # (B, S)
    documents: Tensor | None  # (B, S), -1 = padding; None = single documents without padding

    def truncate(self, length: int) -> KeyValueState:
        """The state without the tokens at positions from `length` on. Raises ValueError where they cannot be told."""
        if self.documents is not None:
            raise ValueError("truncate: rows are packed or padded; use snapshot and restore")
        if self.positions.numel() == 0:
            return self
        kept = int((self.positions[0] < length).sum())
        if kept < self.positions.shape[1] and int(self.positions[0, 0]) > 0:
            raise ValueError("truncate: the window has forgotten tokens needed then; use snapshot and restore")
        return KeyValueState(self.keys[:, :, :kept], self.values[:, :, :kept], self.positions[:, :kept], None)


def append(past: KeyValueState, new: KeyValueState) -> KeyValueState:
    """The slots of both."""
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


def keep(seen: KeyValueState, window: int | None) -> KeyValueState:
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
