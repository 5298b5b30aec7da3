"""A person and a model that was taught to chat, in turns, each written through the model's chat template."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from apps.chat.conversation import Speaker, speak
from apps.common.chat_template import ChatTemplate, Message
from apps.common.errors import BadRequest
from tinycore.generation import Sampling


@dataclass
class Dialogue:
    """The turns so far, and `ids`: what the model last read and wrote. `forgot`: whether the oldest turns were left."""

    speaker: Speaker
    template: ChatTemplate
    sampling: Sampling
    max_tokens: int
    seed: int
    turns: int = 0
    messages: list[Message] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    forgot: bool = False

    def reset(self) -> None:
        """Forget all turns."""
        self.messages, self.ids, self.forgot = [], [], False

    def say(self, text: str) -> Iterator[str]:
        """Say `text` and yield the answer piece by piece; it counts as said, however much of it was taken.

        Raises BadRequest, before anything is computed, for a text that alone fills the context.
        """
        context = self.speaker.context
        room = context - max(1, min(self.max_tokens, context // 2))
        messages = [*self.messages, Message("user", text)]
        ids = self.template.encode(messages)
        self.forgot = False
        while len(ids) > room and len(messages) > 2:
            messages = messages[2:]  # a question with its answer, so that the turns keep alternating
            ids = self.template.encode(messages)
            self.forgot = True
        if len(ids) >= context:
            raise BadRequest(
                f"the prompt has {len(ids)} tokens, the model's context holds {context} with its answer; shorten it"
            )
        self.messages, self.ids = messages, ids
        return self._answer()

    def _answer(self) -> Iterator[str]:
        seed, said = self.seed + self.turns, ""
        self.turns += 1
        try:
            for piece in speak(self.speaker, self.ids, self.template.stop, self.sampling, self.max_tokens, seed):
                said += piece
                yield piece
        finally:
            self.messages.append(Message("assistant", said))
