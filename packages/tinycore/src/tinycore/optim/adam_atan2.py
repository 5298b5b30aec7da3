"""Adam-atan2 (arXiv 2407.05872): AdamW whose step is an angle, so it has no epsilon and is never larger than pi / 2.

    p <- p (1 - lr decay) - lr atan2(m / (1 - b1^t), sqrt(v / (1 - b2^t)))

m and v are the moments of AdamW. For m and v of equal size the angle is pi / 4, where AdamW's step is 1; the paper's factor
a = 4 / pi makes up for that. TRM (arXiv 2510.04871), for whose recipes this is here, trains without it: so do we.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tinycore.optim.groups import decay_groups


class AdamATan2(torch.optim.Optimizer):
    """State of each parameter: step (a tensor), exp_avg, exp_avg_sq, as AdamW's. Raises ValueError for values out of range."""

    def __init__(
        self,
        params: Any,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.1,
    ) -> None:
        if lr < 0 or weight_decay < 0 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"lr {lr}, betas {betas}, weight_decay {weight_decay}: out of range")
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike: dict[tuple[Any, ...], list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    steps = self._begun(parameter)
                    alike[steps, parameter.dtype, parameter.device].append(parameter)
            for (steps, *_), members in alike.items():
                self._move(members, group, steps)
        return loss

    def _begun(self, parameter: nn.Parameter) -> int:
        """How many steps the parameter has taken, this one included."""
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        return int(state["step"])

    def _move(self, members: list[nn.Parameter], group: dict[str, Any], steps: int) -> None:
        """`members` have taken as many steps, of one dtype on one device: a few operations for all of them."""
        (first, second), rate = group["betas"], group["lr"]
        weights: list[Tensor] = list(members)
        gradients = [parameter.grad for parameter in members if parameter.grad is not None]
        means = [self.state[parameter]["exp_avg"] for parameter in members]
        squares = [self.state[parameter]["exp_avg_sq"] for parameter in members]
        torch._foreach_lerp_(means, gradients, 1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - second)
        roots = torch._foreach_div(squares, 1 - second**steps)
        torch._foreach_sqrt_(roots)
        angles = [torch.atan2(mean / (1 - first**steps), root) for mean, root in zip(means, roots, strict=True)]
        if group["weight_decay"]:
            torch._foreach_mul_(weights, 1 - rate * group["weight_decay"])
        torch._foreach_add_(weights, angles, alpha=-rate)


def adam_atan2(
    model: nn.Module, learning_rate: float, betas: tuple[float, float] = (0.9, 0.95), weight_decay: float = 0.1
) -> AdamATan2:
    """Adam-atan2 over `decay_groups`. Raises ValueError for a model whose parameters wait for several steps (CMS)."""
    groups = [group for group in decay_groups(model, weight_decay) if group["params"]]
    if any("period" in group for group in groups):
        raise ValueError("optim.kind: adam_atan2 updates every parameter in every step, and this model has slower ones")
    return AdamATan2(groups, learning_rate, betas)
