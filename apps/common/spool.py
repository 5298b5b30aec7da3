"""Documents between the sources and the shards: on disk, by split, counted and hashed by the source they name.

A spool that was closed is whole: whoever is killed later finds it again (`Spool.whole`) and reads no source twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from apps.common import files
from apps.common.errors import RunError
from tinydata import Document

FACTS = "spool.json"  # written last: what is beside it is complete
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
    """Documents of each split on disk, as JSON lines: the sources, which may be a network away, are read once.

    facts: what whoever closed it wanted to be remembered.
    """

    def __init__(self, directory: Path) -> None:
        """An empty one; what is in the directory goes."""
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        self.directory = directory
        self.documents = dict.fromkeys(SPLITS, 0)
        self.facts: dict[str, Any] = {}
        self._parts: dict[str, _Part] = {}
        self._closed: dict[str, dict[str, Any]] = {}
        self._files: dict[str, BinaryIO] = {}
        for split in SPLITS:
            self._files[split] = (directory / split).open("wb")

    @staticmethod
    def whole(directory: Path) -> Spool | None:
        """The spool that was closed in `directory`; None where there is none, or something is missing of it."""
        with contextlib.suppress(RunError, OSError, KeyError, TypeError):
            told = files.read_json(directory / FACTS)
            if all((directory / split).stat().st_size == told["sizes"][split] for split in SPLITS):
                spool = Spool.__new__(Spool)
                spool.directory, spool.documents = directory, told["documents"]
                spool.facts, spool._closed, spool._files = told["facts"], told["parts"], {}
                return spool
        return None

    def add(self, document: Document, split: str) -> None:
        """Append `document` to `split`."""
        record = [document.text, document.source, document.allow_special]
        self._files[split].write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        self.documents[split] += 1
        self._parts.setdefault(document.source, _Part()).add(document.text.encode())

    def close(self, **facts: Any) -> None:
        """No more documents come; `read` may begin."""
        sizes = {}
        for split, file in self._files.items():
            sizes[split] = file.tell()
            file.close()
            files.flush(self.directory / split)
        self.facts = facts
        self._closed = {
            name: {"documents": part.documents, "bytes": part.size, "sha256": part.digest.hexdigest()}
            for name, part in self._parts.items()
        }
        told = {
            "documents": self.documents,
            "sizes": sizes,
            "parts": self._closed,
            "facts": facts,
        }
        files.write_json(self.directory / FACTS, told)

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
        return {name: {**part, "licence": licences.get(name, "unknown")} for name, part in self._closed.items()}

    def sha256(self) -> str:
        """Of all parts together: equal for two runs exactly when they were made of the same documents."""
        return combined_hash({name: part["sha256"] for name, part in self._closed.items()})


def combined_hash(hashes: Mapping[str, str]) -> str:
    """One hash of named hashes, whatever their order."""
    return hashlib.sha256("".join(f"{name} {digest}\n" for name, digest in sorted(hashes.items())).encode()).hexdigest()
