"""Which engine runs the code."""

from __future__ import annotations

from typing import Literal

from tinyreason.sandbox.full import FullEngine
from tinyreason.sandbox.monty import MontyEngine
from tinyreason.sandbox.runner import BYTES, OUTPUT_BYTES, SECONDS, CodeResult


class CodeSandbox:
    """A CodeRunner on one of two engines.

    - ``monty``: a small interpreter, under a millisecond a run, without much of the library (no inheritance,
      generators or fractions). The default.
    - ``full``: CPython with its whole library, confined by the kernel, 55 ms a run, Linux 6.7 or newer.

    ``auto`` is monty or a refusal: code is never run by an engine that was not asked for. Raises SandboxUnavailable
    with the remedy when the engine cannot run here, ValueError for another name.
    """

    def __init__(self, engine: Literal["auto", "monty", "full"] = "auto", output_bytes: int = OUTPUT_BYTES) -> None:
        if engine not in ("auto", "monty", "full"):
            raise ValueError(f"engine must be auto, monty or full, not {engine!r}")
        self._engine = FullEngine(output_bytes) if engine == "full" else MontyEngine(output_bytes)

    @property
    def engine(self) -> str:
        """The name of the engine that runs: monty or full."""
        return self._engine.name

    def run(self, source: str, seconds: float = SECONDS, bytes: int = BYTES) -> CodeResult:
        """Run the source within the limits. Raises for nothing that it does, ValueError for limits of zero or less."""
        return self._engine.run(source, seconds, bytes)
