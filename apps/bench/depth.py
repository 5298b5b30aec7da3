"""`uv run apps/bench depth`: every way of calling layers beside plain depth: training and decoding speed.

The variants of apps/ablate/calls.yaml in the shape of eight layers of width 288, as `apps/bench/table_speed.py` measures them.
A fresh model halts where its readout's starting bias says; what a trained one saves depends on what it was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence

from apps.bench import table_speed

EXAMPLES = (("two of them, long rows", "uv run apps/bench depth --only hourglass,pooled --length 2048"),)


def main(argv: Sequence[str]) -> int:
    """See the module's docstring."""
    return table_speed.run("depth", "ablate-calls", __doc__ or "", EXAMPLES, argv)
