"""Matrix products against weights that are laid out once for many products: y = x W^T, and y = r + x W^T.

On a CPU the layout decides the speed of the thin products of decoding. A matrix-vector product is bound by reading the
weight, which one thread cannot do at full speed and BLAS gives to one thread: here each thread reads its own share of
the outputs, as one product of a batch. Several rows go to oneDNN, whose float32 kernels over blocked weights use all
the processor has (MKL's use half of it on processors that are not Intel's).
"""

from __future__ import annotations

import torch
from torch import Tensor


class PackedLinear:
    """A copy of weight (outputs, inputs), packed for products with about `rows` rows; any number is right.

    The copy does not follow later changes of the weight.
    """

    def __init__(self, weight: Tensor, rows: int) -> None:
        weight = weight.detach()
        self.outputs, inputs = weight.shape
        self._blocked: Tensor | None = None
        if rows > 1 and can_block(weight):
            # these two operations are those to which torch.compile lowers a frozen linear on a CPU
            self._blocked = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)
            return
        threads = torch.get_num_threads()
        self.shares = max(count for count in range(1, threads + 1) if self.outputs % count == 0) if rows == 1 else 1
        self._shared = weight.view(self.shares, -1, inputs).transpose(1, 2).contiguous()

    def __call__(self, x: Tensor) -> Tensor:
        """(N, inputs) -> (N, outputs)."""
        if self._blocked is not None:
            return torch.ops.mkldnn._linear_pointwise.default(x, self._blocked, None, "none", [], "")
        y = torch.bmm(x.expand(self.shares, -1, -1), self._shared)
        return y.transpose(0, 1).reshape(-1, self.outputs)

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """residual (N, outputs) + x W^T, in one pass."""
        if self._blocked is not None:
            return torch.ops.mkldnn._linear_pointwise.binary(x, residual, self._blocked, None, "add")
        shared = residual.view(-1, self.shares, self.outputs // self.shares).transpose(0, 1)
        y = torch.baddbmm(shared, x.expand(self.shares, -1, -1), self._shared)
        return y.transpose(0, 1).reshape(-1, self.outputs)


def can_block(weight: Tensor) -> bool:
    """Whether oneDNN's blocked layout exists for this weight."""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )
