"""`--profile`: where the time of a step goes, as torch's profiler sees a few of them, written into the run.

    profile/trace.json        what ran when: open it at https://ui.perfetto.dev or chrome://tracing
    profile/operations.txt    the operations that took most of the time

The first steps of a session are left out: they compile, allocate and load. What is computed stays the same, the steps that
are recorded take longer. A later profile of the run replaces it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from apps.common import files
from apps.common.console import Console
from apps.common.run_directory import RunDirectory

WAIT, WARMUP, RECORDED = 3, 1, 3  # steps of a session
ROWS = 40  # operations in the table


@contextlib.contextmanager
def steps(run: RunDirectory | None, device: torch.device, console: Console) -> Generator[Callable[[], None]]:
    """Inside, call what is given after each step; the files are written after the last that is recorded. `run` is given to
    the main process only, and no other records anything."""
    if run is None:
        yield lambda: None
        return
    written = False

    def write(recorded: profile) -> None:
        nonlocal written
        where = run.path / "profile"
        if where.exists():
            files.remove_directory(where)
        by = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
        with files.new_directory(where) as directory:
            recorded.export_chrome_trace(str(directory / "trace.json"))
            table = recorded.key_averages().table(sort_by=by, row_limit=ROWS)
            files.write_text(directory / "operations.txt", table)
        console.say(f"profile of {RECORDED} steps: {where}")
        written = True

    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    plan = schedule(wait=WAIT, warmup=WARMUP, active=RECORDED, repeat=1)
    with profile(activities=activities, schedule=plan, on_trace_ready=write) as recording:
        yield recording.step
    if not written:
        console.warn(f"--profile: this session ended before its step {WAIT + WARMUP + RECORDED}; there is no profile")
