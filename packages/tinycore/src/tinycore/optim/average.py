"""Exponential moving average of weights: what a model is used with, beside the weights it trains with.

    average <- average + (1 - decay) (weights - average)     after every optimizer step, beginning with the weights

in float32 where weights are narrower. It costs one more copy of the parameters.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping

import torch
from torch import Tensor, nn


class WeightAverage:
    """Of the model's trained parameters, by name. Raises ValueError unless 0 <= decay < 1."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay: {decay} is not at least 0 and below 1")
        self.model, self.decay = model, decay
        self.tensors = {
            name: parameter.detach().to(torch.promote_types(parameter.dtype, torch.float32), copy=True)
            for name, parameter in self._trained().items()
        }

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the weights as they are now."""
        weights = [parameter.detach() for parameter in self._trained().values()]
        averages = list(self.tensors.values())
        torch._foreach_lerp_(averages, [w.to(a.dtype) for w, a in zip(weights, averages, strict=True)], 1 - self.decay)

    @contextlib.contextmanager
    def applied(self) -> Generator[None]:
        """The model has the averaged weights inside, and its own bits again afterwards."""
        before = {name: parameter.detach().clone() for name, parameter in self._trained().items()}
        self._put(self.tensors)
        try:
            yield
        finally:
            self._put(before)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from saved averages. Raises ValueError where they are of another model."""
        for name, own in self.tensors.items():
            found = tensors.get(name)
            if found is None or found.shape != own.shape:
                raise ValueError(f"'{name}': no average of that shape")
            own.copy_(found)
        if len(tensors) != len(self.tensors):
            raise ValueError(f"'{sorted(tensors.keys() - self.tensors.keys())[0]}': no such parameter")

    def _trained(self) -> dict[str, nn.Parameter]:
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    @torch.no_grad()
    def _put(self, tensors: Mapping[str, Tensor]) -> None:
        for name, parameter in self._trained().items():
            parameter.copy_(tensors[name])
