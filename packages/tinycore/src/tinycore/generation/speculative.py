"""Self-speculative decoding: guess several tokens, check all of them in one pass, keep what the model would have said.

    t = the likeliest next token;  g_1 ... g_{k-1} = what the `mtp` head guesses of the tokens behind it
    one pass over t, g_1, ..., g_{k-1} gives the likeliest token after each; guesses are kept up to the first that it is not

(arXiv 2404.19737, 2211.17192 for greedy decoding.) Every token that is given is the likeliest after those before it, so the
text is that of plain greedy decoding: exactly so in float64, while in float32 a pass over several tokens may round two nearly
equal logits apart from one over a single token.

Guessing costs: where few guesses are right of late none are made, so that text that cannot be foreseen is not made slower.

What a pass adds to the state of a rejected guess must be forgotten again. Attention truncates; states that cannot (a
recurrence) stay as they were before the pass, and the tokens that were kept are passed again with the next guesses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from tinycore.generation.fused import FusedSession, can_fuse
from tinycore.generation.rows import Ending, Row, Token
from tinycore.model import Decoder
from tinycore.ops.packed_linear import PackedLinear
from tinycore.ops.rms_norm import rms_norm
from tinycore.state import State, truncate

WORTH_PACKING = 16  # new tokens from which on packing the weights pays
COST = 0.7  # of a pass over a token and its guesses, beside one over the token alone: about that on a CPU
MEMORY = 8  # guesses whose success is remembered, about
LOOK = 4  # tokens made one by one, between two guesses that are looked at
SMALL = 4_000_000  # parameters up to which products of few rows are faster against weights packed for one
MOST_PENDING = 32  # tokens that are passed again, at most


class Speculation(Protocol):
    """One row. `passes` counts the calls of the model."""

    passes: int

    def extend(self, tokens: Sequence[int]) -> Tensor:
        """Logits (T, V) after each of the tokens."""
        ...

    def keep(self, count: int) -> None:
        """Of the tokens of the last `extend`, keep the first `count` >= 1 and forget the others."""
        ...

    def guess(self) -> list[int]:
        """What stands behind the next token, after the last one that was kept."""
        ...


def begin(model: Decoder, max_new_tokens: int) -> Speculation:
    """The fastest speculation for one row of at most so many new tokens; the model is in evaluation mode."""
    if max_new_tokens >= WORTH_PACKING and can_fuse(model):
        return FusedSpeculation(model)
    return ModelSpeculation(model)


class ModelSpeculation:
    """Calls the model itself."""

    def __init__(self, model: Decoder) -> None:
        self.model, self.passes = model, 0
        self.head: Any = model.heads["mtp"]
        self.state: State = {}
        self.after: State = {}  # behind everything of the last pass
        self.length = 0  # tokens in `state`
        self.pending: list[int] = []  # kept, and not in `state`
        self.newest: list[int] = []
        self.hidden = torch.empty(0)

    @torch.inference_mode()
    def extend(self, tokens: Sequence[int]) -> Tensor:
        """See `Speculation`."""
        self.newest = list(tokens)
        self._pass([*self.pending, *tokens])
        self.hidden = self.hidden[-len(tokens) :]
        return self.model.logits(self.hidden)

    def keep(self, count: int) -> None:
        """See `Speculation`."""
        self.hidden = self.hidden[count - 1 : count]
        kept = [*self.pending, *self.newest[:count]]
        total = self.length + len(kept)
        if count == len(self.newest):
            self.state, self.length, self.pending = self.after, total, []
            return
        try:
            self.state, self.length, self.pending = truncate(self.after, total), total, []
        except ValueError:  # a state that cannot forget
            self.pending = kept
        if len(self.pending) > MOST_PENDING:
            hidden = self.hidden
            self._pass(self.pending)
            self.state, self.length, self.pending, self.hidden = self.after, total, [], hidden

    @torch.inference_mode()
    def guess(self) -> list[int]:
        """See `Speculation`."""
        return self.head.draft(self.hidden, self.model.vocabulary)[0].tolist()

    @torch.inference_mode()
    def _pass(self, tokens: list[int]) -> None:
        device = next(self.model.parameters()).device
        out = self.model(torch.tensor([tokens], device=device), state=self.state, return_logits=False)
        self.passes += 1
        self.after, self.hidden = out.state, out.hidden[0]


class FusedSpeculation:
    """The plain Llama shape, see `FusedSession`; the projections of all guesses are one product, their logits another."""

    @torch.inference_mode()
    def __init__(self, model: Decoder) -> None:
        parts: Any = model
        heads = list(parts.heads["mtp"].heads)
        self.rows = len(heads)
        small = sum(parameter.numel() for parameter in model.parameters()) <= SMALL
        self.session, self.passes = FusedSession(model, 1 if small else self.rows + 1), 0
        self.norm = parts.norm
        self.project = PackedLinear(torch.cat([head[0].weight for head in heads]), 1)
        self.gains = torch.stack([head[1].weight for head in heads])
        self.eps: float = heads[0][1].eps
        self.rows_of_tokens = PackedLinear(parts.heads["lm"].matrix(parts.embed), 1 if small else self.rows)
        self.x = torch.empty(0)

    @torch.inference_mode()
    def extend(self, tokens: Sequence[int]) -> Tensor:
        """See `Speculation`."""
        self.passes += 1
        self.x = self.session.extend(torch.tensor(tokens))
        return self.session.read(self.x)

    def keep(self, count: int) -> None:
        """See `Speculation`."""
        self.session.rewind(len(self.x) - count)
        self.x = self.x[count - 1 : count]

    @torch.inference_mode()
    def guess(self) -> list[int]:
        """See `Speculation`."""
        states = self.project(self.norm(self.x)).view(self.rows, -1)
        return self.rows_of_tokens(rms_norm(states, None, self.eps) * self.gains).argmax(-1).tolist()


def speculate(model: Decoder, prompts: list[list[int]], n: int, ending: Ending) -> Iterator[Token]:
    """Tokens of one row after another; the n samples of a prompt are the same, and made once."""
    if not prompts or ending.max_new_tokens == 0:
        return
    training = model.training
    model.eval()
    try:
        for p, prompt in enumerate(prompts):
            found = []
            row = Row(p, 0, b"", list(prompt), len(prompt))
            for token, logprob in tokens_of(begin(model, ending.max_new_tokens), prompt):
                row.ids.append(token)
                found.append(Token(p, 0, token, logprob, False, ending.of(row)))
                yield found[-1]
                if found[-1].finish is not None:
                    break
            for sample in range(1, n):
                yield from (token._replace(sample=sample) for token in found)
    finally:
        model.train(training)


def tokens_of(session: Speculation, prompt: Sequence[int]) -> Iterator[tuple[int, float]]:
    """(id, log-probability) of the likeliest tokens after `prompt`, without end.

    `hits` is how often the first guess was right of late; where that promises fewer tokens than a pass over guesses costs,
    tokens are made one by one, and a guess is looked at only now and then.
    """
    best, logprobs = _likeliest(session.extend(prompt)[-1:])
    session.keep(len(prompt))
    kept, hits, made = 1, 1.0, 0
    while True:
        token = best[kept - 1]
        yield token, logprobs[kept - 1]
        made += 1
        worth = hits + hits**2 + hits**3 > COST
        guesses = session.guess() if worth or made % LOOK == 0 else []
        tried = guesses if worth else []
        best, logprobs = _likeliest(session.extend([token, *tried]))
        if guesses:
            hits += (float(guesses[0] == best[0]) - hits) / MEMORY
        kept = 1
        for guess, wanted, logprob in zip(tried, best, logprobs, strict=False):
            if guess != wanted:
                break
            kept += 1
            yield guess, logprob
        session.keep(kept)


def _likeliest(logits: Tensor) -> tuple[list[int], list[float]]:
    """The likeliest token of each row of logits (T, V), and its log-probability, in at least float32."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    largest, ids = logits.max(-1)
    return ids.tolist(), (largest - logits.logsumexp(-1)).tolist()
