"""Bodies of the CPU path's chunks as torch.compile makes them: what one chunk does to memory is done in few passes.

The operator is opaque to torch.compile, so what a caller compiles does not reach into it. These bodies do: they are used
where the caller's graph is compiled, for whole chunks on a CPU, and give what `cpu` gives with sums in another order. The
first chunk of a shape takes some seconds; more than SHAPES shapes in one process run uncompiled, since torch would call
the bodies as written, one position at a time.

A document's start is a factor 0 in `keep` (K, R): nothing enters from before it. A chunk that an initial state enters is
left to `cpu`.
"""

from collections.abc import Callable
from typing import Any

import torch

SHAPES = 4  # of (R, N, D) and dtype; torch's own limit is 8 graphs of one function
_seen: set[tuple[Any, ...]] = set()


def suits(transition: torch.Tensor, rows: int) -> bool:
    """Whether chunks of `rows` rows with A^T = `transition` (N, D) have compiled bodies; remembers them if so."""
    if transition.device.type != "cpu":
        return False
    shape = (rows, *transition.shape, transition.dtype)
    if shape not in _seen and len(_seen) >= SHAPES:
        return False
    _seen.add(shape)
    return True


def _compiled(body: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(body, dynamic=False, fullgraph=True)


def _step(
    x: torch.Tensor, delta: torch.Tensor, A: torch.Tensor, B: torch.Tensor, state: torch.Tensor, keep: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """decay and next state (R, N, D) of one position: x, delta (R, D), B (R, N), keep (R,)."""
    decay = torch.exp(delta[:, None] * A) * keep[:, None, None]
    return decay, decay * state + B[:, :, None] * (delta * x)[:, None]


@_compiled
def outputs(
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
        _, state = _step(x[position], delta[position], A, B[position], state, keep[position])
        found.append((C[position][:, :, None] * state).sum(1))
    return torch.stack(found), state


@_compiled
def states(
    x: torch.Tensor, delta: torch.Tensor, A: torch.Tensor, B: torch.Tensor, state: torch.Tensor, keep: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Decays, 0 where a document starts, and states, both (K, R, N, D)."""
    decays, found = [], []
    for position in range(x.shape[0]):
        decay, state = _step(x[position], delta[position], A, B[position], state, keep[position])
        decays.append(decay)
        found.append(state)
    return torch.stack(decays), torch.stack(found)


@_compiled
def state_gradients(
    C: torch.Tensor, grad_output: torch.Tensor, decays: torch.Tensor, carry: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of the states (K, R, N, D) from that of h C (K, R, D), and of the state before the chunk; carry: of the
    state after it, through later positions."""
    found = []
    for position in range(C.shape[0] - 1, -1, -1):
        grad = carry + C[position][:, :, None] * grad_output[position][:, None]
        found.append(grad)
        carry = grad * decays[position]
    found.reverse()
    return torch.stack(found), carry


@_compiled
def over_channels(weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Sum of weights (K, R, D) * values (K, R, N, D) over the channels, (K, R, N)."""
    return (weights[:, :, None] * values).sum(-1)


@_compiled
def exponent_gradients(
    A: torch.Tensor,
    grads: torch.Tensor,
    decays: torch.Tensor,
    found: torch.Tensor,
    state: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of delta A: grads * decay * previous state (K, R, N, D), and their sum with A over the states (K, R, D)."""
    exponents = grads * decays * torch.cat([state[None], found[:-1]])
    return exponents, (exponents * A).sum(2)
