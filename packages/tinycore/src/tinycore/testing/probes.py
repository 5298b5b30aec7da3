"""What every invariant is probed with: a model whose every part is awake, and rows with documents and padding.

A freshly built model hides mistakes: a gate that starts at zero leaks nothing, a gain of one hides an axis that is
mixed up. `awake` therefore adds noise to every parameter. Rows come packed the way data and generation pack them:
several documents a row, padding before, between, inside and after them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tinycore.context import PADDING
from tinycore.model import Decoder, build
from tinycore.model_config import ModelConfig

NOISE = 0.1


class Violation(AssertionError):
    """An invariant that does not hold; the message says where and by how much."""


class Precision(NamedTuple):
    """The arithmetic of a check and the largest difference it lets pass."""

    dtype: torch.dtype
    tolerance: float


DOUBLE = Precision(torch.float64, 1e-9)
SINGLE = Precision(torch.float32, 1e-4)


@dataclass(frozen=True)
class Rows:
    """tokens (B, T) int64; doc_ids (B, T) int64 with -1 for padding, or None: each row is one document."""

    tokens: Tensor
    doc_ids: Tensor | None

    @property
    def valid(self) -> Tensor:
        """(B, T) bool: what is not padding."""
        return torch.ones_like(self.tokens, dtype=torch.bool) if self.doc_ids is None else self.doc_ids != PADDING

    def targets(self) -> Tensor:
        """The token after each one, -100 at padding, before padding and where a document ends."""
        targets = torch.full_like(self.tokens, -100)
        learned = self.valid[:, :-1] & self.valid[:, 1:]
        if self.doc_ids is not None:
            learned &= self.doc_ids[:, :-1] == self.doc_ids[:, 1:]
        targets[:, :-1] = torch.where(learned, self.tokens[:, 1:], -100)
        return targets

    def answers(self, config: ModelConfig) -> Tensor:
        """What `config` learns on these rows: the next tokens, or, in place, another token at every position."""
        if config.causal:
            return self.targets()
        return torch.where(self.valid, (self.tokens + 1) % config.vocab_size, -100)

    def documents(self) -> list[Tensor]:
        """One (B, T) bool mask for every document of every row."""
        masks = []
        ids = torch.zeros_like(self.tokens) if self.doc_ids is None else self.doc_ids
        for row in range(len(ids)):
            for document in [i for i in ids[row].unique().tolist() if i != PADDING]:
                mask = torch.zeros_like(self.valid)
                mask[row] = ids[row] == document
                masks.append(mask)
        return masks

    def edited(self, mask: Tensor, vocab_size: int) -> Rows:
        """The same rows with every token under `mask` replaced by another one."""
        return Rows(torch.where(mask, (self.tokens + 1 + vocab_size // 2) % vocab_size, self.tokens), self.doc_ids)


def awake(config: ModelConfig, precision: Precision = DOUBLE, seed: int = 0) -> Decoder:
    """The model of `config` in evaluation mode, initialised from `seed`, with noise on every parameter."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = build(config).to(precision.dtype)
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=NOISE)
    return model.eval()


def embedding_of(output: Any) -> Tensor:
    """What an embedding gives, (B, T, D), whatever else comes with it."""
    return output if isinstance(output, Tensor) else output.x


def reached_gradients(model: Decoder) -> dict[str, Tensor]:
    """The gradients of the parameters that a backward pass reached."""
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def generator(seed: int) -> torch.Generator:
    """A random generator of its own, so that a check neither reads nor moves the global one."""
    return torch.Generator().manual_seed(seed)


def single_rows(config: ModelConfig, rows: int, length: int, seed: int = 0) -> Rows:
    """Random rows that are one document each."""
    return Rows(torch.randint(config.vocab_size, (rows, length), generator=generator(seed)), None)


def packed_rows(config: ModelConfig, rows: int, length: int, seed: int = 0) -> Rows:
    """Random rows of documents under ids in no order, with runs of padding before, between, inside and after them.

    Every row holds at least two documents and some padding. Raises ValueError for rows too short for that.
    """
    if length < 8:
        raise ValueError(f"length: {length} is too short for packed rows; use at least 8")
    draw = generator(seed)
    tokens = torch.randint(config.vocab_size, (rows, length), generator=draw)
    return Rows(tokens, torch.tensor([_document_ids(length, draw) for _ in range(rows)]))


def rows_for(config: ModelConfig, rows: int, length: int, seed: int = 0) -> Rows:
    """Rows as `config` takes them: packed, or, where some mixer reads whole rows only, single ones of the full length."""
    if any(layer.mixer is not None and layer.mixer.whole_rows for layer in config.flat_layers()):
        return single_rows(config, rows, config.max_seq_len, seed)
    return packed_rows(config, rows, length, seed)


def _document_ids(length: int, draw: torch.Generator) -> list[int]:
    def integer(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=draw))

    while True:
        ids = torch.randperm(length, generator=draw).tolist()
        row: list[int] = []
        document = 0
        while len(row) < length:
            if integer(0, 4) == 0:
                row += [PADDING] * integer(1, 4)
            else:
                row += [ids[document]] * integer(1, 8)
            document += integer(0, 3) > 0  # else the document goes on, perhaps after padding
        row = row[:length]
        if PADDING in row and len({*row} - {PADDING}) >= 2:
            return row


def largest(difference: Tensor) -> float:
    """The largest magnitude (nan if there is one); 0 for nothing."""
    return float(difference.detach().abs().max()) if difference.numel() else 0.0


def require_equal(what: str, found: Tensor, expected: Tensor, precision: Precision) -> None:
    """Raise Violation unless both are finite and differ by no more than the tolerance."""
    gap = largest(found - expected)
    if not gap <= precision.tolerance:  # also when it is nan
        raise Violation(f"{what}: differs by {gap:.2e}, allowed {precision.tolerance:.0e}")


def require(condition: bool, what: str) -> None:
    """Raise Violation with `what` unless `condition`."""
    if not condition:
        raise Violation(what)
