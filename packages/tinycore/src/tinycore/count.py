"""Closed-form counts: parameters, matrix-product FLOPs by component, state and training memory.

Every component's config states its own `Cost` per token; nothing is built. FLOPs are matrix products only (2 per
multiply-add), which is what `torch.utils.flop_counter.FlopCounterMode` counts: attention scores are counted over the
full square T x T, also where a causal kernel skips half of it. The backward pass of a product costs two products.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from tinycore.families import Scope
    from tinycore.model_config import ModelConfig
    from tinycore.recompute import Policy


@dataclass(frozen=True)
class Cost:
    """What one component costs.

    parameters: tensor elements it owns; flops: forward matrix-product FLOPs per token by component name; state:
    elements per row that a stream of the counted length keeps. Memory of training, at the scope's precision:
    saved: bytes per token kept from the forward to the backward pass; saved_products: elements per token kept so in the
    dtype of matrix products; low_rank: the elements among these that CoLA-M keeps (`tinycore.recompute`);
    held: bytes kept so whatever the tokens; shared: bytes of what exists in a pass once for all components that name it
    (tables, masks), for the scope's rows;
    transient: bytes that exist at one time while the component's own backward pass runs on the scope's rows;
    products: elements of weights that matrix products read (autocast keeps a copy of each);
    delayed: parameters of which the optimizer keeps a sum of gradients, to update them once in several steps.
    """

    parameters: int = 0
    flops: Mapping[str, float] = field(default_factory=dict)
    saved: float = 0.0
    saved_products: float = 0.0
    low_rank: float = 0.0
    state: int = 0
    held: int = 0
    transient: int = 0
    products: int = 0
    shared: Mapping[Any, int] = field(default_factory=dict)
    delayed: int = 0

    def __add__(self, other: Cost) -> Cost:
        """Costs of two components: everything adds up, but of transients only the larger one exists at a time."""
        return Cost(
            parameters=self.parameters + other.parameters,
            flops=_added(self.flops, other.flops),
            saved=self.saved + other.saved,
            saved_products=self.saved_products + other.saved_products,
            low_rank=self.low_rank + other.low_rank,
            state=self.state + other.state,
            held=self.held + other.held,
            transient=max(self.transient, other.transient),
            products=self.products + other.products,
            shared={**self.shared, **other.shared},
            delayed=self.delayed + other.delayed,
        )

    def recomputed(self, scope: Scope, length: int) -> Cost:
        """The cost of a layer whose calls keep what the scope's policy says: the rest exists while one is run again."""
        if scope.recompute == "none":
            return self
        kept = replace(
            self,
            saved=4.0 * scope.dim,  # the stream before it
            saved_products=self.low_rank if scope.recompute == "low_rank" else 0.0,
            held=0,
        )
        made = self.saved_bytes(scope.product_bytes) - kept.saved_bytes(scope.product_bytes)
        return replace(kept, transient=self.transient + int(made * scope.rows * length) + self.held)

    def called(self, times: int) -> Cost:
        """The cost of one set of weights applied `times` times."""
        flops = {name: value * times for name, value in self.flops.items()}
        return replace(
            self,
            flops=flops,
            saved=self.saved * times,
            saved_products=self.saved_products * times,
            state=self.state * times,
            held=self.held * times,
        )

    def spread(self, ratio: float) -> Cost:
        """The cost per token of what computes `ratio` slots a token."""
        flops = {name: value * ratio for name, value in self.flops.items()}
        return replace(self, flops=flops, saved=self.saved * ratio, saved_products=self.saved_products * ratio)

    def saved_bytes(self, product_bytes: int) -> float:
        """Bytes per token kept from the forward to the backward pass, with products of so many bytes an element."""
        return self.saved + product_bytes * self.saved_products


def _added(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    return {name: a.get(name, 0.0) + b.get(name, 0.0) for name in dict.fromkeys([*a, *b])}


@dataclass(frozen=True)
class Memory:
    """Predicted bytes of tensors at the fullest moment of training, by kind, and when that is.

    Weights, gradients and AdamW's two moments are float32, as are sums of gradients for updates once in several steps.
    `activations` is what the forward pass keeps for the backward pass, `temporaries` what exists beside it at that
    moment. `peak`: "head" (while the loss is computed), "backward" (in a layer) or "step" (of the optimizer). Gradients
    do not exist before the first backward pass of a step: a peak before it has none.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    temporaries: int
    peak: Literal["head", "backward", "step"]

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.temporaries


@dataclass(frozen=True)
class Count:
    """The counts of a model; see `count`."""

    config: ModelConfig
    parameters: int
    embedding_parameters: int

    def forward_flops(self, length: int, training: bool = False) -> dict[str, float]:
        """Forward FLOPs per token by component, for sequences of `length` tokens; in training the next-token head may read
        several streams."""
        readings = self.config.readings if training else 1
        return dict(self.config.cost(length, readings=readings).flops)

    def backward_flops(self, length: int) -> dict[str, float]:
        """FLOPs per token of one backward pass by component: two products for each that it goes through."""
        return {name: 2.0 * value for name, value in self._learning(length).flops.items()}

    def flops_per_token(self, length: int) -> float:
        """Training FLOPs per token, forward and backward, for sequences of `length` tokens."""
        return sum(self.training_flops(length).values())

    def training_flops(self, length: int) -> dict[str, float]:
        """The same by component. Of recursive depth: all supervision steps, whose every one has its backward pass and loss."""
        passes, backward = self.config.depth.passes, self.backward_flops(length)
        found = self.forward_flops(length, training=True)
        if "head" in found:
            found["head"] *= passes  # a forward pass alone has one
        return {name: value + passes * backward[name] for name, value in found.items()}

    def _learning(self, length: int) -> Cost:
        """The cost of what one backward pass goes through."""
        depth = self.config.depth
        return self.config.cost(length, sites=depth.gradient_calls(self.config.size()), readings=self.config.readings)

    def state_bytes(self, length: int, bytes_per_element: int = 4) -> int:
        """Bytes of decoding state of one row after `length` tokens."""
        return self.config.cost(length).state * bytes_per_element

    def memory(
        self,
        rows: int,
        length: int,
        product_bytes: int = 4,
        accumulated: bool = True,
        device: str = "cpu",
        recompute: Policy = "none",
        trained: int | None = None,
    ) -> Memory:
        """Predicted peak of training on micro-batches of `rows` sequences of `length` tokens, on one process.

        `product_bytes`: 4 in float32, 2 under bf16 autocast; `accumulated`: a step has several micro-batches, so that
        the gradients of the earlier ones are there; `device`: its type; `recompute`: what calls of layers keep;
        `trained`: the parameters that have gradients and moments, None: all (activations are then counted as for all). What the
        allocator and the process need beside tensors is not in it.
        """
        config, tokens = self.config, rows * length
        scope = replace(config.scope(), rows=rows, product_bytes=product_bytes, device=device, recompute=recompute)
        cost = config.cost(length, scope, config.depth.gradient_calls(config.size()), config.readings)
        trained = self.parameters if trained is None else trained
        gradients = 4 * trained
        kept = int(cost.saved_bytes(product_bytes) * tokens) + cost.held + scope.cast_bytes * cost.products
        head = max(head.workspace(scope, config.embed.tied, config.readings * tokens) for head in config.heads.values())
        before = gradients if accumulated else 0
        shared = sum(cost.shared.values())
        # what the last norm kept is gone when the backward pass reaches the layers
        last = int(config.norm.cost(scope, "final").saved * tokens)
        moments: dict[Literal["head", "backward", "step"], tuple[int, int, int]] = {
            "head": (before, kept, head + shared),
            "backward": (before, kept, cost.transient + shared - last),
            "step": (gradients, 0, 0),
        }
        peak = max(moments, key=lambda moment: sum(moments[moment]))
        there, activations, temporaries = moments[peak]
        optimizer = 8 * trained + 4 * cost.delayed
        return Memory(4 * self.parameters, there, optimizer, activations, temporaries, peak)


def count(config: ModelConfig) -> Count:
    """Counts of `config` in closed form (no module is built)."""
    cost = config.cost(config.max_seq_len)
    return Count(config, cost.parameters, config.embed.cost(config.scope(), config.max_seq_len).parameters)
