"""causal_conv1d in torch operations: each sequence is written once behind its W - 1 earlier inputs, and then every
tap is one multiply-add of a shifted view, without masks at document borders."""

import torch

from tinykernels.documents import segment_of


def forward(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    silu: bool,
) -> torch.Tensor:
    """y (B, L, D) in x's dtype."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    extended = _extended(x, weight.shape[1], initial_state, cu_seqlens, dtype)
    y = _convolved(extended, weight, bias)
    if silu:
        y = torch.nn.functional.silu(y, inplace=True)
    return _outputs(y, x, weight.shape[1], cu_seqlens).to(x.dtype).contiguous()


def backward(
    grad_y: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    silu: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x, weight, bias and the initial states (S, W - 1, D), the last three in float32 or wider."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    width = weight.shape[1]
    extended = _extended(x, width, initial_state, cu_seqlens, dtype)
    length = extended.shape[1] - (width - 1)
    if cu_seqlens is None:
        grad = grad_y.to(dtype)
    else:
        grad = extended.new_zeros(1, length, x.shape[2])
        grad[0, _places(x, width, cu_seqlens)] = grad_y[0].to(dtype)
    if silu:
        before = _convolved(extended, weight, bias)
        sigmoid = torch.sigmoid(before)
        grad = grad * sigmoid * (1 + before * (1 - sigmoid))
    taps = weight.to(dtype)
    grad_extended = torch.zeros_like(extended)
    grad_weight = torch.empty_like(taps)
    for tap in range(width):
        grad_extended[:, tap : tap + length].addcmul_(grad, taps[:, tap])
        grad_weight[:, tap] = (grad * extended[:, tap : tap + length]).sum((0, 1))
    grad_bias = grad.sum((0, 1))
    if cu_seqlens is None:
        return (
            grad_extended[:, width - 1 :].to(x.dtype).contiguous(),
            grad_weight,
            grad_bias,
            grad_extended[:, : width - 1].contiguous(),
        )
    grad_x = grad_extended[:, _places(x, width, cu_seqlens) + width - 1].to(x.dtype)
    return grad_x, grad_weight, grad_bias, grad_extended[0, _slots(width, cu_seqlens)]


def _extended(
    x: torch.Tensor,
    width: int,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Every sequence behind its W - 1 earlier inputs: (B, W - 1 + L, D), or (1, S (W - 1) + L, D) packed."""
    batch, length, dim = x.shape
    if cu_seqlens is None:
        extended = x.new_zeros(batch, width - 1 + length, dim, dtype=dtype)
        extended[:, width - 1 :] = x
        if initial_state is not None:
            extended[:, : width - 1] = initial_state
        return extended
    documents = cu_seqlens.shape[0] - 1
    extended = x.new_zeros(1, documents * (width - 1) + length, dim, dtype=dtype)
    extended[0, _places(x, width, cu_seqlens) + width - 1] = x[0].to(dtype)
    if initial_state is not None:
        extended[0, _slots(width, cu_seqlens)] = initial_state.to(dtype)
    return extended


def _places(x: torch.Tensor, width: int, cu_seqlens: torch.Tensor) -> torch.Tensor:
    """Where each packed position's output stands among the convolved ones: W - 1 slots a document stand before."""
    positions = torch.arange(x.shape[1], device=x.device)
    return positions + segment_of(cu_seqlens, x.shape[1]) * (width - 1)


def _slots(width: int, cu_seqlens: torch.Tensor) -> torch.Tensor:
    """Where each document's W - 1 earlier inputs stand in the extended stream: (S, W - 1)."""
    slots = torch.arange(width - 1, device=cu_seqlens.device)
    documents = torch.arange(cu_seqlens.shape[0] - 1, device=cu_seqlens.device)
    return (cu_seqlens[:-1] + documents * (width - 1))[:, None] + slots


def _convolved(extended: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    width = weight.shape[1]
    length = extended.shape[1] - (width - 1)
    taps = weight.to(extended.dtype)
    y = extended[:, :length] * taps[:, 0]
    for tap in range(1, width):
        y.addcmul_(extended[:, tap : tap + length], taps[:, tap])
    return y if bias is None else y.add_(bias)


def _outputs(y: torch.Tensor, x: torch.Tensor, width: int, cu_seqlens: torch.Tensor | None) -> torch.Tensor:
    return y if cu_seqlens is None else y[:, _places(x, width, cu_seqlens)]
