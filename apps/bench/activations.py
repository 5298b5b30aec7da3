"""Memory of training by measurement: what autograd keeps, by its hooks, and the most there is, by torch's profiler."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.profiler import profile


def saved_bytes(model: nn.Module, loss: Callable[[], Tensor]) -> int:
    """Bytes of all that autograd keeps of `loss()`, a forward pass of `model`: each storage once, parameters left out."""
    known = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}  # holding the tensors keeps their addresses apart

    def keep(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in known:
            kept.setdefault(address, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        value = loss()
    assert value.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def peak_bytes(work: Callable[[], None]) -> int:
    """The most bytes of tensors that `work` has allocated at one time."""
    gc.collect()  # what earlier work left would be counted as freed here
    with profile(profile_memory=True) as traced:
        work()
    assert traced.kineto_results is not None
    there = most = 0
    for event in sorted(traced.kineto_results.events(), key=lambda event: event.start_ns()):
        there += event.nbytes() if event.name() == "[memory]" else 0
        most = max(most, there)
    return most
