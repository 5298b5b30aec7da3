"""`train.freeze`: parameters that stay as they are, chosen by patterns of their names.

A frozen parameter has no gradient, no decay, no state in the optimizer and no average: its bytes are the same after any
number of steps. Names are those of `model.named_parameters()`, a shared parameter under its first name (a tied head is
`embed.weight`); patterns are fnmatch's, so that * also spans dots: `embed.*`, `layers.0.*`, `*.mixer.*`.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import nn

import tinycore
from apps.common.recipe import Recipe
from tinycore.config import ConfigError

NEAREST = 3  # names that an error lists


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Freeze the parameters of `model` that match any of `patterns`. Raises ConfigError as `matched` does."""
    found = matched([name for name, _ in model.named_parameters()], patterns)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and name not in found)


def trained(recipe: Recipe) -> int:
    """How many parameters of the recipe's model are trained, adapters left out of account.

    Raises ConfigError as `matched` does.
    """
    if not recipe.train.freeze:
        return tinycore.count(recipe.model).parameters
    with torch.device("meta"):
        model = tinycore.build(recipe.model)
    freeze(model, recipe.train.freeze)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def said(parameters: int, left: int) -> str:
    """`parameters` as people read it, with how many are trained where that is not all."""
    return f"{parameters:,} parameters" + (f", {left:,} of them trained" if left != parameters else "")


def matched(names: Sequence[str], patterns: Sequence[str]) -> set[str]:
    """The names that match a pattern. Raises ConfigError, one line, for a pattern without one, or if none is left."""
    found: set[str] = set()
    for pattern in patterns:
        mine = {name for name in names if fnmatchcase(name, pattern)}
        if not mine:
            near = difflib.get_close_matches(pattern, names, n=NEAREST, cutoff=0.0)
            raise ConfigError(f"train.freeze: '{pattern}' matches no parameter; names near it: {', '.join(near)}")
        found |= mine
    if found and len(found) == len(names):
        raise ConfigError("train.freeze: matches every parameter, and nothing would be trained")
    return found
