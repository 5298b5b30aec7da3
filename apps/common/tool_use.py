"""Tools for our models: which a tokenizer has the tokens for, and the hook that answers calls while a model decodes."""

from __future__ import annotations

import functools
from collections.abc import Iterable

from tinydata import Tokenizer
from tinydata.problem_loader import RESULT
from tinyreason import CodeRunner, CodeSandbox, SandboxUnavailable, Toolbox, ToolSession
from tinyreason.tools import Tags, Tool, calculator_tool, code_tool


@functools.cache
def runner() -> CodeRunner | None:
    """The sandbox; None where none can run here."""
    try:
        return CodeSandbox()
    except SandboxUnavailable:
        return None


@functools.cache
def standard() -> tuple[Tool, ...]:
    """The calculator, and programs where a sandbox can run here."""
    sandbox = runner()
    return (calculator_tool(),) if sandbox is None else (calculator_tool(), code_tool(sandbox))


def toolbox(tokenizer: Tokenizer, tools: Iterable[Tool] | None = None) -> Toolbox | None:
    """Those of `tools` (default: `standard`) that the tokenizer has tokens for; None where there are none."""
    if not all(name in tokenizer.special for name in RESULT):
        return None
    usable = [tool for tool in (standard() if tools is None else tools) if _tags(tokenizer, tool.name) is not None]
    return Toolbox(usable) if usable else None


def session(box: Toolbox, tokenizer: Tokenizer, max_calls: int = 8) -> ToolSession:
    """A hook for one call of `tinycore.generate`."""
    tags = {name: found for name in box.tools if (found := _tags(tokenizer, name)) is not None}
    opening, closing = (tokenizer.special[name] for name in RESULT)
    return ToolSession(box, tags, Tags(opening, closing), tokenizer.encode, tokenizer.decode, max_calls)


def _tags(tokenizer: Tokenizer, name: str) -> Tags | None:
    opening, closing = tokenizer.special.get(f"<{name}>"), tokenizer.special.get(f"</{name}>")
    return None if opening is None or closing is None else Tags(opening, closing)
