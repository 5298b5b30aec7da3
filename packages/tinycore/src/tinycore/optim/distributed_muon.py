"""Muon whose state is shared out among processes (ZeRO stage 1, arXiv 1910.02054): each moves whole parameters and sends them.

Every process has all weights and, when `step` is called, the same gradients. A parameter belongs to one process, which alone
keeps its momentum and computes its step; matrices are never cut, so that what is orthogonalised is what one process would
have orthogonalised. Owned parameters go out in one message a process for the matrices and one for the rest; the first is
under way while the second is computed. State takes about 1/world of the bytes, to the size of the largest parameter.

Before a checkpoint every process calls `consolidate_state_dict`, as with torch's ZeroRedundancyOptimizer; the first one's
`state_dict` then is what `Muon` of one process has, and loads under any number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Unpack

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tinycore.optim.muon import DECAY, Muon, MuonOptions, completed, matrix_groups


class _Message(NamedTuple):
    """One process's parameters on their way to the others."""

    work: dist.Work | None
    flat: Tensor
    parameters: list[Tensor]
    own: bool


class DistributedMuon(Muon):
    """Groups as `Muon`'s. process_group: None = the default one, which must be there.

    Raises RuntimeError where torch.distributed is not initialised, TypeError for parameters that are sharded (DTensor).
    """

    def __init__(self, *arguments: Any, process_group: dist.ProcessGroup | None = None, **options: Any) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            raise RuntimeError(
                "DistributedMuon shares its work among processes: call torch.distributed.init_process_group"
            )
        self.process_group = process_group
        self.rank, self.world = dist.get_rank(process_group), dist.get_world_size(process_group)
        self._others: dict[int, dict[str, Any]] | None = None
        super().__init__(*arguments, **options)
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        if any(type(parameter.data) is not Tensor for parameter in parameters):
            raise TypeError(
                "DistributedMuon takes whole parameters; sharded ones would be orthogonalised piece by piece"
            )
        self.owners = owners([parameter.numel() for parameter in parameters], self.world)
        self._owner = {id(parameter): owner for parameter, owner in zip(parameters, self.owners, strict=True)}

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """As `Muon`'s; a collective operation of all processes."""
        self._others = None
        return super().step(closure)

    def _gather(self) -> None:
        with self._groups(self._own(self.param_groups)):
            super()._gather()

    def _move(self) -> None:
        messages: list[_Message] = []
        groups = self.param_groups
        for matrices in (True, False):
            stage = [group for group in groups if group["matrices"] is matrices]
            with self._groups(self._own(stage)):
                super()._move()
            messages += self._send([parameter for group in stage for parameter in group["params"]])
        for message in messages:
            if message.work is not None:
                message.work.wait()
            if not message.own:
                pieces = message.flat.split([parameter.numel() for parameter in message.parameters])
                for parameter, piece in zip(message.parameters, pieces, strict=True):
                    parameter.copy_(piece.view_as(parameter))

    def _groups(self, groups: list[dict[str, Any]]) -> _Narrowed:
        return _Narrowed(self, groups)

    def _own(self, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The groups with this process's parameters only."""
        found = []
        for group in groups:
            kept = [i for i, parameter in enumerate(group["params"]) if self._owner[id(parameter)] == self.rank]
            lists = {name: [group[name][i] for i in kept] for name in ("params", "parts")}
            found.append({**group, **lists})
        return found

    def _send(self, parameters: list[Tensor]) -> list[_Message]:
        """Start the broadcasts of a stage: all parameters, moved or not, since no process knows what another has moved."""
        messages = []
        for dtype in dict.fromkeys(parameter.dtype for parameter in parameters):
            for owner in range(self.world):
                members = [p for p in parameters if p.dtype == dtype and self._owner[id(p)] == owner]
                if not members:
                    continue
                own = owner == self.rank
                if own:
                    flat = torch.cat([member.detach().reshape(-1) for member in members])
                else:
                    flat = members[0].new_empty(sum(member.numel() for member in members))
                work = dist.broadcast(flat, src=self._global(owner), group=self.process_group, async_op=True)
                messages.append(_Message(work, flat, members, own))
        return messages

    def _global(self, rank: int) -> int:
        return rank if self.process_group is None else dist.get_global_rank(self.process_group, rank)

    def _indexed(self) -> Iterator[tuple[int, Tensor]]:
        yield from enumerate(parameter for group in self.param_groups for parameter in group["params"])

    def consolidate_state_dict(self) -> None:
        """Bring all state to the first process; a collective operation, good until the next step."""
        own = {i: self.state[p] for i, p in self._indexed() if self._owner[id(p)] == self.rank and p in self.state}
        shapes = {
            index: {
                name: (value.shape, value.dtype) if isinstance(value, Tensor) else value
                for name, value in state.items()
            }
            for index, state in own.items()
        }
        all_shapes: list[Any] = [None] * self.world
        dist.all_gather_object(all_shapes, shapes, group=self.process_group)
        self._others = {}
        parameters = dict(self._indexed())
        for owner in range(1, self.world):
            for index, entries in all_shapes[owner].items():
                state = self._others.setdefault(index, {}) if self.rank == 0 else {}
                for name, entry in entries.items():
                    if not isinstance(entry, tuple):
                        state[name] = entry
                    elif self.rank == 0:
                        shape, dtype = entry
                        state[name] = torch.empty(shape, dtype=dtype, device=parameters[index].device)
                        dist.recv(state[name], src=self._global(owner), group=self.process_group)
                    elif self.rank == owner:
                        there = own[index][name].to(parameters[index].device).contiguous()
                        dist.send(there, dst=self._global(0), group=self.process_group)

    def state_dict(self) -> dict[str, Any]:
        """On the first process the whole state, on others their own. Raises RuntimeError where it was not brought together."""
        found = super().state_dict()
        if self.rank == 0 and self.world > 1 and self.state:
            if self._others is None:
                raise RuntimeError("call consolidate_state_dict() on every process before state_dict()")
            found["state"] = dict(sorted({**found["state"], **self._others}.items()))
        return found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The whole state, of any number of processes; each process keeps what is its own."""
        saved = [index for group in state_dict["param_groups"] for index in group["params"]]
        own = {index for index, owner in zip(saved, self.owners, strict=True) if owner == self.rank}
        state = {index: entry for index, entry in state_dict["state"].items() if index in own}
        super().load_state_dict({**state_dict, "state": state})
        self._others = None


class _Narrowed:
    """While it lasts, the optimizer sees these parameter groups only."""

    def __init__(self, optimizer: torch.optim.Optimizer, groups: list[dict[str, Any]]) -> None:
        self.optimizer, self.groups = optimizer, groups

    def __enter__(self) -> None:
        self.whole, self.optimizer.param_groups = self.optimizer.param_groups, self.groups

    def __exit__(self, *_: object) -> None:
        self.optimizer.param_groups = self.whole


def owners(sizes: list[int], world: int) -> list[int]:
    """The process of each parameter: the largest first, each to whoever has least; the same on every process."""
    load, found = [0] * world, [0] * len(sizes)
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        found[index] = min(range(world), key=lambda rank: (load[rank], rank))
        load[found[index]] += sizes[index]
    return found


def distributed_muon(
    model: nn.Module,
    learning_rate: float,
    process_group: dist.ProcessGroup | None = None,
    **options: Unpack[MuonOptions],
) -> DistributedMuon:
    """As `muon`, over the processes of a group."""
    groups = matrix_groups(model, options.get("weight_decay", DECAY))
    return DistributedMuon(groups, learning_rate, process_group=process_group, **completed(options))
