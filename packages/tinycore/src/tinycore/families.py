"""The families of components: what each is asked, and what it must answer.

Every member is a class with a nested frozen config. The config carries the kind, the hyper-parameters, `build` (a
module) and `cost` (its closed-form counts). Branches (mixers and feed-forwards) are called as

    branch(x, carry, ctx, state) -> (y, carry, state, aux)      # x, y (B, T, D)

`carry` travels up the depth within one call, `state` is what survives to the next chunk of the same sequence (`None`
when nothing is to be kept, `{}` for a fresh sequence), `ctx` is the immutable `Context`, and `aux` holds
`{name: (sum, count)}`: losses under names that begin with `LOSS`, statistics under others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from torch import Tensor, nn

from tinycore.config import ConfigError, Family
from tinycore.count import Cost
from tinycore.dropout import DropoutConfig
from tinycore.norms.rms import RMSNorm

if TYPE_CHECKING:
    from tinycore.recompute import Policy

Aux = dict[str, tuple[Tensor, Tensor]]
Carry = dict[str, Tensor]
LocalState = dict[str, Any]

IN_PLACE = "predicts in place, from both sides: held by packages/tinycore/tests/test_in_place.py instead"
LOSS = "loss/"  # aux under a name that begins so is a loss, weighted by whoever reports it; other aux is a statistic


def add_aux(into: Aux, found: Aux) -> None:
    """Add sums and counts of the same name."""
    for name, (total, count) in found.items():
        before = into.get(name)
        into[name] = (total, count) if before is None else (before[0] + total, before[1] + count)


class MemoryShape(NamedTuple):
    """What depth feedback remembers of a token, for mixers that read it."""

    kv_heads: int
    head_dim: int
    theta: float  # RoPE base
    chunk: int  # tokens computed at once


@dataclass(frozen=True)
class Scope:
    """What a component may know of the model around it while it is built or counted.

    `calls` is the effective depth: how many layer applications add to one residual stream (residual outputs are initialised
    with std / sqrt(2 * calls), once, however many calls share the weights); `layer` of `layers` is the module's own place
    in the stack; `value_source` the layer that hands its values to all later ones and is called once, so that it never
    reads any (see `MixerConfig.reads_first_values`); `memory`, what the depth remembers for mixers to
    read; `row_dim`, channels of a row of the embedding's table; `routing` and `storage` (the model's `memory`) stand
    between calls. For memory of training: `rows`, the sequences of a micro-batch;
    `product_bytes` of an element inside matrix products, 4 or, under autocast, 2 (the residual stream is float32 in either
    case); the type of the `device`; what calls of layers keep (`tinycore.recompute`).
    """

    dim: int
    vocab_size: int
    max_seq_len: int
    calls: int
    linear: LinearConfig
    norm: NormConfig
    residual: ResidualConfig
    dropout: DropoutConfig = field(default_factory=DropoutConfig)
    layer: int = 0
    layers: int = 1
    value_source: int | None = None
    memory: MemoryShape | None = None
    row_dim: int = 0
    routing: RoutingConfig | None = None
    storage: MemoryConfig | None = None
    rows: int = 1
    product_bytes: int = 4
    device: str = "cpu"
    recompute: Policy = "none"

    @property
    def cast_bytes(self) -> int:
        """Bytes of an element of a copy that is made for a product; 0 where products take float32 as it is."""
        return 0 if self.product_bytes == 4 else self.product_bytes

    @property
    def residual_gain(self) -> float:
        return (2 * self.calls) ** -0.5


class LinearConfig(Family):
    """How is a matrix product parameterised? `build(inputs, outputs, gain)` -> module (..., inputs) -> (..., outputs).

    Weights start with standard deviation `gain / sqrt(inputs)`.
    """

    default: ClassVar[str | None] = "dense"

    def build(self, inputs: int, outputs: int, gain: float = 1.0) -> nn.Module:
        raise NotImplementedError

    def cost(self, inputs: int, outputs: int, component: str) -> Cost:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class BranchConfig:
    """What mixers and feed-forwards share: linears that can be overridden by projection name."""

    projections: ClassVar[tuple[str, ...]] = ()
    linear: dict[str, LinearConfig] = field(
        default_factory=dict, metadata={"help": "linear by projection name; one not named uses the model's"}
    )

    def build(self, scope: Scope) -> nn.Module:
        raise NotImplementedError

    def cost(self, scope: Scope, length: int) -> Cost:
        raise NotImplementedError

    def projection(self, scope: Scope, name: str) -> LinearConfig:
        """The linear of projection `name`: its own, or the model's default."""
        return self.linear.get(name, scope.linear)


class MixerConfig(BranchConfig, Family):
    """How do positions talk?

    has_qkv: projects to queries, keys and values, and normalises each head of them where the model's norm asks for it;
    reads_first_values: adds the values of the pass's first such mixer to its own, which takes `value_channels` (of a
    token, in all heads) to be equal. What all layers of a kind share is a module () -> Tensor of the model's own: it is
    called once a pass, and its result stands in the carry under the kind's name.
    """

    has_qkv: ClassVar[bool] = False

    @property
    def reads_first_values(self) -> bool:
        return False

    @property
    def looks_ahead(self) -> bool:
        """Whether a position sees later ones: its model predicts in place, and generates nothing."""
        return False

    @property
    def reads_memory(self) -> bool:
        """Whether it reads what its depth remembers, and works with no other depth."""
        return False

    @property
    def whole_rows(self) -> bool:
        """Whether it takes rows of exactly `max_seq_len` positions only, neither packed nor padded."""
        return False

    def value_channels(self, scope: Scope) -> int:
        raise NotImplementedError

    def build_shared(self, scope: Scope) -> nn.Module:
        raise NotImplementedError

    def shared_cost(self, scope: Scope) -> Cost:
        """Nothing is built where this has no parameters."""
        return Cost()


class FeedForwardConfig(BranchConfig, Family):
    """What does a position compute?"""


@dataclass(frozen=True, kw_only=True)
class NormConfig(Family):
    """Where is the scale kept? Tagged by its placement.

    `build(scope, sublayer)` makes the norm around one sublayer ("mixer" or "ffn") with
    `before(x) -> (base, input)` and `after(base, y) -> x`; `build_final` the norm before the heads. `parallel`: whether
    one norm serves a mixer and a feed-forward side by side, as the sublayer "parallel". normalises_qkv: the norm of a
    mixer stands inside it, on each head of its queries, keys and values.
    """

    tag: ClassVar[str] = "placement"
    parallel: ClassVar[bool] = False
    default: ClassVar[str | None] = "pre"
    normalises_qkv: ClassVar[bool] = False
    eps: float = field(default=1e-5, metadata={"help": "added to the mean square"})
    affine: bool = field(default=True, metadata={"help": "learn a gain per channel"})

    def __post_init__(self) -> None:
        if not 0 < self.eps < 1:
            raise ConfigError(f"eps: {self.eps} is not between 0 and 1")

    def build(self, scope: Scope, sublayer: str) -> nn.Module:
        raise NotImplementedError

    def build_final(self, scope: Scope) -> nn.Module:
        return RMSNorm(scope.dim, self.eps, self.affine)

    def cost(self, scope: Scope, sublayer: str) -> Cost:
        """Of the norm at `sublayer`, or "final"."""
        # the stream and its scale; what reads the output keeps that
        return Cost(parameters=scope.dim if self.affine else 0, saved=4.0 * (scope.dim + 1))


class ResidualConfig(Family):
    """How is a branch added to the stream, and how are calls joined?

    `build(scope)` makes the module (x, y) -> x around one sublayer. A member with `joins_calls` has a stream module too,
    one for the model: `stream(index, x, kept) -> (x, kept)` is run before call `index` = 0, 1, ... of `scope.calls`, and
    with index = calls after the last. x (B, T, D) is what the call before gave (the embedding at index 0), `kept` a tuple
    of tensors that is the stream's own, () at first. It looks at one position at a time, so it has no state. `kept` is no
    part of the carry, which layers see: a compiled layer would be compiled again for each length of a history.
    """

    default: ClassVar[str | None] = "plain"
    joins_calls: ClassVar[bool] = False

    def build(self, scope: Scope) -> nn.Module:
        raise NotImplementedError

    def build_stream(self, scope: Scope) -> nn.Module | None:
        return None

    def cost(self, scope: Scope) -> Cost:
        """Of one sublayer."""
        raise NotImplementedError

    def stream_cost(self, scope: Scope, length: int) -> Cost:
        """Of the stream module in a whole pass; its transient exists beside that of any layer."""
        return Cost()

    def check(self, scope: Scope) -> None:
        """Raise ConfigError("key: what is wrong") if the model cannot have it."""


class CallSite(NamedTuple):
    """One application of a layer: `path` names it in the state and among taps, `layer` is the module's index."""

    path: str
    layer: int


class DepthConfig(Family):
    """In what order, how often are layers called? The only owner of a loop over layers.

    `build(layers, scope)` -> module (layers, x, carry, ctx, state, taps) -> `depth.calls.Ascent`.

    `runs_stream`: whether it runs the residual's stream module between its calls. `regroups`: whether some calls see groups
    of tokens instead of tokens. `adjustable`: the settings (dotted below the depth) on which no parameter depends, so that a
    trained model may be used with others.
    """

    default: ClassVar[str | None] = "plain"
    runs_stream: ClassVar[bool] = False
    regroups: ClassVar[bool] = False
    adjustable: ClassVar[tuple[str, ...]] = ()

    def check(self, layers: int) -> None:
        """Raise ConfigError("key: what is wrong") if a stack of `layers` modules cannot be run so."""

    def call_sites(self, layers: int) -> tuple[CallSite, ...]:
        """Every application in order, for a stack of `layers` modules."""
        raise NotImplementedError

    def gradient_calls(self, layers: int) -> tuple[CallSite, ...]:
        """The calls that one backward pass goes through."""
        return self.call_sites(layers)

    def joined_calls(self, layers: int) -> int:
        """How many calls add to one residual stream."""
        return max(1, len(self.call_sites(layers)))

    def slots(self, site: CallSite, layers: int, length: int) -> int:
        """How many slots the call at `site` sees of a fresh document of `length` tokens."""
        return length

    @property
    def memory(self) -> MemoryShape | None:
        """What it remembers of earlier tokens, for mixers that read that instead of their own layer's."""
        return None

    @property
    def reads_entropy(self) -> bool:
        """Whether it needs an embedding that `judges`."""
        return False

    @property
    def reads_out(self) -> bool:
        """Whether it asks for `readout`, hidden states -> next-token logits, as well."""
        return False

    @property
    def readings(self) -> int:
        """How many streams the next-token head reads in training."""
        return 1

    def settled(self) -> DepthConfig:
        """The same depth with every setting written out that decides a parameter's shape, so that `adjustable` ones may
        change."""
        return self

    @property
    def recurs(self) -> bool:
        """Whether it goes on from latents, in supervision steps."""
        return False

    @property
    def passes(self) -> int:
        """Backward passes, and optimizer steps, that training makes with one batch."""
        return 1

    def build(self, layers: int, scope: Scope) -> nn.Module:
        raise NotImplementedError

    def cost(self, scope: Scope, length: int) -> Cost:
        """What depth owns itself: step embeddings, halting heads, what it keeps between chunks."""
        return Cost()


class RoutingConfig(Family):
    """Which tokens pay for a layer? Asked at each call of a fixed stack.

    `build(sites, scope)` -> `routing.router.Router`. `regroups`: whether calls see a part of the tokens; `freezes`: whether
    tokens are to stay as they are from some call on; `adjustable` as of `DepthConfig`.
    """

    regroups: ClassVar[bool] = False
    freezes: ClassVar[bool] = False
    adjustable: ClassVar[tuple[str, ...]] = ()

    def check(self, calls: int) -> None:
        """Raise ConfigError("key: what is wrong") if a stack of `calls` calls cannot be routed so."""

    @property
    def readings(self) -> int:
        """How many further streams the next-token head reads in training."""
        return 0

    def slots(self, index: int, length: int) -> int:
        """How many of a document's `length` tokens call `index` computes in training."""
        return length

    def build(self, sites: Sequence[CallSite], scope: Scope) -> nn.Module:
        raise NotImplementedError

    def cost(self, scope: Scope, calls: int) -> Cost:
        """Of deciding at `calls` calls."""
        raise NotImplementedError


class MemoryConfig(Family):
    """What persists beside the residual stream? Read and written between the calls of a fixed stack.

    `build(calls, scope)` -> module (index, x, held, calls) -> (x, held), run before call `index`: x (B, T, D) is the stream,
    `held` what it keeps from call to call of a pass (None at first), `calls` the `depth.calls.Calls` that keep what survives
    to the next chunk.
    """

    def check(self, calls: int) -> None:
        """Raise ConfigError("key: what is wrong") if a stack of `calls` calls cannot have it."""

    def build(self, calls: int, scope: Scope) -> nn.Module:
        raise NotImplementedError

    def cost(self, scope: Scope, calls: int, length: int) -> Cost:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(Family):
    """What is a token?

    `build(scope)` -> module tokens (B, T) -> (B, T, D) with `weight` (V, row_dim); `as_row(hidden)`, (..., D) ->
    (..., row_dim), what a tied head multiplies with its rows; and `registers`, the `Registers` that the model puts in front
    of its documents, or None. With `reads_past` it is called with the context and the state as well, see `embed.blt`; with
    `judges` it leaves the entropy of each next token in the carry, which depths may ask for.
    """

    default: ClassVar[str | None] = "table"
    reads_past: ClassVar[bool] = False
    judges: ClassVar[bool] = False
    tied: bool = field(default=True, metadata={"help": "the next-token head uses the embedding's matrix"})

    def row_dim(self, dim: int) -> int:
        """Channels of a row of `weight`."""
        return dim

    @property
    def register_slots(self) -> int:
        """Slots of registers in front of each document's tokens, which layers see and heads do not."""
        return 0

    def build(self, scope: Scope) -> nn.Module:
        raise NotImplementedError

    def cost(self, scope: Scope, length: int) -> Cost:
        raise NotImplementedError


class HeadConfig(Family):
    """What is predicted? `taps` are the call sites whose hidden states it reads ("final": after the last norm)."""

    keyed: ClassVar[bool] = True

    @property
    def taps(self) -> tuple[str, ...]:
        return ("final",)

    @property
    def halts(self) -> bool:
        """Whether it says when supervision steps are enough, which takes a recursive depth."""
        return False

    def check(self, scope: Scope, tied: bool, causal: bool) -> None:
        """Raises ConfigError("key: what is wrong") where the head does not fit the model around it."""

    def build(self, scope: Scope, embed: nn.Module, tied: bool) -> nn.Module:
        raise NotImplementedError

    def cost(self, scope: Scope, tied: bool) -> Cost:
        raise NotImplementedError

    def workspace(self, scope: Scope, tied: bool, tokens: int) -> int:
        """Bytes that exist at one time while the loss of `tokens` tokens or its gradient is computed, beside what is kept."""
        return 0
