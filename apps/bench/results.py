"""What a benchmark leaves: the machine it ran on, its command, its figures, as JSON; and tables to look at."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

LIBRARIES = ("torch", "transformers", "triton")


def machine() -> dict[str, Any]:
    """Processor or GPU, cores, threads and versions."""
    found: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def write(path: Path, command: str, figures: Mapping[str, Any]) -> None:
    """Write `figures` to `path` with the command and the machine that made them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"command": command, "machine": machine(), **figures}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its columns aligned for a terminal."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = f"|{'|'.join('-' * (width + 2) if not column else '-' * (width + 1) + ':' for column, width in enumerate(widths))}|"
    return "\n".join([line(head), rule, *map(line, rows)])


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
