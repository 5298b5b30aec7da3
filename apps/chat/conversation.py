"""A growing text that a person and a base model write in turns.

A base model continues text; nothing else is assumed of it. What the person types is encoded as plain text (a typed
`<|im_end|>` is ten letters, not the token). When the context is full, the oldest part of the text is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from apps.common import checkpoints, files
from apps.common.errors import BadRequest
from tinycore import CheckpointError, Decoder
from tinycore.generation import Sampling, stream
from tinydata import Tokenizer


@dataclass
class Speaker:
    """A model and its tokenizer, from a checkpoint directory alone."""

    model: Decoder
    tokenizer: Tokenizer
    directory: Path
    step: int | None

    @property
    def context(self) -> int:
        return self.model.config.max_seq_len


def load(directory: Path, device: str) -> Speaker:
    """Verify the checkpoint in `directory` and rebuild what it holds. Raises CheckpointError or TokenizerError."""
    model = checkpoints.load_model(directory, device)
    if not (directory / "tokenizer.json").is_file():
        raise CheckpointError(f"{directory / 'tokenizer.json'}: missing; without it the model's ids mean nothing")
    tokenizer = Tokenizer.load(directory)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise CheckpointError(
            f"{directory / 'tokenizer.json'}: has {tokenizer.vocab_size} tokens, the model rows for "
            f"{model.config.vocab_size}; it is another model's"
        )
    step = files.read_json(directory / "trainer.json").get("step") if (directory / "trainer.json").is_file() else None
    return Speaker(model.eval(), tokenizer, directory, step if isinstance(step, int) else None)


def speak(
    speaker: Speaker, ids: list[int], stop: Sequence[int], sampling: Sampling, max_tokens: int, seed: int
) -> Iterator[str]:
    """Continue `ids`, appending to them, and yield the text piece by piece, as soon as its characters are whole.

    Ends with one of the ids in `stop`, which is appended and not shown.
    """
    decoder = _PieceDecoder(speaker.tokenizer)
    prompt = list(ids)
    greedy = sampling.temperature == 0 and sampling.repetition_penalty == 1
    for token in stream(
        speaker.model,
        [prompt],
        max_new_tokens=max_tokens,
        sampling=sampling,
        stop=list(stop),
        seed=seed,
        speculative=greedy and "mtp" in speaker.model.heads,  # the same text, sooner
    ):
        ids.append(token.id)
        if token.id not in stop and (piece := decoder.push(token.id)):
            yield piece
    if rest := decoder.finish():
        yield rest


@dataclass
class Conversation:
    """The text so far as ids, and how the model continues it."""

    speaker: Speaker
    sampling: Sampling
    max_tokens: int
    seed: int
    turns: int = 0
    ids: list[int] = field(default_factory=list)
    forgot: bool = False

    def reset(self) -> None:
        """Forget the text."""
        self.ids, self.forgot = [], False

    def say(self, text: str) -> Iterator[str]:
        """Append `text` and yield the continuation piece by piece, as soon as its characters are whole.

        Raises BadRequest, before anything is computed, for a text that alone fills the context.
        """
        tokenizer, context = self.speaker.tokenizer, self.speaker.context
        new = tokenizer.encode(text if not self._needs_break() else f"\n{text}")
        if len(new) + 1 >= context:
            raise BadRequest(
                f"the prompt has {len(new)} tokens, the model's context holds {context} with its answer; shorten it"
            )
        started = self.ids and self.ids[-1] != tokenizer.end_id
        ids = [*self.ids, *new] if started else [*self.ids, tokenizer.end_id, *new]
        room = context - max(1, min(self.max_tokens, (context - len(new)) // 2))
        self.forgot = len(ids) > room
        self.ids = ids[-room:]
        return self._continue()

    def _continue(self) -> Iterator[str]:
        self.turns += 1
        end = self.speaker.tokenizer.end_id
        return speak(self.speaker, self.ids, [end], self.sampling, self.max_tokens, self.seed + self.turns - 1)

    def _needs_break(self) -> bool:
        """Whether the text so far ends inside a line, which the person's next line must not continue."""
        end = self.speaker.tokenizer.end_id
        if not self.ids or self.ids[-1] == end:
            return False
        return not self.speaker.tokenizer.decode(self.ids[-1:]).endswith("\n")


class _PieceDecoder:
    """Text of a stream of ids; characters whose bytes have not all come are held back."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.ids: list[int] = []
        self.shown = 0

    def push(self, token: int) -> str:
        if token >= self.tokenizer.vocab_size:
            return ""  # a row that the model has and the tokenizer does not
        self.ids.append(token)
        text = self.tokenizer.decode(self.ids)
        if text.endswith("\ufffd"):
            return ""
        return self._new(text)

    def finish(self) -> str:
        """What was held back."""
        return self._new(self.tokenizer.decode(self.ids)) if self.ids else ""

    def _new(self, text: str) -> str:
        piece, self.shown = text[self.shown :], len(text)
        return piece
