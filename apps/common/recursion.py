"""A trained model under settings on which no weight depends: how often shared layers are applied, when tokens leave early."""

from __future__ import annotations

from collections.abc import Sequence

import tinycore
from apps.common import overrides as overriding
from apps.common.errors import BadRequest
from apps.common.overrides import Override
from tinycore import Decoder, ModelConfig


def at(model: Decoder, overrides: Sequence[Override]) -> Decoder:
    """`model` with `--model.depth.loops` and the like. Raises BadRequest or ConfigError, one line, for anything else."""
    if not overrides:
        return model
    depth, routing = model.config.depth, model.config.routing
    allowed = [f"model.depth.{key}" for key in depth.adjustable]
    allowed += [f"model.routing.{key}" for key in (() if routing is None else routing.adjustable)]
    for override in overrides:
        if not allowed:
            raise BadRequest(f"--{override.dotted}: this model's depth is {depth.kind}, of which nothing can change")
        if override.dotted not in allowed:
            raise BadRequest(f"--{override.dotted}: of this trained model only {', '.join(allowed)} can change")
    mapping = overriding.apply({"model": model.config.settled().to_dict()}, overrides, lambda path: None)
    other = tinycore.build(ModelConfig.from_dict(mapping["model"])).to(next(model.parameters()).device)
    other.load_state_dict(model.state_dict())
    return other.train(model.training)
