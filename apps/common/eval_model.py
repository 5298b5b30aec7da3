"""A checkpoint as tinyeval's `LanguageModel`: log-likelihoods of texts in batches, and greedy continuations.

Every text begins with the end token, as documents did in training. Context and continuation are tokenized as one text and cut
where the context's own tokens end, spaces before the cut counting as the continuation's (lm-eval's rule); what does not fit
into the model's context length is cut off on the left. Whole texts longer than that are scored in windows that follow one
another, the last one reaching back as far as it can (lm-eval's rolling windows).

Rows of about one length go through the model together, padded on the right with what no position attends to. Logits are made
for scored positions only, a block of them at a time: memory is bounded whatever the texts.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import tinycore
from apps.common import tool_use
from apps.common.errors import BadRequest
from tinycore import Decoder
from tinydata import Tokenizer
from tinyeval.model import Likelihood, Pair, cut
from tinyreason import Toolbox

TOKENS_AT_ONCE = 4096  # padding included, of one forward pass
LOGITS_AT_ONCE = 2**23  # 64 MiB of float64
ROWS_AT_ONCE = 32  # rows that are continued as one batch


@dataclass(frozen=True)
class Window:
    """Tokens that the model reads at once, and the tokens that it is to predict at the last positions of them."""

    read: tuple[int, ...]
    targets: tuple[int, ...]


def windows(ids: Sequence[int], first: int, longest: int) -> Iterator[Window]:
    """The windows of at most `longest` tokens in which ids[first:], first >= 1, are each scored once."""
    for start in range(first, len(ids), longest):
        end = min(start + longest, len(ids))
        yield Window(tuple(ids[max(0, end - 1 - longest) : end - 1]), tuple(ids[start:end]))


class CheckpointModel:
    """Raises BadRequest for a model that predicts in place: it has no next token."""

    def __init__(
        self,
        model: Decoder,
        tokenizer: Tokenizer,
        *,
        toolbox: Toolbox | None = None,
        tokens_at_once: int = TOKENS_AT_ONCE,
        told: Callable[[], None] = lambda: None,
    ) -> None:
        """toolbox: answers the calls in continuations; None: they stay without an answer. told: called after each batch."""
        if not model.config.causal:
            raise BadRequest("this model predicts in place, so it scores no texts; uv run apps/puzzle evaluates it")
        self.model, self.tokenizer, self.toolbox = model.eval(), tokenizer, toolbox
        self.tokens_at_once, self.told = tokens_at_once, told
        self.longest: int = model.config.max_seq_len

    @property
    def tokenizer_id(self) -> str:
        """The hash of everything that determines the ids of a text."""
        return self.tokenizer.hash

    def pieces(self, text: str) -> list[str]:
        """The texts of the tokens; a character whose bytes are several tokens is the last one's."""
        sizes, content = self.tokenizer.token_bytes(), text.encode()
        decoder, found, at = codecs.getincrementaldecoder("utf-8")(), [], 0
        for token in self.tokenizer.encode(text):
            found.append(decoder.decode(content[at : at + int(sizes[token])]))
            at += int(sizes[token])
        return found

    def loglikelihood(self, pairs: Sequence[Pair]) -> list[Likelihood]:
        """See `tinyeval.LanguageModel`. Raises BadRequest where the model's probabilities are not finite."""
        return self._scored([list(windows(*self._cut(*pair), self.longest)) for pair in pairs])

    def loglikelihood_rolling(self, texts: Sequence[str]) -> list[float]:
        """See `tinyeval.LanguageModel`; errors as above."""
        end = self.tokenizer.end_id
        rows = [[end, *ids] for ids in self.tokenizer.encode_batch(texts)]
        return [nats for nats, _ in self._scored([list(windows(ids, 1, self.longest)) for ids in rows])]

    def generate_until(self, prompts: Sequence[str], until: Sequence[str], max_tokens: int) -> list[str]:
        """See `tinyeval.LanguageModel`. A prompt is cut on the left so that `max_tokens`, or else half of the context, are
        left for what is written."""
        end, kept = self.tokenizer.end_id, max(self.longest - max_tokens, self.longest // 2, 1)
        rows = [[end, *ids][-kept:] for ids in self.tokenizer.encode_batch(prompts)]
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        written = [""] * len(rows)
        for first in range(0, len(order), ROWS_AT_ONCE):
            chosen = order[first : first + ROWS_AT_ONCE]
            hook: Any = None if self.toolbox is None else tool_use.session(self.toolbox, self.tokenizer)
            found = tinycore.generate(
                self.model,
                [rows[index] for index in chosen],
                max_new_tokens=max_tokens,
                temperature=0.0,
                stop=[end, *until],
                decode=self._text,
                hooks=[] if hook is None else [hook],
            )
            for index, samples in zip(chosen, found, strict=True):
                written[index] = cut(samples[0].text or "", until)
            self.told()
        return written

    def _text(self, ids: Sequence[int]) -> str:
        """Tags stay, so that scorers can pass over what a tool said; the end token and ids that are no token's go."""
        known = [value for value in ids if value < self.tokenizer.vocab_size and value != self.tokenizer.end_id]
        return self.tokenizer.decode(known)

    def _cut(self, context: str, continuation: str) -> tuple[list[int], int]:
        """Ids of both, the end token before them, and where the continuation begins among them."""
        spaces = len(context) - len(context.rstrip())
        if spaces:
            context, continuation = context[:-spaces], context[-spaces:] + continuation
        before, whole = self.tokenizer.encode_batch([context, context + continuation])
        # a continuation that only lengthens the context's last token has no token of its own: that one is scored then
        first = min(len(before), len(whole) - 1) if continuation else len(whole)
        return [self.tokenizer.end_id, *whole], first + 1

    @torch.inference_mode()
    def _scored(self, asked: Sequence[Sequence[Window]]) -> list[Likelihood]:
        """ln p of all targets of each, and whether each was the likeliest."""
        # questions with the same context and choices of one token read the same row: it is computed once
        rows: dict[tuple[int, ...], list[tuple[int, Window]]] = {}
        for index, ones in enumerate(asked):
            for window in ones:
                rows.setdefault(window.read, []).append((index, window))
        nats, greedy = [0.0] * len(asked), [True] * len(asked)
        for batch in _batches(sorted(rows, key=len, reverse=True), self.tokens_at_once):
            hidden = self._hidden(batch)
            places = [(row, index, window) for row, read in enumerate(batch) for index, window in rows[read]]
            at = [(row, len(window.read) - len(window.targets)) for row, _, window in places]
            flat = [
                (row, start + offset, target)
                for (row, start), (_, _, window) in zip(at, places, strict=True)
                for offset, target in enumerate(window.targets)
            ]
            values, right = self._targets(hidden, flat)
            done = 0
            for _, index, window in places:
                count = len(window.targets)
                nats[index] += sum(values[done : done + count])
                greedy[index] &= all(right[done : done + count])
                done += count
            self.told()
        return list(zip(nats, greedy, strict=True))

    def _hidden(self, batch: Sequence[tuple[int, ...]]) -> Tensor:
        """Final hidden states (B, T, D) of rows, the shorter ones padded."""
        longest = max(map(len, batch))
        tokens = torch.tensor([[*read, *[self.tokenizer.end_id] * (longest - len(read))] for read in batch])
        documents = torch.tensor([[0] * len(read) + [-1] * (longest - len(read)) for read in batch])
        device = next(self.model.parameters()).device
        padded = None if bool((documents == 0).all()) else documents.to(device)
        return self.model(tokens.to(device), doc_ids=padded, return_logits=False).hidden

    def _targets(self, hidden: Tensor, flat: Sequence[tuple[int, int, int]]) -> tuple[list[float], list[bool]]:
        """ln p of each (row, position, target), and whether it was the likeliest, a block of logits at a time."""
        nats: list[float] = []
        greedy: list[bool] = []
        block = max(1, LOGITS_AT_ONCE // self.model.config.vocab_size)
        wide = torch.float32 if hidden.device.type == "mps" else torch.float64
        for first in range(0, len(flat), block):
            row, position, target = torch.tensor(flat[first : first + block], device=hidden.device).T
            logits = self.model.logits(hidden[row, position]).to(wide)
            chosen = logits.gather(1, target[:, None])[:, 0] - logits.logsumexp(-1)
            if not bool(chosen.isfinite().all()):
                raise BadRequest(
                    "the model's probabilities are not finite; its training diverged, take an earlier checkpoint"
                )
            nats += chosen.tolist()
            greedy += (logits.argmax(-1) == target).tolist()
        return nats, greedy


def _batches(rows: Sequence[tuple[int, ...]], tokens: int) -> Iterator[Sequence[tuple[int, ...]]]:
    """Rows, the longest first, in groups of at most so many tokens with padding, of one row at least."""
    first = 0
    while first < len(rows):
        count = max(1, tokens // len(rows[first]))
        yield rows[first : first + count]
        first += count
