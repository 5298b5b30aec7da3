"""Self-notes (arXiv 2305.00833): a model that reads a text may take a note after any sentence of it, before the question.

    sentence 1 <note>...</note> sentence 2 sentence 3 <note>...</note> question -> answer

After each sentence the model is asked to go on; if it opens a note, the note is kept right there, where what it is about has
just been read; anything else that it writes is thrown away and the next sentence follows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from tinyreason.completion import Completion, Generator, Spent
from tinyreason.test_time.one import one


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
    note_tokens: int = 48,
    max_notes: int = 16,
    max_tokens: int = 64,
    stop: Sequence[str] = (),
    seed: int = 0,
) -> Noted:
    """Read `sentences` (each with the space that follows it), take notes greedily, and answer `question`.

    tags: how notes are written; tags in the sentences are the caller's to escape (`tools.escaped`).
    """
    began = time.perf_counter()
    opened, closed = tags
    context, notes, spent = "", [], Spent()
    for sentence in sentences:
        context += sentence
        if len(notes) == max_notes:
            continue
        found = one(generator, context, note_tokens, stop=[closed], seed=seed)
        spent += Spent(found.tokens, 1)
        text = found.text.lstrip()
        if found.finish == "stop" and text.startswith(opened) and (note := text[len(opened) :].strip()):
            notes.append(note)
            context += f"{opened}{note}{closed} "
    answer = one(generator, context + question, max_tokens, stop=stop, seed=seed)
    spent += Spent(answer.tokens, 1, 0, time.perf_counter() - began)
    return Noted(context, tuple(notes), answer, spent)
