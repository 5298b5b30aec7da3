"""Rows of several sources in one stream, each source as often as a `Mixture` says, counted in tokens.

Rows are drawn one after another, from the source that is furthest behind what is its due: after every row of n tokens at
progress t each source is owed shares(t) n more, and the row's own source has been given n. So nothing is random about the
mixture, realised counts stay within a few rows of the schedule's integral at every moment, and a run that is resumed, or that
has another number of ranks, draws the same rows. Within a source rows come as `Loader` orders them, shuffled anew each epoch.

Sample s of `total` is at progress s / total. A source may be limited to so many epochs; when it has given them, the others
share what is its due, and `spent` says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tinydata.batch import Batch
from tinydata.loader import Loader
from tinydata.mixture import Mixture, MixtureError
from tinydata.resumable import MOST, LoaderError, Resumable
from tinydata.shards import ShardSet


class MixedLoader(Resumable[Batch, "_Drawn"]):
    """Endless batches of `batch_size` rows of `sequence_length` slots, out of `sources` by name.

    total: samples of the run over all ranks, which progress is a share of. max_epochs: limits by source. A saved state may be
    continued under another mixture or total (a run that forks at a stage). Iterating raises MixtureError once every source is
    spent.
    """

    def __init__(
        self,
        sources: Mapping[str, ShardSet],
        mixture: Mixture,
        total: int,
        sequence_length: int,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        seed: int = 0,
        max_epochs: Mapping[str, float] | None = None,
        prefetch: int = 2,
    ) -> None:
        """Raises MixtureError for sources that the mixture does not name or the other way round, ValueError for sizes that
        make no sense."""
        super().__init__(batch_size, rank, world, prefetch, _Drawn.nothing(mixture.names))
        if total < 1:
            raise ValueError(f"total: {total} is not positive")
        odd = sorted(set(sources) ^ set(mixture.names)) + sorted(set(max_epochs or {}) - set(sources))
        if odd:
            raise MixtureError(f"{odd[0]}: is not both a source and in the mixture")
        tokenizers = {name: sources[name].manifest["tokenizer_hash"] for name in mixture.names}
        other = next((name for name in mixture.names if tokenizers[name] != tokenizers[mixture.names[0]]), None)
        if other is not None:
            raise MixtureError(f"{other}: has other tokens than {mixture.names[0]}: pack both with the same tokenizer")
        self.mixture, self.total = mixture, total
        self._loaders = {
            name: Loader(sources[name], sequence_length, 1, seed=seed, prefetch=0) for name in mixture.names
        }
        self._most = {name: int(epochs * self._loaders[name].rows) for name, epochs in (max_epochs or {}).items()}
        self._length, self._seed = sequence_length, seed

    @property
    def rows(self) -> int:
        """Rows in an epoch of every source together."""
        return sum(loader.rows for loader in self._loaders.values())

    @property
    def tokens(self) -> dict[str, int]:
        """Tokens handed out so far, by source, over all ranks."""
        return dict(self._place.given)

    @property
    def due(self) -> dict[str, float]:
        """What the schedule says they should be."""
        return dict(self._place.due)

    @property
    def epochs(self) -> dict[str, float]:
        """Passes over each source so far."""
        return {name: self._place.position[name] / loader.rows for name, loader in self._loaders.items()}

    @property
    def spent(self) -> tuple[str, ...]:
        """Sources that have given all the epochs they may."""
        return tuple(name for name, most in self._most.items() if self._place.position[name] >= most)

    def _made(self, place: _Drawn) -> Iterator[tuple[Batch, _Drawn]]:
        while True:
            place = place.copy()
            chosen = [self._draw(place) for _ in range(self.batch_size * self._world)]
            own = chosen[self._rank * self.batch_size : (self._rank + 1) * self.batch_size]
            yield self._assemble(own), place

    def _written(self, place: _Drawn) -> dict[str, Any]:
        return place.plain()

    def _read_back(self, state: dict[str, Any]) -> _Drawn:
        return _Drawn.parse(state, self.mixture.names)

    def epoch_batches(self, rows: int | None = None) -> Iterator[Batch]:
        """The first `rows` rows of the stream, by default as many as all sources have, for scoring; moves no position."""
        drawn = _Drawn.nothing(self.mixture.names)
        total = self.rows if rows is None else rows
        chosen = [self._draw(drawn) for _ in range(total)][self._rank :: self._world]
        for first in range(0, len(chosen), self.batch_size):
            yield self._assemble(chosen[first : first + self.batch_size])

    def _draw(self, drawn: _Drawn) -> tuple[str, int]:
        """The source of the next row and its sample there; `drawn` moves on."""
        shares = self.mixture.shares(drawn.samples / self.total)
        left = {
            name: share
            for name, share in shares.items()
            if share > 0 and drawn.position[name] < self._most.get(name, drawn.position[name] + 1)
        }
        whole = sum(left.values())
        if not whole > 0:
            raise MixtureError("mixture: every source that has a share has given all the epochs it may")
        name = max(
            left, key=lambda source: drawn.due[source] + left[source] / whole * self._length - drawn.given[source]
        )
        sample = drawn.position[name]
        count = int(self._loaders[name].tokens_of(np.array([sample]))[0])
        for source, share in left.items():
            drawn.due[source] += share / whole * count
        drawn.given[name] += count
        drawn.position[name] += 1
        drawn.samples += 1
        return name, sample

    def _assemble(self, chosen: list[tuple[str, int]]) -> Batch:
        """The rows of (source, sample), in their order."""
        places: dict[str, list[int]] = {}
        for place, (name, _) in enumerate(chosen):
            places.setdefault(name, []).append(place)
        parts = [
            (where, self._loaders[name].take(np.array([chosen[place][1] for place in where])))
            for name, where in places.items()
        ]
        order = np.argsort(np.concatenate([where for where, _ in parts]))
        tokens, targets, documents = (
            np.concatenate([getattr(batch, field) for _, batch in parts])[order]
            for field in ("tokens", "targets", "documents")
        )
        return Batch(
            tokens,
            targets,
            documents,
            sum(batch.target_count for _, batch in parts),
            sum(batch.bytes for _, batch in parts),
        )

    def _identity(self) -> dict[str, Any]:
        datasets = {name: loader.state_dict()["dataset"] for name, loader in self._loaders.items()}
        return {"datasets": datasets, "sequence_length": self._length, "seed": self._seed}


class _Drawn:
    """samples: rows drawn from all sources; by source: position, its rows; given, its tokens; due, its tokens by schedule."""

    def __init__(self, samples: int, position: dict[str, int], given: dict[str, int], due: dict[str, float]) -> None:
        self.samples, self.position, self.given, self.due = samples, position, given, due

    @staticmethod
    def nothing(names: tuple[str, ...]) -> _Drawn:
        """Before the first row."""
        return _Drawn(0, dict.fromkeys(names, 0), dict.fromkeys(names, 0), dict.fromkeys(names, 0.0))

    def copy(self) -> _Drawn:
        return _Drawn(self.samples, dict(self.position), dict(self.given), dict(self.due))

    def plain(self) -> dict[str, Any]:
        return {
            "samples": self.samples,
            "position": dict(self.position),
            "given": dict(self.given),
            "due": dict(self.due),
        }

    @staticmethod
    def parse(state: Mapping[str, Any], names: tuple[str, ...]) -> _Drawn:
        """Raises LoaderError for what `plain` did not write."""

        def numbers(key: str, kinds: tuple[type, ...]) -> dict[str, Any]:
            found = state.get(key)
            if not isinstance(found, dict) or set(found) != set(names):
                raise LoaderError(f"data position: {key} does not name the sources {', '.join(names)}")
            if not all(type(value) in kinds and 0 <= value < MOST for value in found.values()):
                raise LoaderError(f"data position: {key} is not a count for each source")
            return {name: found[name] for name in names}

        samples = state.get("samples")
        if type(samples) is not int or not 0 <= samples < MOST:
            raise LoaderError(f"data position: samples {samples!r} is not a count")
        return _Drawn(samples, numbers("position", (int,)), numbers("given", (int,)), numbers("due", (int, float)))
