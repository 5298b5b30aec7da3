"""CPython with its whole standard library, confined by the kernel through sandlock (Landlock and seccomp; Linux 6.7).

A run is a new process of the interpreter below this one, without site-packages. It may read the standard library and
the shared libraries it needs and nothing else, write nowhere, connect nowhere, signal nobody outside and start no
process; its environment is empty and its random numbers are seeded. Sleeping counts to the time limit. The clock
starts at a fixed instant but ticks.

Sandlock's own capture of the output has no limit (an endless print made it hold 1.3 GB in 3 s), so the pipes are read
here, and a program that prints too much is killed.
"""

from __future__ import annotations

import importlib
import os
import selectors
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

from tinyreason.sandbox.runner import (
    BYTES,
    OUTPUT_BYTES,
    SECONDS,
    CodeResult,
    Printed,
    SandboxUnavailable,
    memory_error,
    one_line,
    output_error,
    refusal,
    time_error,
)

REMEDY = "pip install 'sandlock>=0.9,<1'"
OPEN_FILES = 64
_PIECE = 2**14


class FullEngine:
    """Runs a program in a confined CPython of its own. Threads may share an engine.

    Raises SandboxUnavailable when sandlock is missing or a first trivial program does not run in it.
    """

    name = "full"

    def __init__(self, output_bytes: int = OUTPUT_BYTES) -> None:
        try:
            self._sandlock: Any = importlib.import_module("sandlock")
        except ImportError as error:
            raise SandboxUnavailable(f"sandlock cannot be imported: {REMEDY}") from error
        self._output_bytes = output_bytes
        self._python = os.path.realpath(sys.executable)
        self._readable = _readable(self._python)
        needed, found = self._sandlock.min_landlock_abi(), self._sandlock.landlock_abi_version()
        if found < needed:
            raise SandboxUnavailable(
                f"sandlock needs Landlock ABI {needed} (Linux 6.7), this kernel has {found}: use monty"
            )
        trial = self.run("print(6 * 7)", seconds=10.0)
        if trial.output != "42\n" or trial.error:
            raise SandboxUnavailable(f"sandlock does not run a program here ({trial.error}): use the engine monty")

    def run(self, source: str, seconds: float = SECONDS, bytes: int = BYTES) -> CodeResult:
        """Run the source as a script with no standard input. What it writes to stderr is not part of the output.

        Raises ValueError for limits of zero or less.
        """
        if reason := refusal(source, seconds, bytes):
            return CodeResult("", reason, 0.0)
        start = time.perf_counter()
        mode = self._sandlock.StdioMode
        command = [self._python, "-I", "-S", "-c", source]
        try:
            process = self._confinement(bytes).popen(command, stdin=mode.NULL, stdout=mode.PIPED, stderr=mode.PIPED)
        except (RuntimeError, OSError) as error:
            return CodeResult("", one_line(f"{type(error).__name__}: {error}"), time.perf_counter() - start)
        printed, complaints = Printed(self._output_bytes), bytearray()
        with process:
            deadline = start + seconds
            ended = _read(process, printed, complaints, deadline)
            if not ended:
                process.kill()
            result = process.wait(timeout=max(deadline - time.perf_counter(), 0.001))
        elapsed = time.perf_counter() - start
        if printed.over:
            error = output_error(self._output_bytes)
        elif not ended or result.reason == self._sandlock.ExitReason.TIMEOUT:
            error = time_error(seconds)
        else:
            error = self._describe(result, complaints.decode(errors="replace"), bytes)
        return CodeResult(printed.text, error, elapsed)

    def _confinement(self, bytes: int) -> Any:
        return self._sandlock.Sandbox(
            fs_readable=self._readable,
            clean_env=True,
            max_memory=bytes,
            max_processes=1,
            max_open_files=OPEN_FILES,
            no_coredump=True,
            random_seed=0,
            time_start="2026-01-01T00:00:00Z",
        )

    def _describe(self, result: Any, complaints: str, bytes: int) -> str | None:
        if result.exit_code == 0:
            return None
        if result.reason == self._sandlock.ExitReason.KILLED:  # sandlock kills for memory alone
            return memory_error(bytes)
        if result.reason == self._sandlock.ExitReason.SIGNALED:
            return f"crash: the program ended with signal {result.signal}"
        lines = complaints.splitlines()
        indented = [number for number, line in enumerate(lines) if line.startswith("  ")]  # the frames of a traceback
        message = one_line("\n".join(lines[indented[-1] + 1 if indented else 0 :]))
        if message.startswith("MemoryError"):
            return memory_error(bytes)
        return message or f"exit: status {result.exit_code}"


def _readable(python: str) -> list[str]:
    """What an interpreter needs to start: itself, its standard library and the shared libraries."""
    paths = [python, *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib"))]
    paths += [f"{sysconfig.get_config_var('LIBDIR')}/{sysconfig.get_config_var('INSTSONAME')}"]
    paths += ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache"]
    return [path for path in dict.fromkeys(paths) if Path(path).exists()]


def _read(process: Any, printed: Printed, complaints: bytearray, deadline: float) -> bool:
    """Read both pipes to their ends and keep the tail of stderr. False when the time or the output ran out first."""
    with selectors.DefaultSelector() as selector:
        for stream in (process.stdout, process.stderr):
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            left = deadline - time.perf_counter()
            if left <= 0:
                return False
            for key, _ in selector.select(left):
                piece = os.read(key.fd, _PIECE)
                if not piece:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stderr:
                    complaints += piece
                    del complaints[:-_PIECE]
                elif printed.add(piece):
                    return False
    return True
