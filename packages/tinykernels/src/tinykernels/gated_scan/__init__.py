"""Gated linear recurrence h_t = forget_t * h_{t-1} + value_t."""

from tinykernels.gated_scan.operation import gated_scan

__all__ = ["gated_scan"]
