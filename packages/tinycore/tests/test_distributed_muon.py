"""Two and three processes of DistributedMuon are one process of Muon; state is shared out, saved whole, loaded anywhere."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

import tinycore
from tinycore import testing
from tinycore.optim import distributed_muon, muon
from tinycore.optim.distributed_muon import owners
from tinycore.testing import processes

FFN = {"kind": "cms", "periods": [1, 2], "hidden": 12}  # with matrices that are updated once in two steps


def model_of() -> tinycore.Decoder:
    torch.manual_seed(0)
    return tinycore.build(testing.stack(mixer={"kind": "mamba", "state": 4}, ffn=FFN))


def train(
    model: tinycore.Decoder, optimizer: torch.optim.Optimizer, first: int, last: int, drawn: bool = False
) -> None:
    """With the same gradients on every process, of the model or drawn."""
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        if drawn:
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
        else:
            tokens = torch.randint(32, (2, 9), generator=generator)
            model(tokens, targets=tokens.roll(-1, 1)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def trained_alone(steps: int, **options: Any) -> tuple[tinycore.Decoder, torch.optim.Optimizer]:
    model = model_of()
    optimizer = muon(model, 1e-2, **options)
    train(model, optimizer, 0, steps)
    return model, optimizer


def size(optimizer: torch.optim.Optimizer) -> int:
    tensors = (value for state in optimizer.state.values() for value in state.values())
    return sum(value.numel() * value.element_size() for value in tensors if torch.is_tensor(value))


def ten_steps(folder: Path) -> None:
    model = model_of()
    optimizer = distributed_muon(model, 1e-2, ns_dtype=torch.float32)
    train(model, optimizer, 0, 10)
    torch.save((model.state_dict(), size(optimizer)), folder / f"ten-{dist.get_world_size()}-{dist.get_rank()}.pt")


def bfloat16_steps(folder: Path) -> None:
    model = model_of()
    train(model, distributed_muon(model, 1e-2, ns_dtype=torch.bfloat16), 0, 3, drawn=True)
    torch.save(model.state_dict(), folder / "bfloat16.pt")


def saves(folder: Path) -> None:
    model = model_of()
    optimizer = distributed_muon(model, 1e-2)
    train(model, optimizer, 0, 3)  # inside the window of what is updated once in two steps
    if dist.get_rank() == 0:
        with pytest.raises(RuntimeError, match="consolidate_state_dict"):
            optimizer.state_dict()
    optimizer.consolidate_state_dict()
    if dist.get_rank() == 0:
        torch.save((model.state_dict(), optimizer.state_dict()), folder / "saved.pt")


def goes_on(folder: Path) -> None:
    weights, state = torch.load(folder / "saved.pt", weights_only=True)
    model = model_of()
    model.load_state_dict(weights)
    optimizer = distributed_muon(model, 1e-2)
    optimizer.load_state_dict(copy.deepcopy(state))
    train(model, optimizer, 3, 6)
    torch.save(model.state_dict(), folder / "end.pt")


def worker(rank: int, world: int, folder: str, tasks: tuple[Callable[[Path], None], ...]) -> None:
    torch.set_num_threads(1)
    meet, wait = f"file://{folder}/meet-{world}", datetime.timedelta(seconds=120)
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=world, timeout=wait)
    for task in tasks:
        task(Path(folder))
        dist.barrier()
    processes.leave(Path(folder), rank, world)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes leave, and then three that go on from their state."""
    found = tmp_path_factory.mktemp("processes")
    multiprocessing.spawn(worker, (2, str(found), (ten_steps, bfloat16_steps, saves)), nprocs=2)
    multiprocessing.spawn(worker, (3, str(found), (ten_steps, goes_on)), nprocs=3)
    return found


@pytest.mark.parametrize("world", [2, 3])
def test_processes_are_one_process_after_ten_steps(world: int, folder: Path) -> None:
    alone, optimizer = trained_alone(10, ns_dtype=torch.float32)
    largest = 8 * max(parameter.numel() for parameter in alone.parameters())
    for rank in range(world):
        weights, held = torch.load(folder / f"ten-{world}-{rank}.pt", weights_only=True)
        for name, weight in alone.state_dict().items():
            assert (weights[name] - weight).abs().max() < 1e-6, name
        assert held <= size(optimizer) / world + largest


def test_fed_the_same_gradients_bfloat16_is_identical(folder: Path) -> None:
    alone = model_of()
    train(alone, muon(alone, 1e-2, ns_dtype=torch.bfloat16), 0, 3, drawn=True)
    weights = torch.load(folder / "bfloat16.pt", weights_only=True)
    for name, weight in alone.state_dict().items():
        assert torch.equal(weights[name], weight), name


def test_the_saved_state_is_that_of_one_process_and_loads_under_any_number(folder: Path) -> None:
    weights, state = torch.load(folder / "saved.pt", weights_only=True)
    whole, optimizer = trained_alone(3)
    reference = optimizer.state_dict()["state"]
    assert state["state"].keys() == reference.keys()
    for index, entry in reference.items():
        assert state["state"][index].keys() == entry.keys()
        for name, value in entry.items():
            kept = torch.as_tensor(state["state"][index][name])
            assert torch.allclose(kept, torch.as_tensor(value), atol=1e-6), (index, name)
    train(whole, optimizer, 3, 6)
    one = model_of()
    one.load_state_dict(weights)
    alone = muon(one, 1e-2)
    alone.load_state_dict(state)
    train(one, alone, 3, 6)
    for end in (one.state_dict(), torch.load(folder / "end.pt", weights_only=True)):
        for name, weight in whole.state_dict().items():
            assert (end[name] - weight).abs().max() < 1e-6, name


def test_parameters_are_shared_out_evenly_and_alike() -> None:
    sizes = [7, 1, 5, 5, 3, 1]
    found = owners(sizes, 2)
    assert sorted(sum(size for size, owner in zip(sizes, found, strict=True) if owner == rank) for rank in (0, 1)) == [
        11,
        11,
    ]
    assert owners([1, 1], 3) == [0, 1]


def test_without_processes_it_is_refused() -> None:
    with pytest.raises(RuntimeError, match="init_process_group"):
        distributed_muon(model_of(), 1e-2)
