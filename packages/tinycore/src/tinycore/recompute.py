"""Activations made again in the backward pass instead of being kept: less memory for more time.

    none        everything is kept that the backward pass reads
    layers      a call of a layer keeps its input and is run again (gradient checkpointing, arXiv 1604.06174)
    low_rank    CoLA-M (arXiv 2502.10940): it keeps the rank-r products A x of its low-rank linears as well; what is made
                again are norms, the products with B, attention

Losses and gradients are those of `none`, whose operations are repeated with the same random numbers in the same precision;
the first derivative only. Only training without a state recomputes. A layer that is kept out of the graph by
`torch.compile` cannot say which of its products are low-rank: the two do not go together.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tinycore.context import Context
from tinycore.families import LOSS, Aux, Carry

Policy = Literal["none", "layers", "low_rank"]


@dataclass
class _Kept:
    """The products of one call, in their order: written by the forward pass, read by the backward pass."""

    products: list[Tensor] = field(default_factory=list)
    replayed: bool = False


_kept: ContextVar[_Kept | None] = ContextVar("kept products", default=None)


def low_rank_product(x: Tensor, a: Tensor) -> Tensor:
    """x (..., inputs) times a^T, a (rank, inputs): the product that CoLA-M keeps."""
    if torch.compiler.is_compiling() or (kept := _kept.get()) is None:
        return F.linear(x, a)
    if kept.replayed:
        return _GivenProduct.apply(x, a, kept.products.pop(0))
    kept.products.append(F.linear(x, a))
    return kept.products[-1]


def call(layer: Callable[..., Any], x: Tensor, carry: Carry, ctx: Context, policy: Policy) -> tuple[Tensor, Carry, Aux]:
    """layer(x, carry, ctx, None) without its state, keeping what `policy` says."""
    arriving, leaving = list(carry), _Names([], [])
    weights = [p for p in layer.parameters() if p.requires_grad] if isinstance(layer, nn.Module) else []

    def run(x: Tensor, *carried: Tensor) -> list[Tensor]:
        y, left, _, aux = layer(x, dict(zip(arriving, carried, strict=True)), ctx, None)
        leaving.carry, leaving.aux = list(left), list(aux)
        return [y, *left.values(), *(part for pair in aux.values() for part in pair)]

    y, *rest = _Recomputed.apply(run, leaving, policy == "low_rank", 1 + len(carry), x, *carry.values(), *weights)
    left = dict(zip(leaving.carry, rest, strict=False))
    parts = rest[len(left) :]
    return y, left, dict(zip(leaving.aux, zip(parts[::2], parts[1::2], strict=True), strict=True))


@dataclass
class _Names:
    """What the outputs of a call are, behind the stream: of the carry, then two for each of the aux."""

    carry: list[str]
    aux: list[str]

    @property
    def statistics(self) -> list[int]:
        """Places among the outputs that are no part of any loss."""
        places = [1 + len(self.carry) + 2 * index for index, name in enumerate(self.aux) if not name.startswith(LOSS)]
        return [place + part for place in places for part in (0, 1)]


class _Recomputed(torch.autograd.Function):
    """(run, the names of its outputs, low_rank, n, n inputs, weights) -> the outputs of `run` on the inputs."""

    @staticmethod
    def forward(
        ctx: Any, run: Callable[..., list[Tensor]], names: _Names, low_rank: bool, count: int, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        inputs = tensors[:count]
        ctx.set_materialize_grads(False)
        ctx.run, ctx.count, ctx.low_rank = run, count, low_rank
        ctx.device = inputs[0].device
        ctx.random = _random_state(ctx.device)
        ctx.precision = _precision(ctx.device.type)
        kept = _Kept()
        with _recording(kept if low_rank else None):
            outputs = run(*inputs)
        ctx.save_for_backward(*tensors, *kept.products)
        ctx.tensors = len(tensors)
        # an output that is an input would be taken for a change of it in place
        known = {id(tensor) for tensor in inputs}
        outputs = [output.view_as(output) if id(output) in known else output for output in outputs]
        statistics = [outputs[place] for place in names.statistics]
        ctx.mark_non_differentiable(*statistics, *(o for o in outputs if not o.is_floating_point()))
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = list(ctx.saved_tensors)
        tensors, products = saved[: ctx.tensors], saved[ctx.tensors :]
        inputs = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in tensors[: ctx.count]]
        wanted = [tensor for tensor in (*inputs, *tensors[ctx.count :]) if tensor.requires_grad]
        with (
            torch.enable_grad(),
            torch.autocast(**ctx.precision),
            _with_random_state(ctx.device, ctx.random),
            _recording(_Kept(products, replayed=True) if ctx.low_rank else None),
        ):
            outputs = ctx.run(*inputs)
        reached = [(o, g) for o, g in zip(outputs, gradients, strict=True) if g is not None and o.requires_grad]
        ends, weights = zip(*reached, strict=True)
        found = iter(torch.autograd.grad(ends, wanted, weights, allow_unused=True))
        return (
            None,
            None,
            None,
            None,
            *(next(found) if t.requires_grad else None for t in (*inputs, *tensors[ctx.count :])),
        )


class _GivenProduct(torch.autograd.Function):
    """x (..., inputs) times weight^T, given as `product`: a forward pass for nothing, the backward pass of `F.linear`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, product: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        flat = gradient.flatten(0, -2)
        of_x = (flat @ weight.to(flat.dtype)).view_as(x).to(x.dtype)
        return of_x, (flat.t() @ x.flatten(0, -2).to(flat.dtype)).to(weight.dtype), None


@contextlib.contextmanager
def _recording(kept: _Kept | None) -> Generator[None]:
    token = _kept.set(kept)
    try:
        yield
    finally:
        _kept.reset(token)


def _precision(device: str) -> dict[str, Any]:
    """Autocast as it is now; what it casts is not cached beyond the backward pass's own run."""
    return {
        "device_type": device,
        "enabled": torch.is_autocast_enabled(device),
        "dtype": torch.get_autocast_dtype(device),
        "cache_enabled": torch.is_autocast_cache_enabled(),
    }


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


@contextlib.contextmanager
def _with_random_state(device: torch.device, state: tuple[Tensor, Tensor | None]) -> Generator[None]:
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.set_rng_state(state[0])
        if state[1] is not None:
            torch.cuda.set_rng_state(state[1], device)
        yield
