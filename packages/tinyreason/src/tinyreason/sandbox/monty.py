"""pydantic-monty: a small Python interpreter in Rust that was given no files, network or environment to reach.

The programs run in worker processes, never in this one. Monty 1.4 offers nothing else, and measurements say why
(64 MiB limit, Linux, 2 cores):

- Its own clock is read between bytecodes, so one large integer operation (``pow(3, a, a)`` for a of 10**7 bits,
  ``math.lcm(*range(1, 200000))``) or one regex runs past it: such a worker is killed GRACE seconds after the limit.
- An allocation beyond the limit inside a builtin (``",".join(...)``) ends the worker; it is replaced in 8 ms.
- Once the output is full a program would print on until its time is up (2 s of ``while True: print()``); here its
  worker is killed at once. The host collects pieces of 8 KiB, so its own memory grows by the limit of the output.

A worker peaks at 131 MB for a limit of 64 MiB (a reallocation holds the old and the new block), this process grows by
less than the limit (it copies the message of an exception). Linux bounds the address space of a worker
too, in case an allocation ever escapes Monty's own accounting, and no worker leaves a core file.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib
import os
import signal
import sys
import time
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

REMEDY = "pip install 'pydantic-monty>=1.4,<2'"
GRACE = 0.25  # seconds from the limit to the kill of a worker that did not stop by itself
RECURSION = 1000

_POLICY: dict[str, Any] = {  # the same clock, the same random numbers, and no waiting: equal runs have equal results
    "sleep": "zero",
    "random_start": {"seed": 0},
    "datetime": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
}


class MontyEngine:
    """Runs a program in a fresh Monty session. Threads may share an engine: each run has a worker of its own.

    Raises SandboxUnavailable when pydantic-monty or its worker binary is missing, and in a forked child.
    """

    name = "monty"

    def __init__(self, output_bytes: int = OUTPUT_BYTES) -> None:
        try:
            self._monty: Any = importlib.import_module("pydantic_monty")
        except ImportError as error:
            raise SandboxUnavailable(f"pydantic-monty cannot be imported: {REMEDY}") from error
        self._output_bytes = output_bytes
        self._process = os.getpid()
        self._refuse_after_fork()
        try:
            self._pool: Any = self._monty.Monty(feed_duration_limit_grace=GRACE).__enter__()
        except (OSError, RuntimeError, self._monty.MontyError) as error:
            raise SandboxUnavailable(f"monty's worker does not start ({one_line(str(error))}): {REMEDY}") from error

    def run(self, source: str, seconds: float = SECONDS, bytes: int = BYTES) -> CodeResult:
        """Run the source. Sleeping costs nothing, an undefined ``input`` or ``open`` is an error like any other.

        A run that must be killed ends GRACE seconds after its limit. Raises ValueError for limits of zero or less.
        """
        if reason := refusal(source, seconds, bytes):
            return CodeResult("", reason, 0.0)
        self._refuse_after_fork()
        printed = Printed(self._output_bytes)
        limits = {"max_feed_duration_secs": seconds, "max_memory": bytes, "max_recursion_depth": RECURSION}
        session = self._pool.checkout(limits=limits, os_policy=_POLICY, assert_message_annotations=False)
        with session:
            worker = session.worker_pid
            _bound(worker, bytes)

            def collect(stream: str, text: str) -> None:
                if printed.add(text.encode(errors="replace")):
                    os.kill(worker, signal.SIGTERM)

            start = time.perf_counter()
            try:
                # The value of a last expression would be copied here; None instead.
                session.feed_run(source + "\nNone", print_callback=collect)
                error = None
            except self._monty.MontyError as raised:
                error = self._describe(raised, seconds, bytes)
            elapsed = time.perf_counter() - start
        return CodeResult(printed.text, output_error(self._output_bytes) if printed.over else error, elapsed)

    def _describe(self, error: Any, seconds: float, bytes: int) -> str:
        if isinstance(error, self._monty.MontyCrashedError):
            return time_error(seconds) if error.timed_out else f"crash: the worker ended with {error.exit_status}"
        if not isinstance(error, self._monty.MontyRuntimeError | self._monty.MontySyntaxError):
            return one_line(f"{type(error).__name__}: {error}")
        line = one_line(error.display("type-msg"))
        if line.startswith("TimeoutError: feed time limit exceeded"):
            return time_error(seconds)
        if line.startswith(("MemoryError: memory limit exceeded", "MemoryError: the worker exceeded")):
            return memory_error(bytes)
        return line

    def _refuse_after_fork(self) -> None:
        if self._process != os.getpid() or _forked:
            raise SandboxUnavailable("monty does not survive a fork: start this process with spawn")


def _note_fork() -> None:
    global _forked
    _forked = "pydantic_monty" in sys.modules


_forked = False  # the threads that serve Monty's workers stay behind in the parent, and a child would wait forever
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def _bound(worker: int, bytes: int) -> None:
    """Bound a worker from outside, where the system can: Monty's own limit is the first line, this the second."""
    if sys.platform == "linux":
        import resource

        with contextlib.suppress(ProcessLookupError):  # a worker that has just died is reported by the run
            hard = resource.prlimit(worker, resource.RLIMIT_AS)[1]
            soft = 2**28 + 4 * bytes
            resource.prlimit(worker, resource.RLIMIT_AS, (soft if hard < 0 else min(soft, hard), hard))
            resource.prlimit(worker, resource.RLIMIT_CORE, (0, 0))
