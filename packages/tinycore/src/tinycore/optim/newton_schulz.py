"""The nearest semi-orthogonal matrix of each matrix in a stack, roughly, by Newton-Schulz iteration (Muon, Keller Jordan).

    X_0 = M / max(|M|_F, eps);   A = X X^T;   X <- a X + (b A + c A A) X          on the shorter side

With the quintic's coefficients five steps bring every singular value that is not tiny into about .68 to 1.2; it is not an
exact orthogonalisation and does not have to be. A stack of matrices of one shape goes through together. On an NVIDIA GPU the
kernel of `tinykernels` computes it, where that is installed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tinycore.ops import kernels

QUINTIC = (3.4445, -4.7750, 2.0315)
EPS = 1e-7


def orthogonalised(stack: Tensor, steps: int = 5, dtype: torch.dtype | None = None) -> Tensor:
    """(S, M, N) -> (S, M, N) in `dtype`, by default bfloat16 on a GPU and the stack's own elsewhere; no gradient.

    Ranks that must agree to the last bit whatever they have stacked need float32.
    """
    if dtype is None:
        dtype = torch.bfloat16 if stack.device.type == "cuda" else stack.dtype
    x = stack.detach().to(dtype)
    if kernels.usable(x):
        return kernels.tinykernels.newton_schulz(x.contiguous(), steps=steps, coefficients=QUINTIC, eps=EPS)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    a, b, c = QUINTIC
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp(min=EPS)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
