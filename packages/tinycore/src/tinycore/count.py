"""Closed-form counts: parameters, matrix-product FLOPs by component, state and training memory.

Every component's config states its own `Cost` per token; nothing is built. FLOPs are matrix products only (2 per
multiply-add), which is what `torch.utils.flop_counter.FlopCounterMode` counts: attention scores are counted over the
full square T x T, also where a causal kernel skips half of it. The backward pass of a product costs two products.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tinycore.ops.linear_cross_entropy import chunk_of

if TYPE_CHECKING:
    from tinycore.model_config import ModelConfig


@dataclass(frozen=True)
class Cost:
    """What one component costs.

    parameters: tensor elements it owns; flops: forward matrix-product FLOPs per token by component name; saved:
    elements per token kept for the backward pass; state: elements per row that a stream of the counted length keeps.
    """

    parameters: int = 0
    flops: Mapping[str, float] = field(default_factory=dict)
    saved: float = 0.0
    state: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.parameters + other.parameters,
            _added(self.flops, other.flops),
            self.saved + other.saved,
            self.state + other.state,
        )

    def called(self, times: int) -> Cost:
        """The cost of one set of weights applied `times` times."""
        flops = {name: value * times for name, value in self.flops.items()}
        return Cost(self.parameters, flops, self.saved * times, self.state * times)


def _added(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    return {name: a.get(name, 0.0) + b.get(name, 0.0) for name in dict.fromkeys([*a, *b])}


@dataclass(frozen=True)
class Memory:
    """Predicted bytes of training, by kind (float32 weights, gradients and AdamW moments)."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits


@dataclass(frozen=True)
class Count:
    """The counts of a model; see `count`."""

    config: ModelConfig
    parameters: int
    embedding_parameters: int

    def forward_flops(self, length: int) -> dict[str, float]:
        """Forward FLOPs per token by component, for sequences of `length` tokens."""
        return dict(self.config.cost(length).flops)

    def backward_flops(self, length: int) -> dict[str, float]:
        """Backward FLOPs per token by component: twice the forward's, two products for each."""
        return {name: 2.0 * value for name, value in self.forward_flops(length).items()}

    def flops_per_token(self, length: int) -> float:
        """Training FLOPs per token, forward and backward, for sequences of `length` tokens."""
        return 3.0 * sum(self.forward_flops(length).values())

    def state_bytes(self, length: int, bytes_per_element: int = 4) -> int:
        """Bytes of decoding state of one row after `length` tokens."""
        return self.config.cost(length).state * bytes_per_element

    def memory(self, rows: int, length: int, activation_bytes: int = 4) -> Memory:
        """Predicted bytes of a training step on `rows` sequences of `length` tokens on one process."""
        cost = self.config.cost(length)
        head = self.config.heads["lm"]
        chunk = min(rows * length, getattr(head, "chunk", None) or chunk_of(self.config.vocab_size))
        return Memory(
            weights=4 * self.parameters,
            gradients=4 * self.parameters,
            optimizer=8 * self.parameters,
            activations=int(cost.saved * rows * length * activation_bytes),
            # the chunked head holds the logits of one chunk and their gradient
            logits=2 * chunk * self.config.vocab_size * 4,
        )


def count(config: ModelConfig) -> Count:
    """Counts of `config` in closed form (no module is built)."""
    cost = config.cost(config.max_seq_len)
    return Count(config, cost.parameters, config.embed.cost(config.scope()).parameters)
