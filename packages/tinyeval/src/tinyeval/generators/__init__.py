"""Items made by rule, endless and never published: what a tiny model can be asked without anyone's data.

A generator is called with seed, items and its own options, and yields the same items for the same arguments on every machine:
its draws depend on nothing but Python's `random.Random`. Others (word problems, logic) are passed in by whoever evaluates.
"""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from tinyeval.generators.arithmetic import arithmetic
from tinyeval.generators.instructions import instructions
from tinyeval.generators.needle import needle
from tinyeval.generators.stories import stories
from tinyeval.items import Item

GENERATORS: Mapping[str, Callable[..., Iterable[Item]]] = MappingProxyType(
    {"arithmetic": arithmetic, "instructions": instructions, "needle": needle, "stories": stories}
)

__all__ = ["GENERATORS", "arithmetic", "instructions", "needle", "stories"]
