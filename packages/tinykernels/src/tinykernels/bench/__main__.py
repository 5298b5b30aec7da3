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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import tinykernels
from tinykernels.bench.case import Case
from tinykernels.bench.measure import SLOW, Ceilings, Timing, ceilings, paces, replayed, timings

HEADER = "| operation | case | error | p20 ms | of the limit | against | one after another | goal |"


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
    print(f"{HEADER}\n{'| --- ' * 8}|")
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
    able, row["failed"] = runnable(case.rivals)
    calls = {"ours": case.ours, **able}
    found = (
        timed_on_gpu(calls) if device == "cuda" else {name: {"": time} for name, time in timings(calls, device).items()}
    )
    how = next(iter(found["ours"]))
    ours = found.pop("ours")
    limit = best.limit(case.bytes, case.flops)
    row |= {"ours": asdict(ours[how]), "limit": limit, "share": limit / ours[how].p20, "timed": how}
    row["rivals"] = {}
    for name, times in found.items():
        alike = next(kind for kind in times if kind in ours)
        row["rivals"][name] = asdict(times[alike]) | {"ratio": times[alike].p20 / ours[alike].p20, "timed": alike}
    if "pace" in ours:
        row["pace"] = {"ours": ours["pace"].p20} | {
            name: times["pace"].p20 for name, times in found.items() if "pace" in times
        }
    row["goal"] = {"rival": case.goal, "share": case.share}
    return row


def timed_on_gpu(calls: Mapping[str, Callable[[], object]]) -> dict[str, dict[str, Timing]]:
    """Of each call, first what it is compared by: the time of its kernels ("graph") where it can be captured, how long one
    takes after another ("pace") unless it is slow, and how long one takes alone, launching included ("eager")."""
    graphs = {name: replay for name, call in calls.items() if (replay := replayed(call)) is not None}
    kernels, alone = timings(graphs, "cuda"), timings(calls, "cuda")
    one_by_one = paces({name: calls[name] for name in calls if alone[name].p50 < SLOW})
    found: dict[str, dict[str, Timing]] = {}
    for name in calls:
        kinds = (("graph", kernels), ("pace", one_by_one), ("eager", alone))
        found[name] = {kind: times[name] for kind, times in kinds if name in times}
    return found


def runnable(rivals: Mapping[str, Callable[[], object]]) -> tuple[dict[str, Callable[[], object]], dict[str, str]]:
    """The rivals that run here, and what the others said."""
    able: dict[str, Callable[[], object]] = {}
    failed: dict[str, str] = {}
    for name, call in rivals.items():
        try:
            call()
        except Exception as error:  # other people's code, at a shape and with versions that it may not be made for
            failed[name] = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        else:
            able[name] = call
    return able, failed


def line(row: dict[str, Any]) -> str:
    """The row as a line of the table."""
    start = f"| {row['operation']} | {row['case']} | {row['error']:.1e} |"
    if not row["right"]:
        return f"{start} WRONG: the bound is {row['bound']:.1e} | | | | |"
    rivals = ", ".join(f"{name} {rival['ratio']:.2f}x" for name, rival in row["rivals"].items())
    if row["failed"]:
        rivals = ", ".join([*([rivals] if rivals else []), *(f"{name} failed" for name in row["failed"])])
    goals = []
    if row["goal"]["rival"] is not None:
        rival, ratio = row["goal"]["rival"]
        goals.append(f"{rival} {ratio:g}x")
    if row["goal"]["share"] is not None:
        goals.append(f"{row['goal']['share']:.0%} of the limit")
    share = f"{row['share']:.0%}" if row["limit"] else ""
    pace = row.get("pace")
    paced = (
        ""
        if pace is None
        else f"{pace['ours'] * 1e3:.3f} ms"
        + "".join(f", {name} {time / pace['ours']:.2f}x" for name, time in pace.items() if name != "ours")
    )
    return f"{start} {row['ours']['p20'] * 1e3:.3f} | {share} | {rivals} | {paced} | {', '.join(goals)} |"


def environment(device: str) -> dict[str, str]:
    """Versions and device, for the record."""
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    result = {"device": name, "threads": str(torch.get_num_threads()), "torch": torch.__version__}
    if importlib.util.find_spec("triton") is not None:
        result["triton"] = importlib.import_module("triton").__version__
    return result


if __name__ == "__main__":
    sys.exit(main())
