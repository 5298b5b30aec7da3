"""How weights move: parameter groups and schedules."""

from tinycore.optim.groups import adamw, decay_groups
from tinycore.optim.muon import Muon, audit, muon
from tinycore.optim.periodic import PeriodicAdamW
from tinycore.optim.roles import Role, roles
from tinycore.optim.schedules import constant, cosine, wsd

__all__ = [
    "Muon",
    "PeriodicAdamW",
    "Role",
    "adamw",
    "audit",
    "constant",
    "cosine",
    "decay_groups",
    "muon",
    "roles",
    "wsd",
]
