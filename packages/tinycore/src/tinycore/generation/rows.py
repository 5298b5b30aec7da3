"""Rows of a generation: what is known of each while it runs, and when it ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

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
    """A running row: which prompt and sample it is, its key, all its ids, where the new ones begin, ids it must take next."""

    prompt: int
    sample: int
    key: bytes
    ids: list[int]
    start: int
    queue: deque[int] = field(default_factory=deque)

    @property
    def new(self) -> list[int]:
        return self.ids[self.start :]


@dataclass(frozen=True)
class Ending:
    """When rows end: at one of `ids`, once their new text contains one of `strings`, after so many new tokens, or where the
    model's context does."""

    ids: frozenset[int]
    strings: tuple[str, ...]
    decode: Decode | None
    max_new_tokens: int
    context: int

    def of(self, row: Row) -> Finish | None:
        """Why `row` ends with its newest token; None if it goes on."""
        if row.ids[-1] in self.ids:
            return "stop"
        if self.strings and self.decode is not None:
            # a token holds at least one byte, so a stop string that ends here lies within as many tokens as it has bytes
            tail = self.decode(row.new[-(4 + max(len(text.encode()) for text in self.strings)) :])
            if any(text in tail for text in self.strings):
                return "stop"
        if len(row.new) >= self.max_new_tokens or len(row.ids) >= self.context:
            return "length"
        return None
