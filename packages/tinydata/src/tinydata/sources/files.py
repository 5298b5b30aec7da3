"""Local text: a file, a folder or a glob of .txt, .md, .jsonl, .jsonl.gz and .parquet files."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from tinydata.documents import SourceError
from tinydata.sources import formats
from tinydata.sources.counted import TOO_LONG, CountedSource


class Files(CountedSource):
    """The documents of local files, in the order of their paths (compared as strings, `/` between parts).

    `path` is a file, a folder (recursively, without hidden files and folders, not following linked folders) or a glob
    (`**` is recursive); `.name` is `path` as given. A .txt or .md file is one document, or with `separator` the text
    between lines that equal it; a row of .jsonl(.gz) or .parquet is one document, its text in `column`.

    Skipped and counted in `.skipped`: "empty", "not utf-8", "null characters", "not text", "bad json", "missing column",
    "unreadable file" (also a truncated gzip or damaged Parquet, after the records before the damage), "longer than
    268435456 bytes". Raises SourceError when there is no file, and at the end of an iteration that yielded nothing.
    """

    def __init__(self, path: str | Path, column: str = "text", separator: str | None = None) -> None:
        super().__init__(str(path))
        self.column = column
        self.separator = separator
        self.paths = _find(str(path))
        self._columns: list[str] = []
        if separator is not None:
            if not separator or "\n" in separator or "\r" in separator:
                raise SourceError(f"{self.name}: separator must be one non-empty line, got {separator!r}")
            if not any(file.name.lower().endswith(formats.TEXT_SUFFIXES) for file in self.paths):
                raise SourceError(f"{self.name}: separator is for .txt and .md files, and there are none: leave it out")

    def records(self) -> Iterator[object]:
        self._columns = []
        for path in self.paths:
            yield from formats.records(path, self.column, self.separator, self._note_columns)

    def description(self) -> dict[str, object]:
        """Kind, parameters, and the size and sha256 of every file (null for one that cannot be read)."""
        return {
            "kind": "files",
            "name": self.name,
            "licence": "unknown: that of the files",
            "column": self.column,
            "separator": self.separator,
            "files": [fingerprint(path) for path in self.paths],
        }

    def remedy(self) -> str:
        if self._columns:
            return f"; there is no column {self.column!r} among {', '.join(self._columns)}: choose one with `column`"
        if TOO_LONG.reason in self.skipped:
            return "; cut a long text file into documents with `separator`"
        return ""

    def _note_columns(self, columns: list[str]) -> None:
        self._columns = self._columns or sorted(columns)


def fingerprint(path: Path) -> dict[str, object]:
    """Name, size in bytes and sha256 of the file's content; size and sha256 are None where it cannot be read."""
    try:
        with path.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
            return {"name": path.name, "bytes": handle.tell(), "sha256": digest}
    except OSError:
        return {"name": path.name, "bytes": None, "sha256": None}


def _find(pattern: str) -> list[Path]:
    expanded = os.path.expanduser(pattern)
    if os.path.isdir(expanded):
        found = [path for path in _walk(expanded) if _is_supported(path)]
    elif os.path.isfile(expanded):
        found = [Path(expanded)]
    elif glob.has_magic(expanded):
        found = [Path(hit) for hit in glob.glob(expanded, recursive=True) if os.path.isfile(hit)]
    else:
        raise SourceError(f"{pattern}: no such file or folder")
    supported = sorted(filter(_is_supported, found), key=Path.as_posix)
    if not supported:
        raise SourceError(f"{pattern}: no file that ends in {', '.join(formats.SUFFIXES)}")
    return supported


def _walk(folder: str) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise SourceError(f"{error.filename}: cannot list the folder ({error.strerror})")

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(parent, name)
            if not name.startswith(".") and path.is_file():
                yield path


def _is_supported(path: Path) -> bool:
    return path.name.lower().endswith(formats.SUFFIXES)
