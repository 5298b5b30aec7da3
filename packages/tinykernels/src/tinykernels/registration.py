"""Operators of the `tinykernels` namespace: opaque to torch.compile, cheap in eager mode.

An operation is declared once, as a forward and a backward function on plain tensors. From that come
- `torch.ops.tinykernels.<name>` and `<name>_backward`, each with a fake (shape) function and the first with
  an autograd formula: what torch.compile puts into its graph, fullgraph, on a machine without a GPU as
  well;
- a `torch.autograd.Function` with the same two functions: what eager mode calls, at half the host time.

The function that `differentiable` returns picks by `torch.compiler.is_compiling()`. Rules for
implementations: outputs are contiguous, never alias an input or another output, and have exactly the
shapes, dtypes and strides that the fake function says; nothing reads a value back to the host (CUDA graph
capture); a missing optional gradient is returned by the backward function as an empty tensor and turned
into None by `gradients`.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.function import once_differentiable

NAMESPACE = "tinykernels"
LIBRARY = torch.library.Library(NAMESPACE, "DEF")


def on_device(implementation: Callable[..., Any]) -> Callable[..., Any]:
    """The implementation, run with its first tensor's GPU current, since Triton launches on the current device, and
    without autocast: in which dtype it computes was decided before, and a scan's float32 products must stay so."""

    def run(*arguments: Any) -> Any:
        device = next(value.device for value in arguments if isinstance(value, torch.Tensor))
        with contextlib.ExitStack() as stack:
            if device.type == "cuda" and device.index != torch.cuda.current_device():
                stack.enter_context(torch.cuda.device(device))
            if device.type != "meta" and torch.is_autocast_enabled(device.type):
                stack.enter_context(torch.autocast(device.type, enabled=False))
            return implementation(*arguments)

    return run


def operator(
    name: str, schema: str, implementation: Callable[..., Any], fake: Callable[..., Any]
) -> Callable[..., Any]:
    """Register `tinykernels::<name><schema>`, opaque, without gradient, and return
    `torch.ops.tinykernels.<name>`.

    schema: "(Tensor x, Tensor? residual, float eps, str backend) -> (Tensor, Tensor)".
    """
    LIBRARY.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
    LIBRARY.impl(name, on_device(implementation), "CompositeExplicitAutograd")
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=LIBRARY)
    return getattr(torch.ops.tinykernels, name)


def differentiable(
    name: str,
    *,
    schema: str,
    forward: Callable[..., Any],
    fake: Callable[..., Any],
    backward_schema: str,
    backward: Callable[..., Any],
    backward_fake: Callable[..., Any],
    setup_context: Callable[[Any, tuple[Any, ...], Any], None],
    gradients: Callable[..., Any],
) -> Callable[..., Any]:
    """Register a forward and a backward operator and return the callable that joins them (positional
    arguments).

    setup_context(ctx, inputs, output): saves what the backward needs (`ctx.save_for_backward`, attributes).
    gradients(ctx, backward, *grad_outputs): calls the `backward` it is handed (the operator while
    compiling, the
        plain function in eager) and returns one gradient or None for each argument of the forward. The
        gradient of an output that nobody used arrives as None.
    Second derivatives raise.
    """
    forward_operator = operator(name, schema, forward, fake)
    backward_operator = operator(f"{name}_backward", backward_schema, backward, backward_fake)
    eager_backward = on_device(backward)

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.set_materialize_grads(False)
        setup_context(ctx, inputs, output)

    def compiled_gradients(ctx: Any, *grad_outputs: torch.Tensor | None) -> Any:
        return gradients(ctx, backward_operator, *grad_outputs)

    def eager_gradients(ctx: Any, *grad_outputs: torch.Tensor | None) -> Any:
        return gradients(ctx, eager_backward, *grad_outputs)

    torch.library.register_autograd(f"{NAMESPACE}::{name}", compiled_gradients, setup_context=setup, lib=LIBRARY)
    eager_forward = on_device(forward)

    def forward_and_setup(ctx: Any, *arguments: Any) -> Any:
        # torch binds the arguments of a Function that has a setup_context by inspect.signature, at every call: as long as
        # launching a kernel takes
        output = eager_forward(*arguments)
        setup(ctx, arguments, output)
        return output

    function: Any = type(
        name,
        (torch.autograd.Function,),
        {
            "forward": staticmethod(forward_and_setup),
            "backward": staticmethod(once_differentiable(eager_gradients)),
        },
    )

    def call(*arguments: Any) -> Any:
        if torch.compiler.is_compiling():
            return forward_operator(*arguments)
        if not torch.is_grad_enabled() or not any(
            isinstance(value, torch.Tensor) and value.requires_grad for value in arguments
        ):
            return eager_forward(*arguments)
        return function.apply(*arguments)

    return call


def autocast(*tensors: torch.Tensor | None) -> tuple[Any, ...]:
    """The tensors in autocast's dtype where autocast is on for their device, else as they are.

    For operations that are matrix products (attention, linear_cross_entropy, bitlinear). Norms and scans
    keep their inputs' dtype: they compute in float32 inside.
    """
    device_type = next(tensor.device.type for tensor in tensors if tensor is not None)
    if not torch.is_autocast_enabled(device_type):
        return tensors
    dtype = torch.get_autocast_dtype(device_type)
    return tuple(
        tensor.to(dtype) if tensor is not None and tensor.is_floating_point() else tensor for tensor in tensors
    )
