"""Several tools behind one door: whatever is asked and whatever a tool does, what comes back is a short text, in time."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable, Mapping

from tinyreason.completion import Call, Spent
from tinyreason.tools.tool import Tool, ToolError

MAX_REQUEST = 2**14
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class Toolbox:
    """Answers calls by name; counts what it spent. May be used by several threads.

    seconds: the longest that a call may take. characters: the longest result, longer ones are cut and end in `...`.
    """

    def __init__(self, tools: Iterable[Tool], seconds: float = 5.0, characters: int = 400) -> None:
        """Raises ValueError for two tools of one name."""
        self.tools: dict[str, Tool] = {}
        for one in tools:
            if one.name in self.tools:
                raise ValueError(f"tools: there are two of the name {one.name!r}")
            self.tools[one.name] = one
        self.seconds, self.characters = seconds, characters
        self.spent = Spent()
        self._busy: Mapping[str, threading.Thread] = {}
        self._lock = threading.Lock()

    def call(self, name: str, request: str) -> Call:
        """The answer of tool `name`; `error: ...`, one line, where there is none: no such tool, refused, raised, too slow."""
        began = time.perf_counter()
        result = self._clean(self._answer(name, request))
        with self._lock:
            self.spent += Spent(calls=1, seconds=time.perf_counter() - began)
        return Call(name, request, result)

    def _answer(self, name: str, request: str) -> str:
        found = self.tools.get(name)
        if found is None:
            return f"error: there is no tool {name!r}, only {', '.join(sorted(self.tools)) or 'none'}"
        if not request.strip():
            return f"error: nothing was asked of {name}"
        if len(request) > MAX_REQUEST:
            return f"error: {len(request)} characters are more than {MAX_REQUEST}"
        if (hung := self._busy.get(name)) is not None and hung.is_alive():
            return f"error: {name} still hangs in an earlier call"
        answer: list[str] = []
        # A thread cannot be ended from outside. As a daemon it at least keeps nobody from leaving, and a tool that hangs
        # holds one thread, not one a call.
        worker = threading.Thread(target=lambda: answer.append(_run(found, request)), daemon=True, name=f"tool {name}")
        worker.start()
        worker.join(self.seconds)
        if answer:
            return answer[0]
        with self._lock:
            self._busy = {**self._busy, name: worker}
        return f"error: {name} took longer than {self.seconds:g} s"

    def _clean(self, result: str) -> str:
        result = _CONTROL.sub(" ", result).strip()
        if len(result) <= self.characters:
            return result
        return result[: max(self.characters - 3, 0)] + "..."


def _run(found: Tool, request: str) -> str:
    try:
        result = found.run(request.strip())
        return (
            result if isinstance(result, str) else f"error: {found.name} gave {type(result).__name__} instead of text"
        )
    except ToolError as reason:
        return f"error: {' '.join(str(reason).split())}"
    except Exception as error:  # a tool is somebody's code: whatever it raises, the answer goes on
        return f"error: {found.name} failed ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
