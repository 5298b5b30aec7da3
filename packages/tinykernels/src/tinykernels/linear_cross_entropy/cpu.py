"""The torch path's inner step: logits of a chunk into losses and, in place, into their own gradient."""

import torch


def loss_and_gradient(
    logits: torch.Tensor,
    targets: torch.Tensor,
    losses: torch.Tensor,
    ignore_index: int,
    softcap: float | None,
    z_loss: float,
    needs_gradient: bool,
) -> None:
    """logits (R, V), targets (R,) -> losses (R,), written; logits become the gradient of their summed loss."""
    scores = logits.to(losses.dtype)
    if softcap is not None:
        scores = torch.tanh(scores / softcap).mul_(softcap)
    keep = targets != ignore_index
    index = torch.where(keep, targets, 0)[:, None]
    normaliser = torch.logsumexp(scores, -1)
    loss = normaliser - scores.gather(1, index)[:, 0]
    if z_loss:
        loss = loss + z_loss * normaliser.square()
    losses.copy_(loss.masked_fill(~keep, 0.0))
    if not needs_gradient:
        return
    slope = None if softcap is None else 1.0 - (scores / softcap).square_()
    gradient = scores.sub_(normaliser[:, None]).exp_()
    if z_loss:
        gradient *= (1.0 + 2.0 * z_loss * normaliser)[:, None]
    gradient.scatter_add_(1, index, gradient.new_full((1, 1), -1.0).expand(index.shape))
    if slope is not None:
        gradient *= slope
    gradient.masked_fill_(~keep[:, None], 0.0)
    if gradient.data_ptr() != logits.data_ptr():
        logits.copy_(gradient)
