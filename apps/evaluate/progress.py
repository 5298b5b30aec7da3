"""How far an evaluation is: a line every few seconds, with the time that the task has left."""

from __future__ import annotations

import time

from apps.common.console import LINE_SECONDS, Console, duration


class Progress:
    """Of the tasks of one run: `begin` each, `advance` with its items, so many of which are computed at once."""

    def __init__(self, console: Console, tasks: int, at_once: int) -> None:
        self.console, self.tasks, self.at_once, self.number = console, tasks, at_once, 0
        self.name, self.began, self.said = "", 0.0, 0.0

    def begin(self, name: str) -> None:
        """The next task."""
        self.number, self.name = self.number + 1, name
        self.began = self.said = time.monotonic()

    def advance(self, done: int, total: int) -> None:
        """So many items of the task are done."""
        now = time.monotonic()
        if now - self.said >= LINE_SECONDS and done < total:
            # the first of a batch is reported when all of it is computed
            computed = min(total, -(-done // self.at_once) * self.at_once)
            left = duration((now - self.began) / computed * (total - computed))
            self.console.say(f"[{self.number}/{self.tasks}] {self.name}: {done:,}/{total:,}, {left} left")
            self.said = now

    def end(self, note: str) -> None:
        """What came of the task."""
        self.console.say(f"[{self.number}/{self.tasks}] {self.name}: {note}")
