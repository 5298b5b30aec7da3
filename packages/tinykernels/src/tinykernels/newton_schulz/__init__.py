"""Newton-Schulz orthogonalisation of a stack of matrices."""

from tinykernels.newton_schulz.operation import newton_schulz

__all__ = ["newton_schulz"]
