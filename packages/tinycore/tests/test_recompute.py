"""Claims: recomputing changes no loss, no statistic and no gradient; it keeps the inputs of layers and, for CoLA-M, the
products of low rank, which are not computed a second time.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import tinycore
from tinycore import testing
from tinycore.recompute import Policy

LOW_RANK = {"linear": {"kind": "cola", "rank": 5}}
STACKS: dict[str, dict[str, Any]] = {
    "low rank": LOW_RANK,
    "periodic": {
        **LOW_RANK,
        "mixer": {"kind": "attention", "heads": 4, "linear": {"q": {"kind": "cola_fan", "rank": 3}}},
    },
    "called twice": {**LOW_RANK, "depth": {"kind": "shared", "times": 2}},
    "dropout": {**LOW_RANK, "dropout": {"rate": 0.2}},
    "values of the first layer": {"mixer": {"kind": "attention", "heads": 4, "value_residual": {}}},
    "shared bounds": {"mixer": {"kind": "mlgru"}},
    "averages": {"residual": {"kind": "denseformer"}},
    "recurrence": {"mixer": {"kind": "mamba", "state": 4}},
    "neural memory": {"mixer": {"kind": "titans", "heads": 2, "chunk": 5}},
    "mixture of experts": {"ffn": {"kind": "moe", "experts": 4, "hidden": 12}},
    "ternary": {"linear": {"kind": "bit"}},
    "registers": {"embed": {"registers": 2}},
}
POLICIES: tuple[Policy, ...] = ("layers", "low_rank")


def batch() -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    tokens, targets = torch.randint(32, (2, 3, 17), generator=draw)
    return tokens, targets, (torch.arange(17) // 7).expand(3, 17).contiguous()


def trained(
    config: tinycore.ModelConfig, policy: Policy, dtype: torch.dtype, autocast: bool = False
) -> dict[str, Tensor]:
    """Everything that a forward and a backward pass of the same model give."""
    torch.manual_seed(0)
    model = tinycore.build(config).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    model.recompute(policy)
    tokens, targets, documents = batch()
    torch.manual_seed(2)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = model(tokens, targets=targets, doc_ids=documents)
    out.loss.backward()
    after = torch.rand(1)  # as many random numbers were drawn
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    stats = {name: torch.stack([part.detach().double() for part in pair]) for name, pair in out.stats.items()}
    assert not any(part.requires_grad for pair in out.stats.values() for part in pair)
    return {**found, **stats, "loss": out.loss.detach(), "random": after}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", STACKS)
def test_gradients_are_those_of_keeping_everything(name: str, policy: Policy) -> None:
    config = testing.stack(**STACKS[name])
    expected, found = (trained(config, each, torch.float64) for each in ("none", policy))
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert value is not None, key
        torch.testing.assert_close(found[key], value, rtol=0, atol=1e-12, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bf16"])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ["low rank", "periodic", "dropout"])
def test_in_training_precision_they_are_the_same_bits(name: str, policy: Policy, autocast: bool) -> None:
    config = testing.stack(**STACKS[name])
    expected, found = (trained(config, each, torch.float32, autocast) for each in ("none", policy))
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


def kept(config: tinycore.ModelConfig, policy: Policy, rows: int, length: int) -> int:
    """Bytes of the storages that autograd keeps, each once, parameters left out."""
    model = tinycore.build(config)
    model.recompute(policy)
    known = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    held: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in known:
            held[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    tokens = torch.zeros(rows, length, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(tokens, targets=tokens).loss
    assert loss.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in held.values())


DIM, RANK, LAYERS = 64, 12, 6


def deep(**more: Any) -> tinycore.ModelConfig:
    layer = {"repeat": LAYERS, "mixer": {"kind": "attention", "heads": 4}, "ffn": {"kind": "swiglu", "hidden": 192}}
    linear = {"kind": "cola", "rank": RANK}
    plain = {"vocab_size": 128, "dim": DIM, "max_seq_len": 128, "layers": [layer], "linear": linear}
    return tinycore.ModelConfig.from_dict({**plain, **more})


def test_saved_bytes_are_inputs_of_layers_and_products_of_low_rank() -> None:
    rows, length = 4, 96
    none, layers, low_rank = (kept(deep(), policy, rows, length) for policy in ("none", *POLICIES))
    tokens = rows * length
    assert low_rank - layers == 4 * tokens * LAYERS * 7 * RANK  # q, k, v, o, gate, up, down
    outside = layers - 4 * tokens * LAYERS * DIM
    assert 0 < outside < 4 * tokens * 3 * DIM  # what the last norm and the head keep
    assert low_rank < none / 3


class Products(TorchDispatchMode):
    """Counts the FLOPs of matrix products (PyTorch's counter follows modules, which `torch.autograd.grad` forbids)."""

    flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.mm.default:
            self.flops += 2 * args[0].numel() * args[1].shape[1]
        return func(*args, **(kwargs or {}))


def test_products_of_low_rank_are_not_computed_again() -> None:
    config, (tokens, targets, documents) = deep(), batch()

    def flops(policy: Policy) -> int:
        model = tinycore.build(config)
        model.recompute(policy)
        with Products() as counted:
            model(tokens, targets=targets, doc_ids=documents).loss.backward()
        return counted.flops

    inputs = 4 * DIM + 2 * DIM + 192  # of q, k, v, o; gate, up; down
    assert flops("low_rank") > flops("none")
    assert flops("layers") - flops("low_rank") == 2 * tokens.numel() * LAYERS * RANK * inputs


def test_nothing_is_recomputed_without_gradients_or_with_a_state() -> None:
    model = tinycore.build(deep())
    tokens = torch.zeros(1, 9, dtype=torch.long)
    plain = model(tokens).logits
    model.recompute("low_rank")
    with torch.no_grad():
        assert torch.equal(model(tokens).logits, plain)
    assert torch.equal(model(tokens).logits, plain)
    assert model(tokens, targets=tokens, state={}).state is not None
