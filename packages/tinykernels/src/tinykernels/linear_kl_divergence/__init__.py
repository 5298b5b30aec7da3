"""Kullback-Leibler divergence between two linear heads, without the logits in memory."""

from tinykernels.linear_kl_divergence.operation import linear_kl_divergence

__all__ = ["linear_kl_divergence"]
