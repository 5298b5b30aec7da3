"""What stands between a stack's calls and decides which tokens pay for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from tinycore.depth.calls import Calls, Early
from tinycore.families import CallSite, Carry

Readout = Callable[[Tensor], Tensor]  # hidden states (..., D) -> next-token logits (..., V)


class Routed(NamedTuple):
    """What is known of a pass when it ends: earlier streams to learn from; how many calls each token (B, T) paid for."""

    early: Early | None = None
    steps: Tensor | None = None


class Router(nn.Module):
    """route = begin(x, calls, readout); (x, carry) = router(route, index, site, x, carry, calls) for each call in order;
    end(route, calls)."""

    def begin(self, x: Tensor, calls: Calls, readout: Readout) -> Any:
        """What the router keeps during one pass."""
        return None

    def forward(
        self, route: Any, index: int, site: CallSite, x: Tensor, carry: Carry, calls: Calls
    ) -> tuple[Tensor, Carry]:
        raise NotImplementedError

    def end(self, route: Any, calls: Calls) -> Routed:
        """What the pass leaves."""
        return Routed()
