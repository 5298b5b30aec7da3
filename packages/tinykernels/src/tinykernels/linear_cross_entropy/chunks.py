"""What the chunked losses share: chunk sizes, the weight gradient's accumulator, and the backward.

Logits of a chunk are made, turned into their own gradient in place, multiplied into the two gradients, and
overwritten by the next chunk's. On a GPU a chunk is sized to stay in a 50 MB L2 cache, on a CPU in a core's
share of the last level, so the logits cost no main-memory traffic. Gradients are kept for the summed loss;
the backward scales them by the incoming gradient and, for a mean, by one over the count, on the device.
"""

import torch

GPU_CHUNK_BYTES = 24 << 20
CPU_CHUNK_BYTES = 4 << 20


def rows_of_chunk(tokens: int, vocabulary: int, item: int, device: torch.device) -> int:
    """Tokens whose logits fill one chunk, at least 16, a multiple of 16."""
    budget = CPU_CHUNK_BYTES if device.type == "cpu" else GPU_CHUNK_BYTES
    rows = budget // max(1, vocabulary * item)
    return min(max(16, rows // 16 * 16), max(1, tokens))


def accumulate(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """total (V, D) += left (R, V)^T right (R, D), the sum over chunks in total's float32 or float64."""
    if left.dtype == total.dtype:
        total.addmm_(left.T, right)
    elif left.device.type == "cuda":
        total.add_(torch.mm(left.T, right, out_dtype=total.dtype))
    else:
        total.add_(left.T @ right)


def scaled(
    grad_loss: torch.Tensor,
    grad_hidden: torch.Tensor,
    grad_weight: torch.Tensor,
    inverse_count: torch.Tensor,
    weight: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradients of hidden and weight, in their dtypes, for an incoming scalar gradient."""
    factor = grad_loss.to(inverse_count.dtype) * inverse_count
    return (grad_hidden * factor).to(grad_hidden.dtype), (grad_weight * factor).to(weight.dtype)


def scaled_fake(
    grad_loss: torch.Tensor,
    grad_hidden: torch.Tensor,
    grad_weight: torch.Tensor,
    inverse_count: torch.Tensor,
    weight: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Shapes of `scaled`."""
    return grad_hidden.new_empty(grad_hidden.shape), weight.new_empty(weight.shape)


SCALED_SCHEMA = (
    "(Tensor grad_loss, Tensor grad_hidden, Tensor grad_weight, Tensor inverse_count, Tensor weight)"
    " -> (Tensor, Tensor)"
)
