"""Data made ready in memory: what a run is known by, whatever its rows are."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass

from tinydata import Tokenizer


class InMemory(ABC):
    """Members add the rows."""

    @property
    @abstractmethod
    def dataset(self) -> dict[str, str]:
        """What is trained on and scored, by hashes of the contents."""

    @property
    @abstractmethod
    def codes(self) -> str:
        """What the model's codes mean, as a name or a hash."""

    @property
    def content(self) -> str:
        """One hash of everything."""
        return hashlib.sha256("".join(self.dataset.values()).encode()).hexdigest()

    @property
    def key(self) -> str:
        """A short name of the contents."""
        return self.content[:16]


@dataclass(frozen=True)
class Tokenized(InMemory):
    """Rows of a tokenizer's ids."""

    tokenizer: Tokenizer

    @property
    def codes(self) -> str:
        """The tokenizer's hash."""
        return self.tokenizer.hash
