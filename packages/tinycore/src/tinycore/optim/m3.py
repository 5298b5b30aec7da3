"""M3, multi-scale momentum Muon (Nested Learning, arXiv 2512.24695, algorithm 1): a fast momentum and a slow one.

    M1 <- mu M1 + (1 - mu) G                                      every step
    M2 <- nu M2 + (1 - nu) mean of the G of the last f steps      every f-th step
    U  =  orthogonalised(M1) + alpha orthogonalised(M2)           M2's part is made anew when M2 is
    V  <- beta V + (1 - beta) G^2;   U <- U / (sqrt(V) + eps)     optional, off by default
    W  <- W (1 - lr decay) - lr .2 sqrt(max(rows, columns)) U

As printed the accumulators never decay; here both are averages. Dividing by sqrt(V) undoes the size that orthogonalisation
gave U, so U is then brought back to the norm of a semi-orthogonal matrix. alpha = 0 without V is Muon, step by step; what is
not a hidden matrix takes AdamW's steps as there. State of a hidden matrix: four of its size, five with V, so that a run
resumed inside a window of f steps goes on exactly.
"""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor, nn

from tinycore.optim.muon import DECAY, Muon, MuonOptions, Part, completed, matrix_groups

EPS = 1e-8


class M3(Muon):
    """Groups as `Muon`'s. slow_period: f, slow_momentum: nu, slow_share: alpha, second_moment: beta or None."""

    def __init__(
        self,
        groups: list[dict[str, Any]],
        learning_rate: float,
        *,
        slow_period: int,
        slow_momentum: float,
        slow_share: float,
        second_moment: float | None,
        **options: Any,
    ) -> None:
        self.slow_period, self.slow_momentum, self.slow_share = slow_period, slow_momentum, slow_share
        self.second_moment = second_moment
        super().__init__(groups, learning_rate, **options)

    def _kept(self, parameter: Tensor) -> tuple[tuple[Tensor, ...], bool]:
        """M2, its orthogonalised form and V where there is one."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if "slow" not in state:
            for name in ("slow", "slow_direction", "slow_sum", *(["second"] if self.second_moment is not None else [])):
                state[name] = torch.zeros_like(parameter)
            state["slow_waited"] = 0
        state["slow_sum"] += gradient
        state["slow_waited"] += 1
        due = state["slow_waited"] == self.slow_period
        if due:
            state["slow"].lerp_(state["slow_sum"] / self.slow_period, 1 - self.slow_momentum)
            state["slow_sum"].zero_()
            state["slow_waited"] = 0
        kept = (state["slow"], state["slow_direction"])
        if self.second_moment is not None:
            state["second"].lerp_(gradient.square(), 1 - self.second_moment)
            kept = (*kept, state["second"])
        return kept, due

    def _direction(self, members: list[Part]) -> Tensor:
        found = super()._direction(members)
        due = [part for part in members if part.due]
        if due and self.slow_share:
            slow = self.orthogonalised(torch.stack([part.kept[0] for part in due]))
            for part, direction in zip(due, slow, strict=True):
                part.kept[1].copy_(direction)
        if self.slow_share:
            found = found + self.slow_share * torch.stack([part.kept[1] for part in members]).to(found.dtype)
        if self.second_moment is not None:
            found = found / (torch.stack([part.kept[2] for part in members]).sqrt() + EPS).to(found.dtype)
            norm = torch.linalg.vector_norm(found, dim=(1, 2), keepdim=True).clamp(min=EPS)
            found = found * (min(found.shape[1:]) ** 0.5 / norm)
        return found


def m3(
    model: nn.Module,
    learning_rate: float,
    slow_period: int = 8,
    slow_momentum: float = 0.9,
    slow_share: float = 0.5,
    second_moment: float | None = None,
    **options: Unpack[MuonOptions],
) -> M3:
    """M3 over the model's hidden matrices and AdamW over the rest; arguments as in the module's docstring, options `muon`'s."""
    return M3(
        matrix_groups(model, options.get("weight_decay", DECAY)),
        learning_rate,
        slow_period=slow_period,
        slow_momentum=slow_momentum,
        slow_share=slow_share,
        second_moment=second_moment,
        **completed(options),
    )
