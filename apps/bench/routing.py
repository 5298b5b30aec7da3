"""`uv run apps/bench routing`: routing, memories and heads beside the plain stack: training and decoding speed.

The variants of apps/ablate/routing.yaml in the shape of eight layers of width 288, measured by `apps/bench/table_speed.py`.
A fresh model is sure of nothing and guesses nothing right: what early exit and speculation save is measured on trained models,
by `uv run apps/bench decode`.
"""

from __future__ import annotations

from collections.abc import Sequence

from apps.bench import table_speed

EXAMPLES = (("mixture of depths alone", "uv run apps/bench routing --only mod,mod_half"),)


def main(argv: Sequence[str]) -> int:
    """See the module's docstring."""
    return table_speed.run("routing", "ablate-routing", __doc__ or "", EXAMPLES, argv)
