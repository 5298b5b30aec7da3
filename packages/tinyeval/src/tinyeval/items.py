"""One question of a task, as data: what every dataset becomes before it is asked, and what a generator yields.

    open question    Item(id, prompt, answer="42")
    choices          Item(id, prompt, choices=("a sea", "a tree"), right=1)
    two contexts     Item(id, contexts=("The trophy", "The case"), choices=(" is big.",) * 2, right=0)     (WinoGrande)

`meta` says what kind of question it is (digits, hops, depth, ...) and what its scorer needs (tests, rules); results are
grouped by its plain values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class Unavailable(RuntimeError):
    """A task's data, or something it needs, cannot be had here; the message is one line and names the remedy."""


class DataError(ValueError):
    """A task's data is there and is not what it should be; the message is one line."""


@dataclass(frozen=True, slots=True)
class Item:
    """`id` is unique within its task and the same in every run: results are paired by it.

    prompt: the field of that name in a task's template; `fields` are others. choices with `right`, the index of the right
    one; or `answer`, the text that is right. contexts: where each choice has its own, instead of the template.
    Raises ValueError for a `right` that is no choice, and for contexts that are not one for each choice.
    """

    id: str
    prompt: str = ""
    answer: str = ""
    choices: tuple[str, ...] = ()
    right: int | None = None
    contexts: tuple[str, ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.right is not None and not 0 <= self.right < len(self.choices):
            raise ValueError(f"item {self.id}: right is {self.right}, of {len(self.choices)} choices")
        if self.contexts and len(self.contexts) != len(self.choices):
            raise ValueError(f"item {self.id}: {len(self.contexts)} contexts for {len(self.choices)} choices")

    @property
    def text(self) -> str:
        """Everything of it that a model could have seen in training: prompt, fields, contexts, choices and answer."""
        return " ".join([self.prompt, *self.fields.values(), *self.contexts, *self.choices, self.answer]).strip()
