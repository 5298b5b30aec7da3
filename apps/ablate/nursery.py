"""Processes for cells, forked from one that has already imported what training needs.

Python takes some ten seconds of a core to import torch and its compiler, as long as a short cell trains. Where the system
can fork, a server (multiprocessing's) imports it once, and a cell starts in a second; elsewhere each imports for itself.
The server never touches a GPU, since what CUDA has begun does not outlive a fork: each cell begins it for itself.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path

PRELOADED = ["apps.ablate.preload"]
COUNT_WITHOUT_CUDA = (
    "PYTORCH_NVML_BASED_CUDA_CHECK"  # torch counts GPUs through the driver's library, and CUDA does not begin
)


def start(program: Path, arguments: Sequence[str], environment: Mapping[str, str], out: Path, err: Path) -> BaseProcess:
    """A process, started, that runs `program` in that environment, what it prints going to two files.

    It leads a session of its own, so that a Ctrl-C at the terminal is for whoever started it to pass on.
    """
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(PRELOADED)  # heard by a server that is not there yet
        before = os.environ.get(COUNT_WITHOUT_CUDA)
        os.environ[COUNT_WITHOUT_CUDA] = "1"
        try:
            forkserver.ensure_running()
        finally:
            os.environ.pop(COUNT_WITHOUT_CUDA)
            if before is not None:
                os.environ[COUNT_WITHOUT_CUDA] = before
    told = str(program), list(arguments), dict(environment), str(out), str(err)
    process: BaseProcess = context.Process(target=_carry_out, args=told)  # ty: ignore[missing-attribute]
    process.start()
    return process


def _carry_out(program: str, arguments: list[str], environment: dict[str, str], out: str, err: str) -> None:
    if hasattr(os, "setsid"):
        os.setsid()
    for stream, path in ((sys.stdout, out), (sys.stderr, err)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(descriptor, stream.fileno())
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    threads = environment.get("OMP_NUM_THREADS")
    if threads is not None and "torch" in sys.modules:  # which read it when it was loaded
        sys.modules["torch"].set_num_threads(int(threads))
    sys.argv = [program, *arguments]
    runpy.run_path(program, run_name="__main__")
