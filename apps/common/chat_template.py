"""Conversations as token ids, written the way the model was taught to read them: through its own chat template.

A template is a stranger's program and a message is a stranger's text, so they never meet. The template is rendered with
a placeholder for each message (in a sandbox without attributes or files, in a process with bounded time and memory);
what it wrote around them is the model's own and may contain special tokens; the messages are put in afterwards as plain
text, where `<|im_end|>` is ten letters. Text between two special tokens is encoded as one, so that ids are those of the
whole text encoded at once. White space at a message's ends is left to the template, which may trim it; conditions on
what a message contains see the placeholder.
"""

from __future__ import annotations

import functools
import json
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from apps.common.errors import BadRequest
from tinydata import Tokenizer

CHILD = Path(__file__).with_name("template_child.py")
SECONDS = 10  # until a rendering is given up; it takes a tenth of one
MEMORY = 512 * 2**20
MOST_CHARACTERS = 2**20  # around the messages


class Message(NamedTuple):
    """One turn: `role` is "system", "user" or "assistant"."""

    role: str
    content: str


class ChatTemplate:
    """The chat template of `tokenizer`, which has one. `stop`: ids that end the assistant's turn.

    Raises BadRequest where the template cannot write an exchange of two messages.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        if tokenizer.conventions.chat_template is None:
            raise BadRequest("this model has no chat template")
        self.tokenizer = tokenizer
        self.template: str = tokenizer.conventions.chat_template
        # not those that white space of a message could complete
        names = sorted((name for name in tokenizer.special if name == name.strip()), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, names)) or r"(?!)")
        self._nonce = f"m{secrets.token_hex(12)}"  # no template can know it
        self._placeholder = re.compile(rf"{self._nonce}n(\d+)e")
        self._shape = functools.lru_cache(256)(self._render)
        self.stop: list[int] = sorted({tokenizer.end_id, *self._turn_ends()})

    def encode(self, messages: Sequence[Message], answer: bool = True) -> list[int]:
        """The ids of the conversation, with `answer` up to where the assistant's next turn begins.

        Raises BadRequest where the template refuses it (roles in another order, say) or leaves a message out.
        """
        ids: list[int] = []
        run = ""
        for text, trusted in self._pieces(messages, answer):
            if not trusted:
                run += text
                continue
            at = 0
            for found in self._special.finditer(text):
                ids += self.tokenizer.encode(run + text[at : found.start()])
                ids.append(self.tokenizer.special[found[0]])
                run, at = "", found.end()
            run += text[at:]
        return ids + self.tokenizer.encode(run)

    def _pieces(self, messages: Sequence[Message], answer: bool) -> Iterator[tuple[str, bool]]:
        """(text, whether it is the template's own) in order."""
        cores = [message.content.strip() for message in messages]
        borders = tuple(
            (message.role, *message.content.split(core, 1)) if core else (message.role, message.content, "")
            for message, core in zip(messages, cores, strict=True)
        )
        parts = self._placeholder.split(self._shape(borders, answer))
        missing = set(range(len(messages))) - set(map(int, parts[1::2]))
        if missing:
            role = messages[min(missing)].role
            raise BadRequest(
                f"the model's chat template leaves out a message of the role {role}; --raw goes without it"
            )
        for index, part in enumerate(parts):
            yield (cores[int(part)], False) if index % 2 else (part, True)

    def _render(self, borders: tuple[tuple[str, str, str], ...], answer: bool) -> str:
        """What the template writes for messages of these roles, with this white space around their placeholders."""
        messages = [
            {"role": role, "content": f"{before}{self._nonce}n{index}e{after}"}
            for index, (role, before, after) in enumerate(borders)
        ]
        conventions = self.tokenizer.conventions
        variables = {
            "messages": messages,
            "add_generation_prompt": answer,
            "bos_token": conventions.bos_token or "",
            "eos_token": conventions.eos_token or "",
            "tools": None,
        }
        return render(self.template, variables)

    def _turn_ends(self) -> Iterator[int]:
        """eos_token, and the special token that the template writes after what the assistant said."""
        special = self.tokenizer.special
        if self.tokenizer.conventions.eos_token in special:
            yield special[self.tokenizer.conventions.eos_token]
        *_, tail = self._pieces([Message("user", "?"), Message("assistant", "!")], answer=False)
        found = self._special.search(tail[0])
        if found:
            yield special[found[0]]


def render(template: str, variables: dict[str, object]) -> str:
    """What the Jinja template writes. Raises BadRequest where it fails, or needs more time or memory than it may."""
    request = {
        "template": template,
        "variables": variables,
        "most_characters": MOST_CHARACTERS,
        "seconds": SECONDS,
        "bytes": MEMORY,
    }
    command = [sys.executable, "-P", str(CHILD)]
    try:
        done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, timeout=SECONDS)
        answer = json.loads(done.stdout) if done.returncode == 0 else {}
    except subprocess.TimeoutExpired:
        answer = {}
    if "text" not in answer:
        reason = answer.get("error") or f"it took more than {SECONDS} s or {MEMORY >> 20} MiB"
        raise BadRequest(f"the model's chat template cannot be used: {reason}; --raw goes without it")
    return answer["text"]
