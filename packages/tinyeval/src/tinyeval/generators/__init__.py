"""Items made by rule, endless and never published: what a tiny model can be asked without anyone's data.

A generator is called with seed, items and its own options, and yields the same items for the same arguments on every machine:
its draws depend on nothing but Python's `random.Random`. Others (word problems, logic) are passed in by whoever evaluates.
"""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from tinyeval.generators.arithmetic import arithmetic
from tinyeval.generators.facts import facts
from tinyeval.generators.grammar import grammar
from tinyeval.generators.instructions import instructions
from tinyeval.generators.needle import needle
from tinyeval.generators.patterns import patterns
from tinyeval.generators.programs import programs
from tinyeval.generators.stories import stories
from tinyeval.items import Item

GENERATORS: Mapping[str, Callable[..., Iterable[Item]]] = MappingProxyType(
    {
        "arithmetic": arithmetic,
        "facts": facts,
        "grammar": grammar,
        "instructions": instructions,
        "needle": needle,
        "patterns": patterns,
        "programs": programs,
        "stories": stories,
    }
)

__all__ = ["GENERATORS", "arithmetic", "facts", "grammar", "instructions", "needle", "patterns", "programs", "stories"]
