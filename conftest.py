"""Loaded before any test module: without an NVIDIA device Triton kernels are interpreted.

Triton reads TRITON_INTERPRET when it is first imported, and a test of another package may import it (through
accelerate, transformers or torch.compile) before packages/tinykernels is collected.
"""

import os
from pathlib import Path

if not any(Path(device).exists() for device in ("/dev/nvidia0", "/dev/dxg")):
    os.environ.setdefault("TRITON_INTERPRET", "1")
