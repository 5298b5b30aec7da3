"""Causal depthwise convolution over the newest few tokens of a document, as recurrent mixers put before their memory:

    y_t = sum_{j < K} w_j * x_{t-j}        x_{t-j} = 0 before the document begins

one filter w (K,) a channel. It starts as the identity (w_0 = 1), so that a model with it begins as one without.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn


class ShortConvolution(nn.Module):
    """(B, K - 1 + T, channels) -> (B, T, channels), computed in the input's dtype."""

    undecayed: ClassVar[tuple[str, ...]] = ("weight",)

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__()
        self.taps = taps
        self.weight = nn.Parameter(torch.zeros(taps, channels))
        with torch.no_grad():
            self.weight[0] = 1.0

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """x begins with the K - 1 tokens that came before; positions (B, T) of the tokens in their documents."""
        before = self.taps - 1
        length = x.shape[1] - before
        y = self.weight[0] * x[:, before:]
        for tap in range(1, self.taps):
            there = (positions >= tap)[..., None]
            y = y + self.weight[tap] * torch.where(there, x[:, before - tap : before - tap + length], 0)
        return y
