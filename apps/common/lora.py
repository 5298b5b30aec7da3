"""LoRA (arXiv 2106.09685): a frozen model learns through adapters of low rank on the projections of its layers.

    y = W x + (alpha / rank) B A drop(x)        W (outputs, inputs) frozen, A (rank, inputs), B (outputs, rank) zero at first

The adapters are peft's, injected in place of the model's dense linears (`Dense` is an `nn.Linear`). A checkpoint holds

    model.safetensors      the merged model, W + (alpha / rank) B A, in tinycore's layout: what every app uses
    adapters.safetensors   A and B by parameter name, in the order and precision that training goes on with
    frozen.safetensors     W of the adapted projections, since merged weights do not give it back bit for bit

With `base: nf4` (QLoRA, arXiv 2305.14314) W is held in bitsandbytes' 4 bits, and is what these stand for: merging and
resuming are as exact as without it, the first logits are those of the rounded weights.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

import tinycore
from apps.common.config_fields import described, positive
from apps.common.errors import RunError
from tinycore import Decoder
from tinycore.config import ConfigError, unknown
from tinycore.linears.dense import Dense
from tinycore.linears.packed_bit import PackedBit

ADAPTERS, FROZEN = "adapters.safetensors", "frozen.safetensors"
NAME = "default"  # peft's name of a model's only adapter
BLOCK = 64  # weights that share a scale in NF4


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """Adapters of low rank."""

    rank: int = described("channels of an adapter", 8)
    alpha: float = described("adapters count alpha / rank times", 16.0)
    dropout: float = described("share of an adapter's inputs that is dropped in training", 0.0)
    targets: tuple[str, ...] = described(
        "branches of the layers, or projections of them such as mixer.q", ("mixer", "ffn")
    )
    base: Literal["float", "nf4"] = described(
        "how adapted projections are held; nf4: in 4 bits, by bitsandbytes (QLoRA)", "float"
    )

    def __post_init__(self) -> None:
        positive(self, "rank")
        if not self.alpha > 0:
            raise ConfigError(f"alpha: {self.alpha} is not above 0")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout: {self.dropout} is not at least 0 and below 1")
        if not self.targets:
            raise ConfigError("targets: an empty list adapts nothing; leave it out to adapt mixers and feed-forwards")


class Adapters:
    """The adapters of `model`, whose other parameters are frozen, on its projections `names`.

    left_out: of the targets, what has no adapter, by class.
    """

    def __init__(self, model: Decoder, config: LoRA, names: list[str], left_out: dict[str, int]) -> None:
        self.model, self.config, self.names, self.left_out = model, config, names, left_out

    def trained(self) -> dict[str, Tensor]:
        """A and B by parameter name."""
        return {name: each.detach() for name, each in self.model.named_parameters() if each.requires_grad}

    def frozen(self) -> dict[str, Tensor]:
        """The weight under each adapter, by its name in the plain model."""
        return {f"{name}.weight": _weight(self._layer(name).base_layer) for name in self.names}

    @torch.no_grad()
    def merged(self) -> Decoder:
        """A plain model with the adapters added to its weights; what they do not change is shared with `model`."""
        with torch.device("meta"):
            plain = tinycore.build(self.model.config)
        own, tensors = self.model.state_dict(), {}
        for key in plain.state_dict():
            name, _, tensor = key.rpartition(".")
            if name not in self.names:
                tensors[key] = own[key]
            elif tensor == "weight":
                layer = self._layer(name)
                base = _weight(layer.base_layer)
                tensors[key] = base + layer.get_delta_weight(NAME).to(base)
            else:
                tensors[key] = own[f"{name}.base_layer.{tensor}"]
        plain.load_state_dict(tensors, assign=True)
        return plain.train(self.model.training)

    def bytes(self) -> int:
        """About what `save` writes, in float32."""
        layers = [self._layer(name) for name in self.names]
        frozen = sum(layer.in_features * layer.out_features for layer in layers)
        trained = sum(tensor.numel() for tensor in self.trained().values())
        return 4 * (tinycore.count(self.model.config).parameters + frozen + trained)

    def save(self, directory: Path) -> None:
        """Write the merged model, the adapters and the frozen weights into `directory`."""
        tinycore.save(self.merged(), directory)
        # one key: safetensors writes several in an order of its own each time, and equal adapters are to be equal bytes
        described_by = {"lora": json.dumps({"rank": self.config.rank, "alpha": self.config.alpha})}
        trained = {name: tensor.contiguous() for name, tensor in self.trained().items()}
        safetensors.torch.save_file(trained, directory / ADAPTERS, metadata=described_by)
        safetensors.torch.save_file(self.frozen(), directory / FROZEN)

    @torch.no_grad()
    def load(self, directory: Path) -> None:
        """Go on from what `save` wrote. Raises RunError where it is missing or of other adapters."""
        _copy(directory / ADAPTERS, self.trained())

    def summary(self) -> str:
        """One line: what trains, and what of the targets does not."""
        trained = sum(tensor.numel() for tensor in self.trained().values())
        parts = [f"training {trained:,} parameters in adapters of rank {self.config.rank}"]
        parts += [f"on {len(self.names)} projections; the model's own are frozen"]
        left = ", ".join(f"{count} {kind}" for kind, count in sorted(self.left_out.items()))
        return " ".join(parts) + (f"; without an adapter: {left}" if left else "")

    def _layer(self, name: str) -> Any:
        return self.model.get_submodule(name)


def adapt(model: Decoder, config: LoRA, seed: int, checkpoint: Path | None = None) -> Adapters:
    """Freeze `model` and put adapters into it: those saved in `checkpoint`, else new ones drawn from `seed`.

    Raises RunError where nothing can be adapted or a library is missing, ConfigError for targets that do not exist.
    """
    with _quiet():
        peft = _library("peft", "lora")
        if config.base == "nf4":
            _library("bitsandbytes", "qlora")
    if any(isinstance(module, PackedBit) for module in model.modules()):
        raise RunError(
            "train.lora: these weights are packed and pass no gradient; start from those they were packed from"
        )
    names, left_out = _projections(model, config.targets)
    if not names:
        found = ", ".join(sorted(left_out))
        raise RunError(f"train.lora: adapters are for dense projections, and {list(config.targets)} has only {found}")
    if config.base == "nf4":
        _require_blocks(model, names)
    if checkpoint is not None:
        _copy(checkpoint / FROZEN, {f"{name}.weight": model.get_parameter(f"{name}.weight") for name in names})
    if config.base == "nf4":
        for name in names:
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, _four_bits(model.get_submodule(name)))
    settings = peft.LoraConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=names
    )
    torch.manual_seed(seed)
    peft.inject_adapter_in_model(settings, model, adapter_name=NAME)
    adapters = Adapters(model, config, names, left_out)
    if checkpoint is not None:
        adapters.load(checkpoint)
    return adapters


def _projections(model: Decoder, targets: tuple[str, ...]) -> tuple[list[str], dict[str, int]]:
    """Names of the dense linears that `targets` name, in the model's order, and the other matrices, counted by class."""
    names: list[str] = []
    left: Counter[str] = Counter()
    known: set[str] = set()
    for index, layer in enumerate(model.layers):
        branches: Any = layer.branches
        gates = {
            id(part)
            for module in branches.modules()
            for name in getattr(module, "gating", ())
            for part in (getattr(module, name) or nn.Identity()).modules()
        }
        for path, part in branches.named_modules():
            dense = type(part) is Dense and id(part) not in gates
            matrices = [each for each in part.parameters(recurse=False) if each.ndim > 1]
            if "." not in path or dense:
                known |= {path} - {""}
            if not any(path == target or path.startswith(f"{target}.") for target in targets):
                continue
            if dense:
                names.append(f"layers.{index}.branches.{path}")
            elif matrices:  # a gate, tables and stacks of matrices, linears of another kind
                left["gate" if type(part) is Dense else type(part).__name__] += 1
    for target in targets:
        if not any(path == target or path.startswith(f"{target}.") for path in known):
            raise unknown("train.lora.targets", "part of the layers", target, known)
    return names, dict(left)


def _require_blocks(model: Decoder, names: list[str]) -> None:
    """Raises RunError where a row is no whole number of blocks: bitsandbytes 0.50 reads such rows back wrongly on a CPU."""
    for name in names:
        inputs: Any = model.get_submodule(name).in_features
        if inputs % BLOCK:
            raise RunError(
                f"train.lora.base: nf4 needs inputs in multiples of {BLOCK}, and {name} has {inputs}; use float"
            )


def _four_bits(linear: Any) -> nn.Module:
    """The dense linear with its weight in NF4, without a second rounding of the scales: rounding again changes nothing."""
    bitsandbytes = _library("bitsandbytes", "qlora")
    settings: dict[str, Any] = {"compress_statistics": False, "quant_type": "nf4"}
    small = bitsandbytes.nn.Linear4bit(linear.in_features, linear.out_features, bias=False, device="meta", **settings)
    small.weight = bitsandbytes.nn.Params4bit(linear.weight.data, requires_grad=False, module=small, **settings)
    small.bias = linear.bias
    small.support_avx512bf16_for_cpu = False  # else evaluating rewrites the weight for kernels that a hub provides
    return small.to(linear.weight.device)


def _weight(base: Any) -> Tensor:
    """The weight of a frozen linear as it computes with it."""
    state = getattr(base.weight, "quant_state", None)
    if state is None:
        return base.weight.detach()
    return _library("bitsandbytes", "qlora").functional.dequantize_4bit(base.weight.data, state)


@torch.no_grad()
def _copy(file: Path, targets: dict[str, Tensor]) -> None:
    """Fill `targets` from `file`. Raises RunError unless it holds exactly these."""
    try:
        found = safetensors.torch.load_file(file)
    except (SafetensorError, OSError) as error:
        raise RunError(f"{file}: not a readable safetensors file ({' '.join(str(error).split())})") from None
    for name in [*targets, *found]:
        if name not in found or name not in targets or found[name].shape != targets[name].shape:
            raise RunError(f"{file}: '{name}' is missing, unexpected or of another shape; it is of other adapters")
        targets[name].copy_(found[name])


def _library(name: str, extra: str) -> Any:
    try:
        return __import__(name)
    except ImportError as error:
        raise RunError(f"train.lora: needs {name} ({error}); install it with uv sync --extra {extra}") from None


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Without the advice that bitsandbytes gives while it is imported, which peft does."""
    logger = logging.getLogger("bitsandbytes")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
