"""Linear layers with ternary weights and 8-bit activations, trained and packed."""

from tinykernels.bitlinear.operation import bitlinear
from tinykernels.bitlinear.packing import PackedTernary, bitlinear_packed, pack, unpack

__all__ = ["PackedTernary", "bitlinear", "bitlinear_packed", "pack", "unpack"]
