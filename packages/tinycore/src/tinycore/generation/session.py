"""The running rows of a generation: logits for their next token, given the tokens so far.

A session owns what it keeps of the past. `ModelSession` works for every model: it calls it and holds the state that it
returns. `FusedSession` (next door) computes the same for the plain Llama shape with far fewer operations.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from tinycore.context import PADDING
from tinycore.generation.fused import FusedSession, can_fuse
from tinycore.generation.selective import Selective, SelectiveSession
from tinycore.model import Decoder
from tinycore.state import State, select

WORTH_PACKING = 16  # steps after which packing the weights, the cost of about three steps, has surely paid


class Session(Protocol):
    """Called as `prefill`, then any sequence of `select` and `step`. `full`: of which rows the newest logits are of all tokens,
    None = of all."""

    full: list[bool] | None

    def prefill(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """Logits (B, V) after prompts (B, T); valid (B, T) bool is false at the padding on the left, None = all true."""
        ...

    def select(self, rows: Tensor) -> None:
        """Go on with these rows only, in this order; a row may occur several times."""
        ...

    def step(self, tokens: Tensor) -> Tensor:
        """Logits (B, V) after one more token (B,) of each row."""
        ...


def begin(model: Decoder, rows: int, max_new_tokens: int, selective: Selective | None = None) -> Session:
    """The fastest session for `rows` rows of at most `max_new_tokens` new tokens."""
    if selective is not None:
        return SelectiveSession(model, selective)
    if max_new_tokens >= WORTH_PACKING and can_fuse(model):
        return FusedSession(model, rows)
    return ModelSession(model)


class ModelSession:
    """Calls the model itself."""

    full: list[bool] | None = None

    def __init__(self, model: Decoder) -> None:
        self.model = model
        self.state: State = {}

    def prefill(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """See `Session`."""
        return self._forward(tokens, None if valid is None else torch.where(valid, 0, PADDING))

    def select(self, rows: Tensor) -> None:
        """See `Session`."""
        self.state = select(self.state, rows)

    def step(self, tokens: Tensor) -> Tensor:
        """See `Session`."""
        return self._forward(tokens[:, None], None)

    @torch.inference_mode()
    def _forward(self, tokens: Tensor, documents: Tensor | None) -> Tensor:
        out = self.model(tokens, doc_ids=documents, state=self.state, return_logits=False)
        self.state = out.state
        return self.model.logits(out.hidden[:, -1])
