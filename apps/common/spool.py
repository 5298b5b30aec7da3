"""Documents between the sources and the shards: on disk, by split, counted and hashed by the source they name."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from tinydata import Document

SPLITS = ("train", "validation", "test")


@dataclass
class _Part:
    """Counts of the documents that share a source name; the hash covers their lengths and bytes in order."""

    documents: int = 0
    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def add(self, text: bytes) -> None:
        self.documents += 1
        self.size += len(text)
        self.digest.update(len(text).to_bytes(8, "little"))
        self.digest.update(text)


class Spool:
    """Documents of each split on disk, as JSON lines: the sources, which may be a network away, are read once."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self.directory = directory
        self.documents = dict.fromkeys(SPLITS, 0)
        self._parts: dict[str, _Part] = {}
        self._files: dict[str, BinaryIO] = {}
        for split in SPLITS:
            self._files[split] = (directory / split).open("wb")

    def add(self, document: Document, split: str) -> None:
        """Append `document` to `split`."""
        record = [document.text, document.source, document.allow_special]
        self._files[split].write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        self.documents[split] += 1
        self._parts.setdefault(document.source, _Part()).add(document.text.encode())

    def close(self) -> None:
        """No more documents come; `read` may begin."""
        for file in self._files.values():
            file.close()

    def read(self, split: str) -> Iterator[Document]:
        """The documents of `split` in the order they were added."""
        with open(self.directory / split, "rb") as file:
            for line in file:
                yield Document(*json.loads(line))

    def remove(self) -> None:
        """Delete the text; counts and hashes stay."""
        shutil.rmtree(self.directory)

    def parts(self, licences: Mapping[str, str]) -> dict[str, Any]:
        """Documents, bytes, hash and licence by the source that documents name."""
        return {
            name: {
                "documents": part.documents,
                "bytes": part.size,
                "sha256": part.digest.hexdigest(),
                "licence": licences.get(name, "unknown"),
            }
            for name, part in self._parts.items()
        }

    def sha256(self) -> str:
        """Of all parts together: equal for two runs exactly when they were made of the same documents."""
        return combined_hash({name: part.digest.hexdigest() for name, part in self._parts.items()})


def combined_hash(hashes: Mapping[str, str]) -> str:
    """One hash of named hashes, whatever their order."""
    return hashlib.sha256("".join(f"{name} {digest}\n" for name, digest in sorted(hashes.items())).encode()).hexdigest()
