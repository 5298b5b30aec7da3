"""Programs that a model wrote, judged by their tests in a sandbox that is passed in: nothing is ever executed here.

The program ends with a line that prints a word nobody could know beforehand. Only if that word is the last that was printed,
the tests were reached and passed: a program that leaves early, by `sys.exit(0)` or by printing what it likes, did not pass.
"""

from __future__ import annotations

import secrets
from typing import Protocol

from tinyeval.items import Item


class CodeResult(Protocol):
    """What a program printed, and why it stopped (None: it ended well)."""

    @property
    def output(self) -> str: ...

    @property
    def error(self) -> str | None: ...


class CodeRunner(Protocol):
    """Runs Python that nobody has read, such as `tinyreason.CodeSandbox`."""

    def run(self, source: str, seconds: float, bytes: int) -> CodeResult: ...


def passes(item: Item, written: str, runner: CodeRunner, seconds: float = 4.0, memory: int = 2**28) -> bool:
    """Whether the prompt and what was ``written`` behind it pass the item's tests (`meta`: test, entry_point).

    Raises KeyError for an item without tests.
    """
    word = secrets.token_hex(8)
    call = f"check({item.meta['entry_point']})\n" if "entry_point" in item.meta else ""
    source = f"{item.prompt}{written}\n\n{item.meta['test']}\n{call}print({word!r})\n"
    result = runner.run(source, seconds, memory)
    return result.error is None and result.output.rstrip("\n").rpartition("\n")[2] == word
