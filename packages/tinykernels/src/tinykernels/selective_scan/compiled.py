"""The body of a forward chunk of the CPU path as torch.compile makes it: decays and states never leave the registers.

The operator is opaque to torch.compile, so what a caller compiles does not reach into it. This body does: it is used where the
caller's graph is compiled, for whole chunks on a CPU in which no document ends, and gives what `cpu` gives with sums in another
order. The first chunk of a shape takes some seconds; more than SHAPES shapes in one process run uncompiled, since torch would
call the body as written, one position at a time. The backward pass has no such body: it needs the states of every position,
and `cpu` fills its buffers in place faster than compiled graphs fill new memory (40 ms against 48, 4 x 512 x 512 x 16).

A document's start is a factor 0 in `keep` (K, R): nothing enters from before it. A chunk that an initial state enters is
left to `cpu`.
"""

from typing import Any

import torch

SHAPES = 4  # of (R, N, D) and dtype; torch's own limit is 8 graphs of one function
_seen: set[tuple[Any, ...]] = set()


def suits(transition: torch.Tensor, rows: int) -> bool:
    """Whether chunks of `rows` rows with A^T = `transition` (N, D) have a compiled body; remembers them if so."""
    if transition.device.type != "cpu":
        return False
    shape = (rows, *transition.shape, transition.dtype)
    if shape not in _seen and len(_seen) >= SHAPES:
        return False
    _seen.add(shape)
    return True


def _outputs(
    x: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    state: torch.Tensor,
    keep: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """h C (K, R, D) and the state after the chunk (R, N, D): x, delta (K, R, D); A (N, D); B, C (K, R, N)."""
    found = []
    for position in range(x.shape[0]):
        decay = torch.exp(delta[position][:, None] * A) * keep[position][:, None, None]
        state = decay * state + B[position][:, :, None] * (delta[position] * x[position])[:, None]
        found.append((C[position][:, :, None] * state).sum(1))
    return torch.stack(found), state


outputs = torch.compile(_outputs, dynamic=False, fullgraph=True)
