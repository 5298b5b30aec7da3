"""Tools for a model that is decoded token by token: a hook that answers calls while they are written.

    ... <calc> 3 4 7 * 8 9 2 </calc>      the model's tokens
                                     <result> 3 0 9 5 2 4 </result>      forced: they cost no choice and are never learned

Tags are single tokens, so nothing that a user types can be one (a tokenizer spells `<calc>` in ordinary text by its
characters). Rows of a batch call independently of each other. The hook sees ids alone and imports no torch: it fits
`tinycore.generate(hooks=[...])`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from tinyreason.completion import Call
from tinyreason.tools.toolbox import Toolbox


class Tags(NamedTuple):
    """The ids of a tag's two tokens."""

    open: int
    close: int


class Row(Protocol):
    """A running row, as `tinycore.RowView` is: which prompt and sample, and all its ids so far."""

    @property
    def prompt(self) -> int: ...
    @property
    def sample(self) -> int: ...
    @property
    def ids(self) -> Sequence[int]: ...


@dataclass
class _Progress:
    """Where a row stands: the tool that was opened last and where its request begins, and how many calls were made."""

    tool: str | None = None
    start: int = 0
    nested: bool = False
    forced: int = 0  # ids that are still to come from us: they are not looked at
    calls: list[Call] = field(default_factory=list)


class ToolSession:
    """Call it once a step with all running rows; it gives {index: ids that the row must take next}.

    tags: the tokens of each tool, by its name; result: those that answers stand in. encode, decode: text to ids, in which no
    tag occurs, and back. max_calls: a row's calls that are answered; further ones get an error. One session a generation.
    """

    def __init__(
        self,
        toolbox: Toolbox,
        tags: Mapping[str, Tags],
        result: Tags,
        encode: Callable[[str], list[int]],
        decode: Callable[[list[int]], str],
        max_calls: int = 8,
    ) -> None:
        """Raises ValueError for a tool without tags."""
        for name in toolbox.tools:
            if name not in tags:
                raise ValueError(f"tool {name!r}: the tokenizer has no tokens <{name}> and </{name}>")
        self._toolbox, self._result, self._encode, self._decode = toolbox, result, encode, decode
        self._opens = {tags[name].open: name for name in toolbox.tools}
        self._closes = {tags[name].close: name for name in toolbox.tools}
        self._max_calls = max_calls
        self._rows: dict[tuple[int, int], _Progress] = defaultdict(_Progress)

    def calls(self, prompt: int, sample: int) -> tuple[Call, ...]:
        """What a row has called so far, in order."""
        return tuple(self._rows[prompt, sample].calls)

    def __call__(self, rows: Sequence[Row]) -> dict[int, list[int]]:
        forced: dict[int, list[int]] = {}
        for index, row in enumerate(rows):
            progress = self._rows[row.prompt, row.sample]
            if progress.forced:
                progress.forced -= 1
                continue
            last = row.ids[-1]
            if last in self._opens:
                progress.nested = progress.nested or progress.tool is not None
                progress.tool, progress.start = self._opens[last], len(row.ids)
            elif last in self._closes:
                text = self._answered(self._closes[last], progress, row.ids)
                forced[index] = [self._result.open, *self._encode(text), self._result.close]
                progress.forced = len(forced[index])
        return forced

    def _answered(self, name: str, progress: _Progress, ids: Sequence[int]) -> str:
        tool, nested = progress.tool, progress.nested
        progress.tool, progress.nested = None, False
        request = "" if tool is None else self._decode(list(ids[progress.start : -1]))
        if tool is None:
            call = Call(name, request, f"error: </{name}> without <{name}>")
        elif nested:
            call = Call(name, request, "error: a call within a call")
        elif tool != name:
            call = Call(name, request, f"error: <{tool}> was ended by </{name}>")
        elif len(progress.calls) >= self._max_calls:
            call = Call(name, request, f"error: no more than {self._max_calls} calls an answer")
        else:
            call = self._toolbox.call(name, request)
        progress.calls.append(call)
        return call.result
