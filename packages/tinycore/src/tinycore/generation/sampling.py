"""From logits to a token: penalties, temperature, truncation, and one draw per row.

Order: repetition penalty (arXiv 1909.05858), temperature, top-k, top-p (nucleus, arXiv 1904.09751), min-p (arXiv
2407.01082). The draw inverts the cumulative distribution, in the order of token ids and in float64, at a uniform number
that is a hash of the row's key and the step: a row's token depends on its own logits and key, never on its batch mates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a token is chosen. Temperature 0 is greedy; `None` switches a truncation off. Raises ValueError."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature: {self.temperature} is not a number >= 0")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k: {self.top_k} is not at least 1")
        for name, value in (("top_p", self.top_p), ("min_p", self.min_p)):
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name}: {value} is not between 0 and 1")
        if not 0 < self.repetition_penalty < float("inf"):
            raise ValueError(f"repetition_penalty: {self.repetition_penalty} is not positive")


def row_key(seed: int, prompt: Sequence[int], occurrence: int, sample: int) -> bytes:
    """A row's key: it follows from the seed, the prompt itself, how often the prompt came before, and the sample."""
    text = f"{seed}/{occurrence}/{sample}/" + ",".join(map(str, prompt))
    return hashlib.sha256(text.encode()).digest()


def uniform(key: bytes, step: int) -> float:
    """The row's uniform number in [0, 1) at `step`, 53 bits of a hash."""
    digest = hashlib.blake2b(step.to_bytes(8, "little"), key=key, digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53


def choose(logits: Tensor, seen: Tensor | None, sampling: Sampling, uniforms: Sequence[float]) -> tuple[Tensor, Tensor]:
    """One token per row and its log-probability under the model itself.

    logits (R, V); seen (R, V) bool, tokens a repetition penalty applies to, or None; uniforms: one in [0, 1) per row.
    Returns ids (R,) int64 and log-probabilities (R,) of the untouched logits, in at least float32.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    raw = logits
    if seen is not None:
        penalised = torch.where(logits > 0, logits / sampling.repetition_penalty, logits * sampling.repetition_penalty)
        logits = torch.where(seen, penalised, logits)
    ids = logits.argmax(-1) if sampling.temperature == 0 else _draw(_truncate(logits, sampling), uniforms)
    return ids, raw.log_softmax(-1).gather(1, ids[:, None])[:, 0]


def _truncate(logits: Tensor, sampling: Sampling) -> Tensor:
    """Probabilities (R, V) in float64 after temperature and truncations, not normalised again."""
    scaled = logits.to(torch.float64, copy=True)
    scaled = scaled.sub_(logits.amax(-1, keepdim=True)).div_(sampling.temperature)
    vocab = scaled.shape[-1]
    if sampling.top_k is not None and sampling.top_k < vocab:
        threshold = scaled.topk(sampling.top_k, dim=-1).values[:, -1:]
        scaled = scaled.masked_fill(scaled < threshold, float("-inf"))
    probabilities = scaled.softmax(-1)
    if sampling.top_p is not None and sampling.top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered
        # a token stays while those before it hold less than top_p; the first one always does
        dropped = before >= max(sampling.top_p, torch.finfo(torch.float64).tiny)
        probabilities = probabilities.masked_fill(torch.zeros_like(dropped).scatter(1, order, dropped), 0.0)
    if sampling.min_p:
        floor = sampling.min_p * probabilities.amax(-1, keepdim=True)
        probabilities = probabilities.masked_fill(probabilities < floor, 0.0)
    return probabilities


def _draw(probabilities: Tensor, uniforms: Sequence[float]) -> Tensor:
    cumulative = probabilities.cumsum(-1)
    total = cumulative[:, -1:]
    level = torch.tensor(uniforms, dtype=torch.float64, device=probabilities.device)[:, None] * total
    # rounding may carry the level up to the total, past the last token of positive probability
    level = torch.minimum(level, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, level, right=True)[:, 0]
