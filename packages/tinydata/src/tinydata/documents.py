"""What every source yields, and how a text is assigned to train, validation or test.

The split is a pure function of the text, so a document keeps its side whatever the order, the number of
documents, or the other sources around it; and two copies of a text can never be on two sides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, Protocol

Split = Literal["train", "validation", "test"]

DEFAULT_FRACTIONS: Mapping[str, float] = MappingProxyType({"validation": 0.01, "test": 0.01})


class SourceError(ValueError):
    """A source cannot be read as asked: no file, no such column, nothing to yield. One line, with the remedy."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text and the name of the source it came from.

    `allow_special` is set by our own generators only: their tags such as `<calc>` become single special tokens.
    The same characters in anybody else's text are ordinary characters.
    """

    text: str
    source: str
    allow_special: bool = False


class Source(Protocol):
    """A named, re-iterable, deterministic stream of documents.

    `skipped` counts, by reason, the documents that the latest iteration left out. `description` is a JSON object of
    everything that determines the documents: kind, licence, parameters, and what is needed to notice changed files.
    """

    name: str
    skipped: dict[str, int]

    def documents(self) -> Iterator[Document]: ...

    def description(self) -> dict[str, object]: ...


def split_of(text: str, fractions: Mapping[str, float] = DEFAULT_FRACTIONS) -> Split:
    """The split that `text` belongs to; `fractions` gives the shares of "validation" and "test".

    u = first 53 bits of sha256(UTF-8 text) / 2^53, uniform in [0, 1): below `test` is test, the next `validation`
    of the interval is validation, the rest is train. Changing the validation share moves no document into or out of
    test. Raises ValueError for another key, a negative share, or shares that leave nothing to train on.
    """
    test, validation = fractions.get("test", 0.0), fractions.get("validation", 0.0)
    unknown = sorted(fractions.keys() - {"validation", "test"})
    if unknown:
        raise ValueError(f"split fractions: unknown split {unknown[0]!r}, expected 'validation' and 'test'")
    if not (test >= 0.0 and validation >= 0.0 and test + validation < 1.0):
        raise ValueError(
            f"split fractions: validation {validation} and test {test} must not be negative and must sum to less than 1"
        )
    # 53 bits are exact in a double: 64 would round the largest digests up to 1.0.
    position = (int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 11) / 2**53
    if position < test:
        return "test"
    return "validation" if position < test + validation else "train"
