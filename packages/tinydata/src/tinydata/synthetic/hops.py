"""Following a chain of pointers: the k-step lookup that depth is needed for (p-hop, arXiv 2402.09268), made small.

A row draws a single cycle f over `nodes` nodes and states it, in random order, one token an edge: (a, f(a)). Then come
queries: a node x, then "go on" as often as wanted. At x the answer is f(x), at the first "go on" f(f(x)), and so on: each
position asks for one more step, and no intermediate answer is written down. Every answer is worth a look of its own, because
answering after k steps in one pass of a model takes k lookups one after the other.

Tokens: 0 ... N-1 nodes, N "go on", N + 1 + a N + b the edge from a to b.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NOT_ASKED = -100


@dataclass(frozen=True)
class Hops:
    """Rows over `nodes` nodes, with `queries` queries of `steps` steps each. Raises ValueError for fewer than one."""

    nodes: int = 8
    steps: int = 4
    queries: int = 8

    def __post_init__(self) -> None:
        for name in ("steps", "queries"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not positive")
        if self.nodes < 2:
            raise ValueError(f"nodes: {self.nodes} make no chain; use at least 2")

    @property
    def vocab_size(self) -> int:
        return self.nodes + 1 + self.nodes**2

    @property
    def length(self) -> int:
        """Tokens of a row."""
        return self.nodes + self.queries * self.steps

    def batch(self, rows: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """tokens and answers (rows, length) int64; answers are -100 where nothing is asked."""
        nodes = np.tile(np.arange(self.nodes), (rows, 1))
        order = draw.permuted(nodes, axis=1)
        follows = np.empty_like(order)
        np.put_along_axis(follows, order, np.roll(order, -1, axis=1), axis=1)
        source = draw.permuted(nodes, axis=1)
        edges = self.nodes + 1 + source * self.nodes + np.take_along_axis(follows, source, axis=1)

        asked = draw.integers(0, self.nodes, (rows, self.queries))
        tokens = np.full((rows, self.queries, self.steps), self.nodes)
        tokens[:, :, 0] = asked
        answers = np.empty_like(tokens)
        for step in range(self.steps):
            asked = np.take_along_axis(follows, asked, axis=1)
            answers[:, :, step] = asked
        nothing = np.full_like(edges, NOT_ASKED)
        return (
            np.concatenate([edges, tokens.reshape(rows, -1)], axis=1),
            np.concatenate([nothing, answers.reshape(rows, -1)], axis=1),
        )
