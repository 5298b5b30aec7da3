"""Cross entropy of a linear head, without the logits in memory."""

from tinykernels.linear_cross_entropy.operation import linear_cross_entropy

__all__ = ["linear_cross_entropy"]
