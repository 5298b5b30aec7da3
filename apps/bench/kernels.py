"""`uv run apps/bench kernels`: the benchmark that tinykernels carries itself, `python -m tinykernels.bench`."""

from __future__ import annotations

from collections.abc import Sequence

from apps.common.errors import BadRequest


def main(argv: Sequence[str]) -> int:
    """Hand `argv` to tinykernels; the exit status."""
    try:
        from tinykernels.bench.__main__ import main as bench
    except ImportError:
        raise BadRequest("the kernels are not installed: uv run --extra kernels apps/bench kernels") from None
    return bench(list(argv))
