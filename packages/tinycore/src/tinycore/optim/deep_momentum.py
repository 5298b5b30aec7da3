"""Deep momentum (Nested Learning, arXiv 2512.24695): the memory of past gradients is a small network, not only an average.

For a matrix with gradient G, its shorter side as rows g, s = |G| / sqrt(rows), k = g / |g|:

    memory(g) = m + s B silu(A k)                     what the memory expects of the row's gradient
    m <- mu m + (1 - mu) G                            its constant part: momentum
    A, B <- one step of gradient descent on mean over rows |B silu(A k) - (G - m) / s|^2 / 2, decayed by `keep`
    U = orthogonalised(memory(G));   W <- W (1 - lr decay) - lr .2 sqrt(max(rows, columns)) U

The average itself is the one memory without a key that gradient descent with rate 1 - mu on |m - G|^2 / 2 finds; A and B learn
what the average misses and the row's own direction tells. B begins at zero. hidden = 0, or inner_rate = 0, is Muon without
Nesterov's step, bit for bit; what is not a hidden matrix takes AdamW's steps as there. State: momentum, and 2 x hidden x the
longer side for each matrix.
"""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinycore.optim.muon import DECAY, Muon, MuonOptions, Part, completed, matrices_of, matrix_groups


class DeepMomentum(Muon):
    """Groups as `Muon`'s. hidden: units of the memory; inner_rate: of its own gradient descent; keep: what a step leaves."""

    shaped_otherwise = ("memory",)  # state that has not its parameter's shape

    def __init__(
        self,
        groups: list[dict[str, Any]],
        learning_rate: float,
        *,
        hidden: int,
        inner_rate: float,
        keep: float,
        **options: Any,
    ) -> None:
        self.hidden, self.inner_rate, self.keep = hidden, inner_rate, keep
        super().__init__(groups, learning_rate, **options)

    def _kept_of_matrices(self, parameter: Tensor, parts: tuple[int, ...]) -> tuple[list[tuple[Tensor, ...]], bool]:
        """(A (hidden, longer), B (longer, hidden)) of each matrix, views of one state."""
        state, sides = self.state[parameter], deep_momentum_sides(parameter, parts)
        if "memory" not in state:
            first = torch.Generator().manual_seed(sum(sides))  # the same on every process
            drawn = [torch.randn(self.hidden, side, generator=first) for side in sides]
            state["memory"] = torch.cat([torch.cat([a.flatten(), torch.zeros(a.numel())]) for a in drawn]).to(parameter)
        halves = state["memory"].split([self.hidden * side for side in sides for _ in range(2)])
        pairs = zip(sides, halves[::2], halves[1::2], strict=True)
        return [(a.view(self.hidden, side), b.view(side, self.hidden)) for side, a, b in pairs], False

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As every optimizer's. Raises ValueError where a memory is not one of its parameter's matrices."""
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            for parameter, parts in zip(group["params"], group["parts"], strict=True):
                memory = self.state.get(parameter, {}).get("memory")
                if memory is not None and memory.shape != (
                    2 * self.hidden * sum(deep_momentum_sides(parameter, parts)),
                ):
                    raise ValueError(
                        f"a memory of {memory.numel()} numbers is not one of {self.hidden} units for its matrices"
                    )

    def _direction(self, members: list[Part]) -> Tensor:
        average = torch.stack([part.momentum for part in members])
        if not self.hidden or not self.inner_rate:
            return self.orthogonalised(average)
        gradient = torch.stack([part.gradient for part in members])
        a, b = (torch.stack([part.kept[i] for part in members]) for i in range(2))
        scale = torch.linalg.vector_norm(gradient, dim=(1, 2), keepdim=True) / gradient.shape[1] ** 0.5
        scale = scale.clamp(min=torch.finfo(scale.dtype).tiny ** 0.5)
        key = F.normalize(gradient, dim=2)
        inner = key @ a.mT  # (S, rows, hidden)
        missed = torch.baddbmm((average - gradient) / scale, F.silu(inner), b.mT)  # prediction less target
        slope = torch.sigmoid(inner) * (1 + inner * (1 - torch.sigmoid(inner)))
        rate = self.inner_rate / gradient.shape[1]
        of_b = missed.mT @ F.silu(inner)
        of_a = ((missed @ b) * slope).mT @ key
        a, b = a.sub(of_a, alpha=rate).mul_(self.keep), b.sub(of_b, alpha=rate).mul_(self.keep)
        for part, new_a, new_b in zip(members, a, b, strict=True):
            part.kept[0].copy_(new_a)
            part.kept[1].copy_(new_b)
        memory = average + scale * (F.silu(key @ a.mT) @ b.mT)
        return self.orthogonalised(memory)


def deep_momentum_sides(parameter: Tensor, parts: tuple[int, ...]) -> list[int]:
    """The longer side of each matrix in the parameter: its memory has 2 x hidden x as many numbers."""
    return [max(matrix.shape) for matrix in matrices_of(parameter, parts)]


def deep_momentum(
    model: nn.Module,
    learning_rate: float,
    hidden: int = 8,
    inner_rate: float = 0.1,
    keep: float = 0.99,
    **options: Unpack[MuonOptions],
) -> DeepMomentum:
    """Deep momentum over the model's hidden matrices and AdamW over the rest; arguments as in the class, options `muon`'s.

    Raises ValueError for Nesterov's step, which a memory that is not an average does not have.
    """
    if options.get("nesterov"):
        raise ValueError("nesterov: a deep memory has no step ahead")
    options = {**options, "nesterov": False}
    groups = matrix_groups(model, options.get("weight_decay", DECAY))
    own: dict[str, Any] = {"hidden": hidden, "inner_rate": inner_rate, "keep": keep}
    return DeepMomentum(groups, learning_rate, **own, **completed(options))
