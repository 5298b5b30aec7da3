"""Conversations as values: who says what, which of them can be learned from, and how many are shown with their thoughts.

    system     how to behave; at most one, and the first of all
    user       what is asked
    assistant  what is learned; `think` is what it thought before it said `text`
    tool       what a tool wrote back; the assistant's turn goes on behind it (arXiv 2302.04761)

How a conversation is written down, and what of it is learned, `chat_format` says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = get_args(Role)


class ConversationError(ValueError):
    """A conversation that cannot be learned from; one line. `reason`: the same without the place, to count by."""

    def __init__(self, reason: str, message: int | None = None, found: str = "") -> None:
        super().__init__(f"conversation: {reason}{found}" if message is None else f"message {message}: {reason}{found}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message. think: only an assistant's, None where it does not show any."""

    role: Role
    text: str
    think: str | None = None


def check_conversation(messages: Sequence[ChatMessage], alternate: bool = False) -> None:
    """Raise ConversationError unless the last word is the assistant's and every message stands where it may.

    alternate: user and assistant take turns, the user first, as many templates want it; otherwise users and assistants may
    say several things in a row.
    """
    if not messages:
        raise ConversationError("no messages")
    before: str | None = None  # role
    for number, message in enumerate(messages, 1):
        role = message.role
        if role not in ROLES:
            raise ConversationError("unknown role", number, f" {str(role)[:40]!r}, expected one of {', '.join(ROLES)}")
        if not message.text or message.text.isspace():
            raise ConversationError(f"empty text of {role!r}", number)
        if message.think is not None and role != "assistant":
            raise ConversationError(f"thoughts of {role!r}", number)
        if role == "system" and before is not None:
            raise ConversationError("'system' is not the first", number)
        if role == "tool" and before != "assistant":
            raise ConversationError("'tool' does not follow 'assistant'", number)
        if before == "tool" and role != "assistant":
            raise ConversationError(f"{role!r} follows 'tool'", number)
        if alternate and role == before:
            raise ConversationError(f"two of {role!r} in a row", number)
        if alternate and role == "assistant" and before in (None, "system"):
            raise ConversationError("'assistant' before 'user'", number)
        before = role
    if before != "assistant":
        raise ConversationError("the last message is not the assistant's", len(messages))


def shows_think(key: str, share: float, seed: int = 0) -> bool:
    """Whether the example `key` is one of the `share` (0 to 1) that show their thoughts.

    The first 53 bits of a sha256 of seed and key, as a number in [0, 1), are compared with the share: it depends on nothing
    else, and with a larger share nobody who showed thoughts hides them. Raises ValueError for other shares.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"think share: {share} is not within 0 and 1")
    digest = hashlib.sha256(f"tinydata think {seed} {key}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53 < share


def share_think(messages: Sequence[ChatMessage], share: float, seed: int = 0) -> list[ChatMessage]:
    """The conversation with all its thoughts or with none: `shows_think` of its roles and texts decides, so that two copies of
    a conversation never differ. Raises ValueError for a share that is not within 0 and 1."""
    key = "\0".join(f"{message.role}\0{message.text}" for message in messages)
    if shows_think(key, share, seed):
        return list(messages)
    return [replace(message, think=None) for message in messages]
