"""Endless loaders that know where they are: one owner of the place, batches made ahead in a thread, states that are checked.

A place says what was handed out so far, and nothing of what was made ahead. Most loaders number the samples of a run 0, 1,
2...: micro-batch k of rank r out of w takes samples (k w + r) m .. (k w + r + 1) m - 1, so that w ranks see together what one
rank with w times the micro-batches sees, and the place is one integer whatever the number of ranks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from typing import Any, Generic, TypeVar

from .prefetch import prefetched

Item = TypeVar("Item")
Place = TypeVar("Place")
MOST = 2**62  # samples


class LoaderError(ValueError):
    """A loader cannot continue from a saved state; one line naming what differs."""


class Resumable(ABC, Generic[Item, Place]):
    """See the module's docstring. Members say how batches follow from a place, and how a place is written down."""

    def __init__(self, batch_size: int, rank: int, world: int, prefetch: int, place: Place) -> None:
        """`batch_size` is the number of rows of one batch on one rank; `prefetch` batches are made ahead in a thread, 0 makes
        them when they are asked for. Raises ValueError for sizes that make no sense."""
        if batch_size < 1 or world < 1 or not 0 <= rank < world or prefetch < 0:
            raise ValueError(f"batch_size {batch_size}, rank {rank}, world {world}, prefetch {prefetch}: out of range")
        self.batch_size = batch_size
        self._rank, self._world, self._prefetch = rank, world, prefetch
        self._place = place
        self._reader: object = None  # the iterator that owns the place

    @abstractmethod
    def _identity(self) -> dict[str, Any]:
        """What a place is a place in: plain numbers and texts."""

    @abstractmethod
    def _written(self, place: Place) -> dict[str, Any]:
        """`place` as plain numbers and texts."""

    @abstractmethod
    def _read_back(self, state: dict[str, Any]) -> Place:
        """What `_written` wrote. Raises LoaderError for anything else."""

    @abstractmethod
    def _made(self, place: Place) -> Iterator[tuple[Item, Place]]:
        """This rank's batches from `place` on, each with the place after it."""

    def state_dict(self) -> dict[str, Any]:
        """The place after the batches handed out (not those made ahead), and what it is a place in."""
        return {**self._written(self._place), **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues after the batches of a saved state, also with another batch size or number of ranks.

        Iterators made before are ended. Raises LoaderError where what it is a place in differs.
        """
        for name, value in self._identity().items():
            if state.get(name) != value:
                raise LoaderError(
                    f"data position: {name} was {state.get(name)!r} when it was saved and is {value!r} now: "
                    "continue with the same data and settings, or start at the beginning"
                )
        self._place = self._read_back(state)
        self._reader = None

    def __iter__(self) -> Iterator[Item]:
        """Batches without end from the current place. The newest iterator owns it: one made before raises RuntimeError when
        it is asked for more."""
        reader = self._reader = object()
        return self._read(reader)

    def _read(self, reader: object) -> Generator[Item, None, None]:
        self._check_owner(reader)
        batches = prefetched(self._made(self._place), self._prefetch)
        try:
            for batch, place in batches:
                self._check_owner(reader)
                self._place = place
                yield batch
                self._check_owner(reader)
        finally:
            batches.close()

    def _check_owner(self, reader: object) -> None:
        if self._reader is not reader:
            raise RuntimeError("this iterator has lost its place: the loader was iterated again or loaded a state")


class Numbered(Resumable[Item, int]):
    """Loaders whose place is a number of samples, over all ranks."""

    def __init__(self, batch_size: int, rank: int, world: int, prefetch: int) -> None:
        super().__init__(batch_size, rank, world, prefetch, 0)

    @abstractmethod
    def _maker(self) -> Callable[[int, int], Item]:
        """A function (first sample, stop) -> their batch, for one iterator: it may remember things."""

    def _made(self, place: int) -> Iterator[tuple[Item, int]]:
        make = self._maker()
        while True:
            first = place + self._rank * self.batch_size
            place += self.batch_size * self._world
            yield make(first, first + self.batch_size), place

    def _written(self, place: int) -> dict[str, Any]:
        return {"position": place}

    def _read_back(self, state: dict[str, Any]) -> int:
        position = state.get("position")
        if not isinstance(position, int) or isinstance(position, bool) or not 0 <= position < MOST:
            raise LoaderError(f"data position: position {position!r} is not a count of samples")
        return position
