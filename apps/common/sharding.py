"""`train.sharding: full`: weights, gradients and optimizer state laid out over the processes (FSDP2; ZeRO-3, arXiv 1910.02054).

Each process keeps a part of the rows of every parameter, of its gradient, its moments and its average. A layer is gathered
while it computes, forwards and backwards, and its gradient is summed into the shards in each backward pass: what training
computes is what it computes without shards, but for the order of sums. Layers whose number of calls the data decides (or
that are computed again) are gathered with the model and not one by one: processes must gather the same in the same order.

This is torch's `fully_shard` itself, on a CPU as on GPUs: asked for FSDP on a CPU, Accelerate trains whole copies and says
nothing. Checkpoints, samples and going back use whole tensors, which are gathered for them, so a checkpoint is that of any
run and loads under any number of processes. Beginning, and resuming, a run takes the memory of one without shards.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import tinycore
from apps.common.data_config import TextData
from apps.common.errors import BadRequest
from apps.common.processes import World
from apps.common.recipe import DeepMomentum, DeltaGD, Muon, Recipe
from tinycore import Decoder
from tinycore.optim import WeightAverage
from tinycore.optim.sharded import is_sharded, like, local, whole

FIXED = (
    "plain",
    "shared",
    "hourglass",
    "recursive",
    "feedback",
)  # depths that call each layer as often in every process


class Parts(NamedTuple):
    """What a run's checkpoint is made of."""

    model: Decoder
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None


def require_possible(recipe: Recipe, measured: bool) -> None:
    """Raises BadRequest for what does not go with shards. `measured`: a throw-away model is to be timed first."""
    model, optim, train = recipe.model, recipe.optim, recipe.train
    ffns = {layer.ffn.kind for layer in model.flat_layers() if layer.ffn is not None}
    heads = [name for name, head in model.heads.items() if head.kind == "jepa" or head.halts]
    reasons: tuple[tuple[Any, str], ...] = (
        (not isinstance(recipe.data, TextData), f"is for text, and this recipe learns {recipe.data.kind}"),
        (
            isinstance(optim, DeepMomentum | DeltaGD),
            f"optim.kind {optim.kind} needs whole parameters; take adamw or muon",
        ),
        (isinstance(optim, Muon) and optim.shared, "optim.shared shares out whole matrices; leave one of them out"),
        (ffns & {"moe", "experts"}, "an expert that no token of one process reaches has no gradient there"),
        (heads, f"model.heads.{heads[0] if heads else ''} looks at the weights between steps, or lets rows leave"),
        (train.lora is not None, "adapters are small; leave one of sharding and lora out"),
        (train.compile, "layers that are gathered are not compiled; leave one of sharding and compile out"),
        (train.precision == "fp16", "is not done with a scaled loss; take bf16 or fp32"),
        (measured, "time is not measured with shards; give --train.steps instead of minutes or hours"),
    )
    for met, reason in reasons:
        if met:
            raise BadRequest(f"train.sharding: {reason}")


def by_layer(recipe: Recipe) -> bool:
    """Whether every process calls every layer equally often, so that layers can be gathered one by one."""
    depth: Any = recipe.model.depth
    fixed = depth.kind in FIXED or (depth.kind == "looped" and depth.fewest is None and depth.halt is None)
    return fixed and recipe.model.routing is None and recipe.train.recompute == "none"


def shard(recipe: Recipe, world: World, whole_parts: Parts) -> None:
    """Lay the parts out over the processes, in place; they are the same in all of them. Nothing happens with one process."""
    if world.size == 1:
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    model, optimizer, average = whole_parts
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    alone = {parameter for parameter in model.parameters() if parameter.ndim == 0}  # cannot be cut: each has them
    mesh = init_device_mesh(world.device.type, (world.size,))
    for module in [*(model.layers if by_layer(recipe) else ()), model]:
        fully_shard(module, mesh=mesh, reshard_after_forward=True, ignored_params=alone)
    for module in model.modules():
        if isinstance(module, FSDPModule):  # sums, as those of World.sum_gradients
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    now = dict(model.named_parameters())
    state = [(now[names[id(parameter)]], entry) for parameter, entry in optimizer.state.items()]
    for group in optimizer.param_groups:
        group["params"] = [now[names[id(parameter)]] for parameter in group["params"]]
    optimizer.state.clear()
    for parameter, entry in state:
        optimizer.state[parameter] = _in_shards(entry, parameter)
    if average is not None:
        average.tensors = {name: like(tensor, now[name]) for name, tensor in average.tensors.items()}


def gathered(world: World, parts: Parts, everywhere: bool = False) -> Parts:
    """Whole parts of the same values, on the main process or `everywhere`; a collective operation. The parts themselves where
    nothing is sharded. What is made beside the model lies in the memory of the CPU."""
    model, optimizer, average = parts
    if not any(map(is_sharded, model.parameters())):
        return parts
    keep = everywhere or world.is_main
    with world.contact():
        found = gathered_model(world, model, everywhere)
        now = {id(parameter): name for name, parameter in model.named_parameters()}
        names = [[now[id(parameter)] for parameter in group["params"]] for group in optimizer.param_groups]
        state = {
            now[id(parameter)]: {
                name: _kept(value, keep) if isinstance(value, Tensor) else value
                for name, value in sorted(optimizer.state[parameter].items())
            }
            for group in optimizer.param_groups
            for parameter in group["params"]
            if parameter in optimizer.state
        }
        averages = {} if average is None else {name: _kept(tensor, keep) for name, tensor in average.tensors.items()}
    if not keep:
        return parts
    own = dict(found.named_parameters())
    standing = torch.optim.Optimizer(
        [{**group, "params": [own[n] for n in of]} for group, of in zip(optimizer.param_groups, names, strict=True)], {}
    )
    standing.state.update({own[name]: entry for name, entry in state.items()})
    return Parts(found, standing, None if average is None else _average(average, found, averages))


def gathered_model(world: World, model: Decoder, everywhere: bool = False) -> Decoder:
    """A whole model of the same values on the main process, or `everywhere`; a collective operation. The model itself where
    it is not sharded."""
    if not any(map(is_sharded, model.parameters())):
        return model
    keep = everywhere or world.is_main
    with world.contact():
        tensors = {name: _kept(tensor, keep, world.device) for name, tensor in model.state_dict().items()}
    if not keep:
        return model
    with torch.device("meta"):
        found = tinycore.build(model.config)
    found.load_state_dict(tensors, assign=True)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name, parameter in found.named_parameters():
        parameter.requires_grad_(name in trained)
    return found.train(model.training)


def restored(world: World, parts: Parts, restore: Callable[[Parts], Any]) -> Any:
    """What `restore` returns, which changes the parts it is given: the parts, or whole ones whose values they then have."""
    found = gathered(world, parts, everywhere=True)
    answer = restore(found)
    if found is parts:
        return answer
    values = found.model.state_dict()
    with torch.no_grad():
        for name, tensor in parts.model.state_dict().items():
            local(tensor).copy_(local(like(values[name].to(tensor.device), tensor)))
    own, now = dict(parts.model.named_parameters()), {id(p): name for name, p in found.model.named_parameters()}
    parts.optimizer.state.clear()
    for parameter, entry in found.optimizer.state.items():
        target = own[now[id(parameter)]]
        parts.optimizer.state[target] = _in_shards(entry, target)
    if parts.average is not None and found.average is not None:
        parts.average.tensors = {
            name: like(tensor.to(own[name].device), own[name]) for name, tensor in found.average.tensors.items()
        }
    return answer


def norms(world: World, tensors: Sequence[Tensor]) -> list[float]:
    """The norm of each; a collective operation where some are sharded."""
    sizes = torch.stack(torch._foreach_norm([local(tensor) for tensor in tensors])).tolist()  # one wait for the device
    if not any(map(is_sharded, tensors)):
        return sizes
    # what every process has whole is counted once
    mine = [size * size if is_sharded(t) or world.is_main else 0.0 for size, t in zip(sizes, tensors, strict=True)]
    return [math.sqrt(square) for square in world.total(*mine)]


@torch.no_grad()
def clip(world: World, parameters: Sequence[Tensor], most: float) -> Tensor:
    """Scale the gradients down to a norm of `most` where they are larger; the norm before."""
    if not any(map(is_sharded, parameters)):
        return nn.utils.clip_grad_norm_(parameters, most)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = math.hypot(*norms(world, gradients))
    if norm > most:
        torch._foreach_mul_([local(gradient) for gradient in gradients], most / (norm + 1e-6))
    return torch.tensor(norm, device=world.device)


def finite(world: World, tensors: Sequence[Tensor]) -> bool:
    """Whether every value is, in all processes; a collective operation where some are sharded."""
    good = all(torch.stack([local(tensor).isfinite().all() for tensor in tensors]).tolist())
    return not any(world.total(not good)) if any(map(is_sharded, tensors)) else good


def _in_shards(entry: dict[str, Any], parameter: Tensor) -> dict[str, Any]:
    """The state of a parameter with what has its shape in shards as it is."""
    return {
        name: like(value.to(parameter.device), parameter)
        if isinstance(value, Tensor) and value.ndim and value.shape == parameter.shape
        else value
        for name, value in entry.items()
    }


def _kept(tensor: Tensor, keep: bool, device: torch.device | str = "cpu") -> Tensor:
    """The whole of `tensor` on `device`; where it is not to be kept an empty one, after taking part in gathering it."""
    found = whole(tensor)
    return found.to(device, copy=not is_sharded(tensor)) if keep else found.new_empty(0)


def _average(average: WeightAverage, model: Decoder, tensors: dict[str, Tensor]) -> WeightAverage:
    found = copy.copy(average)
    found.model, found.tensors = model, tensors
    return found
