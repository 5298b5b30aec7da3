"""Data made ready in memory for a tokenizer: what a run is known by, whatever its rows are."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass

from tinydata import Tokenizer


@dataclass(frozen=True)
class InMemory(ABC):
    """The tokenizer of the rows; members add the rows."""

    tokenizer: Tokenizer

    @property
    @abstractmethod
    def dataset(self) -> dict[str, str]:
        """What is trained on and scored, by hashes of the contents."""

    @property
    def codes(self) -> str:
        """What the model's ids mean, as a hash."""
        return self.tokenizer.hash

    @property
    def content(self) -> str:
        """One hash of everything."""
        return hashlib.sha256("".join(self.dataset.values()).encode()).hexdigest()

    @property
    def key(self) -> str:
        """A short name of the contents."""
        return self.content[:16]
