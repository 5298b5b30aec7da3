"""Prompt templates: text with {named} fields, and nothing that a template could compute.

The form is that of `str.format` less everything that reaches into objects: no attributes, no indices, no conversions, no
format specifications, no numbered fields. `{{` and `}}` are braces. A field's value is inserted as it is, once.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Template:
    """Raises ValueError, on making, for anything but text and {names}."""

    text: str
    fields: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        try:
            parts = list(string.Formatter().parse(self.text))
        except ValueError as error:
            raise ValueError(f"template {self.text!r}: {error}") from None
        names = []
        for _, name, specification, conversion in parts:
            if name is None:
                continue
            if not name.isidentifier() or specification or conversion:
                written = (
                    name + (f"!{conversion}" if conversion else "") + (f":{specification}" if specification else "")
                )
                raise ValueError(f"template {self.text!r}: {{{written}}} is not a plain name")
            names.append(name)
        object.__setattr__(self, "fields", tuple(dict.fromkeys(names)))

    def render(self, values: Mapping[str, str]) -> str:
        """The text with its fields filled in. Raises ValueError for a field without a value, naming those there are."""
        missing = next((name for name in self.fields if name not in values), None)
        if missing is not None:
            raise ValueError(f"template {self.text!r}: no field {missing!r}; there are {', '.join(sorted(values))}")
        return "".join(
            literal + ("" if name is None else values[name])
            for literal, name, _, _ in string.Formatter().parse(self.text)
        )
