"""Conversations of a file, or made up, as encoded rows; and a tokenizer that knows how they are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from apps.common.console import Console
from apps.common.errors import BadRequest
from apps.common.problem_config import ChatData
from tinydata import (
    CHAT_FORMATS,
    ChatMessage,
    ConversationError,
    Conversations,
    EncodedProblem,
    Tokenizer,
    share_think,
    split_of,
)
from tinydata.synthetic.dialogues import dialogues

Conversation = list[ChatMessage]


def sides(data: ChatData, console: Console) -> tuple[str, dict[str, list[Conversation]]]:
    """The name of the source, and its conversations by side, which the first thing said in one decides.

    Raises SourceError for a file without any.
    """
    found: dict[str, list[Conversation]] = {"train": [], "validation": []}
    source: Conversations | None = None
    if data.path is None:
        name = "dialogues"
        made = dialogues(data.seed, data.conversations, language=data.language)
        conversations = (list(dialogue.messages) for dialogue in made)
    else:
        name = data.path
        source = Conversations(data.path, alternate=CHAT_FORMATS[data.format].alternate)
        conversations = source.conversations()
    for messages in conversations:
        asked = next((message.text for message in messages if message.role == "user"), messages[0].text)
        side = split_of(asked, {"validation": data.validation})
        found[side].append(share_think(messages, data.think, data.seed))
    if source is not None:
        for reason, count in sorted(source.skipped.items()):
            console.say(f"{name}: left out {count:,}: {reason}")
    return name, found


def with_template(tokenizer: Tokenizer, data: ChatData) -> Tokenizer:
    """The tokenizer with the format as its chat template, behind the token that separates documents. A turn ends with the
    format's token."""
    form = CHAT_FORMATS[data.format]
    conventions = replace(
        tokenizer.conventions,
        bos_token=tokenizer.end_token,
        eos_token=form.end or tokenizer.end_token,
        chat_template="{{ bos_token }}" + form.jinja,
    )
    return tokenizer.with_conventions(conventions)


def encoded(conversations: Sequence[Conversation], tokenizer: Tokenizer, data: ChatData) -> list[EncodedProblem]:
    """Only the assistant's words are learned; those that we made up may have tags of tools in them, a stranger's never.

    Raises BadRequest where the tokenizer lacks a token of the format.
    """
    form = CHAT_FORMATS[data.format]
    try:
        return [form.encode(messages, tokenizer, trusted=data.path is None) for messages in conversations]
    except ConversationError as error:
        remedy = "; --data.format plain needs none for turns" if "<|im_" in str(error) else ""
        raise BadRequest(f"data.format: {error}{remedy}") from None
