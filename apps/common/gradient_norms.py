"""Norms of the gradient by family of parameters and by layer, before clipping: where a run that goes wrong begins to.

    grad_norm/embedding | mixer | ffn | norm | head | other      by what a parameter belongs to
    grad_norm/layer/N                                            by the layer that owns it

Squares of the families' norms sum to that of `grad_norm`. Layers that are called several times have the sum of their calls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from apps.common import sharding
from apps.common.processes import World

PREFIX = "grad_norm/"
# the first that a part of the name is in decides
FAMILIES: tuple[tuple[str, frozenset[str]], ...] = (
    ("norm", frozenset({"norm", "norms"})),
    ("embedding", frozenset({"embed"})),
    ("head", frozenset({"heads"})),
    ("mixer", frozenset({"mixer"})),
    ("ffn", frozenset({"ffn"})),
)


def groups(name: str) -> list[str]:
    """The sums that the parameter `name` belongs to."""
    parts = name.split(".")
    found = [next((family for family, words in FAMILIES if words & set(parts)), "other")]
    return [*found, f"layer/{parts[1]}"] if parts[0] == "layers" else found


def norms(parameters: Mapping[str, Tensor], world: World) -> dict[str, float]:
    """{grad_norm/GROUP: norm} of the gradients that `parameters`, by name, have; a collective operation where those lie in
    shards."""
    gradients = {name: parameter.grad for name, parameter in parameters.items() if parameter.grad is not None}
    if not gradients:
        return {}
    squares: dict[str, float] = {}
    sizes = sharding.norms(world, list(gradients.values()))
    for name, size in zip(gradients, sizes, strict=True):
        for group in groups(name):
            squares[group] = squares.get(group, 0.0) + size * size
    families = [family for family, _ in FAMILIES] + ["other"]
    order = sorted(squares, key=lambda group: families.index(group) if group in families else len(families))
    return {PREFIX + group: math.sqrt(squares[group]) for group in order}
