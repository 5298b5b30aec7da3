"""Parameters that lie in shards among processes (FSDP2, `torch.distributed.fsdp.fully_shard`): each has some rows of each.

A rule that moves every number by itself needs no more than the shards. One that orthogonalises does: half of a matrix has
other singular vectors than the matrix. So whoever needs the whole gathers it, with all processes at the same time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from typing import Any

import torch
from torch import Tensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process has a part of `tensor` only; told without importing what makes them, which takes seconds."""
    return hasattr(tensor, "full_tensor")


def local(tensor: Tensor) -> Tensor:
    """This process's part of `tensor`, in the same memory; itself where it is whole."""
    found: Any = tensor.detach()
    return found.to_local() if is_sharded(tensor) else found


def whole(tensor: Tensor) -> Tensor:
    """All of `tensor`, on every process; a collective operation where it is sharded."""
    found: Any = tensor.detach()
    return found.full_tensor() if is_sharded(tensor) else found


def like(tensor: Tensor, other: Tensor) -> Tensor:
    """A copy of the whole `tensor` in shards as those of `other`, without a word to other processes."""
    if not is_sharded(other):
        return tensor.clone()
    from torch.distributed.tensor import distribute_tensor

    shards: Any = other
    return distribute_tensor(tensor, shards.device_mesh, shards.placements, src_data_rank=None).clone()


@contextlib.contextmanager
def gathered(tensors: Sequence[Tensor]) -> Generator[list[Tensor]]:
    """The tensors whole; what is changed in them inside is kept, of each process's own part."""
    found = [whole(tensor) for tensor in tensors]
    yield found
    with torch.no_grad():
        for tensor, changed in zip(tensors, found, strict=True):
            if is_sharded(tensor):
                local(tensor).copy_(local(like(changed, tensor)))
