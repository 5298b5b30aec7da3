"""What a teacher has answered, kept in an append-only file, so that nothing is asked (and paid for) twice.

    {"key": "<sha256 of teacher, settings and prompt>", "completions": [["text", "stop"], ...], "check": "<8 hex digits>"}

One line a problem, written whole and synchronised before its answers are used. Of a text of more than MOST_CHARACTERS the
beginning is kept, with the finish "long". A kill can tear the last line only: it is cut off and its problem asked again. Any
other line that is not what was written is an error, since what it said is lost. The file is locked while it is open: two
imports into one would ask the same questions.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

from tinydata.sources.counted import Skipped
from tinydata.sources.formats import lines
from tinydata.teachers.asking import TeacherError

try:
    import fcntl
except ImportError:  # Windows: two imports into one file at once are not kept apart there
    fcntl = None

MOST_CHARACTERS = 2**16
MAX_LINE_BYTES = 2**28

Answers = tuple[tuple[str, str], ...]  # (text, finish) of each sample


class AnswerCache:
    """Answers by key. A context manager: `with` opens and locks the file, and gives what is in it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._places: dict[str, tuple[int, int]] = {}  # key -> where its line is: the texts stay on disk
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        """Raises TeacherError for a file that is damaged, in use, or cannot be written."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.open("a+b")
        except OSError as error:
            raise TeacherError(f"{self.path}: cannot be written ({error.strerror})") from None
        try:
            self._lock(file)
            self._read(file)
        except BaseException:
            file.close()
            raise
        self._file = file
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def get(self, key: str) -> Answers:
        """The answers of a key that is there."""
        assert self._file is not None
        start, size = self._places[key]
        self._file.seek(start)
        found = _parsed(self._file.read(size))
        if found is None or found[0] != key:
            raise TeacherError(f"{self.path}: changed while it was read: start again")
        return found[1]

    def add(self, answers: Mapping[str, Sequence[tuple[str, str]]]) -> None:
        """Appends a line for each key and makes them durable. Raises TeacherError where the disk fails; what is torn then is
        cut off when the file is opened again."""
        assert self._file is not None
        try:
            self._file.seek(0, os.SEEK_END)
            for key, completions in answers.items():
                line = _line(key, completions)
                start = self._file.tell()
                self._file.write(line)
                self._places[key] = (start, len(line))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise TeacherError(f"{self.path}: cannot be written ({error.strerror})") from error

    def _lock(self, file: BinaryIO) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TeacherError(f"{self.path}: another import is using it: wait for it or name another file") from None

    def _read(self, file: BinaryIO) -> None:
        file.seek(0)
        start = 0
        for number, line in enumerate(lines(file, MAX_LINE_BYTES, Skipped("too long")), 1):
            stop = file.tell()
            if isinstance(line, bytes) and not line.endswith(b"\n"):
                file.truncate(start)  # torn by a kill: at the end of the file only
                return
            found = None if isinstance(line, Skipped) else _parsed(line)
            if found is None:
                raise TeacherError(
                    f"{self.path}: line {number} is damaged: delete that line (its problem is asked again) or the file"
                )
            self._places[found[0]] = (start, stop - start)
            start = stop


def bounded(text: str, finish: str) -> tuple[str, str]:
    """A completion as it is kept."""
    return (text, finish) if len(text) <= MOST_CHARACTERS else (text[:MOST_CHARACTERS], "long")


def _line(key: str, completions: Sequence[tuple[str, str]]) -> bytes:
    body = {"key": key, "completions": [list(pair) for pair in completions]}
    return json.dumps({**body, "check": _check(body)}).encode() + b"\n"


def _check(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:8]


def _parsed(line: bytes) -> tuple[str, Answers] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or row.keys() != {"key", "completions", "check"}:
        return None
    key, completions = row["key"], row["completions"]
    if not isinstance(key, str) or not isinstance(completions, list) or not all(map(_is_completion, completions)):
        return None
    if row["check"] != _check({"key": key, "completions": completions}):
        return None
    return key, tuple((cast(str, text), cast(str, finish)) for text, finish in completions)


def _is_completion(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value)
