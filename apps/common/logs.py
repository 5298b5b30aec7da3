"""Line-by-line logs of a run: one JSON object a line, a step in each.

`metrics.jsonl` holds what the recipe determines and nothing else, so that two runs that should be equal have equal
bytes; clocks, memory and speed go to `timing.jsonl`. Resuming from a checkpoint cuts both back to its step: the
continued log is the log of a run that was never interrupted.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from apps.common import files


class Log:
    """Appends records to a file; each reaches the file before `append` returns, the device at `flush`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, record: dict[str, Any]) -> None:
        """Write one record, which must name its `step`; values that JSON has no word for become null."""
        if "step" not in record:
            raise KeyError("a log record names its step")
        files.append_line(self.path, json.dumps({key: _finite(value) for key, value in record.items()}))

    def flush(self) -> None:
        """Have the device hold the log: done before a checkpoint, which must not be ahead of it."""
        files.flush(self.path)

    def cut(self, step: int) -> None:
        """Drop every record after `step`, and whatever a kill left of a last line."""
        if not self.path.exists():
            return
        kept = [line for line, record in _lines(self.path) if record["step"] <= step]
        files.write_text(self.path, "".join(kept))


def read(path: Path) -> list[dict[str, Any]]:
    """The records of a log in order; lines that are not whole records are left out."""
    return [record for _, record in _lines(path)]


def _lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    found = []
    with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
        for line in file:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict) and isinstance(record.get("step"), int) and line.endswith("\n"):
                found.append((line, record))
    return found


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
