"""Registers, stack, shared memory and instructions of a compiled kernel, read from its machine code.

The programs that read it (cuobjdump, nvdisasm) come with Triton's wheel; no CUDA toolkit is needed.
"""

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


@dataclass(frozen=True)
class Resources:
    """What one program of a kernel takes: registers a thread, stack bytes a thread (spills), shared memory
    bytes,
    machine instructions in all, and how many of them are tensor-core products."""

    registers: int
    stack: int
    shared: int
    instructions: int
    matrix: Mapping[str, int]


def resources(compiled: Any) -> Resources:
    """Read them from a kernel that `Launch.compile` returned. Raises RuntimeError if the tools print no usage."""
    with tempfile.TemporaryDirectory() as directory:
        cubin = Path(directory) / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        usage = _run("cuobjdump", "-res-usage", str(cubin))
        listing = _run("cuobjdump", "-sass", str(cubin))
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump printed no resource usage: {usage.strip()[:200]}")
    opcodes = re.findall(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+\s+)?([A-Z0-9_]+)", listing, re.MULTILINE)
    opcodes = [opcode for opcode in opcodes if opcode != "NOP"]
    matrix = {name: opcodes.count(name) for name in ("HGMMA", "IGMMA", "HMMA", "IMMA", "UTMALDG")}
    return Resources(
        registers=int(found[1]),
        stack=int(found[2]),
        shared=compiled.metadata.shared,
        instructions=len(opcodes),
        matrix={name: count for name, count in matrix.items() if count},
    )


def _run(program: str, *arguments: str) -> str:
    return subprocess.run([TOOLS / program, *arguments], check=True, capture_output=True, text=True).stdout
