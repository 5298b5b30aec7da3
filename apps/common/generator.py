"""A model of ours with its tokenizer as tinyreason's `Generator`: texts in, completions out, tools on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tinycore
from apps.common import tool_use
from apps.common.errors import BadRequest
from tinycore import Decoder
from tinydata import Tokenizer
from tinyreason import Completion, Toolbox

AT_ONCE = 64  # rows that are decoded as one batch
REPEATED = 1_000_003  # what the seed grows by with each time that a prompt comes again


@dataclass
class ModelGenerator:
    """toolbox: answers the model's calls; None: they stay without an answer. trusted: prompts hold tags as tokens (they are
    ours, and a user's part of them went through `harmless`); otherwise tags in a prompt are ordinary characters.

    told: called with the number of rows that are done, of all, after each batch.
    """

    model: Decoder
    tokenizer: Tokenizer
    toolbox: Toolbox | None = None
    trusted: bool = False
    max_calls: int = 8
    told: Callable[[int, int], None] | None = None

    def generate(
        self,
        prompts: list[str],
        *,
        n: int,
        max_tokens: int,
        temperature: float,
        stop: Sequence[str] = (),
        seed: int = 0,
    ) -> list[list[Completion]]:
        """As `tinyreason.Generator`. A prompt that leaves no room in the context gives completions with finish "error".

        A completion follows from its prompt, the seed, its number among the n, and how often the prompt came before.
        """
        asked = [[self.tokenizer.end_id, *ids] for ids in self.tokenizer.encode_batch(prompts, self.trusted)]
        fits = [index for index, ids in enumerate(asked) if len(ids) < self.model.config.max_seq_len]
        found = [[Completion("", finish="error")] * n for _ in prompts]
        step, done = max(1, AT_ONCE // n), 0
        for again, members in enumerate(_by_occurrence(prompts, fits)):
            for first in range(0, len(members), step):
                chosen = members[first : first + step]
                ids = [asked[index] for index in chosen]
                rows = self._decoded(ids, n, max_tokens, temperature, stop, seed + REPEATED * again)
                for index, completions in zip(chosen, rows, strict=True):
                    found[index] = completions
                done += len(chosen)
                if self.told is not None:
                    self.told(done * n, len(fits) * n)
        return found

    def _decoded(
        self, prompts: list[list[int]], n: int, max_tokens: int, temperature: float, stop: Sequence[str], seed: int
    ) -> list[list[Completion]]:
        hook = None if self.toolbox is None else tool_use.session(self.toolbox, self.tokenizer, self.max_calls)
        settings: dict[str, Any] = {"hooks": [hook]} if hook is not None else {}
        if stop:
            settings["decode"] = self.text
        rows = tinycore.generate(
            self.model,
            prompts,
            max_new_tokens=max_tokens,
            temperature=temperature,
            n=n,
            stop=[self.tokenizer.end_id, *stop],
            seed=seed,
            **settings,
        )
        return [
            [
                Completion(
                    self.text(row.ids) if row.text is None else row.text,
                    len(row.ids),
                    row.finish,
                    sum(value for value, forced in zip(row.logprobs, row.forced, strict=True) if not forced),
                    () if hook is None else hook.calls(prompt, sample),
                )
                for sample, row in enumerate(samples)
            ]
            for prompt, samples in enumerate(rows)
        ]

    def text(self, ids: list[int]) -> str:
        """The text of generated ids: tags stay, the end token and ids that are no token's go."""
        known = [value for value in ids if value < self.tokenizer.vocab_size and value != self.tokenizer.end_id]
        return self.tokenizer.decode(known)


def _by_occurrence(prompts: Sequence[str], indices: Sequence[int]) -> list[list[int]]:
    """`indices` of prompts that come for the first time, for the second, ..."""
    levels: list[list[int]] = []
    seen: Counter[str] = Counter()
    for index in indices:
        level = seen[prompts[index]]
        seen[prompts[index]] += 1
        if level == len(levels):
            levels.append([])
        levels[level].append(index)
    return levels


def harmless(text: str, tokenizer: Tokenizer) -> str:
    """`text` with the names of special tokens broken, for a user's part of a trusted prompt."""
    for name in tokenizer.special:
        broken = f"{name[0]} {name[1:]}" if len(name) > 1 else " "
        text = text.replace(name, f"&lt;{name[1:]}" if name.startswith("<") else broken)
    return text


def require_room(model: Decoder, tokenizer: Tokenizer, prompt: str) -> None:
    """Raise BadRequest for a prompt that fills the context of `model`."""
    length = 1 + len(tokenizer.encode(prompt))
    if length >= model.config.max_seq_len:
        raise BadRequest(
            f"the question has {length} tokens, and the model's context {model.config.max_seq_len} with the answer"
        )
