"""Self-notes (arXiv 2305.00833): a model that reads a text may take a note after any sentence of it, before the question.

    sentence 1 <note>...</note> sentence 2 sentence 3 <note>...</note> question -> answer

After each sentence the model is asked to go on; if it opens a note, the note is kept right there, where what it is about has
just been read; anything else that it writes is thrown away and the next sentence follows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tinyreason.completion import Completion, Generator, Spent
from tinyreason.test_time.one import each


@dataclass(frozen=True)
class Noted:
    """The context with its notes, the notes alone, the completion that answers, and what it cost."""

    context: str
    notes: tuple[str, ...]
    answer: Completion
    spent: Spent


def self_notes(
    generator: Generator,
    sentences: Sequence[str],
    question: str,
    *,
    tags: tuple[str, str] = ("<note>", "</note>"),
    behind: str = " ",
    note_tokens: int = 48,
    max_notes: int = 16,
    max_tokens: int = 64,
    stop: Sequence[str] = (),
    seed: int = 0,
) -> Noted:
    """Read `sentences` (each with the space that follows it), take notes greedily, and answer `question`.

    tags: how notes are written; tags in the sentences are the caller's to escape (`tools.escaped`). behind: what follows a
    note, as in the texts that were learned from.
    """
    limits = {"note_tokens": note_tokens, "max_notes": max_notes, "max_tokens": max_tokens, "seed": seed}
    texts = [(sentences, question)]
    return self_notes_many(generator, texts, tags=tags, behind=behind, stop=stop, **limits)[0]


def self_notes_many(
    generator: Generator,
    texts: Sequence[tuple[Sequence[str], str]],
    *,
    tags: tuple[str, str] = ("<note>", "</note>"),
    behind: str = " ",
    note_tokens: int = 48,
    max_notes: int = 16,
    max_tokens: int = 64,
    stop: Sequence[str] = (),
    seed: int = 0,
) -> list[Noted]:
    """`self_notes` of each (sentences, question), the same sentence of all in one call. The seconds are shared alike."""
    began = time.perf_counter()
    reading = [_Read() for _ in texts]
    for number in range(max((len(sentences) for sentences, _ in texts), default=0)):
        asked = []
        for (sentences, _), read in zip(texts, reading, strict=True):
            if number < len(sentences):
                read.context += sentences[number]
                if len(read.notes) < max_notes:
                    asked.append(read)
        found = each(generator, [read.context for read in asked], note_tokens, stop=[tags[1]], seed=seed)
        for read, completion in zip(asked, found, strict=True):
            read.take(completion, tags, behind)
    prompts = [read.context + question for (_, question), read in zip(texts, reading, strict=True)]
    answers = each(generator, prompts, max_tokens, stop=stop, seed=seed)
    seconds = (time.perf_counter() - began) / max(len(texts), 1)
    return [
        Noted(read.context, tuple(read.notes), answer, read.spent + Spent(answer.tokens, 1, 0, seconds))
        for read, answer in zip(reading, answers, strict=True)
    ]


@dataclass
class _Read:
    """A text as far as it was read, with its notes."""

    context: str = ""
    notes: list[str] = field(default_factory=list)
    spent: Spent = field(default_factory=Spent)

    def take(self, found: Completion, tags: tuple[str, str], behind: str) -> None:
        """Keep what was written where it is a note; forget it otherwise."""
        self.spent += Spent(found.tokens, 1)
        text = found.text.lstrip()
        if found.finish == "stop" and text.startswith(tags[0]) and (note := text[len(tags[0]) :].strip()):
            self.notes.append(note)
            self.context += f"{tags[0]}{note}{tags[1]}{behind}"
