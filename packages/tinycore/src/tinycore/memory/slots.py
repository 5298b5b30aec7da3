"""Working memory (cf. the Recurrent Memory Transformer, arXiv 2207.06881): S vectors that a document writes and reads.

    tokens of chunk c read M_c:    x_t <- x_t + O (softmax(Q norm(x_t) . M_c / sqrt(D)) M_c),   O zero at the start
    chunk c is written behind it:  M_{c+1} = (1 - g) M_c + g P,   M_0 learned
                                   P_s = sum over t of softmax_t(W_s . n_t) n_t,   g_s = sigmoid(mean over t of V_s . n_t + b)

with n_t = norm(x_t) before the read, over the C tokens of the chunk, counted from the document's start. A token reads what the
chunks before its own left, so nothing comes from later ones; a chunk's tokens wait in the state until it is whole. It stands
before one call. (The seed's module computes an update and drops it, takes it from the mean of the whole row, future included,
and would have written it into a parameter that all rows share.)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from tinycore.config import ConfigError
from tinycore.count import Cost
from tinycore.depth.calls import Calls
from tinycore.families import MemoryConfig, Scope
from tinycore.linears.dense import Dense
from tinycore.mixers.chunk_grid import ChunkGrid, chunk_grid
from tinycore.mixers.compaction import compaction, newest, take
from tinycore.ops.rms_norm import EPSILON, rms_norm

PATH = "memory/slots"


class SlotState(NamedTuple):
    """What a stream remembers."""

    memory: Tensor  # (B, S, D)
    waiting: Tensor  # (B, C - 1, D), the newest tokens, normed


class Slots(nn.Module):
    """See the module's docstring."""

    gating: ClassVar[tuple[str, ...]] = ("write",)
    undecayed: ClassVar[tuple[str, ...]] = ("initial",)

    @dataclass(frozen=True, kw_only=True)
    class Config(MemoryConfig, kind="slots"):
        slots: int = field(default=16, metadata={"help": "vectors that are remembered"})
        chunk: int = field(default=32, metadata={"help": "tokens that are written at once"})
        before: int | None = field(
            default=None, metadata={"help": "call before which it stands, from 0; null = half-way"}
        )

        def __post_init__(self) -> None:
            for name in ("slots", "chunk"):
                if getattr(self, name) < 1:
                    raise ConfigError(f"{name}: {getattr(self, name)} is not positive")

        def check(self, calls: int) -> None:
            if not 0 <= self.place(calls) < calls:
                raise ConfigError(f"before: {self.before} is not a call from 0 to {calls - 1}")

        def place(self, calls: int) -> int:
            """The call before which it stands."""
            return calls // 2 if self.before is None else self.before

        def build(self, calls: int, scope: Scope) -> Slots:
            return Slots(self, calls, scope)

        def cost(self, scope: Scope, calls: int, length: int) -> Cost:
            dim, slots = scope.dim, self.slots
            written = max(1, (length - 1) // self.chunk) * self.chunk / length  # and read, as often
            return Cost(
                parameters=2 * dim**2 + 3 * slots * dim + slots,
                flops={"memory": 4.0 * dim**2 + 4.0 * slots * dim + written * 10.0 * slots * dim},
                saved=(scope.product_bytes * 3 + 8.0) * dim + 4.0 * slots * (3 + 2 * dim / self.chunk),
                state=slots * dim + (self.chunk - 1) * dim,
            )

    def __init__(self, config: Config, calls: int, scope: Scope) -> None:
        super().__init__()
        self.config, self.place = config, config.place(calls)
        self.initial = nn.Parameter(torch.empty(config.slots, scope.dim))
        nn.init.normal_(self.initial)  # as large as normed tokens, which they mix with
        self.q = Dense(scope.dim, scope.dim, False, 1.0)
        self.o = Dense(scope.dim, scope.dim, False, 0.0)
        self.write = Dense(scope.dim, 2 * config.slots, False, 1.0)  # W, then V
        self.bias = nn.Parameter(torch.zeros(config.slots))

    def forward(self, index: int, x: Tensor, held: Any, calls: Calls) -> tuple[Tensor, Any]:
        if index != self.place:
            return x, held
        rows, length, _ = x.shape
        past: SlotState | None = calls.past(PATH)
        kept = calls.kept is not None
        layout = compaction(calls.ctx, rows, length, kept)
        grid = chunk_grid(calls.ctx, layout, self.config.chunk, past is not None, kept)
        tokens = layout.compacted(rms_norm(x, None, EPSILON))
        waiting = tokens.new_zeros(rows, self.config.chunk - 1, tokens.shape[2])
        if past is not None:
            waiting = past.waiting.to(tokens.dtype)
        together = torch.cat([waiting, tokens], dim=1) if kept else tokens
        memories, last = self._written(together, grid, None if past is None else past.memory)
        read = self._read(tokens, memories, grid)
        if kept:
            calls.keep(PATH, SlotState(last, newest(together, layout.tokens, self.config.chunk - 1)))
        return x + self.o(layout.restored(read)), held

    def _written(self, tokens: Tensor, grid: ChunkGrid, memory: Tensor | None) -> tuple[list[Tensor], Tensor]:
        """The memory (B, S, D) that each cell of readers finds, and the one that is left."""
        initial = self.initial.to(tokens.dtype).expand(len(tokens), -1, -1)
        found = [] if memory is None else [memory.to(tokens.dtype)]
        memory = initial if memory is None else memory.to(tokens.dtype)
        chunks = take(tokens, grid.written)  # (B, N, C, D)
        shares, gates = self.write(chunks).chunk(2, dim=-1)  # (B, N, C, S) each
        pooled = shares.softmax(2).transpose(2, 3) @ chunks  # (B, N, S, D)
        gate = (gates.mean(2) + self.bias.to(gates.dtype)).sigmoid()[..., None]
        for write in range(chunks.shape[1]):
            fresh, there = (flag[:, write, None, None] for flag in (grid.fresh, grid.there))
            start = torch.where(fresh, initial, memory)
            memory = torch.where(there, start + gate[:, write] * (pooled[:, write] - start), memory)
            found.append(memory)
        return found, memory

    def _read(self, tokens: Tensor, memories: list[Tensor], grid: ChunkGrid) -> Tensor:
        """What tokens (B, T, D), normed, find: in their document's first chunk `initial`, else what their cell does."""
        queries = self.q(tokens)
        y = self._attend(queries, self.initial.to(queries.dtype))
        if not memories:
            return y
        cells = self._attend(take(queries, grid.readers), torch.stack(memories, dim=1).to(queries.dtype))
        return torch.where(grid.first[..., None], y, take(cells.flatten(1, 2), grid.answer))

    @staticmethod
    def _attend(queries: Tensor, memory: Tensor) -> Tensor:
        """queries (..., R, D) on memory (..., S, D)."""
        weights = (queries @ memory.transpose(-2, -1) * queries.shape[-1] ** -0.5).softmax(-1)
        return weights @ memory
