"""Compiling the layers of a model that trains.

Layers of one kind share one compiled graph, so compiling takes as long for 2 of them as for 30. A graph is of one shape: with a
schedule of lengths each length is compiled when it begins, with registers each width of rows as it comes.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from tinycore import Decoder, registers

GRAPHS = 8  # of a layer for one shape: torch's own limit


def compile_layers(model: Decoder, lengths: Collection[int]) -> None:
    """Have the layers of `model` compiled when they are first called, on rows of any of `lengths` tokens."""
    shapes = len(lengths)
    if model.config.embed.register_slots:  # rows are as wide as their documents are many
        shapes = sum(map(registers.widths, lengths))
    if shapes > 1:
        config: Any = torch._dynamo.config
        config.recompile_limit = max(config.recompile_limit, GRAPHS * shapes)
    for layer in model.layers:
        layer.compile(dynamic=False)
