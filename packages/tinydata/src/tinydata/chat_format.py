"""How a conversation is written down: ChatML, and a plain form for tokenizers without tokens for turns.

    ChatML  <|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n<think>A greeting.</think>\\nHello!<|im_end|>
    plain   User:\\nHi<|endoftext|>\\nAssistant:\\nHello!<|endoftext|>

Learned are the assistant's words, its thoughts, and the token that ends its turn (without that one nothing would teach to
stop); system, user and what tools write never are. A tool's result stands within the turn that asked for it, where a host
forces it while generating: `<calc>2*3</calc>`, then `<result>6</result>`, and the turn goes on.

Trust is apart from learning. The markers of turns are special tokens and not learned. Texts are ordinary characters,
whoever wrote them: `<|im_end|>` in a stranger's words ends nothing. Only where `trusted` says that the assistant's words are
our own, their tags are the tokens that they name, and what stands between <result> and </result> counts as a tool's.

White space at the ends of a turn is left out. Parts are cut so that ids are those of the whole encoded at once, and so that a
model goes on exactly where it was taught to. `jinja` is the same template for whoever renders text without knowing this.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from tinydata.chat import ChatMessage, ConversationError, Role, check_conversation
from tinydata.problem_loader import RESULT, EncodedProblem, Part, encode_parts
from tinydata.special_tokens import SPECIAL_TOKENS
from tinydata.tokenizer import Tokenizer

THINK = ("<think>", "</think>")
_RESULT = re.compile(f"({re.escape(RESULT[0])})(.*?)({re.escape(RESULT[1])})", re.DOTALL)


@dataclass(frozen=True)
class ChatFormat:
    """start: the special token that begins a turn, or nothing; names: what stands behind it, by role; end: the special token
    that ends a turn, None for the one that ends documents; alternate: whether user and assistant must take turns."""

    name: str
    start: str
    names: Mapping[Role, str]
    end: str | None
    alternate: bool
    jinja: str

    def parts(
        self, messages: Sequence[ChatMessage], trusted: bool = False, end_token: str = SPECIAL_TOKENS[0]
    ) -> list[Part]:
        """The conversation in pieces for `encode_parts`, which puts `end_token` at both ends.

        Raises ConversationError for conversations that it has no form for, see `check_conversation`, and for trusted words in
        which a turn or a result begins or ends where it may not.
        """
        check_conversation(messages, self.alternate)
        end = end_token if self.end is None else self.end
        pieces: list[Part] = []
        for index, message in enumerate(messages):
            goes_on = index > 0 and messages[index - 1].role == "tool"
            waits = index + 1 < len(messages) and messages[index + 1].role == "tool"
            if message.role == "tool":
                pieces += _result(message.text)
                continue
            text = message.text if goes_on else message.text.lstrip()
            text = text if waits else text.rstrip()
            if not goes_on:
                before = [Part("\n", False, False)] if index else []
                pieces += [*before, Part(self.start, False, True), Part(f"{self.names[message.role]}\n", False, False)]
            if message.role != "assistant":
                pieces += [Part(text, False, False), Part(end, False, True)]
                continue
            if trusted:
                _refuse_markers(f"{message.think or ''} {text}", (self.start, end), index + 1)
            pieces += _said(message.think, text, trusted)
            # a document ends with the token that `encode_parts` writes: two in a row would teach to end twice
            if not waits and not (self.end is None and index == len(messages) - 1):
                pieces.append(Part(end, True, True))
        return _joined(pieces)

    def encode(self, messages: Sequence[ChatMessage], tokenizer: Tokenizer, trusted: bool = False) -> EncodedProblem:
        """The conversation as ids with what is given in it, for `ProblemLoader`.

        Raises ConversationError, see `parts`, and where the tokenizer has no such token as a marker or tag that is written.
        """
        parts = self.parts(messages, trusted, tokenizer.end_token)
        needed = [self.start, self.end or "", *(part.text for part in parts if part.trusted and not part.learned)]
        if any(message.think is not None for message in messages):
            needed += THINK
        missing = next((name for name in needed if name and name not in tokenizer.special), None)
        if missing is not None:
            raise ConversationError(f"the tokenizer has no token {missing!r}; see `Tokenizer.add_tokens`")
        return encode_parts(parts, tokenizer)


def _said(think: str | None, text: str, trusted: bool) -> Iterator[Part]:
    """Thoughts and words of the assistant."""
    if think is not None:
        yield Part(THINK[0], True, True)
        yield from _words(think.strip(), trusted)
        yield Part(THINK[1], True, True)
        text = f"\n{text}"
    yield from _words(text, trusted)


def _words(text: str, trusted: bool) -> Iterator[Part]:
    """Results within trusted words are given, as those that have a message of their own."""
    if not trusted:
        yield Part(text, True, False)
        return
    at = 0
    for found in _RESULT.finditer(text):
        yield Part(text[at : found.start()], True, True)
        yield from _result(found[2])
        at = found.end()
    yield Part(text[at:], True, True)


def _result(text: str) -> list[Part]:
    return [Part(RESULT[0], False, True), Part(text, False, False), Part(RESULT[1], False, True)]


def _refuse_markers(text: str, markers: Sequence[str], message: int) -> None:
    outside = _RESULT.sub("", text)
    found = next((name for name in (*markers, *RESULT) if name and name in outside), None)
    if found is not None:
        raise ConversationError(f"{found} in what is said to be our own words", message)


def _joined(parts: Sequence[Part]) -> list[Part]:
    """Without empty parts; neighbours that nothing parts are one, since texts between special tokens are encoded as one."""
    found: list[Part] = []
    for part in parts:
        if not part.text:
            continue
        # a marker that is not learned stays alone, so that it can be looked up
        if found and found[-1][1:] == part[1:] and (part.learned or not part.trusted):
            found[-1] = found[-1]._replace(text=found[-1].text + part.text)
        else:
            found.append(part)
    return found


CHATML = ChatFormat(
    name="chatml",
    start="<|im_start|>",
    names=MappingProxyType({"system": "system", "user": "user", "assistant": "assistant"}),
    end="<|im_end|>",
    alternate=False,
    jinja=(
        "{%- for message in messages -%}{%- if not loop.first %}{{ '\\n' }}{% endif -%}"
        "{{ '<|im_start|>' + message.role + '\\n' + message.content | trim + '<|im_end|>' }}{%- endfor -%}"
        "{%- if add_generation_prompt %}{{ '\\n<|im_start|>assistant\\n' }}{% endif -%}"
    ),
)
PLAIN = ChatFormat(
    name="plain",
    start="",
    names=MappingProxyType({"system": "System:", "user": "User:", "assistant": "Assistant:"}),
    end=None,
    alternate=True,
    jinja=(
        "{%- for message in messages -%}{%- if not loop.first %}{{ '\\n' }}{% endif -%}"
        "{{ message.role | capitalize + ':\\n' + message.content | trim + eos_token }}{%- endfor -%}"
        "{%- if add_generation_prompt %}{{ '\\nAssistant:\\n' }}{% endif -%}"
    ),
)
CHAT_FORMATS: Mapping[str, ChatFormat] = MappingProxyType({form.name: form for form in (CHATML, PLAIN)})
