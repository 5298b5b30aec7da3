"""What every engine promises: the runner protocol, its result, and the error lines they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

SECONDS = 2.0
BYTES = 2**26
OUTPUT_BYTES = 2**16
SOURCE_BYTES = 2**16
ERROR_CHARACTERS = 300


class SandboxUnavailable(RuntimeError):
    """The engine that was asked for cannot run here; the message is one line and names the remedy."""


@dataclass(frozen=True)
class CodeResult:
    """What a program printed, why it stopped (None: it ended well), and the wall-clock seconds it took."""

    output: str
    error: str | None
    seconds: float

    @property
    def ok(self) -> bool:
        return self.error is None


class CodeRunner(Protocol):
    """Runs Python that nobody has read."""

    def run(self, source: str, seconds: float = SECONDS, bytes: int = BYTES) -> CodeResult:
        """Run a program within a time limit and a memory limit. Raises for nothing that the source does."""
        ...


class Printed:
    """Collects what a program prints, up to a number of UTF-8 bytes; what lies beyond is dropped."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = bytearray()
        self.over = False

    def add(self, data: bytes) -> bool:
        """True for the piece that did not fit, once."""
        room = self._limit - len(self._bytes)
        self._bytes += data[:room]
        first = len(data) > room and not self.over
        self.over = self.over or first
        return first

    @property
    def text(self) -> str:
        """The text so far; a character that the limit cut in two is dropped."""
        return self._bytes.decode(errors="ignore" if self.over else "replace")


def refusal(source: str, seconds: float, bytes: int) -> str | None:
    """The error line of a source that is not worth starting, or None. Raises ValueError for limits of zero or less."""
    if not seconds > 0 or bytes <= 0:
        raise ValueError(f"limits must be positive, got {seconds} seconds and {bytes} bytes")
    if len(source.encode(errors="surrogatepass")) > SOURCE_BYTES:
        return f"source: more than {size(SOURCE_BYTES)}"
    if any("\ud800" <= character <= "\udfff" for character in source):
        return "SyntaxError: the source contains lone surrogates"
    if "\0" in source:
        return "SyntaxError: the source contains a null byte"
    return None


def time_error(seconds: float) -> str:
    return f"time: longer than {seconds:g} s"


def memory_error(bytes: int) -> str:
    return f"memory: more than {size(bytes)}"


def output_error(bytes: int) -> str:
    return f"output: more than {size(bytes)}"


def size(bytes: int) -> str:
    """A number of bytes for people: 64 KiB, 1.5 MiB."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if bytes >= factor:
            return f"{bytes / factor:.4g} {unit}"
    return f"{bytes} bytes"


def one_line(message: str) -> str:
    """An error message on one line of at most 300 characters."""
    line = " ".join(message[: 4 * ERROR_CHARACTERS].split())
    return line if len(line) <= ERROR_CHARACTERS else line[: ERROR_CHARACTERS - 1] + "…"
