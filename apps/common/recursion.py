"""A trained model at another recursion: its weights do not depend on how often they are applied."""

from __future__ import annotations

from collections.abc import Sequence

import tinycore
from apps.common import overrides as overriding
from apps.common.errors import BadRequest
from apps.common.overrides import Override
from tinycore import Decoder, ModelConfig

KEYS = ("H_cycles", "L_cycles", "supervision")


def at(model: Decoder, overrides: Sequence[Override]) -> Decoder:
    """`model` with `--model.depth.L_cycles` and the like. Raises BadRequest or ConfigError, one line, for anything else."""
    if not overrides:
        return model
    allowed = [f"model.depth.{key}" for key in KEYS]
    for override in overrides:
        if override.dotted not in allowed:
            raise BadRequest(f"--{override.dotted}: of a trained model only {', '.join(allowed)} can change")
    if not model.config.depth.recurs:
        raise BadRequest(
            f"--{overrides[0].dotted}: this model's depth is {model.config.depth.kind}, which has no recursion"
        )
    mapping = overriding.apply({"model": model.config.to_dict()}, overrides, lambda path: None)
    other = tinycore.build(ModelConfig.from_dict(mapping["model"])).to(next(model.parameters()).device)
    other.load_state_dict(model.state_dict())
    return other.train(model.training)
