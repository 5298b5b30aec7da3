"""Selective decoding: while the predicted meaning of what comes next stands still, choose among few tokens only.

    z_t = what the `jepa` head predicts after token t;  a = z at the last step that was decoded in full
    1 - cos(z_t, a) >= threshold:   logits of all V tokens; the `candidates` largest are kept, a = z_t
    below it:                       logits of the kept tokens alone, all others impossible

(cf. VL-JEPA, arXiv 2512.10942, which decodes text of a video only where its embedding moves. A language model must give every
token, so what is skipped here is the product with the vocabulary.) At threshold 0 nothing is skipped: plain decoding. Above it
the text may differ; `Generation.skipped` counts the tokens that were chosen among candidates, and their log-probabilities are
among those.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tinycore.context import PADDING
from tinycore.model import Decoder
from tinycore.state import State, select


@dataclass(frozen=True)
class Selective:
    """threshold: of the cosine distance, below which a step is skipped; candidates: tokens that are kept."""

    threshold: float = 0.05
    candidates: int = 64

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 2:
            raise ValueError(f"selective: threshold {self.threshold} is not between 0 and 2")
        if self.candidates < 1:
            raise ValueError(f"selective: candidates {self.candidates} is not positive")


class SelectiveSession:
    """A `Session` of a model with a `jepa` head. `full` says of each row whether its newest logits are of all tokens."""

    def __init__(self, model: Decoder, selective: Selective) -> None:
        """Raises ValueError for a model without the head, or whose next-token head is more than a matrix."""
        if "jepa" not in model.heads:
            raise ValueError("selective: takes a model with a 'jepa' head, which predicts what comes next")
        self.embed, lm = model.vocabulary
        matrix: Tensor | None = lm.matrix(self.embed)
        if matrix is None:
            raise ValueError("selective: takes a next-token head that is one matrix")
        self.matrix, self.head, self.tied = matrix, lm, lm.linear is None
        self.model, self.selective = model, selective
        self.state: State = {}
        self.anchor: Tensor = torch.empty(0)
        self.kept: Tensor = torch.empty(0)
        self.full: list[bool] | None = None

    @torch.inference_mode()
    def prefill(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """See `Session`."""
        hidden, self.anchor = self._forward(tokens, None if valid is None else torch.where(valid, 0, PADDING))
        logits = self.model.logits(hidden)
        self.kept = self._largest(logits)
        self.full = [True] * len(tokens)
        return logits

    def select(self, rows: Tensor) -> None:
        """See `Session`."""
        self.state = select(self.state, rows)
        self.anchor, self.kept = self.anchor[rows], self.kept[rows]
        self.full = None if self.full is None else [self.full[row] for row in rows.tolist()]

    @torch.inference_mode()
    def step(self, tokens: Tensor) -> Tensor:
        """See `Session`."""
        hidden, predicted = self._forward(tokens[:, None], None)
        moved = 1 - (predicted * self.anchor).sum(-1) >= self.selective.threshold
        self.full = moved.tolist()
        logits = hidden.new_full((len(tokens), len(self.matrix)), -torch.inf)
        still = (~moved).nonzero()[:, 0]
        if len(still):
            inside = self.head.read(hidden[still] if not self.tied else self.embed.as_row(hidden[still]))
            rows = self.matrix[self.kept[still]]  # (N, K, D)
            logits[still] = logits[still].scatter(1, self.kept[still], (rows @ inside[..., None])[..., 0])
        going = moved.nonzero()[:, 0]
        if len(going):
            logits[going] = self.model.logits(hidden[going])
            self.anchor = torch.where(moved[:, None], predicted, self.anchor)
            self.kept = self.kept.clone()
            self.kept[going] = self._largest(logits[going])
        return logits

    def _largest(self, logits: Tensor) -> Tensor:
        return logits.topk(min(self.selective.candidates, logits.shape[-1]), dim=-1).indices

    def _forward(self, tokens: Tensor, documents: Tensor | None) -> tuple[Tensor, Tensor]:
        """Final hidden state (B, D) of the last token, and what is predicted after it, (B, J)."""
        out: Any = self.model(tokens, doc_ids=documents, state=self.state, return_logits=False)
        self.state = out.state
        return out.hidden[:, -1], out.values["jepa"][:, -1]
