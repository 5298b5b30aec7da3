"""The recipe without products of matrices: nothing but its linears, which are ternary, and the head multiplies matrices."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import tinycore
from apps.common import recipes
from tinycore.families import LinearConfig


class Additions(nn.Module):
    """A linear without a product: every output is the sum of the inputs."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(-1, keepdim=True).expand(*x.shape[:-1], self.outputs)


def linears(model: tinycore.Decoder) -> dict[str, nn.Module]:
    """The layers' modules that a config of the family of linears builds."""
    found = {}
    for name, module in model.layers.named_modules():
        config = getattr(type(module), "Config", None)
        if isinstance(config, type) and issubclass(config, LinearConfig):
            found[name] = module
    return found


def test_products_of_matrices_stand_in_linears_and_the_head_alone() -> None:
    config = recipes.load("matmulfree-10m").model
    tokens = torch.zeros(1, 32, dtype=torch.long, device="meta")
    with torch.device("meta"):
        model = tinycore.build(config)
    found = linears(model)
    assert {type(module).Config.kind for module in found.values()} == {"bit"}
    assert len(found) == 10 * (4 + 3)
    with FlopCounterMode(display=False) as whole:
        model(tokens)
    for name, module in found.items():
        model.layers.set_submodule(name, Additions(len(module.get_parameter("weight"))))
    with FlopCounterMode(display=False) as rest:
        model(tokens)
    head = 2 * config.vocab_size * config.dim * 32
    assert rest.get_total_flops() == head
    assert whole.get_total_flops() == head + 2 * 32 * sum(
        module.get_parameter("weight").numel() for module in found.values()
    )


def test_matrices_outside_of_linears_are_the_embedding_and_the_bounds() -> None:
    with torch.device("meta"):
        model = tinycore.build(recipes.load("matmulfree-10m").model)
    inside = {id(parameter) for module in linears(model).values() for parameter in module.parameters()}
    names = [name for name, p in model.named_parameters() if p.ndim > 1 and id(p) not in inside]
    assert names == ["embed.weight", "shared.mlgru.gamma"]
