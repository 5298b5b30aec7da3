"""Root mean square norm with the residual addition before it."""

from tinykernels.rms_norm.operation import rms_norm

__all__ = ["rms_norm"]
