"""The decoder language model that a `ModelConfig` describes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from tinycore.context import Context, begin
from tinycore.depth.calls import Early, Latents, Readings
from tinycore.depth.recursive import Recursive
from tinycore.families import LOSS, Aux
from tinycore.heads.head import Head, HeadOutput, Question, Vocabulary
from tinycore.layer import Layer
from tinycore.model_config import ModelConfig
from tinycore.recompute import Policy
from tinycore.state import STREAM, State
from tinycore.targets import IGNORED


@dataclass
class Output:
    """What a forward pass gives.

    logits: (B, T, V), or None (with targets they are held only on request);
    loss: scalar, the sum over `losses` of sum / count, or None without targets;
    losses, stats: {name: (sum, count)}; stats has "correct", the targets whose token had the highest logit;
    hidden: (B, T, D), what the next-token head reads;
    values: what other heads predict, by name; "steps" (B, T): how often shared layers were applied to each token, with depths
    that decide it token by token;
    latents: what the next supervision step of recursive depth goes on from, detached; None with other depths;
    state: continue the stream with it; None when targets were given and no state was.
    """

    logits: Tensor | None
    loss: Tensor | None
    losses: Aux
    hidden: Tensor
    state: State | None
    stats: Aux = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)
    latents: Latents | None = None


class Decoder(nn.Module):
    """Embedding, layers in the order of the depth, final norm, heads."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        scope = config.scope()
        layers = config.flat_layers()
        self.embed: Any = config.embed.build(scope)
        self.layers = nn.ModuleList(Layer(layer, config.scope(index)) for index, layer in enumerate(layers))
        self.shared = nn.ModuleDict({kind: mixer.build_shared(scope) for kind, mixer in config.sharing().items()})
        self.depth = config.depth.build(len(layers), scope)
        self.norm = config.norm.build_final(scope)
        self.heads = nn.ModuleDict(
            {name: head.build(scope, self.embed, config.embed.tied) for name, head in config.heads.items()}
        )
        self.taps = frozenset(tap for head in config.heads.values() for tap in head.taps) - {"final"}

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor | None = None,
        doc_ids: Tensor | None = None,
        state: State | None = None,
        return_logits: bool | None = None,
        routes: Tensor | None = None,
        latents: Latents | None = None,
    ) -> Output:
        """Run tokens (B, T) int64 through the model.

        targets (B, T): the token to predict at each position, -100 where nothing is learned (they come shifted from the
        data: `targets[t]` is the token after `tokens[t]`). doc_ids (B, T): equal ids belong to one document, -1 is
        padding; the tokens of a document stand together, only padding may lie between them. state: what an earlier
        chunk of the same streams returned; None or {} begins fresh ones. return_logits: default is to return them
        exactly when there are no targets. routes (B, T) int64: which cognitive expert each token belongs to, an index into
        the names of the `experts` layers, -1 unknown; it teaches their routers and changes no logit. latents: of recursive
        depth, where one supervision step is to begin (`begin` gives those of the first); None makes all steps in a row.
        Raises ValueError for shapes that do not agree, and for a state or latents where the model has none.
        """
        if tokens.ndim != 2 or tokens.shape[1] == 0:
            raise ValueError(f"tokens: expected shape (B, T) with T > 0, got {tuple(tokens.shape)}")
        for name, given in (("targets", targets), ("doc_ids", doc_ids), ("routes", routes)):
            if given is not None and given.shape != tokens.shape:
                raise ValueError(f"{name}: expected shape {tuple(tokens.shape)} as tokens, got {tuple(given.shape)}")
        if return_logits is None:
            return_logits = targets is None
        keep = (targets is None or state is not None) and self.config.causal
        if state and not keep:
            raise ValueError("state: a model that predicts in place reads whole rows at once")
        if latents is not None and (state or not isinstance(self.depth, Recursive)):
            raise ValueError("latents: are for recursive depth, on whole rows")

        ctx, stream = begin(tokens, doc_ids, state)
        if routes is not None:
            ctx = replace(ctx, routes=routes)
        carry = {kind: module() for kind, module in self.shared.items()}
        kept = (state or {}) if keep and latents is None else None
        judged, embedded = None, None
        if self.config.embed.reads_past:
            x, found, judged, embedded = self.embed(tokens, ctx, kept)
            carry |= found
        else:
            x = self.embed(tokens)
        seen, widened = ctx, None
        registers: Any = self.embed.registers
        if registers is not None:
            widened = registers(x, ctx, begins=doc_ids is not None or not state)
            x, seen = widened.x, widened.context
            stream = stream._replace(registers=torch.full_like(stream.positions, registers.count))
        further: dict[str, Any] = {} if latents is None else {"latents": latents}
        if self.config.depth.reads_out or self.config.routing is not None:
            further["readout"] = lambda hidden: self.logits(self.norm(hidden))
        x, tapped, after, aux, left, readings, early, steps = self.depth(
            self.layers, x, carry, seen, kept, self.taps, **further
        )
        if widened is not None:
            x, tapped = widened.narrowed(x), {name: widened.narrowed(tap) for name, tap in tapped.items()}
            if readings is not None:
                readings = Readings(*(tuple(map(widened.narrowed, parts)) for parts in readings))
            if early is not None:
                early = early._replace(streams=tuple(map(widened.narrowed, early.streams)))
        tapped["final"] = self.norm(x)
        losses = {name.removeprefix(LOSS): entry for name, entry in aux.items() if name.startswith(LOSS)}
        losses = losses if targets is not None else {}
        stats = {name: entry for name, entry in aux.items() if not name.startswith(LOSS)}
        logits, values = None, {}
        for name, head in self.heads.items():
            if name == "lm" and readings is not None and targets is not None:
                found = self._read(head, readings, targets, ctx, return_logits)
            else:
                found = head(Question(tapped, self.vocabulary, ctx, targets, return_logits))
            losses.update(found.losses)
            stats.update(found.stats)
            logits = found.logits if found.logits is not None else logits
            if found.value is not None:
                values[name] = found.value
        if steps is not None:
            values["steps"] = steps if widened is None else widened.narrowed(steps[..., None])[..., 0]
        if early is not None and targets is not None:
            losses["early"] = self._read_early(early, targets)
        if judged is not None and targets is not None:
            losses["judge"] = self.embed.loss(judged, targets)
        if after is not None:
            after |= embedded or {}
            after[STREAM] = stream
        loss = None
        if losses:
            loss = torch.stack([total / count.clamp(min=1) for total, count in losses.values()]).sum()
        return Output(logits, loss, losses, tapped["final"], after, stats, values, left)

    def _read(self, head: Any, readings: Readings, targets: Tensor, ctx: Context, return_logits: bool) -> HeadOutput:
        """The next-token loss as the weighted sum of the losses of several streams; logits are those of the last."""
        streams, count = readings.streams, len(readings.streams)
        hidden = {"final": self.norm(torch.cat(streams))}
        weights = torch.cat(readings.weights)
        found = head(Question(hidden, self.vocabulary, ctx, targets.repeat(count, 1), return_logits, weights))
        number = (targets != IGNORED).sum()
        losses = {name: (total, number) for name, (total, _) in found.losses.items()}
        stats = {name: (total, number) for name, (total, _) in found.stats.items()}
        logits = None if found.logits is None else found.logits[-len(targets) :]
        return HeadOutput(losses, stats, logits)

    def _read_early(self, early: Early, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted loss of the next-token head on earlier streams."""
        embed, lm = self.vocabulary
        count = len(early.streams)
        total, number, _ = lm.loss(self.norm(torch.cat(early.streams)), embed, targets.repeat(count, 1))
        return early.weight * total, number

    def recompute(self, policy: Policy) -> None:
        """Let calls of layers in training keep what `policy` says; see `tinycore.recompute`."""
        depth: Any = self.depth
        depth.recompute = policy

    def begin(self, tokens: Tensor) -> Latents:
        """Where recursive depth begins on tokens (B, T). Raises ValueError for other depths."""
        if not isinstance(self.depth, Recursive):
            raise ValueError("latents: are for recursive depth")
        start = self.depth.high
        return self.depth.begin(start.expand(*tokens.shape, len(start)))

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits (..., V) of final hidden states (..., D), such as `Output.hidden` at chosen positions."""
        embed, lm = self.vocabulary
        return lm.logits(hidden, embed)

    @property
    def vocabulary(self) -> Vocabulary:
        """What heads read beside hidden states."""
        return Vocabulary(self.embed, self.heads["lm"])

    def schedule(self, progress: float) -> None:
        """Set what depends on the share of training that is done, 0 to 1: call it before each step."""
        for head in self._heads().values():
            head.schedule(progress)

    def follow(self) -> None:
        """Move what follows the weights: call it after each optimizer step."""
        for head in self._heads().values():
            head.follow(self.vocabulary)

    def dormant(self) -> set[str]:
        """Names of the parameters that are not trained at this point of the schedule."""
        return {f"heads.{name}.{inner}" for name, head in self._heads().items() for inner in head.dormant()}

    def _heads(self) -> dict[str, Head]:
        return cast("dict[str, Head]", dict(self.heads.items()))


def build(config: ModelConfig) -> Decoder:
    """A freshly initialised float32 model (seed it with `torch.manual_seed`)."""
    return Decoder(config)
