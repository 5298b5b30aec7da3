"""`uv run apps/bench optim`: what a step of Muon costs, beside torch.optim.Muon and fused AdamW, alone and shared out.

One process: one step of each optimizer over the recipe's model with drawn gradients, in turn; torch.optim.Muon takes the same
hidden matrices, beside it AdamW the rest. `float32` and `bfloat16` say in which the matrices are orthogonalised; PyTorch's
does it in bfloat16. Before any time is printed, both must have made the same step from the same momentum.

Two processes (--processes): AdamW and Muon, whole in each and shared out (torch's ZeroRedundancyOptimizer, DistributedMuon),
with the bytes of state that the larger of them holds. All processes share this machine's cores.
"""

from __future__ import annotations

import copy
import datetime
import shlex
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import nn
from torch.distributed.optim import ZeroRedundancyOptimizer

import tinycore
from apps.bench import results
from apps.bench.rounds import alternate, ratio, spread
from apps.common import command_help, files, recipes
from apps.common.command_line import HELP, Grammar, Option, take_apart
from apps.common.console import Console
from apps.common.errors import TrainingFailed
from apps.common.markdown import table
from tinycore.optim import adamw, distributed_muon, muon, roles

OPTIONS = {
    "recipes": Option("models (default: brandon-10m,brandon-110m-v1)", "NAME,NAME"),
    "rounds": Option("timed steps of each (default: 5)", "N"),
    "processes": Option("of the shared optimizers; 1 leaves them out (default: 2)", "N"),
    "json": Option("write the figures, with the machine they were measured on, to a file", "FILE"),
    "help": HELP,
}
EXAMPLES = (("one model", "uv run apps/bench optim --recipes brandon-10m"),)
RATE = 1e-3
Steps = dict[str, Callable[[], object]]


def main(argv: Sequence[str]) -> int:
    """Measure what `argv` asks for and print it; the exit status."""
    arguments = take_apart(argv, Grammar(OPTIONS))
    if "help" in arguments.options:
        command_help.print_app_help("bench", __doc__ or "", "optim", OPTIONS, EXAMPLES)
        return 0
    console, rounds = Console(), arguments.whole("rounds", 5)
    world = arguments.whole("processes", 2)
    found: dict[str, Any] = {}
    for name in arguments.text("recipes", "brandon-10m,brandon-110m-v1").split(","):
        console.say(f"{name}: one process")
        config = recipes.load(name.strip()).model
        found[name] = {"parameters": tinycore.count(config).parameters, "alone": _alone(config, rounds, console)}
        if world > 1:
            console.say(f"{name}: {world} processes")
            found[name]["together"] = _together(name.strip(), rounds, world)
            found[name]["processes"] = world
        _show(name, found[name], console)
    target = arguments.path("json")
    if target is not None:
        results.write(target, shlex.join(["uv", "run", "apps/bench", "optim", *argv]), found)
        console.say(f"\nwritten to {target}")
    return 0


def _alone(config: tinycore.ModelConfig, rounds: int, console: Console) -> dict[str, Any]:
    ways: dict[str, Callable[[nn.Module], list[torch.optim.Optimizer]]] = {
        "fused AdamW": lambda model: [adamw(model, RATE)],
        "torch.optim.Muon": _torch_muon,
        "Muon, bfloat16": lambda model: [muon(model, RATE, ns_dtype=torch.bfloat16)],
        "Muon, float32": lambda model: [muon(model, RATE, ns_dtype=torch.float32)],
    }
    model = _with_gradients(config)
    optimizers = {name: make(model) for name, make in ways.items()}
    _require_same_step(model, optimizers["torch.optim.Muon"], optimizers["Muon, bfloat16"])
    steps: Steps = {
        name: (lambda several=several: [each.step() for each in several]) for name, several in optimizers.items()
    }
    return _figures(alternate(steps, rounds, tell=console.say), "torch.optim.Muon")


def _figures(seconds: dict[str, list[float]], reference: str) -> dict[str, Any]:
    return {
        name: {
            "milliseconds": spread([1000 * second for second in taken]).to_dict(),
            "ratio": ratio(taken, seconds[reference]).to_dict(),
        }
        for name, taken in seconds.items()
    }


def _with_gradients(config: tinycore.ModelConfig) -> tinycore.Decoder:
    torch.manual_seed(0)
    model = tinycore.build(config)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    return model


def _torch_muon(model: nn.Module) -> list[torch.optim.Optimizer]:
    """PyTorch's for the same matrices, with the settings of ours; matrices that share a parameter it takes as one."""
    hidden = [role.parameter for role in roles(model) if role.kind == "hidden"]
    taken = {id(parameter) for parameter in hidden}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in taken]
    return [
        torch.optim.Muon(hidden, lr=RATE, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


def _require_same_step(
    model: nn.Module, first: list[torch.optim.Optimizer], second: list[torch.optim.Optimizer]
) -> None:
    """Both from the same weights with the same gradients. Raises TrainingFailed."""
    before = copy.deepcopy(model.state_dict())
    steps = []
    for several in (first, second):
        for optimizer in several:
            optimizer.step()
        steps.append({name: value - before[name] for name, value in model.state_dict().items()})
        model.load_state_dict(before)
    for role in roles(model):
        a, b = (step[role.name] for step in steps)
        if role.kind == "hidden" and not role.parts and (a - b).norm() > 0.02 * a.norm():
            raise TrainingFailed(f"{role.name}: the two made different steps; nothing was timed")


def _together(name: str, rounds: int, world: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(_worker, (world, folder, name, rounds), nprocs=world)
        measured = [files.read_json(Path(folder) / f"{rank}.json") for rank in range(world)]
    found = _figures(measured[0]["seconds"], "AdamW, shared")
    for way, figures in found.items():
        figures["state_bytes"] = max(each["bytes"][way] for each in measured)
    return found


def _worker(rank: int, world: int, folder: str, name: str, rounds: int) -> None:
    torch.set_num_threads(max(1, torch.get_num_threads() // world))
    wait = datetime.timedelta(minutes=10)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world, timeout=wait)
    try:
        model = _with_gradients(recipes.load(name).model)
        parameters = list(model.parameters())
        optimizers: dict[str, torch.optim.Optimizer] = {
            "AdamW": adamw(model, RATE),
            "AdamW, shared": ZeroRedundancyOptimizer(parameters, torch.optim.AdamW, lr=RATE, fused=True),
            "Muon": muon(model, RATE),
            "Muon, shared": distributed_muon(model, RATE),
        }
        steps: Steps = {way: (lambda optimizer=optimizer: _in_step(optimizer)) for way, optimizer in optimizers.items()}
        seconds = alternate(steps, rounds)
        files.write_json(
            Path(folder) / f"{rank}.json",
            {"seconds": seconds, "bytes": {way: _bytes(optimizer) for way, optimizer in optimizers.items()}},
        )
        dist.barrier()
    finally:
        dist.destroy_process_group()


def _in_step(optimizer: torch.optim.Optimizer) -> None:
    """One step that ends when the slowest process has ended it."""
    optimizer.step()
    dist.barrier()


def _bytes(optimizer: torch.optim.Optimizer) -> int:
    inner = optimizer.optim if isinstance(optimizer, ZeroRedundancyOptimizer) else optimizer
    values = (value for state in inner.state.values() for value in state.values())
    return sum(value.numel() * value.element_size() for value in values if torch.is_tensor(value))


def _show(name: str, found: dict[str, Any], console: Console) -> None:
    rows = [
        (way, f"{figures['milliseconds']['median']:.1f}", f"{figures['ratio']['median']:.2f}")
        for way, figures in found["alone"].items()
    ]
    console.say(f"\n{name}, {found['parameters']:,} parameters")
    console.say(table(("one process", "ms a step", "to torch.optim.Muon"), rows))
    if "together" in found:
        shown = [
            (
                way,
                f"{figures['milliseconds']['median']:.1f}",
                f"{figures['ratio']['median']:.2f}",
                f"{figures['state_bytes'] / 1e6:.1f}",
            )
            for way, figures in found["together"].items()
        ]
        header = (f"{found['processes']} processes", "ms a step", "to AdamW, shared", "MB of state in one")
        console.say("\n" + table(header, shown))
