"""`uv run apps/bench NAME ...`: measurements of this project on this machine."""

from __future__ import annotations

import sys

from apps.bench import memory
from apps.common import command_line
from apps.common.errors import BadRequest

BENCHMARKS = {"memory": memory.main}


def run() -> int:
    """Run the benchmark that the command line names; the exit status."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in BENCHMARKS:
        raise BadRequest(f"{name or 'nothing'!r} is no benchmark; there are: {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name](sys.argv[2:])


if __name__ == "__main__":
    command_line.main(run)
