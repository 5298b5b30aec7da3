"""counted and flops: the closed forms agree with the model that is built and with what it multiplies."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from tinycore.count import count
from tinycore.model import build
from tinycore.model_config import ModelConfig
from tinycore.state import STREAM
from tinycore.testing.probes import awake, require, rows_for, single_rows

ROWS, LENGTH = 2, 12


def counted(config: ModelConfig) -> None:
    """Parameters, embedding parameters and the state after T tokens equal the closed form."""
    model = awake(config)
    counts = count(config)
    owned = sum(parameter.numel() for parameter in model.parameters())
    require(owned == counts.parameters, f"counted: {owned} parameters, the closed form says {counts.parameters}")
    embedding = sum(parameter.numel() for parameter in model.embed.parameters())
    require(
        embedding == counts.embedding_parameters,
        f"counted: {embedding} embedding parameters, the closed form says {counts.embedding_parameters}",
    )
    for length in (1, 3, LENGTH) if config.causal else ():  # what predicts in place keeps no state
        with torch.no_grad():
            state = model(single_rows(config, ROWS, length).tokens).state
        kept = sum(
            part.numel()
            for path, entry in state.items()
            if path != STREAM
            for part in entry
            if part is not None and part.is_floating_point()
        )
        stated = ROWS * counts.state_bytes(length, bytes_per_element=1)
        require(
            kept == stated,
            f"counted: {kept} state elements after {length} tokens, the closed form says {stated}",
        )


def flops(config: ModelConfig) -> None:
    """Matrix-product FLOPs, forward and with the backward pass, equal FlopCounterMode on the meta device."""
    counts, length = count(config), rows_for(config, ROWS, LENGTH).tokens.shape[1]
    with torch.device("meta"):
        model = build(config)
        tokens = torch.zeros((ROWS, length), dtype=torch.long)
        with FlopCounterMode(display=False) as forward:
            model(tokens)
        with FlopCounterMode(display=False) as both:
            model(tokens, targets=tokens).loss.backward()
    size = ROWS * length
    stated = sum(counts.forward_flops(length).values()) * size
    found = forward.get_total_flops()
    require(found == round(stated), f"flops: {found} forward, the closed form says {stated:.0f}")
    stated = sum(counts.forward_flops(length, training=True).values()) * size
    stated += sum(counts.backward_flops(length).values()) * size
    found = both.get_total_flops()
    require(found == round(stated), f"flops: {found} forward and backward, the closed form says {stated:.0f}")
