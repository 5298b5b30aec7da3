"""Conversations of JSONL files: one a line, {"messages": [{"role": "user", "content": "Hi"}, ...]}.

`content` is the text (or `text`), `reasoning_content` or `think` the thoughts of an assistant; thoughts that stand in front of
the text, between <think> and </think>, are found there. White space at the ends of messages is left out. Files are a
stranger's: a line that is no conversation is skipped and counted by its reason, and no text is trusted (`chat_format`).
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from tinydata.chat import ChatMessage, ConversationError, check_conversation
from tinydata.documents import SourceError
from tinydata.sources.counted import MISSING_COLUMN, NOT_TEXT, NOT_UTF8, UNREADABLE, Skipped
from tinydata.sources.formats import json_object, lines

MAX_LINE_BYTES = 2**24
LONG_LINE = Skipped(f"longer than {MAX_LINE_BYTES} bytes")
NOT_MESSAGES = Skipped("messages are not a list of objects")

_THOUGHTS = re.compile(r"\s*<think>(.*?)</think>(.*)", re.DOTALL)


class Conversations:
    """The conversations of a .jsonl or .jsonl.gz file in its order, as often as they are asked for.

    `skipped` counts by reason the lines that the latest iteration left out. alternate: see `check_conversation`; pass that of
    the format they are to be written in.
    """

    def __init__(self, path: str | Path, column: str = "messages", alternate: bool = False) -> None:
        """Raises SourceError if there is no such file."""
        self.name, self.column, self.alternate = str(path), column, alternate
        self.skipped: dict[str, int] = {}
        if not Path(path).is_file():
            raise SourceError(f"{path}: no such file")

    def conversations(self) -> Iterator[list[ChatMessage]]:
        """Raises SourceError at the end if there was none."""
        self.skipped = {}
        usable = 0
        for line in self._lines():
            if not isinstance(line, Skipped) and line.isspace():
                continue
            found = line if isinstance(line, Skipped) else self._conversation(line)
            if isinstance(found, Skipped):
                self.skipped[found.reason] = self.skipped.get(found.reason, 0) + 1
                continue
            usable += 1
            yield found
        if not usable:
            counts = ", ".join(f"{reason}: {count}" for reason, count in sorted(self.skipped.items()))
            raise SourceError(f"{self.name}: no conversation in it ({counts or 'no lines at all'})")

    def _lines(self) -> Iterator[bytes | Skipped]:
        try:
            with gzip.open(self.name, "rb") if self.name.lower().endswith(".gz") else open(self.name, "rb") as handle:
                yield from lines(cast(BinaryIO, handle), MAX_LINE_BYTES, LONG_LINE)
        except (OSError, EOFError, zlib.error):
            yield UNREADABLE  # what came before the damage has been used

    def _conversation(self, line: bytes) -> list[ChatMessage] | Skipped:
        row = json_object(line)
        return row if isinstance(row, Skipped) else conversation_of(row, self.column, self.alternate)


def conversation_of(
    row: Mapping[str, Any], column: str = "messages", alternate: bool = False
) -> list[ChatMessage] | Skipped:
    """The conversation in a column of a row, or why it is none."""
    if column not in row:
        return MISSING_COLUMN
    rows = row[column]
    if not isinstance(rows, list) or not all(isinstance(entry, dict) for entry in rows):
        return NOT_MESSAGES
    messages = []
    for entry in rows:
        message = _message(entry)
        if isinstance(message, Skipped):
            return message
        messages.append(message)
    try:
        check_conversation(messages, alternate)
    except ConversationError as error:
        return Skipped(error.reason)
    return messages


def _message(entry: dict[str, Any]) -> ChatMessage | Skipped:
    role, text = entry.get("role"), entry.get("content", entry.get("text"))
    think = entry.get("reasoning_content", entry.get("think"))
    if not isinstance(role, str) or not isinstance(text, str) or not isinstance(think, str | None):
        return NOT_TEXT
    found = _THOUGHTS.fullmatch(text) if role == "assistant" and think is None else None
    if found is not None:
        think, text = found.groups()
    try:
        f"{text}{think}".encode()
    except UnicodeEncodeError:
        return NOT_UTF8
    think = think.strip() if think is not None and role == "assistant" else None
    return ChatMessage(cast(Any, role), text.strip(), think or None)
