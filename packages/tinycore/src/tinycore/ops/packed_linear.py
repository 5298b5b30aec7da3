"""Matrix products against weights that are laid out once for many products: y = x W^T, and y = r + x W^T.

On a CPU the layout decides the speed of the thin products of decoding. One row of x is a matrix-vector product, fastest
over the transposed weight; several rows go to oneDNN, whose float32 kernels over blocked weights use all the processor
has (MKL's use half of it on processors that are not Intel's).
"""

from __future__ import annotations

import torch
from torch import Tensor


class PackedLinear:
    """A copy of weight (outputs, inputs), packed for products with about `rows` rows; any number is right.

    The copy does not follow later changes of the weight.
    """

    def __init__(self, weight: Tensor, rows: int) -> None:
        self._transposed: Tensor | None = None
        self._blocked: Tensor | None = None
        weight = weight.detach()
        if rows > 1 and can_block(weight):
            # these two operations are those to which torch.compile lowers a frozen linear on a CPU
            self._blocked = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)
        else:
            self._transposed = weight.t().contiguous()

    def __call__(self, x: Tensor) -> Tensor:
        """(N, inputs) -> (N, outputs)."""
        if self._transposed is not None:
            return torch.mm(x, self._transposed)
        return torch.ops.mkldnn._linear_pointwise.default(x, self._blocked, None, "none", [], "")

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """residual (N, outputs) + x W^T, in one pass."""
        if self._transposed is not None:
            return torch.addmm(residual, x, self._transposed)
        return torch.ops.mkldnn._linear_pointwise.binary(x, residual, self._blocked, None, "add")


def can_block(weight: Tensor) -> bool:
    """Whether oneDNN's blocked layout exists for this weight."""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )
