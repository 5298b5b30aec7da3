"""Cognitive experts (MiCRo, arXiv 2506.13331): named feed-forwards and a router that can be told what a text is.

    p = softmax(W_2 silu(W_1 x)) (B, T, E)
    soft:  y = sum_e p_e SwiGLU_e(x)                 every expert computes every token
    top1:  y = p_e SwiGLU_e(x) at the largest p_e    one expert a token (`dispatch`)

Per token, hence causal. Where the data says what a token belongs to (`routes` of the forward pass: an index into
`names`, -1 unknown), the router learns it by cross-entropy, `supervision` times; the other tokens are kept even by
`balance` times the balance loss, since labels need not be. Both are means over the layers that have experts.

The paper clones whole blocks of a pretrained model and trains experts, router and all in three stages; here experts are
feed-forwards trained together, and attention is common. The seed mixes two softly, without labels or balance. `silenced`
takes an expert away for an evaluation: what a model cannot do without it is what that expert is for.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinycore.config import ConfigError
from tinycore.context import Context
from tinycore.count import Cost
from tinycore.embed.table import INITIAL_STD
from tinycore.families import LOSS, Aux, Carry, FeedForwardConfig, LocalState, Scope
from tinycore.ffns.balance import balance
from tinycore.ffns.dispatch import dispatch
from tinycore.ffns.moe import routed_cost
from tinycore.ffns.swiglu import SwiGLU
from tinycore.linears.dense import Dense
from tinycore.ops.precision import without_autocast

if TYPE_CHECKING:
    from tinycore.model_config import LayerConfig

UNKNOWN = -1  # route of a token nothing is known about


class CognitiveExperts(nn.Module):
    """(B, T, D) -> (B, T, D) through the experts of `names`."""

    gating: ClassVar[tuple[str, ...]] = ("router_in", "router_out")

    @dataclass(frozen=True, kw_only=True)
    class Config(FeedForwardConfig, kind="experts"):
        exempt: ClassVar[Mapping[str, str]] = {
            "float32": "top1 is a hard decision that rounding flips; soft holds it, in test_experts",
            "flops": "top1 routes by the values of tokens, of which the meta device has none; both are counted in test_experts",
            "compiled": "top1: the number of an expert's tokens depends on the data; soft holds it, in test_experts",
        }
        projections: ClassVar[tuple[str, ...]] = SwiGLU.Config.projections
        names: tuple[str, ...] = field(
            default=("language", "logic"), metadata={"help": "the experts, by what they know"}
        )
        mode: Literal["soft", "top1"] = field(
            default="soft", metadata={"help": "mix all experts, or send a token to the likeliest"}
        )
        hidden: int | None = field(
            default=None, metadata={"help": "channels of an expert; null = 8/3 dim rounded up to a multiple of 64"}
        )
        router_hidden: int | None = field(default=None, metadata={"help": "channels of the router; null = dim / 4"})
        balance: float = field(default=1e-2, metadata={"help": "weight of the balance loss, without labels; 0 = none"})
        supervision: float = field(default=0.1, metadata={"help": "weight of the routing labels' cross-entropy"})

        def __post_init__(self) -> None:
            if not self.names or len(set(self.names)) < len(self.names):
                raise ConfigError(f"names: {list(self.names)} are not one or more different names")
            for name in self.names:
                if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                    raise ConfigError(f"names: '{name}' is not a word of small letters, digits and _")
            for key in ("hidden", "router_hidden"):
                value = getattr(self, key)
                if value is not None and value < 1:
                    raise ConfigError(f"{key}: {value} is not positive")
            for key in ("balance", "supervision"):
                if getattr(self, key) < 0:
                    raise ConfigError(f"{key}: {getattr(self, key)} is negative")

        @property
        def expert(self) -> SwiGLU.Config:
            """The config of each expert."""
            return SwiGLU.Config(hidden=self.hidden, linear=self.linear)

        def router_width(self, scope: Scope) -> int:
            return self.router_hidden or max(1, scope.dim // 4)

        def build(self, scope: Scope) -> CognitiveExperts:
            return CognitiveExperts(self, scope)

        def cost(self, scope: Scope, length: int) -> Cost:
            experts, width, each = len(self.names), self.router_width(scope), scope.product_bytes
            expert = self.expert.cost(scope, length)
            if self.mode == "top1":
                total = routed_cost(expert, experts, 1, scope, length)
            else:
                total = replace(
                    expert.called(experts),
                    parameters=experts * expert.parameters,
                    products=experts * expert.products,
                    # each keeps its result to be weighted; the input is one for all
                    saved=experts * (expert.saved + each * scope.dim) - (experts - 1) * each * scope.dim,
                    transient=expert.transient + 2 * scope.rows * length * each * scope.dim,
                )
            router = scope.dim * width + width * experts
            return total + Cost(
                parameters=router,
                flops={"router": 2.0 * router},
                # in float32: the router's input and channels, before and after silu; probabilities
                saved=4.0 * ((scope.dim if each != 4 or self.mode == "top1" else 0) + 2 * width + experts),
            )

    def __init__(self, config: Config, scope: Scope) -> None:
        super().__init__()
        width = config.router_width(scope)
        self.names, self.mode = config.names, config.mode
        self.balance, self.supervision = config.balance, config.supervision
        self.silent: int | None = None  # the expert that is taken away
        self.router_in = Dense(scope.dim, width, bias=False, gain=1.0)
        self.router_out = Dense(width, len(self.names), bias=False, gain=INITIAL_STD * width**0.5)
        self.experts = nn.ModuleList(config.expert.build(scope) for _ in self.names)

    def forward(
        self, x: Tensor, carry: Carry, ctx: Context, state: LocalState | None
    ) -> tuple[Tensor, Carry, LocalState | None, Aux]:
        with without_autocast(x):
            wide = x.to(torch.promote_types(x.dtype, torch.float32))
            logits = self.router_out(F.silu(self.router_in(wide)))  # (B, T, E)
        heard = logits
        if self.silent is not None:
            silent = torch.arange(len(self.names), device=x.device) == self.silent
            heard = logits.masked_fill(silent, float("-inf"))
        probabilities = F.softmax(heard, -1)
        weights, chosen = probabilities.max(-1, keepdim=True)
        experts: Any = self.experts
        if self.mode == "soft":
            parts = [
                p[..., None].to(x.dtype) * e.transform(x)
                for p, e in zip(probabilities.unbind(-1), experts, strict=True)
            ]
            y = torch.stack(parts).sum(0)
        else:
            transforms = [expert.transform for expert in experts]
            y = dispatch(x.flatten(0, 1), chosen.flatten(0, 1), weights.flatten(0, 1), transforms).view_as(x)
        return y, carry, state, self._aux(logits, probabilities, chosen, ctx)

    def _aux(self, logits: Tensor, probabilities: Tensor, chosen: Tensor, ctx: Context) -> Aux:
        """Losses and statistics of (B, T, E) logits and probabilities, and of the (B, T, 1) experts they choose."""
        counted = None if ctx.valid is None else ctx.valid.flatten()
        routes = None if ctx.routes is None else ctx.routes.flatten()
        logits, probabilities, chosen = logits.flatten(0, 1), probabilities.flatten(0, 1), chosen.flatten(0, 1)
        aux = balance(probabilities, chosen, counted, self.names, self.balance if routes is None else 0.0)
        if routes is None:
            return aux
        if counted is not None:
            routes = torch.where(counted, routes, UNKNOWN)
        known = routes != UNKNOWN
        if self.balance:
            free = ~known if counted is None else counted & ~known
            name = LOSS + "balance"
            aux[name] = balance(probabilities, chosen, free, self.names, self.balance)[name]
        if self.supervision:
            surprise = F.cross_entropy(logits, routes, ignore_index=UNKNOWN, reduction="sum")
            aux[LOSS + "routing"] = (self.supervision * surprise, known.sum())
        aux["experts/agreement"] = ((chosen[:, 0] == routes).sum(), known.sum())
        return aux


def expert_names(layers: Iterable[LayerConfig]) -> tuple[str, ...]:
    """What an index of `routes` means in a model of these layers; () where none has experts.

    Raises ConfigError where layers have different experts, so that an index would mean different things.
    """
    found = {layer.ffn.names for layer in layers if isinstance(layer.ffn, CognitiveExperts.Config)}
    if len(found) > 1:
        lists = " and ".join(", ".join(names) for names in sorted(found))
        raise ConfigError(f"model.layers: experts differ between layers ({lists}); labels need the same in all")
    return found.pop() if found else ()


@contextmanager
def silenced(model: nn.Module, name: str) -> Generator[None]:
    """While it lasts, no layer of `model` uses expert `name`: the router chooses among the others.

    Raises ValueError where no layer has such an expert, or one has no other.
    """
    layers = [module for module in model.modules() if isinstance(module, CognitiveExperts) and name in module.names]
    if not layers:
        known = sorted({n for module in model.modules() if isinstance(module, CognitiveExperts) for n in module.names})
        raise ValueError(f"no expert '{name}' in this model; it has {', '.join(known) or 'none'}")
    if any(len(layer.names) == 1 for layer in layers):
        raise ValueError(f"expert '{name}' is the only one of its layer and cannot be silenced")
    before = [layer.silent for layer in layers]
    try:
        for layer in layers:
            layer.silent = layer.names.index(name)
        yield
    finally:
        for layer, silent in zip(layers, before, strict=True):
            layer.silent = silent
