"""Each text once: exact de-duplication of a stream of documents, before anything counts or packs them.

Repeated texts are memorised instead of learned from, and a copy on the other side of a split is a leak (arXiv 2107.06499). Two
texts are the same one if they are after normalisation: compatibility form (NFKC), case folded, every run of white space one
space. The first copy stays, as it is.

What is remembered of a text is 16 bytes of its blake2b: among a billion texts the chance that any two different ones are taken
for the same is 1.5e-21. The digests lie in one table of bytes with open addressing, at most 3/4 full: 21 to 43 bytes a text,
64 while the table grows. A Python set of them would take 100.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator

from tinydata.documents import Document, SourceError

DIGEST_BYTES = 16
MOST = 2**26  # different texts; their table has 2 GiB

_EMPTY = bytes(DIGEST_BYTES)


class Deduplication:
    """Passes on the first copy of every text, over all calls of `unique`.

    kept, dropped: documents by their source, so that it can be told which source repeats (itself or an earlier one).
    most: how many different texts may be remembered.
    """

    def __init__(self, most: int = MOST) -> None:
        """Raises ValueError for a number below one."""
        if most < 1:
            raise ValueError(f"deduplication: most {most} is below 1")
        self.most = most
        self.kept: dict[str, int] = {}
        self.dropped: dict[str, int] = {}
        self._table = _Table()

    def unique(self, documents: Iterable[Document]) -> Iterator[Document]:
        """The documents whose text has not been seen yet, in their order, one held at a time.

        Raises SourceError where there are more different texts than `most`: going on would let copies through.
        """
        for document in documents:
            fresh = self._table.add(_digest(document))
            counts = self.kept if fresh else self.dropped
            counts[document.source] = counts.get(document.source, 0) + 1
            if not fresh:
                continue
            if self._table.count > self.most:
                raise SourceError(f"deduplication: more than {self.most:,} different texts: allow more with `most`")
            yield document


def normalised(text: str) -> str:
    """What is compared: NFKC, case folded, white space runs as one space, none at the ends."""
    return " ".join((text if text.isascii() else unicodedata.normalize("NFKC", text)).casefold().split())


def _digest(document: Document) -> bytes:
    # Tags of our own documents are other tokens than the same characters in anybody else's.
    kind = b"tags" if document.allow_special else b"text"
    found = hashlib.blake2b(
        normalised(document.text).encode(errors="surrogatepass"), digest_size=DIGEST_BYTES, person=kind
    ).digest()
    return found if found != _EMPTY else b"\x01" * DIGEST_BYTES


class _Table:
    """A set of digests in one bytearray; an empty place is all zeros."""

    def __init__(self, places: int = 1024) -> None:
        self.count = 0
        self._places = places  # a power of two
        self._bytes = bytearray(places * DIGEST_BYTES)

    def add(self, digest: bytes) -> bool:
        """Whether the digest was not there yet; now it is."""
        at, found = self._find(digest)
        if found:
            return False
        self._bytes[at : at + DIGEST_BYTES] = digest
        self.count += 1
        if 4 * self.count > 3 * self._places:
            self._grow()
        return True

    def _find(self, digest: bytes) -> tuple[int, bool]:
        """Where the digest is, or the place it belongs to."""
        table, end = self._bytes, len(self._bytes)
        at = (int.from_bytes(digest[:8], "little") & (self._places - 1)) * DIGEST_BYTES
        while True:
            found = table[at : at + DIGEST_BYTES]
            if found == digest:
                return at, True
            if found == _EMPTY:
                return at, False
            at = (at + DIGEST_BYTES) % end

    def _grow(self) -> None:
        before = self._bytes
        self._places *= 2
        self._bytes = bytearray(self._places * DIGEST_BYTES)
        for start in range(0, len(before), DIGEST_BYTES):
            digest = bytes(before[start : start + DIGEST_BYTES])
            if digest != _EMPTY:
                at, _ = self._find(digest)
                self._bytes[at : at + DIGEST_BYTES] = digest
