"""A model is a value: the config tree from which it is built and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from tinycore.config import ConfigError, dump, load, unknown
from tinycore.count import Cost
from tinycore.depth.plain import Plain
from tinycore.dropout import DropoutConfig
from tinycore.embed.table import Table
from tinycore.families import (
    CallSite,
    DepthConfig,
    EmbedConfig,
    FeedForwardConfig,
    HeadConfig,
    LinearConfig,
    MemoryConfig,
    MixerConfig,
    NormConfig,
    ResidualConfig,
    RoutingConfig,
    Scope,
)
from tinycore.heads.lm import LanguageModelHead
from tinycore.linears.dense import Dense
from tinycore.norms.pre import PreNorm
from tinycore.residual.plain import PlainResidual

MAX_LAYERS = 4096  # bounds what a stranger's config can make us build


@dataclass(frozen=True, kw_only=True)
class LayerConfig:
    """A layer (mixer, then feed-forward), or a group of layers; repeated with weights of its own each time."""

    repeat: int = field(default=1, metadata={"help": "how many of these layers, each with its own weights"})
    layers: tuple[LayerConfig, ...] | None = field(default=None, metadata={"help": "a group instead of one layer"})
    block: Literal["sequential", "parallel"] = field(
        default="sequential", metadata={"help": "feed-forward after the mixer, or beside it on the same normed input"}
    )
    mixer: MixerConfig | None = None
    ffn: FeedForwardConfig | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.repeat <= MAX_LAYERS:
            raise ConfigError(f"repeat: {self.repeat} is not between 1 and {MAX_LAYERS}")
        if (self.layers is None) == (self.mixer is None and self.ffn is None):
            raise ConfigError("layers: an entry is either a layer (mixer, ffn) or a group (layers)")
        if self.block == "parallel" and len(self.branches()) < 2:
            raise ConfigError("block: parallel needs both a mixer and an ffn")

    def branches(self) -> dict[str, MixerConfig | FeedForwardConfig]:
        """The branches that there are, by name."""
        found = {"mixer": self.mixer, "ffn": self.ffn}
        return {name: branch for name, branch in found.items() if branch is not None}

    def sublayers(self) -> dict[str, tuple[str, ...]]:
        """The branches inside one norm and residual, by the sublayer's name, in the order of computation."""
        names = tuple(self.branches())
        return {"parallel": names} if self.block == "parallel" else {name: (name,) for name in names}

    def flatten(self) -> Iterator[LayerConfig]:
        for _ in range(self.repeat):
            if self.layers is None:
                yield replace(self, repeat=1)
            else:
                for layer in self.layers:
                    yield from layer.flatten()

    def size(self) -> int:
        return self.repeat * (1 if self.layers is None else sum(layer.size() for layer in self.layers))

    def cost(self, scope: Scope, length: int) -> Cost:
        """Cost of one application of one layer."""
        total = Cost()
        branches = self.branches()
        for sublayer, names in self.sublayers().items():
            around = scope.norm.cost(scope, sublayer) + scope.residual.cost(scope)
            for name in names:
                part = branches[name].cost(scope, length) + scope.dropout.cost(scope)
                if name == names[0]:
                    part += around
                else:  # the normed input, which the first branch keeps as well
                    part = replace(part, saved=part.saved - scope.product_bytes * scope.dim)
                # the backward pass takes the later branch first: what that kept is gone when the earlier one begins
                earlier = total.transient - int(part.saved_bytes(scope.product_bytes) * scope.rows * length)
                total = replace(total + part, transient=max(earlier, part.transient))
        return total


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that determines a model's function and parameters. See DESIGN: one YAML mapping."""

    vocab_size: int = field(metadata={"help": "tokens; in a recipe, null = the tokenizer's"})
    dim: int = field(metadata={"help": "channels of the residual stream"})
    max_seq_len: int = field(metadata={"help": "tokens of context, prompt and answer together"})
    layers: tuple[LayerConfig, ...] = field(metadata={"help": "the layers that own parameters, in order"})
    embed: EmbedConfig = field(default_factory=Table.Config)
    depth: DepthConfig = field(default_factory=Plain.Config)
    norm: NormConfig = field(default_factory=PreNorm.Config)
    linear: LinearConfig = field(default_factory=Dense.Config)
    routing: RoutingConfig | None = field(default=None, metadata={"help": "which tokens pay for a layer"})
    residual: ResidualConfig = field(default_factory=PlainResidual.Config)
    dropout: DropoutConfig = field(default_factory=DropoutConfig)
    memory: MemoryConfig | None = field(default=None, metadata={"help": "what persists beside the stream"})
    heads: dict[str, HeadConfig] = field(default_factory=lambda: {"lm": LanguageModelHead.Config()})

    def __post_init__(self) -> None:
        for name in ("vocab_size", "dim", "max_seq_len"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: {getattr(self, name)} is not positive")
        if self.size() > MAX_LAYERS:
            raise ConfigError(f"layers: more than {MAX_LAYERS} layers")
        if "lm" not in self.heads:
            raise ConfigError("heads: needs 'lm', the next-token head")
        try:
            self.depth.check(self.size())
        except ConfigError as error:
            raise ConfigError(f"depth.{error}") from None
        sites = {"final", *(site.path for site in self.call_sites())}
        for name, head in self.heads.items():
            try:
                head.check(self.scope(), self.embed.tied, self.causal)
            except ConfigError as error:
                raise ConfigError(f"heads.{name}.{error}") from None
            if head.halts and not self.depth.recurs:
                raise ConfigError(f"heads.{name}.kind: {head.kind} is for depth recursive, which has steps to end")
            for tap in head.taps:
                if tap not in sites:
                    raise unknown(f"heads.{name}", "tap", tap, sites)
        if self.depth.reads_entropy and not self.embed.judges:
            raise ConfigError(
                f"depth.boundaries: are where embed {self.embed.kind} finds the next token hard to predict, which it does not "
                "say; use embed blt, or other boundaries"
            )
        if self.residual.joins_calls and not self.depth.runs_stream:
            raise ConfigError(
                f"residual.kind: {self.residual.kind} joins calls that follow one another; depth {self.depth.kind} does not "
                "run them so"
            )
        try:
            self.residual.check(self.scope())
        except ConfigError as error:
            raise ConfigError(f"residual.{error}") from None
        if self.embed.reads_past and not self.causal:
            raise ConfigError(
                f"embed.kind: {self.embed.kind} reads tokens so far, and this model predicts in place; use table"
            )
        if self.embed.register_slots and not self.causal:
            raise ConfigError("embed.registers: a model that predicts in place has such slots in its data; set it to 0")
        self._check_between_calls()
        self.dropout.check(self.size())
        _check_layers(self.layers, "layers", self.scope())
        self._check_groups()
        self._check_first_values()
        self._check_memory()

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> ModelConfig:
        """Strictly load a plain mapping. Raises ConfigError with one line naming the dotted key."""
        return load(cls, mapping, "model")

    def to_dict(self) -> dict[str, Any]:
        """Plain data of JSON types with every field written out; `from_dict` gives an equal config."""
        return dump(self)

    def flat_layers(self) -> tuple[LayerConfig, ...]:
        """The layers that own parameters, in order, groups and repeats resolved."""
        return tuple(flat for layer in self.layers for flat in layer.flatten())

    def call_sites(self) -> tuple[CallSite, ...]:
        """Every layer application of one forward pass, in order."""
        return self.depth.call_sites(self.size())

    def settled(self) -> ModelConfig:
        """The same model, its depth with every setting written out that decides a parameter's shape: what is `adjustable` of
        it may then be replaced, and the weights still fit."""
        return replace(self, depth=self.depth.settled())

    @property
    def readings(self) -> int:
        """How many streams the next-token head reads in training."""
        return self.depth.readings + (0 if self.routing is None else self.routing.readings)

    @property
    def causal(self) -> bool:
        """Whether no position sees a later one; what is not causal predicts in place."""
        return not any(layer.mixer is not None and layer.mixer.looks_ahead for layer in self.flat_layers())

    def sharing(self) -> dict[str, MixerConfig]:
        """By kind, the first mixer that has something to share with all of its kind."""
        mixers = [layer.mixer for layer in reversed(self.flat_layers()) if layer.mixer is not None]
        scope = self.scope()
        return {mixer.kind: mixer for mixer in mixers if mixer.shared_cost(scope).parameters}

    def size(self) -> int:
        """How many layers own parameters."""
        return sum(layer.size() for layer in self.layers)

    def scope(self, layer: int = 0) -> Scope:
        return Scope(
            dim=self.dim,
            vocab_size=self.vocab_size,
            max_seq_len=self.max_seq_len,
            calls=self.depth.joined_calls(self.size()),
            linear=self.linear,
            norm=self.norm,
            residual=self.residual,
            dropout=self.dropout,
            layer=layer,
            layers=self.size(),
            value_source=self._value_source,
            memory=self.depth.memory,
            row_dim=self.embed.row_dim(self.dim),
            routing=self.routing,
            storage=self.memory,
        )

    @cached_property
    def _value_source(self) -> int | None:
        reading = [layer.mixer is not None and layer.mixer.reads_first_values for layer in self.flat_layers()]
        calls = [site.layer for site in self.call_sites() if reading[site.layer]]
        return calls[0] if calls and calls.count(calls[0]) == 1 else None

    def _check_memory(self) -> None:
        if self.depth.memory is None:
            return
        for index, layer in enumerate(self.flat_layers()):
            if layer.mixer is not None and not layer.mixer.reads_memory:
                raise ConfigError(
                    f"depth.kind: {self.depth.kind} computes token after token, from a memory that layer {index}'s mixer, "
                    f"{layer.mixer.kind}, does not read; use memory_attention"
                )

    def _check_groups(self) -> None:
        """Some calls may see groups of tokens, or some tokens only: not every mixer can."""
        for name, part, sees in (("depth", self.depth, "groups of them"), ("routing", self.routing, "some of them")):
            if part is None or not part.regroups:
                continue
            for mixer in (layer.mixer for layer in self.flat_layers()):
                if mixer is not None and mixer.reads_first_values:
                    raise ConfigError(
                        f"layers: value_residual: the first layer's values are of all tokens, and {name} {part.kind} has "
                        f"layers that see {sees}; leave it out"
                    )
                if mixer is not None and mixer.whole_rows:
                    raise ConfigError(
                        f"layers: {mixer.kind} takes all tokens of a row, and {name} {part.kind} has layers that see {sees}; "
                        "use another mixer"
                    )

    def _check_between_calls(self) -> None:
        calls = len(self.call_sites())
        for name, part in (("routing", self.routing), ("memory", self.memory)):
            if part is None:
                continue
            if not self.depth.runs_stream:
                raise ConfigError(
                    f"{name}.kind: {part.kind} stands between calls that follow one another once; depth {self.depth.kind} does "
                    "not run them so; use plain or shared"
                )
            try:
                part.check(calls)
            except ConfigError as error:
                raise ConfigError(f"{name}.{error}") from None
        changing = [f"residual {self.residual.kind}"] if self.residual.joins_calls else []
        changing += [] if self.memory is None else [f"memory {self.memory.kind}"]
        if self.routing is not None and self.routing.freezes and changing:
            raise ConfigError(
                f"routing.kind: with {self.routing.kind} tokens stay as they are once they leave, and {changing[0]} would go "
                "on changing them; leave one of the two out"
            )

    def _check_first_values(self) -> None:
        mixers = [layer.mixer for layer in self.flat_layers() if layer.mixer is not None]
        widths = {mixer.value_channels(self.scope()) for mixer in mixers if mixer.reads_first_values}
        if len(widths) > 1:
            raise ConfigError(
                f"layers: value_residual adds the first layer's values to the others', which have {sorted(widths)} channels;"
                " give these layers the same kv_heads and head_dim"
            )

    def cost(
        self,
        length: int,
        scope: Scope | None = None,
        sites: Sequence[CallSite] | None = None,
        readings: int = 1,
    ) -> Cost:
        """Cost of the whole model per token, in sequences of `length` tokens; memory as `scope` trains.

        `sites`: the calls of layers that are counted, all of a forward pass by default; `readings`: the streams that the
        next-token head reads.

        A sequence counts as one document, in front of which its registers stand: layers see so many slots more, whose
        work is shared out among the tokens.
        """
        scope = scope or self.scope()
        seen, layers = length + self.embed.register_slots, self.flat_layers()
        sites = self.call_sites() if sites is None else sites
        calls = Counter(zip((site.layer for site in sites), self._slots(sites, seen), strict=True))
        inner = self.depth.cost(scope, seen)
        for index, layer in enumerate(layers):
            own = replace(scope, layer=index)
            inner += Cost(parameters=layer.cost(own, seen).parameters)
            for slots, times in ((slots, times) for (called, slots), times in calls.items() if called == index):
                one = layer.cost(own, slots).recomputed(scope, slots).called(times)
                inner += replace(one, parameters=0).spread(slots / seen)
        if self.routing is not None:
            inner += self.routing.cost(scope, len(self.call_sites()))
        if self.memory is not None:
            inner += self.memory.cost(scope, len(self.call_sites()), seen)
        stream = self.residual.stream_cost(scope, seen)
        if seen != length:
            inner, stream = inner.spread(seen / length), stream.spread(seen / length)
        total = self.embed.cost(scope, length) + self.norm.cost(scope, "final") + inner
        total = replace(total + stream, transient=total.transient + stream.transient)
        for mixer in self.sharing().values():
            total += mixer.shared_cost(scope)
        for name, head in self.heads.items():
            total += head.cost(scope, self.embed.tied).spread(readings if name == "lm" else 1)
        return total

    def _slots(self, sites: Sequence[CallSite], length: int) -> list[int]:
        """How many slots of a document of `length` tokens each of the calls computes."""
        if self.routing is None:
            return [self.depth.slots(site, self.size(), length) for site in sites]
        places = {site.path: index for index, site in enumerate(self.call_sites())}
        return [self.routing.slots(places[site.path], length) for site in sites]


def _check_layers(layers: tuple[LayerConfig, ...], path: str, scope: Scope) -> None:
    """Check branches where they are written, so that an error names a key of the user's file."""
    for index, layer in enumerate(layers):
        if layer.block == "parallel" and not scope.norm.parallel:
            raise ConfigError(
                f"{path}.{index}.block: parallel branches share one norm before them, which placement {scope.norm.kind} "
                "does not have; use pre"
            )
        for name, branch in layer.branches().items():
            _check_branch(branch, f"{path}.{index}.{name}", scope)
        if layer.mixer is not None and scope.norm.normalises_qkv and not layer.mixer.has_qkv:
            raise ConfigError(
                f"{path}.{index}.mixer: {layer.mixer.kind} has no queries, keys and values for norm.placement"
                f" {scope.norm.kind} to normalise; use placement pre or post"
            )
        _check_layers(layer.layers or (), f"{path}.{index}.layers", scope)


def _check_branch(branch: MixerConfig | FeedForwardConfig, path: str, scope: Scope) -> None:
    for name in branch.linear:
        if name not in branch.projections:
            raise ConfigError(f"{path}.linear: unknown projection '{name}'; valid: {', '.join(branch.projections)}")
    check = getattr(branch, "check", None)
    if check is not None:
        try:
            check(scope)
        except ConfigError as error:
            raise ConfigError(f"{path}.{error}") from None
