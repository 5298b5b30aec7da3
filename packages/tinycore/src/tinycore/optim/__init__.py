"""How weights move: parameter groups and schedules."""

from tinycore.optim.groups import adamw, decay_groups
from tinycore.optim.periodic import PeriodicAdamW
from tinycore.optim.schedules import constant, cosine, wsd

__all__ = ["PeriodicAdamW", "adamw", "constant", "cosine", "decay_groups", "wsd"]
