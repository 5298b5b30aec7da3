"""Runs whole pretraining sessions in forked children, so that torch is imported once for all, and hurts some on purpose.

Reads a job a line from stdin and answers with its result, a line on stdout. A job is {"argv": [...], "world": 1, "hurt":
{...}, "call": ...}, its result {"codes": [exit code of each process], "out": stdout, "err": stderr, "seconds": float}.
What `hurt` can say:
    {"rank": r, "event": n, "signal": s}    r sends itself s at its n-th write, fsync or rename in a run directory, or,
                                            with "within": "mirrors", in a folder of that name
    {"rank": r, "step": n, "signal": s}     r sends itself s before the n-th step of this session
    {"remove": folder, "step": n}           the folder is gone before the n-th step
    {"file_bytes": n}                       from the first step on no file may grow past n bytes: a limit of the system,
                                            so that what writes in Rust meets it too
    {"rank": r, "poison": [a, b]}           r's loss is not finite while its data stands between positions a and b
With "resume": run directory, an existing one is resumed in place of argv. With "call": "world", instead of pretraining
the processes tell each other things and print what they heard.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# what every child then has: torch's compiler is imported by its optimizers, its shards by those that have some, matplotlib by
# the report
import torch
import torch._dynamo
import torch.distributed.fsdp
from torch.distributed import TCPStore

import apps.common.report  # noqa: F401
from apps.common import command_line, files, launcher, processes
from apps.common.errors import BadRequest
from apps.common.language_task import LanguageTask
from apps.common.signals import StopRequest
from apps.pretrain import __main__ as pretrain

HANGS = 120.0  # seconds after which a job is ended


def main() -> None:
    for line in sys.stdin:
        sys.stdout.write(json.dumps(run(json.loads(line))) + "\n")
        sys.stdout.flush()


def run(job: dict[str, Any]) -> dict[str, Any]:
    world = job.get("world", 1)
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False) if world > 1 else None
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        children = {}
        for rank in range(world):
            child = os.fork()
            if child == 0:
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                if store is not None:
                    os.environ.update(launcher.environment(rank, world, store.port))
                live(job, rank)
            children[child] = rank
        codes = collect(children, start)
        for file in (out, err):
            file.seek(0)
        return {"codes": codes, "out": out.read(), "err": err.read(), "seconds": time.monotonic() - start}


def live(job: dict[str, Any], rank: int) -> None:
    """The whole life of a child; never returns."""
    code = 70
    try:
        hurt = job.get("hurt") or {}
        if hurt.get("rank", 0) == rank:
            prepare(hurt)
        resumable = "resume" in job and (Path(job["resume"]) / "status.json").exists()
        sys.argv = ["pretrain", *(["--resume", job["resume"]] if resumable else job.get("argv", []))]
        command_line.main(talk if job.get("call") == "world" else pretrain.run)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def prepare(hurt: dict[str, Any]) -> None:
    """Have this process be hurt as told."""
    events = steps = 0

    def probe(event: str, path: Path) -> None:
        nonlocal events
        events += hurt.get("within", "runs") in path.parts
        if events == hurt["event"]:
            events += 1
            os.kill(os.getpid(), hurt["signal"])

    def pending(self: StopRequest) -> bool:
        nonlocal steps
        steps += 1
        if steps == hurt.get("step"):
            if "remove" in hurt:
                os.rename(hurt["remove"], f"{hurt['remove']}-gone")
            else:
                os.kill(os.getpid(), hurt["signal"])
        if "file_bytes" in hurt:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hurt["file_bytes"], resource.RLIM_INFINITY))
        return really_pending(self)

    def poisoned(self: LanguageTask, model: Any, batch: Any) -> Iterator[Any]:
        first, last = hurt["poison"]
        factor = float("nan") if first <= self.loader.state_dict()["position"] <= last else 1.0
        for losses, step in really_pass(self, model, batch):
            yield {name: (total * factor, count) for name, (total, count) in losses.items()}, step

    really_pending, really_pass = StopRequest.pending, LanguageTask.passes
    if "poison" in hurt:
        LanguageTask.passes = poisoned
    if "event" in hurt:
        files.probe = probe
    StopRequest.pending = pending


def talk() -> int:
    """What `World` promises, said by each process of two as a line of JSON."""
    world = processes.start("cpu", "fp32", 1, ())
    parameters = [torch.zeros(3, requires_grad=True) for _ in range(3)]
    parameters[0].grad = torch.full((3,), 1.0 + world.index)
    if world.index == 1:
        parameters[1].grad = torch.ones(3)
    world.sum_gradients(parameters)
    tensor = torch.full((2,), float(world.index))
    world.same_everywhere([tensor])
    heard = {
        "ranks": [int(blob) for blob in world.gather(str(world.index).encode() * (world.index + 1))],
        "total": world.total(world.index + 1, 2**52),
        "from_main": world.on_main(lambda: {"rank": world.index}),
        "gradients": [None if p.grad is None else p.grad.tolist() for p in parameters],
        "same": tensor.tolist(),
    }
    sys.stdout.write(json.dumps(heard) + "\n")
    sys.stdout.flush()

    def refuse() -> None:
        raise BadRequest("no such thing")

    world.on_main(refuse)
    return 0


def collect(children: dict[int, int], start: float) -> list[int]:
    """Exit codes by rank; nobody is ended here but who hangs."""
    codes: dict[int, int] = {}
    while len(codes) < len(children):
        done, status = os.waitpid(-1, os.WNOHANG)
        if done in children:
            codes[children[done]] = os.waitstatus_to_exitcode(status)
        elif time.monotonic() - start > HANGS:
            for child in children:
                os.kill(child, 9)
        else:
            time.sleep(0.02)
    return [codes[rank] for rank in range(len(children))]


if __name__ == "__main__":
    main()
