"""Feedback Transformer (arXiv 2002.09402): every layer reads what all layers made of earlier tokens.

    m_t = sum_l softmax(w)_l x_t^l,  l = 0 ... L   (x^0 the embedding, x^l the output of layer l)
    k_t, v_t = K norm(m_t), V norm(m_t)            one memory per position, K and V the same for all layers
    x_t^l = layer_l(x_t^{l-1}), whose attention reads k_s, v_s of s < t            (mixer `memory_attention`)

So a token's lowest layer sees the top of the tokens before it, and a model computes t - 1 steps deep before token t. That is
sequential in training too: T passes over L layers a row, in which all documents of a batch go side by side. (The seed set its
state after the loop over layers, so that nothing read it within a pass, and then gave all positions the last one's.)

`chunk` c trades exactness for speed: c tokens are computed at once, memories are read from the next chunk on, and of the
tokens of its own chunk a token reads what ordinary attention would. c = 1 is the model as published; with c at least the
length nothing is fed back. Chunks begin at positions 0, c, 2c ... of a document, so packing and chunks of streams change
nothing.

Cost: of the training passes' memory, each step keeps what it reads of the memory, T^2 / (2 c) slots a row in all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinycore.config import ConfigError
from tinycore.context import PADDING, Context
from tinycore.count import Cost
from tinycore.depth.calls import Ascent, Calls
from tinycore.families import CallSite, Carry, DepthConfig, MemoryShape, Scope, add_aux
from tinycore.mixers.key_values import KeyValueState, append
from tinycore.mixers.memory_attention import KEYS, PROJECTION, SEEN, VALUES, memory_of
from tinycore.ops.rms_norm import EPSILON, rms_norm
from tinycore.recompute import Policy
from tinycore.state import State, select

MEMORY = "feedback/memory"
SEQUENTIAL = "takes documents apart, whose number the meta device does not know; counted on real ones in test_feedback"


class Feedback(nn.Module):
    """See the module's docstring."""

    @dataclass(frozen=True, kw_only=True)
    class Config(DepthConfig, kind="feedback"):
        exempt: ClassVar[Mapping[str, str]] = {
            "flops": SEQUENTIAL,
            "compiled": "takes documents apart, whose number depends on the data",
            "identity": "layers read nothing of their own tokens, so it never is the plain stack",
        }
        kv_heads: int = field(default=2, metadata={"help": "key/value heads of the memory"})
        head_dim: int = field(default=32, metadata={"help": "channels of a head"})
        theta: float = field(default=10000.0, metadata={"help": "RoPE base"})
        chunk: int = field(default=1, metadata={"help": "tokens computed at once; 1 = as published, more is faster"})

        def __post_init__(self) -> None:
            for name in ("kv_heads", "head_dim", "theta", "chunk"):
                if not getattr(self, name) > 0:
                    raise ConfigError(f"{name}: {getattr(self, name)} is not positive")
            if self.head_dim % 2:
                raise ConfigError(f"head_dim: {self.head_dim} is odd; RoPE rotates pairs of channels")

        @property
        def memory(self) -> MemoryShape:
            return MemoryShape(self.kv_heads, self.head_dim, self.theta, self.chunk)

        def call_sites(self, layers: int) -> tuple[CallSite, ...]:
            return tuple(CallSite(str(layer), layer) for layer in range(layers))

        def build(self, layers: int, scope: Scope) -> Feedback:
            return Feedback(self, layers, scope)

        def cost(self, scope: Scope, length: int) -> Cost:
            channels = 2 * self.kv_heads * self.head_dim
            return Cost(
                parameters=scope.layers + 1 + channels * scope.dim,
                flops={"depth": 2.0 * channels * scope.dim},
                saved=scope.product_bytes * (2 * channels + scope.dim) + 4.0 * scope.dim * (scope.layers + 2),
                state=channels * length,
            )

    def __init__(self, config: Config, layers: int, scope: Scope) -> None:
        super().__init__()
        self.config, self.count = config, layers
        self.recompute: Policy = "none"
        self.mix = nn.Parameter(torch.zeros(layers + 1))
        self.projection = nn.Parameter(torch.empty(2 * config.kv_heads * config.head_dim, scope.dim))
        nn.init.normal_(self.projection, std=scope.dim**-0.5)

    def forward(
        self,
        layers: nn.ModuleList,
        x: Tensor,
        carry: Carry,
        ctx: Context,
        state: State | None,
        taps: frozenset[str] = frozenset(),
    ) -> Ascent:
        result, chunk = Calls(layers, ctx, state, taps, "none"), self.config.chunk
        found = documents(ctx, x.shape[0], x.shape[1], chunk, state is not None)
        if found is None:
            return result.result(x)
        sites = self.config.call_sites(self.count)
        memory, local = self._past(state, found, sites, x)
        given = found.taken(x)
        width, pieces, left = given.shape[1], [], []
        start = 0
        while start < width:
            end = min(width, (found.first + start) // chunk * chunk + chunk - found.first)
            rows = int((found.lengths > start).sum())
            part = Context(found.positions[:rows, start:end], found.documents[:rows, start:end])
            known = None if state is None else select(local, list(range(rows))) if start == 0 else {}
            calls = Calls(layers, part, known, taps, self.recompute)
            own = {**carry, **self._seen(memory, part, rows, x.dtype)}
            piece, stream = given[:rows, start:end], [given[:rows, start:end]]
            for site in sites:
                piece, own = calls(site, piece, own)
                stream.append(piece)
            add_aux(result.aux, calls.aux)
            pieces.append({"": piece, **calls.tapped})
            memory = append(memory, self._remembered(stream, part, len(given) - rows))
            left.append((rows, calls.kept))
            start = end
        outputs = {"": x}
        if pieces:
            outputs = {name: found.restored([piece[name] for piece in pieces], x) for name in pieces[0]}
        result.tapped = {name: value for name, value in outputs.items() if name}
        if result.kept is not None:
            rows = found.last
            result.kept |= select({MEMORY: memory}, rows) | select(_last(left, local, len(given)), rows)
        return result.result(outputs[""])

    def _seen(self, memory: KeyValueState, ctx: Context, rows: int, dtype: torch.dtype) -> Carry:
        """What layers read of the memory: the tokens of earlier chunks."""
        assert memory.documents is not None
        memory = KeyValueState(
            memory.keys[:rows], memory.values[:rows], memory.positions[:rows], memory.documents[:rows]
        )
        assert memory.documents is not None
        chunk = self.config.chunk
        earlier = memory.positions[:, None] // chunk < ctx.positions[..., None] // chunk
        seen = earlier & (memory.documents != PADDING)[:, None]
        return {KEYS: memory.keys, VALUES: memory.values, SEEN: seen, PROJECTION: self.projection.to(dtype)}

    def _remembered(self, stream: list[Tensor], ctx: Context, missing: int) -> KeyValueState:
        """The memories of the tokens of a chunk, and padding for `missing` documents that have ended."""
        weights = self.mix.softmax(0)
        mixed = stream[0] * weights[0]
        for weight, each in zip(weights[1:], stream[1:], strict=True):
            mixed = torch.addcmul(mixed, each, weight)
        new = memory_of(rms_norm(mixed, None, EPSILON), self.projection, ctx, self.config.memory)
        return _with_rows(new, missing)

    def _past(
        self, state: State | None, found: Documents, sites: tuple[CallSite, ...], x: Tensor
    ) -> tuple[KeyValueState, State]:
        """The memory and the state of layers that each document goes on from."""
        count, config = len(found.lengths), self.config
        if not state:
            empty = x.new_zeros(count, config.kv_heads, 0, config.head_dim)
            nothing = found.positions[:, :0]
            return KeyValueState(empty, empty, nothing, nothing), {}
        paths = [MEMORY, *(path for path in state if any(path.startswith(f"{site.path}/") for site in sites))]
        own = select({path: state[path] for path in paths}, found.rows)
        for path, entry in own.items():  # a document that begins here has no past
            own[path] = entry._replace(documents=torch.where(found.continues[:, None], entry.documents, PADDING))
        return own.pop(MEMORY), own


def _last(left: list[tuple[int, State | None]], before: State, count: int) -> State:
    """What layers keep of each of `count` documents after the last chunk that it has a token in.

    `left`: of how many documents (the first ones) each chunk had tokens, and what was kept after it.
    """
    parts: list[State] = []
    ends = [rows for rows, _ in left[1:]] + [0]
    for (rows, kept), end in zip(reversed(left), reversed(ends), strict=True):
        if kept:
            parts.append(select(kept, list(range(end, rows))))
    if before:
        parts.append(select(before, list(range(left[0][0] if left else 0, count))))
    if not parts:
        return {}
    whole: State = {}
    for path, entry in parts[0].items():
        columns = [torch.cat(column) for column in zip(*(part[path] for part in parts), strict=True)]
        found: KeyValueState = type(entry)(*columns)
        whole[path] = _with_rows(found, count - len(found.keys))  # documents that have no token yet
    return whole


def _with_rows(state: KeyValueState, missing: int) -> KeyValueState:
    """The same with `missing` rows of padding behind."""
    assert state.documents is not None
    return KeyValueState(
        F.pad(state.keys, (0, 0, 0, 0, 0, 0, 0, missing)),
        F.pad(state.values, (0, 0, 0, 0, 0, 0, 0, missing)),
        F.pad(state.positions, (0, 0, 0, missing)),
        F.pad(state.documents, (0, 0, 0, missing), value=PADDING),
    )


class Documents(NamedTuple):
    """The documents of a chunk in rows of their own, the longest first, each column a position of its chunk grid."""

    source: Tensor  # (N, W) int64, where in the flat tokens each comes from; one past the last = nowhere
    place: Tensor  # (B, T) int64, where in the flat (N, W) a token stands; one past the last = nowhere
    positions: Tensor  # (N, W)
    documents: Tensor  # (N, W), 0 or -1
    lengths: Tensor  # (N,), columns up to the last token
    rows: Tensor  # (N,), the row each comes from
    continues: Tensor  # (N,) bool, whether it began in an earlier chunk
    last: Tensor  # (B,), the newest document of each row
    first: int  # what the first column is on the grid

    def taken(self, x: Tensor) -> Tensor:
        """x (B, T, D) by documents, (N, W, D); 0 where nothing is."""
        flat = torch.cat([x.flatten(0, 1), x.new_zeros(1, x.shape[2])])
        return F.embedding(self.source, flat)

    def restored(self, pieces: list[Tensor], x: Tensor) -> Tensor:
        """What stands in the columns, some of fewer documents than others, as it stands in the rows; x at padding."""
        count = len(self.lengths)
        whole = torch.cat([F.pad(piece, (0, 0, 0, 0, 0, count - len(piece))) for piece in pieces], dim=1)
        found = F.embedding(self.place.clamp(max=whole.shape[0] * whole.shape[1] - 1), whole.flatten(0, 1))
        nowhere = self.place == whole.shape[0] * whole.shape[1]
        return torch.where(nowhere[..., None], x, found)


def documents(ctx: Context, rows: int, length: int, chunk: int, kept: bool) -> Documents | None:
    """The documents of `ctx`; None where there is none. kept: whether rows without any need one, to keep their state."""
    device = ctx.positions.device
    positions = ctx.positions.expand(rows, length)
    valid = torch.ones_like(positions, dtype=torch.bool) if ctx.valid is None else ctx.valid
    ordinal = (valid & (positions == 0)).long().cumsum(1)  # 0: goes on from an earlier chunk
    most = int(ordinal.max()) + 1
    row = torch.arange(rows, device=device)[:, None]
    key = row * most + ordinal
    empty = row[:, 0][~valid.any(1)] * most if kept else key.new_zeros(0)
    names = torch.cat([key[valid], empty]).unique()
    if not len(names):
        return None
    index = torch.searchsorted(names, key.clamp(max=int(names[-1])))
    base = torch.full_like(names, torch.iinfo(torch.int64).max)
    base = base.scatter_reduce(0, index[valid], positions[valid], "amin")
    column = positions - (base // chunk * chunk)[index]
    first = int(column[valid].min()) if bool(valid.any()) else 0
    column = column - first
    lengths = torch.zeros_like(names).scatter_reduce(0, index[valid], column[valid] + 1, "amax")
    order = torch.argsort(lengths, descending=True, stable=True)
    index = torch.argsort(order)[index]
    width = int(lengths.max())

    place = torch.where(valid, index * width + column, len(names) * width)
    flat = torch.arange(rows * length, device=device).view(rows, length)
    source = torch.full((len(names) * width,), rows * length, device=device)
    source[place[valid]] = flat[valid]
    source = source.view(len(names), width)
    there = source < rows * length
    stood = torch.cat([positions.flatten(), positions.new_zeros(1)])[source]
    names = names[order]
    newest = torch.zeros(rows, dtype=torch.long, device=device)
    for_row = torch.argsort(names)  # a row's documents in the order they stand in
    newest = newest.scatter(0, (names // most)[for_row], for_row)
    return Documents(
        source,
        place,
        stood,
        torch.where(there, 0, PADDING),
        lengths[order],
        names // most,
        names % most == 0,
        newest,
        first,
    )
