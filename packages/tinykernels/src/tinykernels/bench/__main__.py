"""Check, then time, every operation; print a table and optionally write it as JSON.

    python -m tinykernels.bench --device cpu --only rms_norm
    python -m tinykernels.bench --device cuda --json docs/benchmarks/kernels-h100.json

An operation whose result is wrong is not timed, and the exit status is 1. Needs nothing but this package.
"""

import argparse
import importlib
import importlib.util
import json
import pkgutil
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import tinykernels
from tinykernels.bench.case import Case
from tinykernels.bench.measure import Ceilings, ceilings, timings

HEADER = "| operation | case | error | p20 ms | of the limit | against | goal |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 0 if every result was right."""
    parser = argparse.ArgumentParser(prog="python -m tinykernels.bench", description=__doc__.splitlines()[0])
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cpu", "cuda"), default=default)
    parser.add_argument("--only", default="", help="operations whose name contains this text")
    parser.add_argument("--json", type=Path, help="file to write the results to")
    parsed = parser.parse_args(arguments)
    if parsed.device == "cuda" and not torch.cuda.is_available():
        print("bench: --device cuda needs a CUDA device, none is visible", file=sys.stderr)
        return 2
    machine = environment(parsed.device)
    best = ceilings(parsed.device)
    print(" ".join(f"{name} {value}" for name, value in machine.items()))
    print(f"copy {best.bytes / 1e9:.0f} GB/s, matrix product {best.flops / 1e12:.2f} TFLOP/s\n")
    print(f"{HEADER}\n{'| --- ' * 7}|")
    rows = []
    for case in cases(parsed.device, parsed.only):
        row = measure(case, parsed.device, best)
        rows.append(row)
        print(line(row), flush=True)
    if parsed.json is not None:
        parsed.json.parent.mkdir(parents=True, exist_ok=True)
        result = {"machine": machine, "ceilings": asdict(best), "rows": rows}
        parsed.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"\nwrote {parsed.json}")
    return 0 if all(row["right"] for row in rows) else 1


def cases(device: str, only: str) -> list[Case]:
    """The cases of every operation that has a `benchmark` module."""
    found: list[Case] = []
    for package in sorted(module.name for module in pkgutil.iter_modules(tinykernels.__path__) if module.ispkg):
        module = f"tinykernels.{package}.benchmark"
        if only in package and importlib.util.find_spec(module) is not None:
            found += importlib.import_module(module).cases(device)
    return found


def measure(case: Case, device: str, best: Ceilings) -> dict[str, Any]:
    """One row: the error, and, only if it is within the bound, the times."""
    error = case.error()
    row: dict[str, Any] = {
        "operation": case.operation,
        "case": case.label,
        "error": error,
        "bound": case.bound,
        "right": error <= case.bound,
    }
    if not row["right"]:
        return row
    rivals = timings({"ours": case.ours, **case.rivals}, device)
    ours = rivals.pop("ours")
    limit = best.limit(case.bytes, case.flops)
    row |= {"ours": asdict(ours), "limit": limit, "share": limit / ours.p20}
    row["rivals"] = {name: asdict(rival) | {"ratio": rival.p20 / ours.p20} for name, rival in rivals.items()}
    row["goal"] = {"rival": case.goal, "share": case.share}
    return row


def line(row: dict[str, Any]) -> str:
    """The row as a line of the table."""
    start = f"| {row['operation']} | {row['case']} | {row['error']:.1e} |"
    if not row["right"]:
        return f"{start} WRONG: the bound is {row['bound']:.1e} | | | |"
    rivals = ", ".join(f"{name} {rival['ratio']:.2f}x" for name, rival in row["rivals"].items())
    goals = []
    if row["goal"]["rival"] is not None:
        rival, ratio = row["goal"]["rival"]
        goals.append(f"{rival} {ratio:g}x")
    if row["goal"]["share"] is not None:
        goals.append(f"{row['goal']['share']:.0%} of the limit")
    share = f"{row['share']:.0%}" if row["limit"] else ""
    return f"{start} {row['ours']['p20'] * 1e3:.3f} | {share} | {rivals} | {', '.join(goals)} |"


def environment(device: str) -> dict[str, str]:
    """Versions and device, for the record."""
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    result = {"device": name, "threads": str(torch.get_num_threads()), "torch": torch.__version__}
    if importlib.util.find_spec("triton") is not None:
        result["triton"] = importlib.import_module("triton").__version__
    return result


if __name__ == "__main__":
    sys.exit(main())
