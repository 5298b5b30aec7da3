"""What the command line asks of each run that is evaluated on tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from apps.common import eval_tasks, processes
from apps.common.command_line import Arguments
from apps.common.errors import BadRequest
from tinyeval import suites
from tinyeval.suites import Suite

AUTO = "auto"
ELSEWHERE = ("problems", "kinds", "forms", "steps", "rounds", "verifier", "max-tokens")  # options of exercises


@dataclass(frozen=True)
class Settings:
    """names: of tasks; AUTO alone: those that make sense. suites: protocols that were named, whose tasks are not among `names`.
    votes: copies of each puzzle that are answered."""

    names: tuple[str, ...]
    limit: int | None
    seed: int
    tools: bool
    named: Mapping[str, Path]
    device: str
    suites: tuple[Suite, ...] = ()
    votes: int = 1

    @property
    def automatic(self) -> bool:
        return self.names == (AUTO,)


def read(arguments: Arguments) -> Settings:
    """The settings. Raises BadRequest for options of exercises, unknown tasks and files of no task."""
    odd = next((name for name in ELSEWHERE if name in arguments.options), None)
    if odd is not None:
        raise BadRequest(f"--{odd} is for exercises, which are asked without --tasks and --compare; leave one out")
    text = arguments.text("tasks", AUTO)
    written = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not written or (AUTO in written and len(written) > 1):
        raise BadRequest(f"--tasks: {text!r}: give tasks such as arithmetic,needle, or {AUTO} alone")
    asked = tuple(suites.load(name) for name in written if name in suites.names())
    names = tuple(name for name in written if name not in suites.names())
    named: dict[str, Path] = {}
    for part in filter(None, arguments.text("files", "").split(",")):
        name, equals, path = part.partition("=")
        if not equals or not name or not path:
            raise BadRequest(f"--files: {part!r} is not of the form lambada=path")
        named[name] = Path(path)
    automatic = names == (AUTO,)
    known = {eval_tasks.load(name).name for name in names} if not automatic else set()
    of_suites = {pair.standard_name: pair for suite in asked for pair in suite.pairs}
    for name in list(named):
        if name in of_suites:  # one file for both ways of asking
            pair = of_suites[name]
            named |= {pair.protocol.name: named[name], pair.standard.name: named[name]}
        if name not in of_suites:
            eval_tasks.load(name)  # refuses what is no task
        if not automatic and name not in known | set(of_suites):
            raise BadRequest(f"--files: {name} is not among --tasks {text}")
    return Settings(
        names,
        arguments.whole("limit", 1) if "limit" in arguments.options else None,
        arguments.whole("seed", 0, least=0),
        "no-tools" not in arguments.options,
        named,
        processes.device_type(arguments.text("device", "auto"), 1),
        asked,
        arguments.whole("votes", 1),
    )
