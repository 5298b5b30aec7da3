"""RMS norm of each query and key head and their rotation by position, in one launch."""

from tinykernels.rotary_qk_norm.operation import rotary_qk_norm

__all__ = ["rotary_qk_norm"]
