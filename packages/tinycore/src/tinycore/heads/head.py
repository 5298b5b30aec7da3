"""What a head is given, what it gives, and what moves it while training goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from tinycore.context import Context
from tinycore.families import Aux


class Vocabulary(NamedTuple):
    """What heads may read of the model beside hidden states: its embedding, and its next-token head."""

    embed: Any
    lm: Any


class HeadOutput(NamedTuple):
    """What a head gives: losses and statistics as {name: (sum, count)}, logits where it was asked for them, and what else it
    predicts, whatever is asked."""

    losses: Aux
    stats: Aux
    logits: Tensor | None = None
    value: Tensor | None = None


class Question(NamedTuple):
    """What a head is asked: `tapped` has the hidden states (B, T, D) at its taps, targets (B, T) are there in training."""

    tapped: Mapping[str, Tensor]
    vocabulary: Vocabulary
    ctx: Context
    targets: Tensor | None
    return_logits: bool
    weights: Tensor | None = None
    """(B, T): the weight of each position in the next-token loss and among those predicted right; None = 1."""


class Head(nn.Module):
    """head(question) -> HeadOutput."""

    def forward(self, question: Question) -> HeadOutput:
        raise NotImplementedError

    def schedule(self, progress: float) -> None:
        """Set what depends on the share of training that is done, 0 to 1."""

    def follow(self, vocabulary: Vocabulary) -> None:
        """Move what follows the weights, after an optimizer step."""

    def dormant(self) -> list[str]:
        """Names of the parameters that are not trained at this point of the schedule."""
        return []
