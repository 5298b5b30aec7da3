"""Rows of a generation: what is known of each while it runs, and when it ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from tinycore.model import Decoder

Finish = Literal["stop", "length"]
Decode = Callable[[list[int]], str]


class RowView(NamedTuple):
    """What a hook sees of a running row: which prompt and sample it is, and all its ids, prompt included."""

    prompt: int
    sample: int
    ids: Sequence[int]


class Token(NamedTuple):
    """One new token of one row. `finish` is set on a row's last token; `full`: chosen among all tokens (see `Selective`)."""

    prompt: int
    sample: int
    id: int
    logprob: float
    forced: bool
    finish: Finish | None
    full: bool = True


@dataclass
class Row:
    prompt: int
    sample: int
    key: bytes
    ids: list[int]
    start: int
    queue: deque[int] = field(default_factory=deque)

    @property
    def new(self) -> list[int]:
        return self.ids[self.start :]


def finish(
    model: Decoder,
    row: Row,
    max_new_tokens: int,
    stop_ids: set[int],
    stop_strings: list[str],
    decode: Decode | None,
) -> Finish | None:
    """Why `row` ends with its newest token; None if it goes on."""
    if row.ids[-1] in stop_ids:
        return "stop"
    if stop_strings and decode is not None:
        # a token holds at least one byte, so a stop string that ends here lies within as many tokens as it has bytes
        tail = decode(row.new[-(4 + max(len(text.encode()) for text in stop_strings)) :])
        if any(text in tail for text in stop_strings):
            return "stop"
    if len(row.ids) - row.start >= max_new_tokens or len(row.ids) >= model.config.max_seq_len:
        return "length"
    return None
