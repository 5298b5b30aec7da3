"""Newton-Schulz iteration: the nearest semi-orthogonal matrix of each matrix in a stack, roughly, as Muon
needs it.

X_0 = M / (||M||_F + eps);   A = X X^T;   X <- a X + (b A + c A A) X          (S, M, N), on the shorter
side's Gram matrix

With the default coefficients five steps bring every singular value that is not tiny into [0.68, 1.2]
(Keller Jordan's Muon; arXiv:2502.16982 uses the same). Matrices of one shape go through together, which is
what a GPU and a CPU's matrix units need at these sizes; in Triton the two symmetric products compute half
their tiles.
"""

import torch

from tinykernels import validation
from tinykernels.dispatch import Backend, choose
from tinykernels.newton_schulz import naive
from tinykernels.registration import operator

QUINTIC = (3.4445, -4.7750, 2.0315)


def newton_schulz(
    matrices: torch.Tensor,
    *,
    steps: int = 5,
    coefficients: tuple[float, float, float] = QUINTIC,
    eps: float = 1e-7,
    backend: Backend = "auto",
) -> torch.Tensor:
    """Orthogonalised matrices (..., M, N), contiguous, without gradient.

    matrices: (..., M, N) floating; everything but the norm is computed in its dtype, so cast to bfloat16
    for speed and keep float32 where ranks must agree. Raises ValueError naming the argument.
    """
    if not isinstance(matrices, torch.Tensor) or matrices.dim() < 2 or 0 in matrices.shape[-2:]:
        raise ValueError("newton_schulz: matrices must be a tensor (..., M, N) with M, N >= 1")
    validation.dtypes("newton_schulz", validation.FLOATS, matrices=matrices)
    if steps < 0:
        raise ValueError(f"newton_schulz: steps must not be negative, got {steps}")
    validation.positive("newton_schulz", eps=eps)
    a, b, c = coefficients
    unsupported = None
    if matrices.dtype == torch.float64:
        unsupported = "the kernels compute in float32, not float64"
    chosen = choose("newton_schulz", backend, matrices.device, unsupported)
    stack = matrices.detach().reshape(-1, *matrices.shape[-2:])
    if chosen == "naive":
        return naive.newton_schulz(stack, steps, (a, b, c), eps).reshape(matrices.shape)
    return _operator(stack, steps, a, b, c, eps, chosen).view(matrices.shape)


def _implementation(
    matrices: torch.Tensor, steps: int, a: float, b: float, c: float, eps: float, backend: str
) -> torch.Tensor:
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    wide = torch.promote_types(x.dtype, torch.float32)
    norm = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True, dtype=wide)
    x = (x / (norm + eps)).to(x.dtype).contiguous()
    for _ in range(steps):
        if backend == "triton" and x.numel():
            from tinykernels.newton_schulz.triton_kernels import symmetric_product

            gram = symmetric_product(x)
            polynomial = symmetric_product(gram, gram, alpha=c, beta=b)
        else:
            gram = torch.bmm(x, x.mT)
            polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.mT.contiguous() if tall else x


def _fake(matrices: torch.Tensor, steps: int, a: float, b: float, c: float, eps: float, backend: str) -> torch.Tensor:
    return matrices.new_empty(matrices.shape)


_operator = operator(
    "newton_schulz",
    "(Tensor matrices, int steps, float a, float b, float c, float eps, str backend) -> Tensor",
    _implementation,
    _fake,
)
