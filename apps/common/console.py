"""What a person sees: lines, warnings, a progress bar on a terminal, plain lines otherwise.

Only the main process speaks. With `json` everything human goes to stderr, and `result` prints the one object that is
the last line of stdout.
"""

from __future__ import annotations

import contextlib
import json as json_format
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Protocol

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

LINE_SECONDS = 2.0  # plain progress lines come no faster than this


class Steps(Protocol):
    """A progress display: `update` is called once a step (or less) with the latest values."""

    def update(self, step: int, metrics: Mapping[str, Any]) -> None: ...


class Counting(Protocol):
    """Progress of a count, such as documents read."""

    def advance(self, amount: int = 1) -> None: ...


class Console:
    """The voice of an app: see the module."""

    def __init__(self, json: bool = False, main_process: bool = True) -> None:
        self.json = json
        self.main_process = main_process
        self._rich = RichConsole(file=sys.stderr if json else sys.stdout, highlight=False, soft_wrap=True)
        self._errors = RichConsole(file=sys.stderr, highlight=False, soft_wrap=True)
        self._drawing = False

    @property
    def live(self) -> bool:
        """Whether a person watches: a terminal that can redraw a line."""
        return self.main_process and self._rich.is_terminal and not self._rich.is_dumb_terminal

    def say(self, text: str) -> None:
        """One or more lines of plain text."""
        if self.main_process:
            self._rich.print(escape(text))

    def warn(self, text: str) -> None:
        """A line on stderr that begins with `warning:`."""
        if self.main_process:
            # above a bar that is being drawn only the console that draws it can print
            console = self._rich if self._drawing else self._errors
            console.print(f"[bold yellow]warning[/][bold]:[/] {escape(text)}")

    def head(self, title: str, note: str = "") -> None:
        """A heading, with a note beside it."""
        if self.main_process:
            self._rich.print(f"\n[bold green]{escape(title)}[/] [dim]{escape(note)}[/]".rstrip())

    def table(self, rows: Mapping[str, str]) -> None:
        """Two columns: names and what they are."""
        width = max((len(name) for name in rows), default=0)
        for name, value in rows.items():
            if self.main_process:
                self._rich.print(f"  [dim]{escape(name.ljust(width))}[/]  {escape(value)}")

    def columns(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table with a heading: the first column to the left, the others to the right."""
        widths = [max(len(row[index]) for row in [head, *rows]) for index in range(len(head))]
        for row in [head, *rows]:
            cells = [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
            style = "bold" if row is head else "default"
            if self.main_process:
                self._rich.print(f"[{style}]{escape('  '.join(cells))}[/]")

    def ask(self, question: str) -> bool:
        """Whether the person at the terminal says yes; False where nobody can be asked."""
        if not (self.live and sys.stdin is not None and sys.stdin.isatty()):
            return False
        self._rich.print(f"[bold]{escape(question)}[/] [dim]\\[y/N][/] ", end="")
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    def result(self, values: Mapping[str, Any]) -> None:
        """With `json`: `values` as one line of stdout, to be called last."""
        if self.json and self.main_process:
            sys.stdout.write(json_format.dumps(dict(values), allow_nan=False) + "\n")
            sys.stdout.flush()

    @contextlib.contextmanager
    def progress(self, total_steps: int) -> Generator[Steps]:
        """Training progress up to `total_steps`, with the time that is left."""
        if not self.live:
            yield _Lines(self.say, total_steps, self.main_process)
            return
        with self._draw(
            TextColumn("[bold]step {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(bar_width=None, complete_style="cyan", finished_style="green"),
            TextColumn("{task.fields[values]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            expand=True,
        ) as progress:
            yield _Bar(progress, total_steps)

    @contextlib.contextmanager
    def _draw(self, *columns: ProgressColumn, **layout: bool) -> Generator[Progress]:
        self._drawing = True
        try:
            with Progress(*columns, console=self._rich, **layout) as progress:  # ty: ignore[invalid-argument-type]
                yield progress
        finally:
            self._drawing = False

    @contextlib.contextmanager
    def counting(self, what: str, total: int | None = None) -> Generator[Counting]:
        """Progress of something that is counted: `what` names it ("reading documents")."""
        if not self.live:
            counter = _Counter()
            yield counter
            if counter.seconds() >= LINE_SECONDS:
                self.say(f"{what}: {counter.count:,} in {counter.seconds():.0f} s")
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=30, complete_style="cyan", pulse_style="cyan"),
            _Count(),
        )
        with self._draw(*columns, transient=True) as progress:
            yield _CountBar(progress, progress.add_task(escape(what), total=total))


def metrics_line(metrics: Mapping[str, Any]) -> str:
    """The values worth watching, in a fixed order: `loss 2.345  val_bpb 1.234  12.3k tok/s`."""
    return "  ".join(write(metrics[name]) for name, write in _WATCHED.items() if metrics.get(name) is not None)


def rate(tokens_per_second: float) -> str:
    """12345.6 -> `12.3k tok/s`."""
    return f"{short(tokens_per_second)} tok/s"


def short(number: float) -> str:
    """A count in three figures: 950, 12.3k, 4.56M, 1.20G."""
    for limit, unit in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit * 0.9995:
            value = number / limit
            return (
                f"{value:.2f}{unit}"
                if value < 9.995
                else f"{value:.1f}{unit}"
                if value < 99.95
                else f"{value:.0f}{unit}"
            )
    return f"{number:.0f}"


def size(count: float) -> str:
    """Bytes for people: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def duration(seconds: float) -> str:
    """Seconds for people: 12 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


_WATCHED: dict[str, Callable[[Any], str]] = {
    "loss": lambda value: f"loss {value:.3f}",
    "val_loss": lambda value: f"val_loss {value:.3f}",
    "val_bpb": lambda value: f"val_bpb {value:.3f}",
    "raw_val_bpb": lambda value: f"raw {value:.3f}",
    "val_exact": lambda value: f"val_exact {value:.1%}",
    "raw_val_exact": lambda value: f"raw {value:.1%}",
    "val_cells": lambda value: f"val_cells {value:.1%}",
    "val_accuracy": lambda value: f"val_acc {value:.1%}",
    "tokens_per_second": rate,
    "mfu": lambda value: f"mfu {value:.1%}",
}


class _Lines:
    """Plain lines for a file or a pipe: the first and last step, validations, and one every few seconds."""

    def __init__(self, say: Callable[[str], None], total: int, main_process: bool) -> None:
        self.say, self.total, self.enabled = say, total, main_process
        self.latest: dict[str, Any] = {}
        self.last = -LINE_SECONDS
        self.began: tuple[int, float] | None = None

    def update(self, step: int, metrics: Mapping[str, Any]) -> None:
        now = time.monotonic()
        self.began = self.began or (step, now)
        self.latest.update(metrics)
        validated = any(name.startswith("val_") for name in metrics)
        due = bool(self.latest) and now - self.last >= LINE_SECONDS
        if not self.enabled or not (validated or due or step == self.total):
            return
        line = f"step {step:>{len(str(self.total))}}/{self.total}  {metrics_line(self.latest)}"
        first_step, first_time = self.began
        if step > first_step and step < self.total:
            line += f"  {duration((now - first_time) / (step - first_step) * (self.total - step))} left"
        self.say(line.rstrip())
        self.last = now
        self.latest = {}


class _Bar:
    """The progress bar of a terminal."""

    def __init__(self, progress: Progress, total: int) -> None:
        self.progress = progress
        self.latest: dict[str, Any] = {}
        self.began = False
        self.task = progress.add_task("", total=total, values="")

    def update(self, step: int, metrics: Mapping[str, Any]) -> None:
        if not self.began:
            # steps of an earlier session must not count as fast ones of this
            self.progress.reset(self.task, completed=step)
            self.began = True
        self.latest.update(metrics)
        self.progress.update(self.task, completed=step, values=metrics_line(self.latest))


class _Counter:
    def __init__(self) -> None:
        self.count = 0
        self.start = time.monotonic()

    def advance(self, amount: int = 1) -> None:
        self.count += amount

    def seconds(self) -> float:
        return time.monotonic() - self.start


class _CountBar:
    def __init__(self, progress: Progress, task: Any) -> None:
        self.progress, self.task = progress, task
        self.pending = 0

    def advance(self, amount: int = 1) -> None:
        # a redraw costs more than a document: tell the display of every 256th
        self.pending += amount
        if self.pending >= 256:
            self.progress.advance(self.task, self.pending)
            self.pending = 0


class _Count(ProgressColumn):
    def render(self, task: Task) -> Text:
        total = f"/{task.total:,.0f}" if task.total else ""
        return Text(f"{task.completed:,.0f}{total}")
