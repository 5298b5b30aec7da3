"""Token mixer of the Tiny Recursive Model (arXiv 2510.04871) and MLP-Mixer (arXiv 2105.01601): a SwiGLU over positions.

    y[:, d] = W_down (silu(W_gate x[:, d]) * W_up x[:, d]),   W_gate, W_up (hidden, T), W_down (T, hidden)

the same for every channel d. It sees every position and knows each by its place, so rows are whole puzzles of exactly the
model's `max_seq_len` positions; it is not causal, and keeps no state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from tinycore.config import ConfigError
from tinycore.context import Context
from tinycore.count import Cost
from tinycore.families import IN_PLACE, Aux, Carry, LocalState, MixerConfig, Scope
from tinycore.ops.swiglu import swiglu

WHOLE = "takes whole rows of one length only, neither packed nor padded"


class TokenMLP(nn.Module):
    """(B, T, D) -> (B, T, D) with T = max_seq_len."""

    @dataclass(frozen=True, kw_only=True)
    class Config(MixerConfig, kind="token_mlp"):
        projections: ClassVar[tuple[str, ...]] = ("gate", "up", "down")
        exempt: ClassVar[Mapping[str, str]] = {
            **dict.fromkeys(("isolated", "alone"), WHOLE),
            **dict.fromkeys(("learns", "mixes", "causal", "streams", "float32"), IN_PLACE),
            "identity": "is a mixer of its own, no add-on to another",
        }
        hidden: int = field(metadata={"help": "channels between the two products over positions"})

        def __post_init__(self) -> None:
            if self.hidden < 1:
                raise ConfigError(f"hidden: {self.hidden} is not positive")

        @property
        def looks_ahead(self) -> bool:
            return True

        @property
        def whole_rows(self) -> bool:
            return True

        def build(self, scope: Scope) -> TokenMLP:
            return TokenMLP(self, scope)

        def cost(self, scope: Scope, length: int) -> Cost:
            total = Cost()
            for name, inputs, outputs in self._shapes(scope.max_seq_len):
                # a product over positions is made once a channel: dim / T of it a token
                part = self.projection(scope, name).cost(inputs, outputs, "token_mixing")
                total += part.spread(scope.dim / scope.max_seq_len)
            ratio = scope.dim / scope.max_seq_len
            kept = scope.product_bytes * (scope.dim + 3 * self.hidden * ratio)
            slots = scope.rows * length * ratio * self.hidden
            return total + Cost(saved=kept, transient=int(scope.product_bytes * 4 * slots))

        def _shapes(self, length: int) -> tuple[tuple[str, int, int], ...]:
            return ("gate", length, self.hidden), ("up", length, self.hidden), ("down", self.hidden, length)

    def __init__(self, config: Config, scope: Scope) -> None:
        super().__init__()
        self.length = scope.max_seq_len
        for name, inputs, outputs in config._shapes(self.length):
            gain = scope.residual_gain if name == "down" else 1.0
            self.add_module(name, config.projection(scope, name).build(inputs, outputs, gain))

    def forward(
        self, x: Tensor, carry: Carry, ctx: Context, state: LocalState | None
    ) -> tuple[Tensor, Carry, LocalState | None, Aux]:
        if x.shape[1] != self.length:
            raise ValueError(f"tokens: token_mlp mixes rows of {self.length} positions (max_seq_len), got {x.shape[1]}")
        if ctx.documents is not None:
            raise ValueError("doc_ids: token_mlp takes whole rows, neither packed nor padded")
        across = x.transpose(1, 2)  # (B, D, T)
        y = self.get_submodule("down")(swiglu(self.get_submodule("gate")(across), self.get_submodule("up")(across)))
        return y.transpose(1, 2), carry, state, {}
