"""A tool: a function from text to text with a name, by which models call it as `<name>request</name>`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)


class ToolError(ValueError):
    """Why a tool has no answer, in one line that the model reads as `error: ...`."""


@dataclass(frozen=True, slots=True)
class Tool:
    """name: lower case, as in its tag. run: the answer to a request; raises ToolError where there is none."""

    name: str
    run: Callable[[str], str]
    description: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"tool {self.name!r}: a name has up to 32 lower-case letters, digits and _, a letter first"
            )
        if self.name == "result":
            raise ValueError("tool 'result': is the tag that answers stand in")


def tool(name: str, description: str = "") -> Callable[[Callable[[str], str]], Tool]:
    """A decorator that makes a function a tool.

    @tool("reverse", "the text backwards")
    def reverse(text: str) -> str:
        return text[::-1]
    """

    def made(run: Callable[[str], str]) -> Tool:
        return Tool(name, run, description or " ".join((run.__doc__ or "").split()))

    return made
