"""`selective_scan` in torch operations: a chunk of K tokens of some rows at a time, as long as it is in cache.

No tensor of the states of all tokens exists. A chunk's are made as (R, K, N, C), the channels innermost, walked in place and
dropped; the backward pass starts from the states at the chunks' beginnings and makes each chunk again. Every array of a
chunk is allocated once for all chunks: fresh pages cost more than the arithmetic. Decays are powers of 2, with log2(e) in
A: torch computes exp2 four times as fast as exp on CPUs.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

ELEMENTS = 2**20  # of one array over a chunk; the backward pass has four of them, 16 MB of float32
SHORTEST, LONGEST = 16, 64  # tokens of a chunk


def length_of(rows: int, channels: int, states: int) -> int:
    """Tokens of a chunk: few where there are many rows or wide ones, which fill the cache anyway."""
    fitting = max(1, ELEMENTS // (rows * channels * states))
    return min(LONGEST, max(SHORTEST, 1 << fitting.bit_length() - 1))


def workspace(rows: int, length: int, channels: int, states: int, bytes_per_element: int = 4) -> int:
    """Bytes of the arrays of the backward pass, four of (R, K, N, C) and nine of (R, K, C)."""
    tokens = min(rows, _rows_of_a_group(channels, states)) * min(length, length_of(rows, channels, states))
    return bytes_per_element * tokens * channels * (4 * states + 9)


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
    rates = A.to(_wide(x)).t()
    skip = D.to(rates.dtype)
    y = x.new_empty(x.shape)
    final = _states_of(initial, x, rates)
    groups, spans = _cuts(x, rates)
    begins = final.new_empty(len(spans) if save else 0, *final.shape)
    with torch.autocast(x.device.type, enabled=False):
        for rows in groups:
            chunk = _Chunk(x, rates, bias, rows, spans[0].stop, large=2, small=6)
            state = final[rows]
            for index, span in enumerate(spans):
                if save:
                    begins[index, rows] = state
                chunk.load(x, delta, B, C, starts, valid, rows, span)
                chunk.walk(state)
                output, gate = chunk.array(4), chunk.array(5)
                _over_states(chunk.C, chunk.states, output).addcmul_(chunk.x, skip)
                output.mul_(F.silu(gate.copy_(z[rows, span]), inplace=True))
                y[rows, span] = output
                state.copy_(chunk.states[:, -1])
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
    rates = A.to(_wide(x)).t().contiguous()  # (N, C)
    skip = D.to(rates.dtype)
    grad_x, grad_delta, grad_B, grad_C, grad_z = (t.new_empty(t.shape) for t in (x, delta, B, C, z))
    grad_A, grad_D, grad_bias = torch.zeros_like(rates), torch.zeros_like(skip), torch.zeros_like(skip)
    carried = _states_of(
        None if grad_final is None else grad_final.transpose(1, 2), x, rates
    )  # the gradient of the state after a chunk
    groups, spans = _cuts(x, rates)
    with torch.autocast(x.device.type, enabled=False):
        for rows in groups:
            chunk = _Chunk(x, rates, bias, rows, spans[0].stop, large=4, small=9)
            carry = carried[rows]
            for index, span in reversed(list(enumerate(spans))):
                state = begins[index, rows]
                chunk.load(x, delta, B, C, starts, valid, rows, span)
                chunk.walk(state)
                decays, states = chunk.decays, chunk.states
                grads, products = chunk.wide_array(2), chunk.wide_array(3)  # (R, K, N, C)
                grad_y, gate, output, product = (chunk.array(i) for i in (4, 5, 6, 7))  # (R, K, C)
                if grad is None:
                    grad_y.zero_()
                else:
                    grad_y.copy_(grad[rows, span])
                    gate.copy_(z[rows, span])
                    _over_states(chunk.C, states, output).addcmul_(chunk.x, skip).mul_(grad_y)
                    grad_z[rows, span] = torch.ops.aten.silu_backward.grad_input(output, gate, grad_input=product)
                    grad_y.mul_(F.silu(gate, inplace=True))
                torch.mul(states, grad_y.unsqueeze(2), out=products)
                grad_C[rows, span] = torch.sum(products, -1, out=chunk.sums)

                torch.mul(chunk.C.unsqueeze(-1), grad_y.unsqueeze(2), out=grads)
                steps, kept = grads.unbind(1), decays.unbind(1)
                steps[-1].add_(carry)
                for k in range(len(steps) - 1, 0, -1):
                    steps[k - 1].addcmul_(kept[k], steps[k])
                torch.mul(kept[0], steps[0], out=carry)

                grad_input = _over_states(chunk.B, grads, output)  # of step x
                torch.mul(grads, chunk.input.unsqueeze(2), out=products)
                grad_B[rows, span] = torch.sum(products, -1, out=chunk.sums)
                grad_x[rows, span] = torch.mul(grad_input, chunk.step, out=product).addcmul_(grad_y, skip)
                grad_D += grad_y.mul_(chunk.x).sum((0, 1))

                # exp' = exp: the gradient of step A is that of the state, times the decay, times the state before
                decays[:, 1:].mul_(states[:, :-1])
                decays[:, 0].mul_(state)
                exponents = decays.mul_(grads)
                torch.sum(torch.mul(exponents, rates, out=products), 2, out=product)
                grad_step = product.addcmul_(grad_input, chunk.x)
                grad_A += exponents.mul_(chunk.step.unsqueeze(2)).sum((0, 1))
                grad_step.mul_(chunk.before_softplus.sigmoid_())
                if valid is not None:
                    grad_step.mul_(valid[rows, span, None])
                grad_delta[rows, span] = grad_step
                grad_bias += grad_step.sum((0, 1))
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


class _Chunk:
    """The arrays of one chunk of some rows, in at least float32, filled again for every chunk of these rows."""

    def __init__(
        self, x: Tensor, rates: Tensor, bias: Tensor, rows: slice, length: int, large: int, small: int
    ) -> None:
        count, (states, channels) = rows.stop - rows.start, rates.shape
        self.rates = (rates * math.log2(math.e)).contiguous()  # (N, C), of powers of 2
        self.bias = bias.to(rates.dtype)
        self._large = rates.new_empty(large, count * length * states * channels)
        self._small = rates.new_empty(small, count * length * channels)
        self._read = rates.new_empty(3, count * length * states)
        self._shape = (count, length, states, channels)

    def wide_array(self, index: int) -> Tensor:
        """Number `index` of the arrays of (R, K, N, C)."""
        count, length, states, channels = self._shape
        return self._large[index, : count * length * states * channels].view(count, length, states, channels)

    def array(self, index: int) -> Tensor:
        """Number `index` of the arrays of (R, K, C); the first four are the chunk's own."""
        count, length, _, channels = self._shape
        return self._small[index, : count * length * channels].view(count, length, channels)

    def load(
        self,
        x: Tensor,
        delta: Tensor,
        B: Tensor,
        C: Tensor,
        starts: Tensor | None,
        valid: Tensor | None,
        rows: slice,
        span: slice,
    ) -> None:
        """Read the tokens of `span`; make their decays."""
        count, _, states, channels = self._shape
        self._shape = (count, span.stop - span.start, states, channels)
        self.x, self.before_softplus, self.step, self.input = (self.array(index) for index in range(4))
        self.decays, self.states = self.wide_array(0), self.wide_array(1)
        shape = self._shape[:3]
        self.B, self.C, self.sums = (part[: math.prod(shape)].view(shape) for part in self._read)
        self.x.copy_(x[rows, span])
        self.B.copy_(B[rows, span])
        self.C.copy_(C[rows, span])
        self.before_softplus.copy_(delta[rows, span]).add_(self.bias)
        torch.ops.aten.softplus.out(self.before_softplus, out=self.step)
        if valid is not None:
            self.step.mul_(valid[rows, span, None])
        torch.mul(self.step, self.x, out=self.input)
        torch.mul(self.step.unsqueeze(2), self.rates, out=self.decays).exp2_()
        if starts is not None:
            self.decays[starts[rows, span]] = 0

    def walk(self, state: Tensor) -> None:
        """Make the states that follow `state` (R, N, C)."""
        torch.mul(self.B.unsqueeze(-1), self.input.unsqueeze(2), out=self.states)
        steps, kept = self.states.unbind(1), self.decays.unbind(1)
        steps[0].addcmul_(kept[0], state)
        for k in range(1, len(steps)):
            steps[k].addcmul_(kept[k], steps[k - 1])


def _rows_of_a_group(channels: int, states: int) -> int:
    return max(1, ELEMENTS // (SHORTEST * channels * states))


def _cuts(x: Tensor, rates: Tensor) -> tuple[list[slice], list[slice]]:
    """The groups of rows that are walked together, and the spans of tokens of a chunk."""
    rows, length, channels = x.shape
    states = len(rates)
    size = _rows_of_a_group(channels, states)
    step = min(length, length_of(rows, channels, states))
    groups = [slice(begin, min(begin + size, rows)) for begin in range(0, rows, size)]
    return groups, [slice(begin, min(begin + step, length)) for begin in range(0, length, step)]


def _states_of(given: Tensor | None, x: Tensor, rates: Tensor) -> Tensor:
    """A fresh (B, N, C): zeros, or a copy of `given` (B, C, N)."""
    shape = (x.shape[0], *rates.shape)
    return rates.new_zeros(shape) if given is None else rates.new_empty(shape).copy_(given.transpose(1, 2))


def _over_states(weights: Tensor, states: Tensor, out: Tensor) -> Tensor:
    """Sum of weights (R, K, N) * states (R, K, N, C) over the states, into `out` (R, K, C)."""
    rows, length, number, channels = states.shape
    flat = rows * length
    torch.bmm(weights.view(flat, 1, number), states.view(flat, number, channels), out=out.view(flat, 1, channels))
    return out


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
