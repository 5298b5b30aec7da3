"""What a run learns from, how it is scored and looked at: the part of training that differs between text and puzzles."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import nn

from tinycore import Decoder
from tinycore.objectives import Losses


class Batches(Protocol):
    """An endless loader whose place is a few integers; every batch has a `target_count`."""

    @property
    def rows(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Task(ABC):
    """One process's part; all processes make one with the same settings and call it together.

    loader: what is trained on. best_by: the entry of `validate` by which the best checkpoint is chosen, the smallest is.
    """

    loader: Batches
    best_by: ClassVar[str]

    @abstractmethod
    def passes(self, model: nn.Module, batch: Any) -> Iterator[tuple[Losses, bool]]:
        """The objective of one micro-batch (`tinycore.objectives`)."""

    @abstractmethod
    def validate(self, model: nn.Module) -> dict[str, Any]:
        """What is held out, scored: the same rows each time, the same in all processes."""

    def logged(self) -> dict[str, Any]:
        """What a log line says of the data so far, the same in all processes."""
        return {}

    @abstractmethod
    def sample(self, model: Decoder, step: int) -> str:
        """The section of samples.md for `step`."""

    def save(self, directory: Path) -> None:  # noqa: B027  (most have nothing)
        """What a checkpoint needs beside weights and progress, to use the model."""

    @abstractmethod
    def seconds(self, model: nn.Module, timed: Callable[[Callable[[], object]], float]) -> tuple[float, float]:
        """How long a validation and a section of samples take here; `timed` gives the seconds of a piece of work, the
        mean over the processes. May be measured on a part."""
