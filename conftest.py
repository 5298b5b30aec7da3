"""Loaded before any test module: without an NVIDIA device Triton kernels are interpreted, and workers of pytest-xdist
(`pytest -n 2`) take a core each.

Triton reads TRITON_INTERPRET when it is first imported, and a test of another package may import it (through
accelerate, transformers or torch.compile) before packages/tinykernels is collected.
"""

import os
from pathlib import Path

if not any(Path(device).exists() for device in ("/dev/nvidia0", "/dev/dxg")):
    os.environ.setdefault("TRITON_INTERPRET", "1")

if "PYTEST_XDIST_WORKER" in os.environ:  # torch would start as many threads as there are cores in every one of them
    os.environ.setdefault("OMP_NUM_THREADS", "1")
