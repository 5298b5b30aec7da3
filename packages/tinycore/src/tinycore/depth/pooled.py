"""Dynamic token pooling (arXiv 2211.09761): the middle layers see one vector for every segment, whose ends the model chooses.

    layers on tokens  ->  mean of each segment  ->  layers on segments  ->  tokens  ->  layers on tokens

A token closes its segment if the model says so, or if the segment has `longest` tokens. Tokens get back what the middle
layers added to the newest segment closed before them (`lag`, as published; without, the token that closes a segment reads it
at once: with every token a segment that is the plain stack). What a segment is, is known from its tokens alone, so nothing
comes from later ones; an open segment waits for the next chunk. Tokens that no segment was closed before get nothing added
(the paper learns a vector for them).

`learned`: p = sigmoid(w . silu(U norm(h)) + b), a segment ends where p > 1/2, in training as in use (noise on the decision, as
published, would hold the rate in training only). The decision gets its gradient where tokens read: what they get back is
multiplied by c = p or 1 - p, whichever was decided, of value 1 (arXiv 2507.07955). A loss holds the share F of tokens that
close a segment at 1 / `rate`, P the mean of p: (r - 1) F P + (1 - F)(1 - P), times r / (r - 1), r = rate; weight `weight`.

`entropy`: a segment ends where the next token is hard to predict, H(softmax(head(norm(h)))) > theta. So that this means
something, the next-token head learns from h as well, in training (loss "early", of weight `early`). theta is a parameter whose
gradient is 1/rate - F: it rises while too many tokens close a segment.

`judge`: the same, H said by the small language model of embedding `blt`. With `shorten` and `lengthen` by attention, layers
on tokens as local encoder and decoder, and layers on segments as the latent transformer, that is a Byte Latent Transformer
(arXiv 2412.09871); its local models are as wide as the latent one here.

Statistic `depth/segments`: the share F; its inverse is the mean length of segments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinycore.config import ConfigError
from tinycore.context import Context
from tinycore.count import Cost
from tinycore.depth import groups as grouping
from tinycore.depth.calls import Ascent, Calls, Early
from tinycore.depth.resampling import Lengthen, Shorten, lengthen_cost, shorten_cost
from tinycore.depth.steps import counted
from tinycore.families import LOSS, CallSite, Carry, DepthConfig, Scope
from tinycore.mixers.compaction import Compaction, compaction
from tinycore.ops.entropy import entropy
from tinycore.ops.rms_norm import EPSILON, rms_norm
from tinycore.recompute import Policy
from tinycore.state import State

MAX_LONGEST = 256
PoolKind = Literal["average", "attention"]
SpreadKind = Literal["repeat", "attention"]
DATA = "where segments end depends on the data; counted at the mean length that is asked for"
THETA_SCALE = 10.0  # of a parameter's unit, in nats: an optimizer's step moves theta by ten times its rate


class Decision(NamedTuple):
    """Where segments end."""

    ends: Tensor  # (B, T) bool
    confidence: Tensor | None  # (B, T), of value 1: carries the gradient of the decision
    probability: Tensor | None  # the mean of p over tokens


class Pooled(nn.Module):
    """See the module's docstring."""

    @dataclass(frozen=True, kw_only=True)
    class Config(DepthConfig, kind="pooled"):
        exempt: ClassVar[Mapping[str, str]] = {
            "flops": DATA,
            "counted": DATA,
            "float32": "ends segments at a threshold: a hard decision that rounding flips",
        }
        regroups: ClassVar[bool] = True
        boundaries: Literal["learned", "entropy", "judge", "all"] = field(
            default="learned", metadata={"help": "what ends a segment; all = every token"}
        )
        rate: float = field(default=3.0, metadata={"help": "tokens of a segment on average, which training holds"})
        longest: int = field(default=4, metadata={"help": "tokens of a segment at most"})
        outside: int = field(default=1, metadata={"help": "layers before, and as many after, the pooling"})
        lag: bool = field(default=True, metadata={"help": "read a segment from the token after its last on"})
        hidden: int = field(default=32, metadata={"help": "learned: width of the network that decides"})
        weight: float = field(default=0.1, metadata={"help": "learned: weight of the loss that holds the rate"})
        shorten: PoolKind = field(default="average", metadata={"help": "how a segment becomes one vector"})
        lengthen: SpreadKind = field(default="repeat", metadata={"help": "how tokens get back what came of it"})
        early: float = field(default=0.1, metadata={"help": "entropy: weight of the loss before the pooling"})

        def __post_init__(self) -> None:
            if not 1 <= self.longest <= MAX_LONGEST:
                raise ConfigError(f"longest: {self.longest} is not between 1 and {MAX_LONGEST}")
            if not 1 < self.rate < self.longest and self.boundaries != "all":
                raise ConfigError(f"rate: {self.rate} is not between 1 and longest {self.longest}")
            if self.hidden < 1:
                raise ConfigError(f"hidden: {self.hidden} is not positive")
            for name in ("outside", "weight", "early"):
                if getattr(self, name) < 0:
                    raise ConfigError(f"{name}: {getattr(self, name)} is negative")
            if self.boundaries == "entropy" and not self.early:
                raise ConfigError("early: 0 leaves what the entropy is read from untrained; give it a weight")

        def check(self, layers: int) -> None:
            if 2 * self.outside >= layers:
                raise ConfigError(f"outside: {self.outside} on both sides leave none of {layers} layers for the middle")

        def call_sites(self, layers: int) -> tuple[CallSite, ...]:
            return tuple(CallSite(str(layer), layer) for layer in range(layers))

        @property
        def reads_entropy(self) -> bool:
            return self.boundaries == "judge"

        @property
        def reads_out(self) -> bool:
            return self.boundaries == "entropy"

        @property
        def readings(self) -> int:
            return 2 if self.boundaries == "entropy" else 1

        @property
        def expected(self) -> float:
            """Tokens of a segment."""
            return 1.0 if self.boundaries == "all" else self.rate

        def slots(self, site: CallSite, layers: int, length: int) -> int:
            outside = not self.outside <= site.layer < layers - self.outside
            return length if outside else max(1, round(length / self.expected))

        def build(self, layers: int, scope: Scope) -> Pooled:
            return Pooled(self, layers, scope)

        def cost(self, scope: Scope, length: int) -> Cost:
            kept = Cost(state=self.longest * scope.dim, saved=4.0 * scope.dim * (self.longest + 2))
            segments = max(1, round(length / self.expected))
            kept += shorten_cost(self.shorten, self.longest, scope).spread(segments / length)
            kept += lengthen_cost(self.lengthen, self.longest, scope, length, segments)
            if self.boundaries == "judge":
                return kept + Cost(parameters=1)
            if self.boundaries == "learned":
                size = scope.dim * self.hidden
                parameters = size + 2 * self.hidden + 1
                return kept + Cost(
                    parameters=parameters, flops={"depth": 2.0 * size}, saved=4.0 * (scope.dim + 3 * self.hidden)
                )
            if self.boundaries == "entropy":
                return kept + Cost(parameters=1, flops={"depth": 2.0 * scope.dim * scope.vocab_size})
            return kept

    def __init__(self, config: Config, layers: int, scope: Scope) -> None:
        super().__init__()
        self.config, self.count, self.vocab_size = config, layers, scope.vocab_size
        self.recompute: Policy = "none"
        self.inner = self.weight = self.bias = self.theta = None
        if config.boundaries == "learned":
            self.inner = nn.Linear(scope.dim, config.hidden)
            self.weight = nn.Parameter(torch.randn(config.hidden) * config.hidden**-0.5)
            self.bias = nn.Parameter(torch.zeros(()))
        self.shorten = Shorten(config.shorten, config.longest, scope.dim)
        self.lengthen = Lengthen(config.lengthen, config.longest, scope.dim)
        if config.boundaries in ("entropy", "judge"):
            self.theta = nn.Parameter(torch.tensor(0.0))

    def forward(
        self,
        layers: nn.ModuleList,
        x: Tensor,
        carry: Carry,
        ctx: Context,
        state: State | None,
        taps: frozenset[str] = frozenset(),
        readout: Callable[[Tensor], Tensor] | None = None,
    ) -> Ascent:
        """readout: hidden states (N, D) before the last norm -> next-token logits (N, V)."""
        calls = Calls(layers, ctx, state, taps, self.recompute)
        sites, outside, shared = self.config.call_sites(self.count), self.config.outside, carry
        for site in sites[:outside]:
            x, carry = calls(site, x, carry)
        lower = x
        rows, length, _ = x.shape
        past: grouping.GroupState | None = calls.past("segments/groups")
        seen = compaction(ctx, rows, length, calls.kept is not None)
        decision = self._decide(x, ctx, readout, carry.get("entropy"))
        closes = self._closing(seen.compacted(decision.ends), seen, past)
        found = grouping.group(ctx, seen, closes, self.config.longest, past, lag=self.config.lag)
        inner = sites[outside : self.count - outside]
        if found.windows.shape[1]:
            short = output = self.shorten(found.tokens(x, past), found.present)
            inside = shared
            for site in inner:
                output, inside = calls(site, output, inside, found.context)
            gained = output - short
        else:
            gained = output = x[:, :0]
            for site in inner:
                calls.skip(site)
        up = found.read(gained, past)
        attended, memory = self.lengthen.attended(
            x + up, output, ctx, found.context, found.number, calls.past("segments/memory")
        )
        up = up + attended
        if memory is not None:
            calls.keep("segments/memory", memory)
        if decision.confidence is not None:
            up = up * decision.confidence[..., None].to(up.dtype)
        calls.keep("segments/groups", found.state(x, gained, past))
        self._report(calls, seen.restored(closes), decision)
        x = x + up
        for site in sites[self.count - outside :]:
            x, carry = calls(site, x, carry)
        early = Early((lower,), self.config.early) if self.config.reads_out and self.training else None
        return calls.result(x, early=early)

    def _decide(
        self, x: Tensor, ctx: Context, readout: Callable[[Tensor], Tensor] | None, judged: Tensor | None
    ) -> Decision:
        """Where the model ends a segment after tokens x (B, T, D)."""
        if self.inner is not None and self.weight is not None and self.bias is not None:
            wide = torch.promote_types(x.dtype, torch.float32)
            inner = self.inner(rms_norm(x, None, EPSILON)).to(wide)
            p = ((F.silu(inner) * self.weight).sum(-1) + self.bias).sigmoid()
            ends = p > 0.5
            sure = torch.where(ends, p, 1 - p)
            total, number = counted(p, ctx)
            return Decision(ends, 1 + sure - sure.detach(), total / number.clamp(min=1))
        if self.theta is not None:
            if not self.config.reads_entropy:
                assert readout is not None
                judged = entropy(x, readout, self.vocab_size)
            assert judged is not None
            return Decision(judged > THETA_SCALE * self.theta, None, None)
        return Decision(torch.ones(x.shape[:2], dtype=torch.bool, device=x.device), None, None)

    def _closing(self, ends: Tensor, seen: Compaction, past: grouping.GroupState | None) -> Tensor:
        """Which compacted tokens close a segment: where the model ends one, and every `longest` tokens without that."""
        ends = ends & seen.valid
        before = torch.zeros_like(seen.tokens) if past is None else past.open
        # tokens since the newest end before this one, which leave this one's place in its segment
        begun = grouping.starts(seen)
        since = grouping.since(ends, begun, before)
        earlier = torch.cat([before[:, None], since[:, :-1]], dim=1)
        place = torch.where(seen.positions == 0, 0, earlier)
        return (ends | ((place + 1) % self.config.longest == 0)) & seen.valid

    def _report(self, calls: Calls, closes: Tensor, decision: Decision) -> None:
        """The share of tokens that close a segment, and the loss that holds it."""
        share, number = counted(closes.to(torch.float32), calls.ctx)
        calls.aux["depth/segments"] = (share, number)
        rate, mean = self.config.rate, number.clamp(min=1)
        found = (share / mean).detach()
        if decision.probability is not None:
            p = decision.probability
            loss = ((rate - 1) * found * p + (1 - found) * (1 - p)) * rate / (rate - 1)
            calls.aux[LOSS + "segments"] = (self.config.weight * loss * number, number)
        if self.theta is not None:
            pull = self.theta * (1 / rate - found)
            calls.aux[LOSS + "segments"] = ((pull - pull.detach()) * number, number)
