"""Changing a model's shape while keeping what it knows."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from tinycore.linears.dense import Dense
from tinycore.model import Decoder, build


def grow_vocabulary(model: Decoder, vocab_size: int) -> Decoder:
    """A copy of the model with `vocab_size` tokens: old rows kept, new ones the mean of the old, ties kept.

    The mean row makes a new token as likely as an average one, so that it neither dominates nor is never sampled.
    Raises ValueError if `vocab_size` is smaller than the model's.
    """
    old = model.config.vocab_size
    if vocab_size < old:
        raise ValueError(f"vocab_size: {vocab_size} is smaller than the model's {old}; a vocabulary only grows")
    rows = _rows(model)
    with torch.device("meta"):
        grown = build(replace(model.config, vocab_size=vocab_size))
    grown.load_state_dict(
        {
            name: _grow(tensor, vocab_size) if name in rows else tensor.clone()
            for name, tensor in model.state_dict().items()
        },
        assign=True,
    )
    return grown.train(model.training)


def _rows(model: Decoder) -> set[str]:
    """Names of the tensors with one row per token."""
    names = {"embed.weight"}
    for name, module in model.heads.named_modules():
        if isinstance(module, Dense) and module.out_features == model.config.vocab_size:
            names.add(f"heads.{name}.weight")
    return names


def _grow(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    mean = tensor.mean(0, keepdim=True)
    return nn.Parameter(torch.cat([tensor, mean.expand(rows - tensor.shape[0], -1)]))
