"""Stopping on request: the first signal asks for a saved stop, the second gets the system's own way.

SIGINT (Ctrl-C) and SIGTERM only set a flag; the trainer looks at it between optimizer steps, agrees on it with the
other processes, saves and exits with status 3. A wrapper (`uv run`, a terminal's process group, a launcher) may deliver
one request twice within an instant; deliveries that close together count as one.
"""

from __future__ import annotations

import os
import signal
import time
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SAME_REQUEST = 0.5  # seconds within which a repeated signal is the same request


class StopRequest:
    """Whether this process was asked to stop. Use as a context manager: handlers are put back on leaving."""

    def __init__(self) -> None:
        self.received: str | None = None
        self._at = 0.0
        self._before: dict[signal.Signals, Any] = {}
        # under a launcher that serves the rendezvous, losing the launcher means that nobody watches over this process
        watched = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        self._parent = os.getppid() if watched else None

    def __enter__(self) -> StopRequest:
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def pending(self) -> bool:
        """True from the first request on."""
        if self._parent is not None and os.getppid() != self._parent:
            self.received = self.received or "the end of its launcher"
        return self.received is not None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.received is None:
            self.received, self._at = signal.Signals(number).name, now
        elif now - self._at > SAME_REQUEST:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
