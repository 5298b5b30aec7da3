"""LaTeX answers by value, by the library `math-verify` (extra `math`): \\sqrt{8} = 2\\sqrt{2}, \\{1, 2\\} = \\{2, 1\\}.

It computes with SymPy, which a hostile `9^{9^{9^9}}` keeps busy for ever, and times itself by signals, which only a main thread
has. So it runs in a process of its own, which is ended when it takes too long and started again.
"""

from __future__ import annotations

import multiprocessing
import threading
from multiprocessing.connection import Connection
from typing import Any

MAX_CHARACTERS = 512
START_SECONDS = 60.0  # importing SymPy takes seconds where the machine is busy
MAX_BYTES = 2**31


class LatexUnavailable(RuntimeError):
    """math-verify is not installed; the message is one line and names the remedy."""


class LatexAnswers:
    """`Answers(latex=LatexAnswers().equal)`. seconds: the longest that one comparison may take. May be used by threads."""

    def __init__(self, seconds: float = 1.0) -> None:
        """Raises LatexUnavailable without the library."""
        try:
            import math_verify  # noqa: F401
        except ImportError:
            raise LatexUnavailable(
                "comparing LaTeX takes the library math-verify; install it with: pip install 'math-verify[antlr4-13-2]'"
            ) from None
        self._seconds = seconds
        self._lock = threading.Lock()
        self._process: Any = None
        self._pipe: Connection | None = None

    def equal(self, a: str, b: str) -> bool:
        """Whether `a` and `b` are the same by value; False where that cannot be told in time."""
        if len(a) > MAX_CHARACTERS or len(b) > MAX_CHARACTERS:
            return False
        with self._lock:
            try:
                pipe = self._pipe if self._pipe is not None else self._start()
                pipe.send((a, b))
                if pipe.poll(self._seconds):
                    return bool(pipe.recv())
            except (EOFError, OSError):
                pass
            self.close()
            return False

    def close(self) -> None:
        """End the process; the next comparison starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe = ours
        if not ours.poll(START_SECONDS):
            raise OSError("the process did not start")
        ours.recv()
        return ours


def _serve(pipe: Connection) -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    except (ImportError, ValueError, OSError):
        pass  # no such limits on this system: the time limit stands
    import logging

    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)  # it logs what it cannot parse, which is a stranger's text
    pipe.send(True)
    while True:
        try:
            a, b = pipe.recv()
        except EOFError:
            return
        try:
            gold, answer = (parse(f"${text.strip().strip('$')}$", parsing_timeout=60) for text in (a, b))
            pipe.send(bool(gold) and bool(answer) and bool(verify(gold, answer, timeout_seconds=60)))
        except Exception:  # whatever SymPy makes of it, it is not an equal answer
            pipe.send(False)
