"""Muon (Keller Jordan; at scale Moonlight, arXiv 2502.16982): steps of hidden matrices are orthogonalised momentum.

    M <- mu M + (1 - mu) G;   U = orthogonalised((1 - mu) G + mu M);   W <- W (1 - lr decay) - lr .2 sqrt(max(rows, columns)) U

The factor gives U the root mean square that AdamW's steps have, so AdamW's learning rate and weight decay carry over. Only
matrices between channels inside the layers go this way, one by one where a module keeps several in one parameter;
embeddings, heads, gates, tables and vectors take AdamW's steps (`roles` says which is which, `audit` prints it). Matrices
of one shape are orthogonalised as one stack. `cautious` lets a weight decay only where the step also makes it smaller
(arXiv 2411.16085 for steps). Of parameters in shards (FSDP2) one after another is gathered, and every process computes its
whole step and keeps its own rows of it; momentum stays in shards.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import Any, NamedTuple, TypedDict, Unpack

import torch
from torch import Tensor, nn

from tinycore.optim.newton_schulz import Coefficients, orthogonalised
from tinycore.optim.periodic import PeriodicAdamW
from tinycore.optim.roles import Role, roles
from tinycore.optim.sharded import gathered, is_sharded, whole

RMS = 0.2  # of a step of AdamW, as Moonlight measured it
DECAY = 0.1
STACK = 2**22  # most elements that are orthogonalised at one time: larger stacks are no faster, and leave the caches


class Part(NamedTuple):
    """One matrix of a parameter, its gradient and momentum and what else its rule keeps; views, wide rather than tall."""

    weight: Tensor
    gradient: Tensor
    momentum: Tensor
    kept: tuple[Tensor, ...]
    due: bool


class Muon(PeriodicAdamW):
    """Groups with "matrices" true, and the rows of each part in "parts", go Muon's way, the others AdamW's."""

    def __init__(
        self,
        groups: list[dict[str, Any]],
        learning_rate: float,
        *,
        momentum: float,
        nesterov: bool,
        ns_steps: int,
        ns_dtype: torch.dtype | None,
        coefficients: Coefficients,
        cautious: bool,
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        self.momentum, self.nesterov, self.cautious = momentum, nesterov, cautious
        self.orthogonalised = partial(orthogonalised, steps=ns_steps, dtype=ns_dtype, coefficients=coefficients)
        super().__init__(groups, lr=learning_rate, betas=betas, eps=eps, fused=True)

    def _move(self) -> None:
        groups = self.param_groups
        for group in groups:
            if group["matrices"]:
                self._step_of_matrices(group)
        self.param_groups = [group for group in groups if not group["matrices"]]
        try:
            super()._move()
        finally:
            self.param_groups = groups

    def _step_of_matrices(self, group: dict[str, Any]) -> None:
        found: list[Part] = []
        for parameter, parts in zip(group["params"], group["parts"], strict=True):
            if parameter.grad is None:
                continue
            momentum = self._momentum(parameter)
            if is_sharded(parameter):
                self._step_of_shards(parameter, momentum, parts, group)
                continue
            kept, due = self._kept_of_matrices(parameter, parts)
            matrices = (_wide_matrices(tensor, parts) for tensor in (parameter, parameter.grad.contiguous(), momentum))
            found += [Part(*three, own, due) for *three, own in zip(*matrices, kept, strict=True)]
        self._step_of_parts(found, group)

    def _step_of_parts(self, found: list[Part], group: dict[str, Any]) -> None:
        """Matrices of one shape as one stack."""
        alike: dict[tuple[Any, ...], list[Part]] = defaultdict(list)
        for part in found:
            alike[(*part.weight.shape, part.weight.dtype, part.weight.device)].append(part)
        for (rows, columns, *_), members in alike.items():
            at_once = max(1, STACK // (rows * columns))
            for first in range(0, len(members), at_once):
                self._step_of_stack(members[first : first + at_once], group["lr"], group["weight_decay"])

    def _step_of_shards(
        self, parameter: Tensor, momentum: Tensor, parts: tuple[int, ...], group: dict[str, Any]
    ) -> None:
        """The step of one parameter that lies in shards; a collective operation."""
        kept, due = self._kept(parameter)
        assert parameter.grad is not None
        gradient = whole(parameter.grad)
        with gathered((parameter, momentum, *kept)) as (weight, average, *others):
            matrices = (_wide_matrices(tensor, parts) for tensor in (weight, gradient, average, *others))
            self._step_of_parts([Part(*found[:3], found[3:], due) for found in zip(*matrices, strict=True)], group)

    def _momentum(self, parameter: Tensor) -> Tensor:
        """The momentum in the state, which goes on by one step."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
            state["step"] = torch.zeros(())  # which AdamW's way of loading expects in every state
        state["step"] += 1
        return state["momentum"].lerp_(gradient, 1 - self.momentum)

    def _kept(self, parameter: Tensor) -> tuple[tuple[Tensor, ...], bool]:
        """What a rule built on this one keeps of the parameter, in its shape and brought up to this step, and whether it is
        due to be used."""
        return (), False

    def _kept_of_matrices(self, parameter: Tensor, parts: tuple[int, ...]) -> tuple[list[tuple[Tensor, ...]], bool]:
        """What is kept of each matrix in the parameter: `_kept`, taken apart and laid as the matrices are."""
        kept, due = self._kept(parameter)
        count = len(matrices_of(parameter, parts))
        apart = [_wide_matrices(tensor, parts) for tensor in kept]
        return [tuple(matrices[i] for matrices in apart) for i in range(count)], due

    def _direction(self, members: list[Part]) -> Tensor:
        """(S, M, N): the step of each matrix, with the norm of a semi-orthogonal one."""
        stack = torch.stack([part.momentum for part in members])
        if self.nesterov:
            stack.lerp_(torch.stack([part.gradient for part in members]), 1 - self.momentum)
        return self.orthogonalised(stack)

    def _step_of_stack(self, members: list[Part], rate: float, decay: float) -> None:
        found = self._direction(members)
        size = rate * RMS * max(found.shape[1:]) ** 0.5
        for part, step in zip(members, found.to(members[0].weight.dtype).unbind(), strict=True):
            if decay and self.cautious:
                part.weight.sub_(part.weight * (step * part.weight > 0), alpha=rate * decay)
            elif decay:
                part.weight.mul_(1 - rate * decay)
            part.weight.sub_(step, alpha=size)


def _wide(matrix: Tensor) -> Tensor:
    """As it is or transposed: one stack for a shape and its transpose."""
    return matrix.mT if len(matrix) > matrix.shape[1] else matrix


def _wide_matrices(tensor: Tensor, parts: tuple[int, ...]) -> list[Tensor]:
    return [_wide(matrix) for matrix in matrices_of(tensor, parts)]


def matrices_of(tensor: Tensor, parts: tuple[int, ...]) -> list[Tensor]:
    """The matrices in a parameter (..., rows, columns), as views: of each entry of leading dimensions, of each part."""
    stack = tensor.view(-1, *tensor.shape[-2:]).unbind()
    return [part for matrix in stack for part in matrix.split(parts)] if parts else list(stack)


class MuonOptions(TypedDict, total=False):
    """Settings of Muon and of the rules built on it.

    momentum, nesterov: of the gradients. ns_steps, ns_dtype, coefficients: of the orthogonalisation; ns_dtype None = bfloat16
    on a GPU, float32 elsewhere. cautious: decay only what the step makes smaller. weight_decay: of matrices. betas, eps:
    AdamW's, for the rest.
    """

    momentum: float
    nesterov: bool
    ns_steps: int
    ns_dtype: torch.dtype | None
    coefficients: Coefficients
    cautious: bool
    betas: tuple[float, float]
    eps: float
    weight_decay: float


def completed(options: MuonOptions) -> dict[str, Any]:
    """With the default of everything that is not given, but for the weight decay, which is the groups'."""
    defaults: MuonOptions = {
        "momentum": 0.95,
        "nesterov": True,
        "ns_steps": 5,
        "ns_dtype": None,
        "coefficients": "quintic",
        "cautious": False,
        "betas": (0.9, 0.95),
        "eps": 1e-8,
    }
    return {name: value for name, value in {**defaults, **options}.items() if name != "weight_decay"}


def muon(model: nn.Module, learning_rate: float, **options: Unpack[MuonOptions]) -> Muon:
    """Muon over the model's hidden matrices and AdamW over the rest, at one learning rate."""
    return Muon(matrix_groups(model, options.get("weight_decay", DECAY)), learning_rate, **completed(options))


def matrix_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups as `Muon` takes them: hidden matrices with their parts, and the rest."""
    found = roles(model)
    kinds = sorted({(role.period, not _is_matrix(role), not role.decays) for role in found})
    groups: list[dict[str, Any]] = []
    for period, other, undecayed in kinds:
        members = [r for r in found if (r.period, not _is_matrix(r), not r.decays) == (period, other, undecayed)]
        group: dict[str, Any] = {
            "params": [role.parameter for role in members],
            "weight_decay": 0.0 if undecayed else weight_decay,
        }
        group |= {"matrices": not other, "parts": [role.parts for role in members]}
        groups.append(group | ({"period": period} if period > 1 else {}))
    return groups


def _is_matrix(role: Role) -> bool:
    return role.kind == "hidden"


def audit(model: nn.Module) -> str:
    """A line for each parameter: its rule, what it is, its shape (with the rows of each part) and its name."""
    lines = []
    for role in roles(model):
        rule = "muon" if _is_matrix(role) else "adamw"
        shape = " x ".join(map(str, role.parameter.shape)) or "scalar"
        parts = f" in {'+'.join(map(str, role.parts))}" if role.parts else ""
        period = f", once in {role.period} steps" if role.period > 1 else ""
        lines.append(f"{rule:5}  {role.kind:9}  {shape + parts:22}  {role.name}{period}")
    return "\n".join(lines)
