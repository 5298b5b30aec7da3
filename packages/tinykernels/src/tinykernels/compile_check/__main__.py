"""Compile every kernel for the given cards and print registers, stack, shared memory and instruction counts.

    python -m tinykernels.compile_check --targets 86 90

Fails (exit 1) if a kernel does not compile, spills registers to the stack, or needs more shared memory than
a program of that card may use. Needs Triton, no GPU. TRITON_INTERPRET must not be set.
"""

import argparse
import sys
from collections.abc import Sequence

import triton

from tinykernels.compile_check.launches import Launch, recorded
from tinykernels.compile_check.resources import resources
from tinykernels.compile_check.samples import samples
from tinykernels.devices import SHARED_MEMORY, assume
from tinykernels.dispatch import interpreting

TARGETS = {f"{major}{minor}": (major, minor) for major, minor in SHARED_MEMORY if (major, minor) >= (8, 0)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 0 if every kernel fits every target."""
    parser = argparse.ArgumentParser(prog="python -m tinykernels.compile_check", description=__doc__.splitlines()[0])
    parser.add_argument("--targets", nargs="+", choices=sorted(TARGETS), default=["86", "90"])
    parser.add_argument("--only", default="", help="operations whose name contains this text")
    parsed = parser.parse_args(arguments)
    if interpreting():
        print("compile_check: unset TRITON_INTERPRET, interpreted kernels cannot be compiled", file=sys.stderr)
        return 2
    print(f"Triton {triton.__version__}\n")
    print("| kernel | sm | warps | registers | stack | shared | instructions | tensor cores |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    failures: list[str] = []
    for target in parsed.targets:
        for label, launch in launches(TARGETS[target], parsed.only):
            failures += check(label, launch, TARGETS[target])
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


def launches(target: tuple[int, int], only: str = "") -> list[tuple[str, Launch]]:
    """The distinct launches of all samples whose label contains `only`, with tiles chosen for `target`."""
    found: list[tuple[str, Launch]] = []
    for label, call in samples().items():
        if only not in label:
            continue
        with assume(target), recorded() as made:
            call()
        if not made:
            raise RuntimeError(f"the sample {label!r} launched no kernel")
        found += [(label, launch) for index, launch in enumerate(made) if launch not in made[:index]]
    return found


def check(label: str, launch: Launch, target: tuple[int, int]) -> list[str]:
    """Compile one launch, print its row, return what is wrong with it."""
    card = f"{target[0]}{target[1]}"
    where = f"{label}: {launch.name} for sm_{card}"
    try:
        used = resources(launch.compile(target))
    except (triton.CompilationError, RuntimeError) as error:
        return [f"{where} does not compile: {str(error).strip().splitlines()[-1]}"]
    matrix = " ".join(f"{name} {count}" for name, count in used.matrix.items())
    row = (f"{label}: {launch.name}", card, launch.options.get("num_warps", 4), used.registers, used.stack)
    row += (used.shared, used.instructions, matrix)
    print("| " + " | ".join(str(cell) for cell in row) + " |", flush=True)
    wrong = []
    if used.stack:
        wrong.append(f"{where} keeps {used.stack} bytes a thread on the stack")
    if used.shared > SHARED_MEMORY[target]:
        wrong.append(f"{where} needs {used.shared} bytes of shared memory, the card has {SHARED_MEMORY[target]}")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
