"""The process that asks for runs: what an attack could read, crash or blow up. Reports its own growth after each run.

Started by test_sandbox_attacks.py as ``python attacks_host.py ENGINE READ WRITE`` with two pipe ends; one line of JSON
in each direction a run.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

from tinyreason.sandbox import CodeSandbox


def peak_kib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def workers_peak_kib() -> int:
    """The largest of the processes that ended and of those still alive."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text().split():
            lines = Path(f"/proc/{child}/status").read_text().splitlines()
            peak = max([peak, *(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))])
    return peak


def main(engine: str, read: str, write: str) -> None:
    sandbox = CodeSandbox(engine)
    sandbox.run("1")
    with open(int(read)) as requests, open(int(write), "w", buffering=1) as answers:
        answers.write("ready\n")
        for request in requests:
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
            before, start = peak_kib(), time.perf_counter()
            result = sandbox.run(**json.loads(request))
            answer = {
                "output": result.output,
                "error": result.error,
                "seconds": time.perf_counter() - start,
                "growth": (peak_kib() - before) * 1024,
                "workers": workers_peak_kib() * 1024,
            }
            answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
