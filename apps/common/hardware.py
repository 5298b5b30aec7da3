"""What a device can do: data sheets of accelerators, and the share of their speed that training is assumed to reach.

FLOP/s are dense matrix products as the makers' data sheets give them, bf16 with float32 accumulation, fp32 without
tensor cores (the trainer leaves TF32 off):

    RTX 30     NVIDIA Ampere GA102 whitepaper v2, appendix A; 3050 and 3060: shader TFLOPS of the product pages, tensor
               products with float32 accumulation at twice that, as in the whitepaper's tables
    RTX 40, 50 NVIDIA Ada whitepaper v2.1, RTX Blackwell whitepaper v1.1, appendix A
    others     the data sheets of T4, A100, L40S, H100 and H200
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from apps.common.errors import BadRequest

GIB = 2**30
CPU = "cpu"  # this machine: memory and speed are measured, not looked up


@dataclass(frozen=True)
class Hardware:
    """A card: `device` begins what its driver calls it, `memory` in bytes, FLOP/s; bf16 None: it has no such units.
    fp16 None: as fast as bf16."""

    name: str
    device: str
    memory: int
    bf16: float | None
    fp32: float
    fp16: float | None = None

    def flops(self, precision: str) -> float:
        """Dense FLOP/s at "bf16", "fp16" or "fp32". Raises BadRequest for bf16 where there is none."""
        if precision == "fp16":
            return self.fp16 or self.bf16 or self.fp32
        if precision != "bf16":
            return self.fp32
        if self.bf16 is None:
            raise BadRequest(f"train.precision: {self.name} has no bf16; use auto, fp16 or fp32")
        return self.bf16


TABLE = (
    Hardware("rtx3050", "RTX 3050", 8 * GIB, 18.2e12, 9.1e12),
    Hardware("rtx3060", "RTX 3060", 12 * GIB, 25.4e12, 12.7e12),
    Hardware("rtx3090", "RTX 3090", 24 * GIB, 71e12, 35.6e12),
    Hardware("rtx4090", "RTX 4090", 24 * GIB, 165.2e12, 82.6e12),
    Hardware("rtx5090", "RTX 5090", 32 * GIB, 209.5e12, 104.8e12),
    Hardware("t4", "T4", 16 * GIB, None, 8.1e12, fp16=65e12),  # sm_75
    Hardware("l40s", "L40S", 48 * GIB, 362e12, 91.6e12),
    Hardware("a100", "A100", 40 * GIB, 312e12, 19.5e12),  # the smaller of its two memories
    Hardware("h100-pcie", "H100 PCIe", 80 * GIB, 756e12, 51e12),
    Hardware("h100", "H100", 80 * GIB, 989e12, 67e12),
    Hardware("h200", "H200", 141 * GIB, 989e12, 67e12),
)
# cards of a like name and another speed, which the table does not have
OTHERS = r"(?! ?(?:Ti|SUPER|D|Laptop|Max-Q|Mobile|NVL|6GB|A Laptop)\b)"

# Model FLOPs utilisation that is ASSUMED where nothing was measured: narrow models wait for kernel launches and for
# memory, and the more so the faster the card. Rows: least width of the model; columns: peak FLOP/s up to 40e12, up to
# 200e12, above. Deliberately low; a run measures its own.
WIDTHS = (768, 384, 192, 96, 0)
ASSUMED_MFU = {
    40e12: (0.35, 0.25, 0.15, 0.08, 0.04),
    200e12: (0.30, 0.20, 0.10, 0.03, 0.01),
    float("inf"): (0.25, 0.12, 0.05, 0.015, 0.005),
}
# of the product rate that speed.Peak measures; as measured on two CPU cores, rounded down (docs/fit.md)
CPU_MFU = {"fp32": (0.70, 0.70, 0.70, 0.50, 0.25), "bf16": (0.55, 0.45, 0.30, 0.15, 0.04)}


def named(name: str) -> Hardware | None:
    """The card called `name`, None for this machine's CPU. Raises BadRequest that lists the nearest names."""
    wanted = re.sub(r"[\s_]|nvidia|geforce", "", name.lower())
    for hardware in TABLE:
        if hardware.name == wanted:
            return hardware
    if wanted == CPU:
        return None
    names = [*(hardware.name for hardware in TABLE), CPU]
    near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5) or names
    raise BadRequest(
        f"--hardware: unknown {name!r}; {'nearest' if len(near) < len(names) else 'there are'}: {', '.join(near)}"
    )


def of_device(driver_name: str) -> Hardware | None:
    """The card that the driver calls `driver_name`, None if the table does not have it."""
    for hardware in TABLE:
        if re.search(rf"\b{re.escape(hardware.device)}\b{OTHERS}", driver_name):
            return hardware
    return None


def assumed_mfu(peak: float | None, width: int, precision: str = "bf16") -> float:
    """The assumed share of `peak` FLOP/s (None: this CPU's measured rate at `precision`) that a model of `width` channels
    reaches."""
    row = next(index for index, least in enumerate(WIDTHS) if width >= least)
    if peak is None:
        return CPU_MFU[precision][row]
    return next(column for limit, column in ASSUMED_MFU.items() if peak <= limit)[row]
