"""The C library's memory: kept for the next step where the default is to hand it back and fetch it again.

glibc maps every array beyond 32 MB anew and returns the free end of its heap, so that a training step on a CPU takes some
58,000 page faults (brandon-10m, 8 x 512 tokens); with its two thresholds raised it takes about a hundred, and the step
is 4 to 14 % shorter. The most memory a process holds stays the same: what is free is used again.
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
MOST = 2_000_000_000  # bytes; the parameters are C ints
SETTLED = (
    32 * 2**20
)  # where glibc's own mapping threshold ends up in a program that frees large arrays; it trims at twice


def keep_freed_memory() -> bool:
    """Raise both thresholds for this process; False where the C library is not glibc."""
    return _set(MOST, MOST)


def as_usual() -> bool:
    """Both thresholds as they settle by themselves (once set, glibc no longer moves them)."""
    return _set(SETTLED, 2 * SETTLED)


def _set(mapped: int, trimmed: int) -> bool:
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018  (musl has mallopt as well, without these thresholds)
        return bool(library.mallopt(M_MMAP_THRESHOLD, mapped) and library.mallopt(M_TRIM_THRESHOLD, trimmed))
    except (AttributeError, OSError, TypeError):
        return False
