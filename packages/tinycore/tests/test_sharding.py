"""Models in shards (torch's `fully_shard`, here over gloo) are the models they were: tied, shared, looped, recursive weights,
several backward passes and micro-batches before a step, Muon's whole matrices; gathered, they save and load as ever."""

from __future__ import annotations

import copy
import datetime
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

import tinycore
from tinycore import objectives, testing
from tinycore.optim import adam_atan2, adamw, m3, muon
from tinycore.optim.sharded import gathered, is_sharded, like, local, whole
from tinycore.testing import processes

MODELS: dict[str, dict[str, Any]] = {
    "tied": {"embed": {"kind": "table", "tied": True}},
    "untied": {"embed": {"kind": "table", "tied": False}},
    "shared": {"depth": {"kind": "shared", "times": 3}},
    "looped": {"depth": {"kind": "looped", "loops": 3, "injection": True, "step": "add"}},
    "recursive": {"depth": {"kind": "recursive", "H_cycles": 2, "L_cycles": 2, "supervision": 2}},
    "several losses": {"heads": {"kind": "mtp", "tokens": 3}},
    "slow levels": {
        "mixer": {"kind": "mamba", "state": 4},
        "ffn": {"kind": "cms", "periods": [1, 2], "hidden": 12},
    },
}
OPTIMIZERS = {"adamw": adamw, "adam_atan2": adam_atan2, "muon": muon, "m3": m3}
CASES = [
    *(("adamw", name, torch.float64) for name in MODELS),
    *(("adamw", name, torch.float32) for name in ("tied", "looped")),
    *((kind, "tied", torch.float64) for kind in ("adam_atan2", "muon", "m3")),
    ("muon", "slow levels", torch.float64),
    ("muon", "looped", torch.float64),
]
RATE, MICRO_BATCHES = 1e-2, 2
STEPS = {torch.float32: 1, torch.float64: 2}  # AdamW's later steps enlarge what the last bit of a first one was
CLOSE = {torch.float32: 1e-6, torch.float64: 1e-12}


def model_of(name: str, dtype: torch.dtype) -> tinycore.Decoder:
    torch.manual_seed(0)
    return tinycore.build(testing.stack(**MODELS[name])).to(dtype)


def sharded(model: tinycore.Decoder, mesh: DeviceMesh) -> tinycore.Decoder:
    for module in (*model.layers, model):
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    return model


def backward(model: tinycore.Decoder, step: int, rank: int) -> None:
    """The passes of a process before a step: of each of its micro-batches, all of its objective's."""
    for part in range(MICRO_BATCHES):
        generator = torch.Generator().manual_seed(1000 * step + 10 * rank + part)
        tokens = torch.randint(32, (2, 9), generator=generator)
        for losses, _ in objectives.of(model.config)(model, tokens, tokens.roll(-1, 1)):
            torch.stack([total / count.clamp(min=1) for total, count in losses.values()]).sum().backward()


def compared(mesh: DeviceMesh, kind: str, name: str, dtype: torch.dtype) -> tuple[float, float]:
    """The largest differences in a gradient and in a weight between shards and one process that does all the work."""
    alone = model_of(name, dtype)
    parts = sharded(copy.deepcopy(alone), mesh)
    optimizers = [OPTIMIZERS[kind](model, RATE) for model in (alone, parts)]
    worst = [0.0, 0.0]
    for step in range(STEPS[dtype]):
        for rank in range(mesh.size()):
            backward(alone, step, rank)
        backward(parts, step, dist.get_rank())
        gradients = zip(parts.named_parameters(), alone.named_parameters(), strict=True)
        for (name, found), (other, expected) in gradients:
            assert name == other
            assert isinstance(found, DTensor)
            assert (found.grad is None) == (expected.grad is None), name
            if found.grad is not None and expected.grad is not None:
                assert isinstance(found.grad, DTensor)
                worst[0] = max(worst[0], distance(whole(found.grad), expected.grad))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        for found, expected in zip(parts.parameters(), alone.parameters(), strict=True):
            worst[1] = max(worst[1], distance(whole(found), expected.detach()))
    moments = [value for state in optimizers[1].state.values() for value in state.values() if torch.is_tensor(value)]
    assert all(isinstance(value, DTensor) for value in moments if value.ndim)
    return worst[0], worst[1]


def distance(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max().clamp(min=1)).item()


def everything(folder: Path, mesh: DeviceMesh) -> None:
    found = {case: compared(mesh, *case) for case in CASES}
    parts = sharded(model_of("shared", torch.float32), mesh)
    backward(parts, 0, dist.get_rank())
    tensors = {name: whole(tensor) for name, tensor in parts.state_dict().items()}
    if dist.get_rank() == 0:
        world = mesh.size()
        torch.save(found, folder / f"found-{world}.pt")
        gathered_again = model_of("shared", torch.float32)
        gathered_again.load_state_dict(tensors)
        tinycore.save(gathered_again, folder / f"saved-{world}")


def changed_inside(mesh: DeviceMesh) -> None:
    """What `gathered` keeps: each process's own rows of what was changed."""
    for rows in (1, 2, 5):  # fewer rows than processes, and rows that do not divide
        parameter = torch.nn.Linear(3, rows, bias=False)
        torch.nn.init.zeros_(parameter.weight)
        fully_shard(parameter, mesh=mesh)
        weight = parameter.weight
        assert is_sharded(weight)
        values = torch.arange(3.0 * rows).view(rows, 3)
        with gathered([weight]) as (inside,):
            inside.copy_(values)
        assert torch.equal(whole(weight), values)
        copied = like(values + 1, weight)
        assert local(copied).shape == local(weight).shape
        assert torch.equal(whole(copied), values + 1)
    plain = torch.ones(2)
    assert like(plain, plain) is not plain
    with gathered([plain]) as (inside,):
        inside.zero_()
    assert torch.equal(plain, torch.zeros(2))


def worker(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    meet, wait = f"file://{folder}/meet-{world}", datetime.timedelta(seconds=120)
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=world, timeout=wait)
    for size in (world, world - 1):
        group = dist.new_group(range(size))
        if rank < size:
            mesh = DeviceMesh.from_group(cast(dist.ProcessGroup, group), "cpu")
            everything(Path(folder), mesh)
            changed_inside(mesh)
        dist.barrier()
    processes.leave(Path(folder), rank, world)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What three processes found, and two of them."""
    found = tmp_path_factory.mktemp("shards")
    multiprocessing.set_forkserver_preload(["tinycore.testing", "torch._dynamo", "torch.distributed.fsdp"])
    multiprocessing.start_processes(worker, (3, str(found)), nprocs=3, start_method="forkserver")
    return found


@pytest.mark.parametrize("world", [2, 3])
def test_gradients_and_steps_are_those_of_one_process(world: int, folder: Path) -> None:
    found = torch.load(folder / f"found-{world}.pt", weights_only=False)
    assert found.keys() == set(CASES)
    for (kind, name, dtype), (gradients, weights) in found.items():
        assert gradients < CLOSE[dtype], (kind, name, dtype)
        assert weights < CLOSE[dtype], (kind, name, dtype)


@pytest.mark.parametrize("world", [2, 3])
def test_what_is_gathered_saves_and_loads_as_any_model(world: int, folder: Path) -> None:
    model, expected = tinycore.load(folder / f"saved-{world}"), model_of("shared", torch.float32)
    assert {n: t.shape for n, t in model.state_dict().items()} == {n: t.shape for n, t in expected.state_dict().items()}
    for name, tensor in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
