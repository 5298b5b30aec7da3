"""What survives from one chunk of a sequence to the next.

A state maps a path ("stream", or "<call site>/<branch>") to a NamedTuple of tensors whose first axis is the row. States
are values: a forward pass returns a new mapping and never writes into the tensors it was given, so a snapshot is the
mapping itself, several continuations may start from it, and rows can be selected, repeated or reordered.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

State = dict[str, Any]

STREAM = "stream"


class StreamState(NamedTuple):
    """Where each row's stream stands: tokens seen of the current document, and that document's id."""

    positions: Tensor  # (B,) int64
    documents: Tensor | None  # (B,) int64; None while the rows are single documents without padding
    registers: Tensor | None = None  # (B,) int64, slots before a document's first token in all other states; None = 0


@runtime_checkable
class Truncatable(Protocol):
    """A per-call state that can forget all but its first `length` slots (attention can; a recurrence cannot)."""

    def truncate(self, length: int) -> Any: ...


def select(state: State, rows: Tensor | list[int]) -> State:
    """The state of the given rows, in that order; a row may occur several times."""
    index = rows if isinstance(rows, Tensor) else torch.tensor(rows, dtype=torch.long)
    return {
        path: type(entry)(*(None if part is None else part[index.to(part.device)] for part in entry))
        for path, entry in state.items()
    }


def snapshot(state: State) -> State:
    """A state to come back to. Cheap: states are never written into."""
    return dict(state)


def restore(saved: State) -> State:
    """The state as it was at `snapshot`."""
    return dict(saved)


def truncate(state: State, length: int) -> State:
    """The state after the first `length` tokens of the stream, for attention states whose rows are single documents.

    Raises ValueError where a state cannot forget (recurrences) or rows are packed or padded. After no token at all it is
    {}, a fresh stream, whatever it was.
    """
    if length == 0:
        return {}
    stream: StreamState | None = state.get(STREAM)
    before = 0
    if stream is not None and stream.registers is not None and len(stream.registers):
        before = int(stream.registers[0])
    kept: State = {}
    for path, entry in state.items():
        if isinstance(entry, StreamState):
            if entry.documents is not None:
                raise ValueError("truncate: rows are packed or padded; use snapshot and restore")
            kept[path] = entry._replace(positions=entry.positions.clamp(max=length))
        elif isinstance(entry, Truncatable):
            kept[path] = entry.truncate(before + length)
        else:
            raise ValueError(f"truncate: {type(entry).__name__} at '{path}' cannot forget; use snapshot and restore")
    return kept


def state_bytes(state: State) -> int:
    """Bytes held by the tensors of a state."""
    return sum(
        part.numel() * part.element_size() for entry in state.values() for part in entry if isinstance(part, Tensor)
    )


def take_local(state: State, path: str) -> dict[str, Any]:
    """The entries below a call site, keyed by branch."""
    prefix = f"{path}/"
    return {key.removeprefix(prefix): entry for key, entry in state.items() if key.startswith(prefix)}


def put_local(state: State, path: str, local: dict[str, Any]) -> None:
    for key, entry in local.items():
        state[f"{path}/{key}"] = entry
