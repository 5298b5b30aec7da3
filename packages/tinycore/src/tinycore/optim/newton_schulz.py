"""The nearest semi-orthogonal matrix of each matrix in a stack, roughly, by Newton-Schulz iteration (Muon, Keller Jordan).

    X_0 = M / max(|M|_F, eps);   A = X X^T;   X <- a X + (b A + c A A) X          on the shorter side

With the quintic's coefficients five steps bring every singular value that is not tiny into about .68 to 1.2; it is not an
exact orthogonalisation and does not have to be. Those of Polar Express (arXiv 2505.16932) differ from step to step: each is
the polynomial of least largest error on where the step before left the singular values, the first on .001 to 1. Five steps
bring them into .88 to 1.12. A stack of matrices of one shape goes through together. On an NVIDIA GPU the
kernel of `tinykernels` computes it, where that is installed.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from tinycore.ops import kernels

Coefficients = Literal["quintic", "polar_express"]
QUINTIC = (3.4445, -4.7750, 2.0315)
# by Remez' algorithm, on no more than a factor of 41.5 between the ends of an interval, then scaled so that both ends are as
# far from 1; the last, which repeats, is what they tend to
POLAR_EXPRESS = (
    (8.287212018145, -23.595886519099, 17.300387312531),
    (4.107059111542, -2.947849916738, 0.544843108293),
    (3.948690853482, -2.908902115963, 0.551819139437),
    (3.318419657371, -2.488488024315, 0.510048940124),
    (2.300652019955, -1.668903984575, 0.418807311953),
    (1.891301407787, -1.267995827195, 0.376804089485),
    (1.875, -1.25, 0.375),
)
ROOM = (
    1.01  # singular values of up to that in a norm of 1: bfloat16 rounds, and outside its interval Polar Express grows
)
EPS = 1e-7


def orthogonalised(
    stack: Tensor, steps: int = 5, dtype: torch.dtype | None = None, coefficients: Coefficients = "quintic"
) -> Tensor:
    """(S, M, N) -> (S, M, N) in `dtype`, by default bfloat16 on a GPU and the stack's own elsewhere; no gradient.

    Ranks that must agree to the last bit whatever they have stacked need float32.
    """
    if dtype is None:
        dtype = torch.bfloat16 if stack.device.type == "cuda" else stack.dtype
    x = stack.detach().to(dtype)
    express = coefficients == "polar_express"
    if kernels.usable(x) and not express:
        return kernels.tinykernels.newton_schulz(x.contiguous(), steps=steps, coefficients=QUINTIC, eps=EPS)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    norm = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp(min=EPS)
    x = x / (norm * ROOM if express else norm)
    for step in range(steps):
        a, b, c = POLAR_EXPRESS[min(step, len(POLAR_EXPRESS) - 1)] if express else QUINTIC
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
