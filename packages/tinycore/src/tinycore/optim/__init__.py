"""How weights move: parameter groups and schedules."""

from tinycore.optim.adam_atan2 import AdamATan2, adam_atan2
from tinycore.optim.average import WeightAverage
from tinycore.optim.deep_momentum import DeepMomentum, deep_momentum, deep_momentum_sides
from tinycore.optim.delta_gd import DeltaGD, delta_gd
from tinycore.optim.distributed_muon import DistributedMuon, distributed_muon
from tinycore.optim.groups import adamw, decay_groups
from tinycore.optim.m3 import M3, m3
from tinycore.optim.muon import Muon, audit, muon
from tinycore.optim.periodic import PeriodicAdamW
from tinycore.optim.roles import Role, roles
from tinycore.optim.schedules import constant, cosine, wsd
from tinycore.optim.width import widened

__all__ = [
    "M3",
    "AdamATan2",
    "DeepMomentum",
    "DeltaGD",
    "DistributedMuon",
    "Muon",
    "PeriodicAdamW",
    "Role",
    "WeightAverage",
    "adam_atan2",
    "adamw",
    "audit",
    "constant",
    "cosine",
    "decay_groups",
    "deep_momentum",
    "deep_momentum_sides",
    "delta_gd",
    "distributed_muon",
    "m3",
    "muon",
    "roles",
    "widened",
    "wsd",
]
