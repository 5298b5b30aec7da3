"""What is left of a teacher's answers: problem, trace and answer, in memory and as lines of JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinydata.sources.counted import TOO_LONG, Skipped
from tinydata.sources.formats import lines
from tinydata.teachers.asking import TeacherError
from tinydata.teachers.cache import MAX_LINE_BYTES


@dataclass(frozen=True, slots=True)
class Triple:
    """A problem, a trace that was checked, and its answer. steps: calculations that were found true; programs: that were run;
    votes: samples with this answer, of `samples`."""

    question: str
    trace: str
    answer: str
    teacher: str
    steps: int
    programs: int
    votes: int
    samples: int

    def to_json(self) -> str:
        """One line, the same for the same triple."""
        return json.dumps(asdict(self), sort_keys=True)


def write_triples(path: str | os.PathLike[str], triples: Iterable[Triple]) -> int:
    """Writes a line of JSON for each, whole or not at all; how many there were."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    count = 0
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            for triple in triples:
                file.write(f"{triple.to_json()}\n")
                count += 1
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    except OSError as error:
        raise TeacherError(f"{target}: cannot be written ({error.strerror})") from error
    finally:
        partial.unlink(missing_ok=True)
    return count


def read_triples(path: str | os.PathLike[str]) -> list[Triple]:
    """What `write_triples` wrote. Raises TeacherError for a file that is missing or not such a file."""
    found = []
    try:
        with Path(path).open("rb") as file:
            for number, line in enumerate(lines(file, MAX_LINE_BYTES, TOO_LONG), 1):
                found.append(_triple(line, f"{path}: line {number}"))
    except OSError as error:
        raise TeacherError(f"{path}: cannot be read ({error.strerror})") from None
    return found


def _triple(line: bytes | Skipped, place: str) -> Triple:
    row: Any = None
    with suppress(ValueError, RecursionError):
        row = None if isinstance(line, Skipped) else json.loads(line)
    names = {"question": str, "trace": str, "answer": str, "teacher": str, "steps": int, "programs": int}
    names |= {"votes": int, "samples": int}
    if not isinstance(row, dict) or row.keys() != names.keys():
        raise TeacherError(f"{place} is no triple")
    if not all(type(row[name]) is kind for name, kind in names.items()):
        raise TeacherError(f"{place} is no triple")
    return Triple(**row)
