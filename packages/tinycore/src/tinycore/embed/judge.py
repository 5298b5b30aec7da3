"""A small causal language model inside another's embedding, of which nothing but its surprise is used.

Layers of windowed attention and SwiGLU in the plain placement, on a table of its own, to which its head is tied.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinycore.config import ConfigError
from tinycore.count import Cost
from tinycore.depth.calls import Calls
from tinycore.dropout import DropoutConfig
from tinycore.embed.table import INITIAL_STD
from tinycore.families import CallSite, Carry, Scope
from tinycore.ffns.swiglu import SwiGLU
from tinycore.layer import Layer
from tinycore.linears.dense import Dense
from tinycore.mixers.attention import Attention
from tinycore.model_config import LayerConfig
from tinycore.norms.pre import PreNorm
from tinycore.norms.rms import RMSNorm
from tinycore.residual.plain import PlainResidual


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """The small language model that says how surprising the next token is."""

    dim: int = field(default=64, metadata={"help": "channels"})
    layers: int = field(default=1, metadata={"help": "layers of attention and SwiGLU"})
    heads: int = field(default=4, metadata={"help": "attention heads of a layer"})
    window: int = field(default=64, metadata={"help": "tokens that a token sees"})

    def __post_init__(self) -> None:
        for name in ("dim", "layers", "heads", "window"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: {getattr(self, name)} is not positive")
        if self.dim % (2 * self.heads):
            raise ConfigError(f"heads: {self.dim} channels are not {self.heads} heads of an even number of channels")

    @property
    def layer(self) -> LayerConfig:
        """Each of its layers."""
        mixer = Attention.Config(heads=self.heads, window=self.window)
        return LayerConfig(mixer=mixer, ffn=SwiGLU.Config(hidden=2 * self.dim))

    def scope(self, scope: Scope) -> Scope:
        """What its layers know of a model around them: itself."""
        return replace(
            scope,
            dim=self.dim,
            calls=self.layers,
            layer=0,
            layers=self.layers,
            linear=Dense.Config(),
            norm=PreNorm.Config(),
            residual=PlainResidual.Config(),
            dropout=DropoutConfig(),
            value_source=None,
            memory=None,
        )

    def cost(self, scope: Scope, length: int) -> Cost:
        """Per token; the logits are made for the entropies and for the loss."""
        layer, products = self.layer.cost(self.scope(scope), length), self.dim * scope.vocab_size
        flops = {"judge": self.layers * sum(layer.flops.values()) + 4.0 * products}
        calls = replace(layer.called(self.layers), parameters=self.layers * layer.parameters, flops=flops, shared={})
        return calls + Cost(parameters=products + self.dim, saved=8.0 + 12.0 * self.dim, held=4 * products)


class Judge(nn.Module):
    """(tokens (B, T), calls) -> its stream (B, T, dim), before its last norm."""

    undecayed: ClassVar[tuple[str, ...]] = ("weight",)

    def __init__(self, config: JudgeConfig, scope: Scope) -> None:
        super().__init__()
        own = config.scope(scope)
        self.weight = nn.Parameter(torch.empty(scope.vocab_size, config.dim))
        nn.init.normal_(self.weight, std=INITIAL_STD)
        self.scale = config.dim**0.5  # its stream starts at the size of what layers add
        self.layers = nn.ModuleList(Layer(config.layer, replace(own, layer=index)) for index in range(config.layers))
        self.norm = RMSNorm(config.dim)

    def forward(self, tokens: Tensor, calls: Calls) -> Tensor:
        x = F.embedding(tokens, self.weight) * self.scale
        carry: Carry = {}
        for index in range(len(self.layers)):
            x, carry = calls(CallSite(f"embed/judge.{index}", index), x, carry)
        return x

    def logits(self, x: Tensor) -> Tensor:
        """Next-token logits (N, V) of its stream (N, dim)."""
        return F.linear(self.norm(x), self.weight)
