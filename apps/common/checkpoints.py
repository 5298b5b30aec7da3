"""Checkpoints of a run: everything that exact resuming needs, verified before it counts.

    checkpoints/step_00001000/
        config.json  model.safetensors     the model alone (tinycore's layout: chat and evaluation need no more)
        tokenizer.json                     of a language model
        average.safetensors                the averaged weights, by parameter name, where the run keeps them
        adapters.safetensors ...           adapters and what they stand on (see lora), where they are what trains
        optimizer.safetensors              {parameter name}/{quantity}
        trainer.json                       step, tokens, position in the data, best, recipe, environment, lineage
        rng-00000.safetensors ...          random state of each process
        manifest.json                      bytes and SHA-256 of every file above, written last

A checkpoint is filled under a temporary name, flushed, read back against its manifest, and only then renamed; older
ones are removed after that. A directory named step_* was therefore whole once; if it no longer verifies, the disk or a
person changed it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

import tinycore
from apps.common import files, freezing
from apps.common.errors import RunError
from apps.common.lora import Adapters
from apps.common.run_directory import RunDirectory
from tinycore import CheckpointError, Decoder
from tinycore.optim import WeightAverage

FORMAT_VERSION = 1
AVERAGE = "average.safetensors"
NAME = re.compile(r"step_(\d{8,})")


@dataclass
class Progress:
    """Where a run stands, beside its tensors.

    tokens: targets learned from so far. data: the loader's position. best: the step of the best checkpoint and its score,
    latest: the values of the last validation (both None before one). recent: for each process, what it has summed up
    since the last log line (see Tally). health, loss_scale: see Health and LossScale.
    """

    step: int
    tokens: int
    data: dict[str, Any]
    best: dict[str, Any] | None
    latest: dict[str, Any] | None
    recipe: dict[str, Any]
    environment: dict[str, Any]
    dataset: dict[str, str]
    tokenizer: str
    lineage: list[dict[str, Any]]
    recent: list[Any] = field(default_factory=list)
    health: dict[str, Any] = field(default_factory=dict)
    loss_scale: dict[str, Any] = field(default_factory=dict)


NEWER = ("health", "loss_scale")  # fields that checkpoints of earlier versions lack


def directory_of(step: int) -> str:
    """The name of the checkpoint of `step`."""
    return f"step_{step:08d}"


def existing(root: Path) -> list[Path]:
    """The checkpoints under `root`, oldest first."""
    found = [(int(match[1]), path) for path in root.glob("step_*") if (match := NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def save(
    run: RunDirectory,
    progress: Progress,
    model: Decoder,
    optimizer: torch.optim.Optimizer,
    random_states: list[bytes],
    beside: Callable[[Path], None] = lambda directory: None,
    average: WeightAverage | None = None,
    adapters: Adapters | None = None,
) -> Path:
    """Write and verify the checkpoint of `progress.step`; `latest` then names it. Raises RunError on a full disk.

    `beside` writes what the model is used with into the directory that it is given; with `adapters`, those of `model`,
    the model that is written is the merged one.
    """
    run.checkpoints.mkdir(exist_ok=True)
    tensors, scalars = optimizer_tensors(model, optimizer)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    if adapters is not None:
        weights = adapters.bytes()
    state = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    files.require_space(run.checkpoints, weights + state + sum(map(len, random_states)))
    if average is not None:
        state += sum(tensor.numel() * tensor.element_size() for tensor in average.tensors.values())
    run.flush()
    path = run.checkpoints / directory_of(progress.step)
    with files.new_directory(path, check=tinycore.checkpoint.verify) as directory:
        if adapters is None:
            tinycore.save(model, directory)
        else:
            adapters.save(directory)
        beside(directory)
        if average is not None:
            safetensors.torch.save_file(average.tensors, directory / AVERAGE)
        safetensors.torch.save_file(tensors, directory / "optimizer.safetensors")
        for index, content in enumerate(random_states):
            files.write_bytes(directory / f"rng-{index:05d}.safetensors", content)
        trainer = {"format_version": FORMAT_VERSION, **asdict(progress), "optimizer": scalars}
        files.write_json(directory / "trainer.json", trainer)
        tinycore.checkpoint.write_manifest(directory)
    run.point("latest", path)
    return path


def prune(root: Path, keep: int, others: Collection[str | None] = ()) -> None:
    """Remove all but the newest `keep` checkpoints under `root` and those named in `others`, such as the best; call it
    only once the newest is verified."""
    for path in existing(root)[:-keep]:
        if path.name not in others:
            files.remove_directory(path)


@dataclass(frozen=True)
class Found:
    """The checkpoint to go on from, and the newer ones that could not be read, each with the reason."""

    path: Path
    damaged: list[tuple[Path, str]]


def newest(root: Path) -> Found | None:
    """The newest checkpoint under `root` that verifies, None if there is none. Raises RunError if none of some does."""
    damaged: list[tuple[Path, str]] = []
    for path in reversed(existing(root)):
        try:
            tinycore.checkpoint.verify(path)
            return Found(path, damaged)
        except CheckpointError as error:
            damaged.append((path, str(error)))
    if damaged:
        raise RunError(f"{damaged[0][1]}; no older checkpoint can be read either")
    return None


def stand_on(run: RunDirectory, path: Path, saved: Progress) -> None:
    """Have the logs of `run` end, and `latest` and `best` point, where its checkpoint at `path`, which is `saved`, stood."""
    run.cut(saved.step)
    run.point("latest", path)
    best = run.checkpoints / directory_of(saved.best["step"] if saved.best else saved.step)
    run.point("best", best if best.exists() else path)


def set_aside(path: Path) -> Path:
    """Rename a checkpoint that cannot be read, so that a good one may take its name; nothing is deleted."""
    target, number = path.with_name(f"damaged-{path.name}"), 2
    while target.exists():
        target, number = path.with_name(f"damaged-{path.name}-{number}"), number + 1
    path.rename(target)
    return target


def read_progress(path: Path) -> tuple[Progress, dict[str, Any]]:
    """trainer.json of the checkpoint at `path`, and the optimizer's scalars in it. Raises RunError."""
    file = path / "trainer.json"
    if not file.is_file():
        raise RunError(f"{path}: holds weights only; start from them with --init-from {path}")
    document = files.read_json(file)
    version = document.pop("format_version", None)
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise RunError(f"{file}: format version {version} is newer than this program reads ({FORMAT_VERSION}); update")
    scalars = document.pop("optimizer", None)
    document: dict[str, Any] = {**{key: {} for key in NEWER}, **document}
    names = {entry.name for entry in fields(Progress)}
    if set(document) != names or not isinstance(scalars, dict):
        odd = sorted(set(document) ^ names) or ["optimizer"]
        raise RunError(f"{file}: {', '.join(odd)}: missing or unknown")
    numbers = (document["step"], document["tokens"])
    if not all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in numbers):
        raise RunError(f"{file}: step and tokens are not counts")
    for key, needs in _NEEDS.items():
        value = document[key]
        if not isinstance(value, needs[0]) or (isinstance(value, dict) and not needs[1] <= value.keys()):
            raise RunError(f"{file}: {key} is not what a run writes there")
    for key in ("best", "latest"):
        values = (document[key] or {}).values()
        if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            raise RunError(f"{file}: {key} is not what a run writes there")
    return Progress(**document), scalars


# the type of each field of trainer.json that is no count, and the keys it has at least
_NEEDS: dict[str, tuple[type | tuple[type, ...], set[str]]] = {
    "data": (dict, set()),
    "best": ((dict, type(None)), {"step"}),
    "latest": ((dict, type(None)), {"step"}),
    "recipe": (dict, {"model", "data", "train"}),
    "environment": (dict, set()),
    "dataset": (dict, {"train", "validation"}),
    "tokenizer": (str, set()),
    "lineage": (list, set()),
    "recent": (list, set()),
    "health": (dict, set()),
    "loss_scale": (dict, set()),
}


def random_state(path: Path, index: int) -> bytes | None:
    """What process `index` saved in the checkpoint at `path`; None where there was no such process."""
    file = path / f"rng-{index:05d}.safetensors"
    return file.read_bytes() if file.is_file() else None


def optimizer_tensors(model: Decoder, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimizer's state by parameter name: tensors as {"name/quantity": tensor}, other values likewise."""
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {}
    parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
    order = {id(parameter): index for index, parameter in enumerate(parameters)}
    state = optimizer.state_dict()["state"]
    for name, parameter in _named(model, optimizer):
        for quantity, value in state.get(order[id(parameter)], {}).items():
            target = tensors if isinstance(value, Tensor) else scalars
            target[f"{name}/{quantity}"] = value.detach().contiguous() if isinstance(value, Tensor) else value
    return tensors, scalars


def load_model(path: Path, device: str | torch.device = "cpu") -> Decoder:
    """The model in the checkpoint at `path` as it is used: with averaged weights where the run keeps them.

    Raises CheckpointError, or RunError for averages that are not this model's.
    """
    model = tinycore.load(path, device=device)
    if (path / AVERAGE).is_file():
        # what was frozen has no average: it never moved
        freezing.freeze(model, read_progress(path)[0].recipe["train"].get("freeze", ()))
        average = WeightAverage(model, 0.0)
        load_average(path, average)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in average.tensors:
                    parameter.copy_(average.tensors[name])
        model.requires_grad_(True)
    return model


def load_average(path: Path, average: WeightAverage) -> None:
    """Put the averages saved in the checkpoint at `path` back. Raises RunError where there are none, or of another model."""
    try:
        average.load(safetensors.torch.load_file(path / AVERAGE))
    except (SafetensorError, OSError, ValueError) as error:
        raise RunError(f"{path / AVERAGE}: not the averages of this model ({' '.join(str(error).split())})") from None


def load_optimizer(path: Path, scalars: dict[str, Any], model: Decoder, optimizer: torch.optim.Optimizer) -> None:
    """Put the state saved in the checkpoint at `path` back, by name; settings stay the optimizer's own.

    Raises RunError where the state is of another model or another kind of optimizer.
    """
    file = path / "optimizer.safetensors"
    try:
        tensors = safetensors.torch.load_file(file)
    except (SafetensorError, OSError) as error:
        raise RunError(f"{file}: not a readable safetensors file ({' '.join(str(error).split())})") from None
    names = dict(_named(model, optimizer))
    state: dict[str, dict[str, Any]] = {}
    for key, value in [*tensors.items(), *scalars.items()]:
        name, _, quantity = key.rpartition("/")
        if name not in names:
            raise RunError(f"{file}: holds '{key}', and the model has no such parameter")
        own_shape = quantity in getattr(optimizer, "shaped_otherwise", ())  # the optimizer itself looks at these
        if isinstance(value, Tensor) and value.numel() > 1 and value.shape != names[name].shape and not own_shape:
            raise RunError(f"{file}: '{key}' has shape {tuple(value.shape)}, its parameter {tuple(names[name].shape)}")
        state.setdefault(name, {})[quantity] = value
    asleep = model.dormant()
    missing = [name for name in names if name not in state and name not in asleep]
    if missing and state:
        raise RunError(f"{file}: has nothing for '{missing[0]}'; it was saved by another kind of optimizer")
    order = {id(parameter): name for name, parameter in names.items()}
    current = optimizer.state_dict()
    moved = [order[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
    current["state"] = {index: state[name] for index, name in enumerate(moved) if name in state}
    try:
        optimizer.load_state_dict(current)
    except ValueError as error:
        raise RunError(f"{file}: {' '.join(str(error).split())}") from None


def _named(model: Decoder, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """Names and parameters of the model that the optimizer moves, in the model's order."""
    moved = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        if id(parameter) in moved:
            yield name, parameter
