"""Changing a model's shape while keeping what it knows."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from tinycore.linears.bit import Bit
from tinycore.linears.cola import CoLA
from tinycore.linears.dense import Dense
from tinycore.linears.packed_bit import PackedBit, packed
from tinycore.model import Decoder, build
from tinycore.model_config import ModelConfig

ROWS: dict[type[nn.Module], tuple[str, ...]] = {
    Dense: ("weight", "bias"),
    Bit: ("weight", "bias"),
    CoLA: ("b", "bias"),
}  # tensors of a linear with one row per output


def pack(model: Decoder) -> Decoder:
    """A copy of the model for inference whose ternary linears (`Bit`) hold two bits a weight; logits are the same bits.

    `tinycore.save` and `load` keep it as it is. Raises ValueError where the model has no ternary linear.
    """
    smaller = copy.deepcopy(model).eval()
    if not _replace(smaller, packed):
        raise ValueError("this model has no ternary linear (`linear: {kind: bit}`) to pack")
    return smaller


def make_room(model: Decoder) -> int:
    """Put empty packed linears in the place of the model's ternary ones; how many there are."""
    return _replace(model, PackedBit)


def _replace(model: nn.Module, made: Callable[[Bit], PackedBit]) -> int:
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, Bit)
    ]
    for parent, name, child in found:
        setattr(parent, name, made(child))
    return len(found)


def grow_vocabulary(model: Decoder, vocab_size: int) -> Decoder:
    """A copy of the model with `vocab_size` tokens: old rows kept, new ones the mean of the old, ties kept.

    The mean row makes a new token as likely as an average one, so that it neither dominates nor is never sampled.
    Raises ValueError if `vocab_size` is smaller than the model's, or the head's rows are not its tokens.
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


def with_heads(model: Decoder, config: ModelConfig) -> Decoder:
    """A model of `config`, which is that of `model` with more heads: weights kept, new heads as they are initialised.

    Raises ValueError where anything else than additional heads differs.
    """
    heads = {name: head for name, head in config.heads.items() if name in model.config.heads}
    if replace(config, heads=heads) != model.config:
        raise ValueError("with_heads: the models differ in more than additional heads")
    weight = next(model.parameters())
    grown = build(config).to(weight.device, weight.dtype)
    missing, unexpected = grown.load_state_dict(model.state_dict(), strict=False)
    added = [name for name in config.heads if name not in heads]
    odd = [name for name in missing if not name.startswith(tuple(f"heads.{name}." for name in added))] + unexpected
    if odd:
        raise ValueError(f"with_heads: {odd[0]} is no part of an added head")
    for name in added:  # once more: a head may begin with what the model has learned to embed
        head = config.heads[name].build(config.scope(), grown.embed, config.embed.tied)
        grown.heads[name] = head.to(weight.device, weight.dtype)
    return grown.train(model.training)


def _rows(model: Decoder) -> set[str]:
    """Names of the tensors with one row per token."""
    names = {f"{path}.{name}" for path, module in model.named_modules() for name in getattr(module, "token_rows", ())}
    names.add("embed.weight")
    head: Any = model.heads["lm"]
    if head.linear is None:
        return names
    kind = type(head.linear)
    if kind not in ROWS:
        raise ValueError(
            f"heads.lm.linear: the outputs of {kind.__name__} are not rows of a tensor, so they cannot grow"
        )
    return names | {f"heads.lm.linear.{name}" for name in ROWS[kind] if getattr(head.linear, name, None) is not None}


def _grow(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    mean = tensor.mean(0, keepdim=True)
    return nn.Parameter(torch.cat([tensor, mean.expand(rows - tensor.shape[0], *tensor.shape[1:])]))
