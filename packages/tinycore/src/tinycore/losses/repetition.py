"""Three losses against a model that repeats itself.

    label smoothing (arXiv 1512.00567)   (1 - s) CE(target) + s mean over v of -log p(v)
    unlikelihood (arXiv 1908.04319)      - sum over c in C_t of log(1 - p(c)),   C_t = {x_1 .. x_t} without the target
    entropy                              - sum over v of p log p, to be subtracted with a small weight

The context of a position are the tokens of its own document up to itself. The seed's project leaves the target among the
candidates, which punishes what is to be learned, and divides by the vocabulary, which leaves a weight of nearly nothing.
Sums over targets with their number, in at least float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tinycore.targets import IGNORED

Pair = tuple[Tensor, Tensor]


def smoothed_cross_entropy(logits: Tensor, targets: Tensor, smoothing: float) -> Pair:
    """logits (B, T, V), targets (B, T), -100 left out; smoothing 0 is cross-entropy. Raises ValueError out of 0..1."""
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing: {smoothing} is not at least 0 and below 1")
    log = _log_probabilities(logits)
    chosen = log.gather(2, targets.clamp(min=0)[..., None])[..., 0]
    return _summed(-(1 - smoothing) * chosen - smoothing * log.mean(-1), targets)


def unlikelihood(logits: Tensor, tokens: Tensor, targets: Tensor, doc_ids: Tensor | None = None) -> Pair:
    """logits (B, T, V) of the tokens after tokens (B, T); doc_ids (B, T) as the model was given them.

    A token that stands in the context several times is one candidate. Memory: (B, T, V).
    """
    seen = _seen(tokens, logits.shape[-1], doc_ids)
    seen = seen.scatter(2, targets.clamp(min=0)[..., None], False)
    log = _log_probabilities(logits)
    # log(1 - p), without losing it where p is nearly 1
    below = torch.log1p(-log.exp().clamp(max=1 - torch.finfo(log.dtype).eps))
    return _summed(-torch.where(seen, below, 0).sum(-1), targets)


def entropy(logits: Tensor, targets: Tensor) -> Pair:
    """The entropy, in nats, of the distributions at positions with a target."""
    log = _log_probabilities(logits)
    return _summed(-(log.exp() * log).sum(-1), targets)


def _seen(tokens: Tensor, vocabulary: int, doc_ids: Tensor | None) -> Tensor:
    """(B, T, V) bool: whether a token stands in its position's context."""
    rows, length = tokens.shape
    last = torch.full((rows, length, vocabulary), -1, dtype=torch.long, device=tokens.device)
    places = torch.arange(length, device=tokens.device).expand(rows, length)
    last = last.scatter(2, tokens[..., None], places[..., None]).cummax(1).values  # where each was seen last
    if doc_ids is None:
        return last >= 0
    fresh = torch.ones_like(doc_ids, dtype=torch.bool)
    fresh[:, 1:] = doc_ids[:, 1:] != doc_ids[:, :-1]
    starts = torch.where(fresh, places, 0).cummax(1).values
    return last >= starts[..., None]


def _log_probabilities(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def _summed(losses: Tensor, targets: Tensor) -> Pair:
    learned = targets != IGNORED
    return torch.where(learned, losses, 0).sum(), learned.sum()
