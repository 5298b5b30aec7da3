"""Losses beside next-token cross-entropy, each as (sum over the targets, number of targets)."""

from tinycore.losses.contrastive import info_nce
from tinycore.losses.distillation import forward_kl, forward_kl_top, jensen_shannon, reverse_kl
from tinycore.losses.repetition import entropy, smoothed_cross_entropy, unlikelihood

__all__ = [
    "entropy",
    "forward_kl",
    "forward_kl_top",
    "info_nce",
    "jensen_shannon",
    "reverse_kl",
    "smoothed_cross_entropy",
    "unlikelihood",
]
