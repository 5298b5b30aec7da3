"""Search in a folder of one's own texts: BM25 over passages, by the library `bm25s` (extra `search`).

Files are cut into passages of about `words` words that overlap by a fifth, so that what stands across a cut is in one of
them whole. Only regular files inside the folder are read: no link leads out of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUFFIXES = frozenset({".txt", ".md", ".rst", ".py", ".csv", ".json", ".jsonl", ".html"})
MAX_FILE_BYTES = 2**22
MAX_TOTAL_BYTES = 2**27
_WORD = re.compile(r"\w+")


class SearchError(ValueError):
    """Why a folder cannot be searched, in one line with the remedy."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage: where it is from, its text on one line, and how well it matches."""

    source: str
    text: str
    score: float


class SearchIndex:
    """Passages by relevance. `skipped` counts files that were left out, by reason."""

    def __init__(self, documents: Iterable[tuple[str, str]], words: int = 60) -> None:
        """documents: (source, text). Raises SearchError without the library, and where there is no text at all."""
        try:
            import bm25s
        except ImportError:
            raise SearchError("search takes the library bm25s; install it with: pip install bm25s") from None
        self.skipped: dict[str, int] = {}
        self._passages = [passage for source, text in documents for passage in _passages(source, text, words)]
        if not self._passages:
            raise SearchError("search: there is no text to search in")
        self._index: Any = bm25s.BM25()
        self._index.index([_words(text) for _, text in self._passages], show_progress=False)
        self._known = {word for _, text in self._passages for word in _words(text)}

    @classmethod
    def of_folder(cls, folder: str | Path, words: int = 60) -> SearchIndex:
        """All texts below `folder`, by the endings of SUFFIXES; sources are paths within it. Raises SearchError."""
        root = Path(folder)
        if not root.is_dir():
            raise SearchError(f"{folder}: no such folder")
        skipped: dict[str, int] = {}
        found = cls(_texts(root.resolve(), skipped), words)
        found.skipped = skipped
        return found

    def __len__(self) -> int:
        """Passages."""
        return len(self._passages)

    def search(self, query: str, results: int = 3) -> list[Hit]:
        """The best passages that share a word with `query`, best first; at most `results`."""
        words = [word for word in _words(query[:1000]) if word in self._known]
        if not words:
            return []
        scores = self._index.get_scores(words)
        best = sorted(range(len(scores)), key=lambda index: (-scores[index], index))[:results]
        return [Hit(*self._passages[index], float(scores[index])) for index in best if scores[index] > 0]


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]


def _passages(source: str, text: str, words: int) -> Iterable[tuple[str, str]]:
    pieces = text.split()
    step = max(1, words - words // 5)
    for first in range(0, max(len(pieces) - words // 5, 1), step):
        if passage := " ".join(pieces[first : first + words]):
            yield source, passage


def _texts(root: Path, skipped: dict[str, int]) -> Iterable[tuple[str, str]]:
    def skip(reason: str) -> None:
        skipped[reason] = skipped.get(reason, 0) + 1

    total = 0
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
        if path.is_symlink() or not path.resolve().is_relative_to(root):
            skip("link")
            continue
        size = path.stat().st_size
        if size > MAX_FILE_BYTES or total + size > MAX_TOTAL_BYTES:
            skip("too large")
            continue
        try:
            yield str(path.relative_to(root)), path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            skip("not readable as UTF-8")
            continue
        total += size
