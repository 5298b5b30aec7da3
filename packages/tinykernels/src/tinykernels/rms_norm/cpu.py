"""rms_norm in plain tensor operations: the torch path of the forward and of its hand-written backward.

Rows go through in blocks that stay in a core's cache, since each step reads what the last one wrote.
"""

import torch

BLOCK_BYTES = 1 << 20


def forward(
    x: torch.Tensor, weight: torch.Tensor | None, residual: torch.Tensor | None, eps: float
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """x, residual (R, D) -> y (R, D), h (R, D) or None, the inverse root mean square (R,)."""
    rows, width = x.shape
    wide = torch.promote_types(x.dtype, torch.float32)
    y = torch.empty_like(x)
    h = None
    if residual is not None:
        h = torch.empty_like(x, dtype=torch.promote_types(x.dtype, residual.dtype))
    scale = torch.empty(rows, dtype=wide, device=x.device)
    for part in blocks(x):
        value = x[part]
        if residual is not None and h is not None:
            value = torch.add(value, residual[part], out=h[part])
        value = value.to(wide)
        inverse = torch.linalg.vector_norm(value, dim=-1).square_().div_(width).add_(eps).rsqrt_()
        scale[part] = inverse
        normed = value * inverse[:, None]
        y[part] = normed if weight is None else normed.mul_(weight)
    return y, h, scale


def backward(
    grad_y: torch.Tensor,
    grad_h: torch.Tensor | None,
    h: torch.Tensor,
    weight: torch.Tensor | None,
    scale: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Gradients of h (R, D), in h's dtype, and of the weight (D,), in its dtype."""
    width = h.shape[1]
    wide = scale.dtype
    grad = torch.empty_like(h)
    grad_weight = None if weight is None else torch.zeros(width, dtype=wide, device=h.device)
    for part in blocks(h):
        inverse = scale[part][:, None]
        normed = h[part].to(wide) * inverse
        upstream = grad_y[part].to(wide)
        if weight is not None and grad_weight is not None:
            grad_weight += (upstream * normed).sum(0)
            upstream = upstream * weight
        along = torch.linalg.vecdot(upstream, normed).div_(width)[:, None]
        value = torch.addcmul(upstream, normed, along, value=-1).mul_(inverse)
        grad[part] = value if grad_h is None else value.add_(grad_h[part])
    return grad, None if weight is None or grad_weight is None else grad_weight.to(weight.dtype)


def blocks(x: torch.Tensor) -> list[slice]:
    """Row slices whose float32 values fill at most BLOCK_BYTES; one slice on a GPU, where launches cost more."""
    rows, width = x.shape
    step = max(1, BLOCK_BYTES // (4 * max(1, width))) if x.device.type == "cpu" else max(1, rows)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
