"""Depthwise causal convolution over time."""

from tinykernels.causal_conv1d.operation import causal_conv1d

__all__ = ["causal_conv1d"]
