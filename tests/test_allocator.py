"""The C library keeps freed memory once it is asked to: later steps take no page faults. (Linux with glibc.)"""

from __future__ import annotations

import subprocess
import sys

import pytest

from apps.common import allocator

FAULTS = """
import resource, sys
import torch
from apps.common import allocator
assert getattr(allocator, sys.argv[1])()
def work():
    arrays = [torch.ones(12 << 20) for _ in range(4)]  # 48 MB each
for _ in range(4):
    work()
found = []
for _ in range(5):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sorted(found)[2])  # once in hundreds of runs the system takes the pages of a round back
"""


def faults(setting: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS, setting], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not allocator.as_usual(), reason="the C library is not glibc")
def test_freed_memory_is_used_again() -> None:
    usual, kept = faults("as_usual"), faults("keep_freed_memory")
    assert usual > 1000, "a page of 4 KiB or 2 MiB at a time, by default each array is mapped anew"
    assert kept < usual / 4
