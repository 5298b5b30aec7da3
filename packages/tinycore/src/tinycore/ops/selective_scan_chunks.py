"""`selective_scan` in torch operations: a chunk of K tokens of some rows at a time, as long as it is in cache.

No tensor of the states of all tokens exists. A chunk's are made as (K, R, N, C), time first and the channels innermost,
walked in place and dropped; the backward pass starts from the states at the chunks' beginnings and makes each chunk again.
Decays are powers of 2, with log2(e) in A: torch computes exp2 four times as fast as exp on CPUs.
"""

from __future__ import annotations

import bisect
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

ELEMENTS = 2**20  # of one array over a chunk; the backward pass has four of them, 16 MB of float32
SHORTEST, LONGEST = 16, 64  # tokens of a chunk


class _Chunk(NamedTuple):
    """Tokens of a chunk, time first, in at least float32; `decays` and `states` are (K, R, N, C)."""

    x: Tensor
    before_softplus: Tensor
    step: Tensor
    B: Tensor
    C: Tensor
    decays: Tensor
    states: Tensor


def length_of(rows: int, channels: int, states: int) -> int:
    """Tokens of a chunk: few where there are many rows or wide ones, which fill the cache anyway."""
    fitting = max(1, ELEMENTS // (rows * channels * states))
    return min(LONGEST, max(SHORTEST, 1 << fitting.bit_length() - 1))


def forward(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    bias: Tensor,
    starts: Tensor | None,
    valid: Tensor | None,
    initial: Tensor | None,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """y (B, T, C), the last states (B, N, C), and, if `save`, the states at the beginnings of the chunks (., B, N, C)."""
    scan = _Scan(x, delta, A, B, C, bias, starts, valid)
    skip = D.to(scan.wide)
    y = x.new_empty(x.shape)
    final = scan.begin_states(initial)
    begins = final.new_empty(len(scan.spans) if save else 0, *final.shape)
    with torch.autocast(x.device.type, enabled=False):
        for rows in scan.groups:
            state = final[rows]
            buffers = scan.buffers(rows, 2)
            resets = scan.resets(rows)
            for index, span in enumerate(scan.spans):
                if save:
                    begins[index, rows] = state
                chunk = scan.chunk(rows, span, state, resets, buffers)
                output = _over_states(chunk.C, chunk.states).addcmul_(chunk.x, skip)
                output.mul_(F.silu(scan.time_first(z, rows, span)))
                y[rows, span] = output.transpose(0, 1)
                state.copy_(chunk.states[-1])
    return y, final, begins


def backward(
    grad: Tensor | None,
    grad_final: Tensor | None,
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    bias: Tensor,
    starts: Tensor | None,
    valid: Tensor | None,
    initial: Tensor | None,
    begins: Tensor,
) -> list[Tensor]:
    """Gradients of x, delta, A, B, C, D, z, bias and the initial state (B, C, N)."""
    scan = _Scan(x, delta, A, B, C, bias, starts, valid)
    skip, rates = D.to(scan.wide), A.to(scan.wide).t().contiguous()
    grad_x, grad_delta, grad_B, grad_C, grad_z = (t.new_empty(t.shape) for t in (x, delta, B, C, z))
    grad_A, grad_D, grad_bias = torch.zeros_like(rates), torch.zeros_like(skip), torch.zeros_like(skip)
    carried = scan.begin_states(None if grad_final is None else grad_final.transpose(1, 2))
    with torch.autocast(x.device.type, enabled=False):
        for rows in scan.groups:
            carry = carried[rows]  # the gradient of the state after the chunk
            *buffers, grads_buffer, scratch = scan.buffers(rows, 4)
            resets = scan.resets(rows)
            for index, span in reversed(list(enumerate(scan.spans))):
                state = begins[index, rows]
                chunk = scan.chunk(rows, span, state, resets, buffers)
                decays, states = chunk.decays, chunk.states
                grads, products = grads_buffer[: len(states)], scratch[: len(states)]
                if grad is None:
                    grad_y = torch.zeros_like(chunk.x)
                else:
                    gate = scan.time_first(z, rows, span)
                    grad_y = scan.time_first(grad, rows, span)
                    ungated = _over_states(chunk.C, states).addcmul_(chunk.x, skip)
                    grad_gate = torch.ops.aten.silu_backward(ungated.mul_(grad_y), gate)
                    grad_z[rows, span] = grad_gate.transpose(0, 1)
                    grad_y = grad_y * F.silu(gate)
                grad_C[rows, span] = _over_channels(grad_y, states, products)

                torch.mul(chunk.C.unsqueeze(-1), grad_y.unsqueeze(2), out=grads)
                steps, kept = grads.unbind(0), decays.unbind(0)
                steps[-1].add_(carry)
                for k in range(len(steps) - 1, 0, -1):
                    steps[k - 1].addcmul_(kept[k], steps[k])
                torch.mul(kept[0], steps[0], out=carry)

                grad_input = _over_states(chunk.B, grads)  # of step x
                grad_B[rows, span] = _over_channels(chunk.step * chunk.x, grads, products)
                grad_x[rows, span] = torch.addcmul(grad_input * chunk.step, grad_y, skip).transpose(0, 1)
                grad_D += (grad_y * chunk.x).sum((0, 1))

                # exp' = exp: the gradient of step A is that of the state, times the decay, times the state before
                decays[1:].mul_(states[:-1])
                decays[0].mul_(state)
                exponents = decays.mul_(grads)
                grad_step = grad_input.mul_(chunk.x).add_(torch.mul(exponents, rates, out=products).sum(2))
                grad_step.mul_(torch.sigmoid(chunk.before_softplus))
                if valid is not None:
                    grad_step.mul_(valid[rows, span].t().unsqueeze(-1))
                grad_delta[rows, span] = grad_step.transpose(0, 1)
                grad_bias += grad_step.sum((0, 1))
                grad_A += exponents.mul_(chunk.step.unsqueeze(2)).sum((0, 1))
    if grad is None:
        grad_z.zero_()
    state = carried.transpose(1, 2).contiguous()
    return [
        grad_x,
        grad_delta,
        grad_A.t().to(A.dtype).contiguous(),
        grad_B,
        grad_C,
        grad_D.to(D.dtype),
        grad_z,
        grad_bias.to(bias.dtype),
        state if initial is None else state.to(initial.dtype),
    ]


class _Scan:
    """How a call is cut, and the making of its chunks."""

    def __init__(
        self,
        x: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        bias: Tensor,
        starts: Tensor | None,
        valid: Tensor | None,
    ) -> None:
        self.x, self.delta, self.B, self.C, self.starts, self.valid = x, delta, B, C, starts, valid
        self.wide = torch.promote_types(x.dtype, torch.float32)
        self.bias = bias.to(self.wide)
        self.rates = (A.to(self.wide) * math.log2(math.e)).t().contiguous()  # (N, C), of powers of 2
        (count, length, channels), states = x.shape, A.shape[1]
        self.longest = min(length, length_of(count, channels, states))
        size = max(1, ELEMENTS // (SHORTEST * channels * states))
        self.groups = [slice(begin, min(begin + size, count)) for begin in range(0, count, size)]
        self.spans = [slice(begin, min(begin + self.longest, length)) for begin in range(0, length, self.longest)]

    def begin_states(self, initial: Tensor | None) -> Tensor:
        """A fresh (B, N, C) of zeros or of `initial` (B, C, N)."""
        shape = (self.x.shape[0], *self.rates.shape)
        if initial is None:
            return self.rates.new_zeros(shape)
        return self.rates.new_empty(shape).copy_(initial.transpose(1, 2))

    def buffers(self, rows: slice, number: int) -> list[Tensor]:
        """Arrays of a chunk's shape, made once for all chunks: fresh pages cost as much as the arithmetic."""
        shape = (self.longest, rows.stop - rows.start, *self.rates.shape)
        return [self.rates.new_empty(shape) for _ in range(number)]

    def resets(self, rows: slice) -> tuple[Tensor, list[int]] | None:
        """(P, 2) time and row in the group of every start, in the order of time, and the times."""
        if self.starts is None:
            return None
        places = self.starts[rows].t().nonzero()
        return places, places[:, 0].tolist()

    def time_first(self, x: Tensor, rows: slice, span: slice) -> Tensor:
        """(K, R, .) of x (B, T, .), contiguous, in at least float32."""
        return x[rows, span].transpose(0, 1).to(self.wide, memory_format=torch.contiguous_format).contiguous()

    def chunk(
        self,
        rows: slice,
        span: slice,
        state: Tensor,
        resets: tuple[Tensor, list[int]] | None,
        buffers: list[Tensor],
    ) -> _Chunk:
        """The chunk that follows `state` (R, N, C), its decays and states written into `buffers`."""
        x, B, C = (self.time_first(t, rows, span) for t in (self.x, self.B, self.C))
        before_softplus = self.time_first(self.delta, rows, span) + self.bias
        step = F.softplus(before_softplus)
        if self.valid is not None:
            step.mul_(self.valid[rows, span].t().unsqueeze(-1))
        decays, states = (buffer[: len(x)] for buffer in buffers)
        torch.mul(step.unsqueeze(2), self.rates, out=decays).exp2_()
        if resets is not None:
            places, times = resets
            here = places[bisect.bisect_left(times, span.start) : bisect.bisect_left(times, span.stop)]
            decays[here[:, 0] - span.start, here[:, 1]] = 0
        torch.mul(B.unsqueeze(-1), (step * x).unsqueeze(2), out=states)
        steps, kept = states.unbind(0), decays.unbind(0)
        steps[0].addcmul_(kept[0], state)
        for k in range(1, len(steps)):
            steps[k].addcmul_(kept[k], steps[k - 1])
        return _Chunk(x, before_softplus, step, B, C, decays, states)


def _over_states(weights: Tensor, states: Tensor) -> Tensor:
    """Sum of weights (K, R, N) * states (K, R, N, C) over the states, (K, R, C)."""
    return torch.matmul(weights.unsqueeze(2), states).squeeze(2)


def _over_channels(weights: Tensor, states: Tensor, products: Tensor) -> Tensor:
    """Sum of weights (K, R, C) * states (K, R, N, C) over the channels, (R, K, N)."""
    return torch.mul(states, weights.unsqueeze(2), out=products).sum(-1).transpose(0, 1)
