"""AdamW for parameters that are updated once every so many steps, each level of a continuum memory in its own time.

A parameter group may have a `period` C: its gradients are added up for C steps, and on the C-th the group takes one step
of AdamW with their mean, at that step's learning rate (so weight decay, too, falls once in C steps). In between its
parameters keep their bits. Whatever happens to gradients before `step`, such as clipping, happens to each step's own; the
mean is not clipped again, and is no longer than the longest of them.

The sum and the number of steps in it are state of the parameter ("gathered", "waited"), which exist only inside a
window: a run resumed in the middle of one goes on as if it had not stopped, and a group without a period has the state
and the arithmetic of torch.optim.AdamW.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class PeriodicAdamW(torch.optim.AdamW):
    """torch.optim.AdamW, and `period` in a parameter group; 1 where it has none."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; of a group with a period, its gradients are taken over (and set to None) until it is due."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._gather()
        self._move()
        return loss

    def _move(self) -> None:
        """The step of every parameter that has a gradient."""
        super().step()

    def _gather(self) -> None:
        """Take over the gradients of groups with a period; those that are due get their mean."""
        for group in self.param_groups:
            period = group.get("period", 1)
            if period > 1:
                for parameter in group["params"]:
                    parameter.grad = self._due(parameter, period)

    def _due(self, parameter: Tensor, period: int) -> Tensor | None:
        """The mean gradient of a window that this step ends, None where it goes on or had no gradient."""
        state: dict[str, Any] = self.state[parameter]
        waited = state.pop("waited", 0) + 1
        total = state.pop("gathered", None)
        if parameter.grad is not None:
            total = parameter.grad if total is None else total.add_(parameter.grad)
        if waited == period:
            return None if total is None else total.div_(period)
        state["waited"] = waited
        if total is not None:
            state["gathered"] = total
        return None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As every optimizer's. Raises ValueError where a window is not one of its parameter."""
        saved = [index for group in state_dict["param_groups"] for index in group["params"]]
        own = [(parameter, group) for group in self.param_groups for parameter in group["params"]]
        windows = []
        state = {}  # without the windows: torch takes a state that is not empty for one that has begun
        for index, (parameter, group) in zip(saved, own, strict=True):
            entry = dict(state_dict["state"].get(index, {}))
            windows.append((parameter, _window(entry, parameter, group.get("period", 1))))
            if entry:
                state[index] = entry
        super().load_state_dict({**state_dict, "state": state})
        for parameter, window in windows:
            if window:
                self.state[parameter].update(window)


def _window(state: dict[str, Any], parameter: Tensor, period: int) -> dict[str, Any]:
    """What `state` says of a window, taken out of it. Raises ValueError."""
    window: dict[str, Any] = {name: state.pop(name) for name in ("waited", "gathered") if name in state}
    waited, total = window.get("waited", 0), window.get("gathered")
    if type(waited) is not int or not 0 <= waited < period:
        raise ValueError(f"{waited!r} steps waited of a period of {period}")
    if total is not None:
        if not isinstance(total, Tensor) or total.shape != parameter.shape:
            raise ValueError("a sum of gradients has not the shape of its parameter")
        window["gathered"] = total.to(parameter, copy=True)
    return window
