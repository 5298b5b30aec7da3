"""Objectives: what a training step computes.

An objective is a generator of `(losses, step)`. The trainer runs a backward pass at each yield and an optimizer step
after those whose `step` is true (only before a step are gradients exchanged between processes). `losses` maps a name to
`(sum, count)`: sums are over this micro-batch; the trainer divides by the count of the whole accumulation window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinycore import losses
from tinycore.depth.calls import Latents
from tinycore.model_config import ModelConfig
from tinycore.targets import IGNORED

Losses = dict[str, tuple[Tensor, Tensor]]
Objective = Callable[..., Iterator[tuple[Losses, bool]]]

EXPLORED = 0.1  # share of the rows that may not halt before a random number of supervision steps
HALT_WEIGHT = 0.5


@dataclass(frozen=True)
class AgainstRepetition:
    """Weights of three losses against a model that repeats itself (`tinycore.losses`): label smoothing of the target, what
    unlikelihood and the entropy of the distributions count beside the cross-entropy."""

    smoothing: float = 0.0
    unlikelihood: float = 0.0
    entropy: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.smoothing or self.unlikelihood or self.entropy)


def of(config: ModelConfig, repetition: AgainstRepetition | None = None) -> Objective:
    """The objective of the models of `config`: supervision step by supervision step where depth recurs.

    Raises ValueError for losses against repetition there: what recurs is supervised in place or step by step.
    """
    if repetition:
        if config.depth.recurs:
            raise ValueError("losses against repetition are for one pass over text, and this model's depth recurs")
        return partial(varied, repetition)
    return deep_supervision if config.depth.recurs else next_token


def next_token(
    model: nn.Module, tokens: Tensor, targets: Tensor, doc_ids: Tensor | None = None, routes: Tensor | None = None
) -> Iterator[tuple[Losses, bool]]:
    """One forward pass, one backward, one step: the language-model objective, or, in place, that of a puzzle."""
    yield model(tokens, targets=targets, doc_ids=doc_ids, routes=routes).losses, True


def varied(
    repetition: AgainstRepetition,
    model: nn.Module,
    tokens: Tensor,
    targets: Tensor,
    doc_ids: Tensor | None = None,
    routes: Tensor | None = None,
) -> Iterator[tuple[Losses, bool]]:
    """`next_token` with losses against repetition beside it: "lm" is smoothed, and "unlikelihood" and "entropy" are added,
    the latter to be made larger. Needs all logits at once: memory (B, T, V)."""
    out = model(tokens, targets=targets, doc_ids=doc_ids, routes=routes, return_logits=True)
    found = dict(out.losses)
    if repetition.smoothing:
        found["lm"] = losses.smoothed_cross_entropy(out.logits, targets, repetition.smoothing)
    if repetition.unlikelihood:
        total, count = losses.unlikelihood(out.logits, tokens, targets, doc_ids)
        found["unlikelihood"] = (repetition.unlikelihood * total, count)
    if repetition.entropy:
        total, count = losses.entropy(out.logits, targets)
        found["entropy"] = (-repetition.entropy * total, count)
    yield found, True


def deep_supervision(
    model: Any, tokens: Tensor, targets: Tensor, doc_ids: Tensor | None = None, routes: Tensor | None = None
) -> Iterator[tuple[Losses, bool]]:
    """Recursive depth's (arXiv 2510.04871): an optimizer step after each supervision step, from detached latents.

    With a halting head a row leaves the batch once the first logit says that it is solved, but for a tenth of the rows,
    which stay for at least 2 to `supervision` steps (drawn from torch's global generator). The head learns whether every
    target of the row is predicted, at half the weight; a mean is over the rows that are left. (TRM puts a new puzzle into
    the place of one that is solved; here a batch lives and ends as one, so no latents have to be saved with a run.)
    """
    steps, halting = model.config.depth.passes, "halt" in model.config.heads
    given: list[Tensor | None] = [tokens, targets, doc_ids, routes]
    latents: Latents = model.begin(tokens)
    least = _least_steps(len(tokens), steps, tokens.device)
    for step in range(1, steps + 1):
        rows, wanted, documents, labels = given
        assert rows is not None
        assert wanted is not None
        out = model(rows, targets=wanted, doc_ids=documents, routes=labels, latents=latents, return_logits=halting)
        latents, found = out.latents, dict(out.losses)
        if halting:
            logit = out.values["halt"][:, 0]
            logit = logit.to(torch.promote_types(logit.dtype, torch.float32))
            total = F.binary_cross_entropy_with_logits(logit, solved(out.logits, wanted).to(logit), reduction="sum")
            found["halt"] = (HALT_WEIGHT * total, torch.full((), len(rows), device=rows.device))
        yield found, True
        if halting:
            left = ((logit <= 0) | (step < least)).nonzero()[:, 0]
            if not len(left):
                return
            if len(left) < len(rows):
                given = [None if part is None else part[left] for part in given]
                latents, least = Latents(*(part[left] for part in latents)), least[left]


def verdicts(
    model: Any, tokens: Tensor, labels: Tensor, doc_ids: Tensor | None = None
) -> Iterator[tuple[Losses, bool]]:
    """A verifier's (arXiv 2110.14168): binary cross-entropy of the `value` head's logits (B, T) against labels (B, T), 1 where
    what stands there belongs to something right, 0 where to something wrong, below 0 where nothing is to be learned."""
    logits = model(tokens, doc_ids=doc_ids, return_logits=False).values["value"]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    judged = labels >= 0
    total = F.binary_cross_entropy_with_logits(logits, labels.clamp(min=0).to(logits), reduction="none")
    yield {"value": (torch.where(judged, total, 0).sum(), judged.sum())}, True


def solved(logits: Tensor, targets: Tensor) -> Tensor:
    """(B,) bool: whether every target (B, T) of a row has the highest of its logits (B, T, V)."""
    return ((logits.argmax(-1) == targets) | (targets == IGNORED)).all(-1)


def _least_steps(rows: int, steps: int, device: torch.device) -> Tensor:
    """(B,) how many supervision steps a row makes at least."""
    explored = torch.rand(rows, device=device) < EXPLORED
    drawn = torch.randint(2, max(steps, 2) + 1, (rows,), device=device)
    return torch.where(explored, drawn, 1)
