"""The admission rule that every source of foreign text shares: skip what is not a usable text, count why.

A bad document never stops a run, and never disappears silently: it is in `skipped` under its reason. A source in
which nothing at all is usable is an error that repeats those counts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from tinydata.documents import Document, SourceError

# One document is held in memory as a whole (its bytes and its text), and tokenized as a whole.
MAX_DOCUMENT_BYTES = 2**28


@dataclass(frozen=True, slots=True)
class Skipped:
    """A document that cannot be used, and why, in a few words that are a key of `skipped`."""

    reason: str


EMPTY = Skipped("empty")
NOT_UTF8 = Skipped("not utf-8")
NOT_TEXT = Skipped("not text")
NULLS = Skipped("null characters")
BAD_JSON = Skipped("bad json")
MISSING_COLUMN = Skipped("missing column")
TOO_LONG = Skipped(f"longer than {MAX_DOCUMENT_BYTES} bytes")
UNREADABLE = Skipped("unreadable file")


def decoded(data: bytes) -> str | Skipped:
    """The UTF-8 text of `data`, or why there is none."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return NOT_UTF8


def checked(value: object) -> str | Skipped:
    """`value` if it is a text with something in it that UTF-8 can express (JSON can smuggle lone surrogates).

    UTF-16 without its mark, and many a binary file, are valid UTF-8 as well: what they have and no text has are zeros.
    """
    if not isinstance(value, str):
        return NOT_TEXT
    if not value or value.isspace():
        return EMPTY
    if "\0" in value:
        return NULLS
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            return NOT_UTF8
    return value


class CountedSource(ABC):
    """A source made of records, each either a value (a text, if it passes `checked`) or a reason to skip it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.skipped: dict[str, int] = {}

    @abstractmethod
    def records(self) -> Iterator[object]:
        """Every record in a fixed order: a value, or `Skipped`."""

    @abstractmethod
    def description(self) -> dict[str, object]:
        """A JSON object of everything that determines the documents."""

    def documents(self) -> Iterator[Document]:
        """Every usable text, in a fixed order; `skipped` is counted anew. SourceError if there is none."""
        self.skipped = {}
        usable = 0
        for record in self.records():
            text = record if isinstance(record, Skipped) else checked(record)
            if isinstance(text, Skipped):
                self.skipped[text.reason] = self.skipped.get(text.reason, 0) + 1
            else:
                usable += 1
                yield Document(text, self.name)
        if not usable:
            counts = ", ".join(f"{reason}: {count}" for reason, count in sorted(self.skipped.items()))
            raise SourceError(f"{self.name}: no usable document ({counts or 'no records at all'}){self.remedy()}")

    def remedy(self) -> str:
        """What to try when nothing was usable, as the end of the error's line."""
        return ""
