"""Claim: every Triton kernel, as an operation launches it at tiny-model shapes, compiles ahead of time
without spilling registers and within the card's shared memory: sm_86 and sm_90 here, every supported card
when asked (slow).

Compilation runs in processes of its own: this one interprets kernels. uv run pytest
packages/tinykernels/tests/compile_check
"""

import importlib.util
import os
import subprocess
import sys

import pytest

import tinykernels

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")

OPERATIONS = sorted(
    name
    for name in tinykernels.__all__
    if importlib.util.find_spec(f"tinykernels.{name}") and importlib.util.find_spec(f"tinykernels.{name}.samples")
)


def compile_for(*targets: str) -> tuple[str, str]:
    """Standard output and error of the check, one process a target, side by side."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_DEFAULT_FP_FUSION"] = "1"
    command = [sys.executable, "-m", "tinykernels.compile_check", "--targets"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    running = [subprocess.Popen([*command, target], **pipes) for target in targets]
    printed = [process.communicate() for process in running]
    return "".join(out for out, _ in printed), "".join(err for _, err in printed)


@pytest.fixture(scope="module")
def compiled() -> tuple[str, str]:
    """The check's output for a consumer card and a Hopper card."""
    return compile_for("86", "90")


def test_every_exported_operation_with_kernels_has_samples() -> None:
    missing = [
        name
        for name in tinykernels.__all__
        if importlib.util.find_spec(f"tinykernels.{name}") is not None and name not in OPERATIONS
    ]
    assert not missing


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_compiles_for_consumer_and_hopper_cards(compiled, operation) -> None:
    out, err = compiled
    wrong = [line for line in err.splitlines() if line.startswith(f"{operation} ")]
    assert not wrong
    rows = [line for line in out.splitlines() if line.startswith(f"| {operation} ")]
    assert {row.split("|")[2].strip() for row in rows} == {"86", "90"}, err


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_compiles_for_every_other_card() -> None:
    out, err = compile_for("80", "89", "120")
    assert not [line for line in err.splitlines() if "for sm_" in line]
    assert all(f"| {operation} " in out for operation in OPERATIONS), err


def test_refuses_the_interpreter() -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "tinykernels.compile_check", "--only", "rms_norm"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 2
    assert "unset TRITON_INTERPRET" in done.stderr
