"""Delta gradient descent (Nested Learning, arXiv 2512.24695): a weight first forgets what it says of the inputs it just met.

    C = mean over tokens of x x^T, x / |x| the layer's inputs        forget = forgetting * lr / (1 + forgetting * lr)
    M <- mu M + (1 - mu) G
    W <- W (I - forget C) - scale lr M

For one input of length one and mu = 0 this is the printed rule W (I - eta' x x^T) - eta G; with x = 0, or forgetting 0, it is
gradient descent. The rule is for maps between channels that see their inputs as they are (`nn.Linear`); everything else
takes AdamW's steps, as with `muon`. Inputs of all forward passes since the last step count, of all processes alike.

Plain gradients are small beside AdamW's steps: `scale` says how many times `lr` they are multiplied by.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tinycore.optim.periodic import PeriodicAdamW
from tinycore.optim.roles import roles


class _Met:
    """What one layer met since the last step: the sum of x x^T (in, in) over x of length one, and the number of tokens."""

    def __init__(self, layer: nn.Linear) -> None:
        self.total = torch.zeros(layer.in_features, layer.in_features, device=layer.weight.device)
        self.tokens = torch.zeros((), dtype=torch.float64)

    @torch.no_grad()
    def __call__(self, layer: nn.Module, arguments: tuple[Any, ...]) -> None:
        if not layer.training:
            return
        x = arguments[0].detach().reshape(-1, arguments[0].shape[-1]).float()
        x = x / torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp(min=1e-12)
        if self.total.device != x.device:
            self.total = self.total.to(x.device)
        self.total.addmm_(x.mT, x)
        self.tokens += len(x)

    def mean(self) -> Tensor:
        """C (in, in) over all processes; begins anew. Zero where no token was met."""
        tokens = self.tokens.clone()
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(self.total)
            tokens = tokens.to(self.total.device)
            dist.all_reduce(tokens)
        found = self.total / max(float(tokens), 1.0)
        self.forget()
        return torch.where(found.isfinite().all(), found, 0.0)  # of a step that was skipped for it, nothing is learned

    def forget(self) -> None:
        self.total.zero_()
        self.tokens.zero_()


class DeltaGD(PeriodicAdamW):
    """Groups with "met", one `_Met` a parameter, go by the delta rule, the others AdamW's way."""

    def __init__(
        self, groups: list[dict[str, Any]], momentum: float, scale: float, forgetting: float, **adamw: Any
    ) -> None:
        self.momentum, self.scale, self.forgetting = momentum, scale, forgetting
        self.met: dict[Tensor, _Met] = {}
        for group in groups:
            self.met |= dict(zip(group["params"], group.pop("met", ()), strict=False))
        super().__init__(groups, **adamw)

    def _move(self) -> None:
        groups = self.param_groups
        for group in groups:
            for parameter in group["params"]:
                if parameter in self.met:
                    self._step_of(parameter, group["lr"], group["weight_decay"])
        rest = [{**group, "params": [p for p in group["params"] if p not in self.met]} for group in groups]
        self.param_groups = rest
        try:
            super()._move()
        finally:
            self.param_groups = groups

    def _step_of(self, parameter: Tensor, rate: float, decay: float) -> None:
        seen = self.met[parameter].mean()  # on every process, whether there is a gradient or not
        if parameter.grad is None:
            return
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
            state["step"] = torch.zeros(())  # which AdamW's way of loading expects in every state
        state["step"] += 1
        state["momentum"].lerp_(parameter.grad, 1 - self.momentum)
        if self.forgetting:
            forget = self.forgetting * rate / (1 + self.forgetting * rate)
            parameter.sub_(parameter @ seen.to(parameter.dtype), alpha=forget)
        if decay:
            parameter.mul_(1 - rate * decay)
        parameter.sub_(state["momentum"], alpha=self.scale * rate)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As every optimizer's; what was met until now belongs to another state, and is forgotten."""
        super().load_state_dict(state_dict)
        for met in self.met.values():
            met.forget()


def delta_gd(
    model: nn.Module,
    learning_rate: float,
    momentum: float = 0.9,
    scale: float = 10.0,
    forgetting: float = 1.0,
    betas: tuple[float, float] = (0.9, 0.95),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> DeltaGD:
    """The delta rule over the model's hidden `nn.Linear` matrices, AdamW over the rest; the layers' inputs are listened to
    from now on. Raises ValueError where there is no such matrix."""
    layers = {id(module.weight): module for module in model.modules() if isinstance(module, nn.Linear)}
    found = roles(model)
    met: dict[int, _Met] = {}
    for role in found:
        layer = layers.get(id(role.parameter))
        if role.kind == "hidden" and role.period == 1 and layer is not None:
            met[id(role.parameter)] = heard = _Met(layer)
            layer.register_forward_pre_hook(heard)
    if not met:
        raise ValueError("the delta rule needs hidden nn.Linear matrices, whose inputs it can see; the model has none")
    groups: list[dict[str, Any]] = []
    for key in sorted({(role.period, id(role.parameter) not in met, not role.decays) for role in found}):
        members = [
            role.parameter for role in found if (role.period, id(role.parameter) not in met, not role.decays) == key
        ]
        period, other, undecayed = key
        group: dict[str, Any] = {"params": members, "weight_decay": 0.0 if undecayed else weight_decay}
        group |= {} if other else {"met": [met[id(parameter)] for parameter in members]}
        groups.append(group | ({"period": period} if period > 1 else {}))
    return DeltaGD(groups, momentum, scale, forgetting, lr=learning_rate, betas=betas, eps=eps, fused=True)
