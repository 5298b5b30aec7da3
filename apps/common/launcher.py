"""`--processes N`: this program N times on this machine, as one.

Exit status of the whole: 1 if any process failed or was killed, else 2 if any refused, else 3 if any stopped, else 0.
When one ends badly the others get a moment to notice by themselves (their connection to it breaks), are then asked to
end, then made to; all are gone within `NOTICE + GRACE` seconds. Signals are passed on once: the processes live in
their own sessions, so that a Ctrl-C at the terminal does not reach them twice.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import IO

from torch.distributed import TCPStore

NOTICE = 15.0  # seconds that the others have to notice that one is gone
GRACE = 15.0  # seconds between asking and forcing
POLL = 0.1
TOLD = 8000  # characters of a failed process's output that are shown


@dataclass
class Member:
    """One process. The main one speaks for all; what the others print is kept in `output` in case they fail."""

    rank: int
    process: subprocess.Popen[str]
    output: IO[str] | None

    def ended_badly(self) -> bool:
        return self.process.poll() not in (None, 0, 3)


def launched() -> bool:
    """Whether a launcher started this process as one of several."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def launch(module: str, arguments: Sequence[str], processes: int) -> int:
    """Run `python -m module arguments` in `processes` processes; the exit status of the whole."""
    # the store lives here, on a port the system chose: no two runs can meet on a fixed or a guessed one
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    command = [sys.executable, "-m", module, *arguments]
    with contextlib.ExitStack() as stack:
        received = stack.enter_context(_signals())
        members = []
        for rank in range(processes):
            output = stack.enter_context(tempfile.TemporaryFile("w+", errors="replace")) if rank else None
            process = subprocess.Popen(
                command,
                env={**os.environ, **environment(rank, processes, store.port)},
                stdin=subprocess.DEVNULL if rank else None,
                stdout=output,
                stderr=output,
                start_new_session=True,
                text=True,
            )
            stack.callback(_end, process)
            members.append(Member(rank, process, output))
        return _watch(members, received)


def environment(rank: int, processes: int, port: int) -> dict[str, str]:
    """What process `rank` finds the others by: torch's own variables, and a store that the launcher serves at `port`."""
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // processes))
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "OMP_NUM_THREADS": threads,
    }


@contextlib.contextmanager
def _signals() -> Generator[list[int]]:
    """Collects the signals that arrive meanwhile."""
    received: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda caught, frame: received.append(caught)) for number in numbers]
    try:
        yield received
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait()


def _watch(members: Sequence[Member], received: list[int]) -> int:
    """Wait for all, end all when one ends badly, pass signals on; the exit status of the whole."""
    first: Member | None = None
    deadline, asked = float("inf"), False
    while True:
        running = [member.process for member in members if member.process.poll() is None]
        if first is None:
            first = next((member for member in members if member.ended_badly()), None)
            deadline = time.monotonic() + NOTICE if first else deadline
        if not running:
            break
        while received:
            number = received.pop(0)
            for process in running:
                process.send_signal(number)
        if time.monotonic() > deadline:
            for process in running:
                process.kill() if asked else process.terminate()
            deadline, asked = time.monotonic() + GRACE, True
        time.sleep(POLL)
    if first is not None:
        _explain(first)
    return together([member.process.returncode for member in members])


def _explain(member: Member) -> None:
    """Say what ended the process that ended first; the main process has spoken for itself."""
    code = member.process.returncode
    if code < 0:
        sys.stderr.write(f"error: process {member.rank} was killed ({signal.Signals(-code).name})\n")
    elif member.output is not None:
        member.output.seek(0)
        sys.stderr.write(member.output.read()[-TOLD:])


def together(codes: Sequence[int]) -> int:
    """One exit status for processes that ended with `codes` (negative: killed by that signal)."""
    if any(code not in (0, 2, 3) for code in codes):
        return 1
    return next((status for status in (2, 3) if status in codes), 0)
