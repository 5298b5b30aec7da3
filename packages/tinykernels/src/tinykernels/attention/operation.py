"""Causal softmax attention with grouped key heads, a sliding window, packed documents, soft-capped scores
and a cache.

score[t, s] = softcap * tanh(q[t] . k[s] * scale / softcap)           (q[t] . k[s] * scale without a soft cap)
out[t] = sum over s of softmax over s (score[t, s]) v[s]

Query t stands at key position p = t + S - T: the last query sees the last key, so keys of a cache come
before the queries. It sees keys s <= p, s > p - window, of its own document, and nothing else.
FlashAttention (arXiv:2205.14135, 2307.08691), grouped heads (arXiv:2305.13245), soft cap as in Gemma 2
(arXiv:2408.00118). Scores and sums are float32.
"""

from typing import Any

import torch

from tinykernels import validation
from tinykernels.attention import cpu, naive
from tinykernels.dispatch import Backend, choose
from tinykernels.registration import autocast, differentiable

MAX_HEAD = 128


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    cu_seqlens: torch.Tensor | None = None,
    scale: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
    backend: Backend = "auto",
) -> torch.Tensor:
    """out (B, T, H, D), in q's dtype.

    q: (B, T, H, D); k, v: (B, S, G, D), G dividing H, S >= T; floating, one dtype (autocast's where it is
    on). cu_seqlens: (N + 1,) int32 document boundaries of a batch of one with T = S, or None. scale:
    default D ** -0.5. window: keys a query sees, itself included, or None for all. softcap: bound of the
    scores' size, or None. Raises ValueError naming the argument. Head sizes up to 128 run in Triton, larger
    ones on the torch path.
    """
    q, k, v = _check(q, k, v, cu_seqlens, scale, window, softcap)
    size = q.shape[3]
    scale = size**-0.5 if scale is None else float(scale)
    unsupported = None
    if size > MAX_HEAD:
        unsupported = f"head size {size} is above {MAX_HEAD}"
    elif q.dtype == torch.float64:
        unsupported = "the kernels compute in float32, not float64"
    chosen = choose("attention", backend, q.device, unsupported)
    if chosen == "naive":
        return naive.attention(q, k, v, cu_seqlens, scale, window, softcap)
    if chosen == "torch":
        return cpu.attention(q, k, v, cu_seqlens, scale, window, softcap)
    return _apply(q, k, v, cu_seqlens, scale, window, softcap)[0]


def _check(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens: torch.Tensor | None,
    scale: float | None,
    window: int | None,
    softcap: float | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    sizes = validation.shapes("attention", q=(q, "B T H D"), k=(k, "B S G D"), v=(v, "B S G D"))
    if sizes["G"] < 1 or sizes["H"] % sizes["G"] != 0:
        raise ValueError(f"attention: k's {sizes['G']} heads must divide q's {sizes['H']} heads")
    if sizes["S"] < sizes["T"]:
        raise ValueError(f"attention: k must have at least q's length {sizes['T']}, got {sizes['S']}")
    if sizes["D"] < 1:
        raise ValueError("attention: q must have a head size of at least 1")
    q, k, v = autocast(q, k, v)
    validation.dtypes("attention", validation.FLOATS, q=q)
    validation.same_dtype("attention", q=q, k=k, v=v)
    validation.same_device("attention", q=q, k=k, v=v, cu_seqlens=cu_seqlens)
    validation.positive("attention", scale=scale, softcap=softcap)
    if window is not None and window < 1:
        raise ValueError(f"attention: window must be at least 1, got {window}")
    if cu_seqlens is not None:
        if sizes["B"] != 1 or sizes["T"] != sizes["S"]:
            raise ValueError("attention: cu_seqlens needs a batch of one and as many keys as queries")
        validation.cu_seqlens("attention", cu_seqlens, sizes["T"])
    return q, k, v


def _forward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    from tinykernels.attention import triton_kernels

    q, k, v = (_unit_stride(tensor) for tensor in (q, k, v))
    return triton_kernels.forward(q, k, v, cu_seqlens, scale, window, softcap)


def _fake(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    batch, queries, heads, _ = q.shape
    return q.new_empty(q.shape), q.new_empty((batch, heads, queries), dtype=torch.float32)


def _backward(
    grad_out: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    from tinykernels.attention import triton_kernels

    q, k, v = (_unit_stride(tensor) for tensor in (q, k, v))
    return triton_kernels.backward(grad_out.contiguous(), q, k, v, out, lse, cu_seqlens, scale, window, softcap)


def _backward_fake(
    grad_out: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *_: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _unit_stride(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.stride(3) == 1 else tensor.contiguous()


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    q, k, v, cu_seqlens, ctx.scale, ctx.window, ctx.softcap = inputs
    ctx.save_for_backward(q, k, v, *output, cu_seqlens)


def _gradients(ctx: Any, backward: Any, grad_out: torch.Tensor | None, _: Any) -> tuple[torch.Tensor | None, ...]:
    if grad_out is None:
        return (None,) * 7
    grads = backward(grad_out, *ctx.saved_tensors, ctx.scale, ctx.window, ctx.softcap)
    return (*grads, None, None, None, None)


_apply = differentiable(
    "attention",
    schema="(Tensor q, Tensor k, Tensor v, Tensor? cu_seqlens, float scale, int? window, float? softcap)"
    " -> (Tensor, Tensor)",
    forward=_forward,
    fake=_fake,
    backward_schema="(Tensor grad_out, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, Tensor? cu_seqlens,"
    " float scale, int? window, float? softcap) -> (Tensor, Tensor, Tensor)",
    backward=_backward,
    backward_fake=_backward_fake,
    setup_context=_setup_context,
    gradients=_gradients,
)
