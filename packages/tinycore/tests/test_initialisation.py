"""Every tensor starts as the table says: 0.02 for token tables, 1 / sqrt(inputs) for matrices, scaled once by
1 / sqrt(2 calls) where a branch writes into the stream, one for gains, zero for biases.
"""

from __future__ import annotations

import math

import pytest
import torch

import tinycore

DIM, HIDDEN, LAYERS = 128, 320, 3


def model(depth: dict[str, object], seed: int = 0) -> tinycore.Decoder:
    torch.manual_seed(seed)
    layer = {
        "repeat": LAYERS,
        "mixer": {"kind": "attention", "heads": 4, "kv_heads": 2, "qk_norm": True},
        "ffn": {"kind": "swiglu", "hidden": HIDDEN},
    }
    return tinycore.build(
        tinycore.ModelConfig.from_dict(
            {
                "vocab_size": 512,
                "dim": DIM,
                "max_seq_len": 64,
                "layers": [layer],
                "embed": {"tied": False},
                "linear": {"kind": "dense", "bias": True},
                "depth": depth,
            }
        )
    )


@pytest.mark.parametrize("depth, calls", [({"kind": "plain"}, LAYERS), ({"kind": "shared", "times": 4}, 4 * LAYERS)])
def test_standard_deviations(depth: dict[str, object], calls: int) -> None:
    fan_in, out = 1 / math.sqrt(DIM), 1 / math.sqrt(2 * calls)
    expected = {f"mixer.{name}": fan_in for name in "qkv"} | {f"ffn.{name}": fan_in for name in ("gate", "up")}
    expected |= {"mixer.o": fan_in * out, "ffn.down": out / math.sqrt(HIDDEN)}
    built = model(depth)
    for layer in built.layers:
        for name, std in expected.items():
            weight = layer.branches.get_submodule(name).weight
            # the deviation of n normal draws is known to std / sqrt(2 n); the mean to std / sqrt(n)
            assert weight.std().item() == pytest.approx(std, rel=4 / math.sqrt(2 * weight.numel())), name
            assert abs(weight.mean().item()) < 4 * std / math.sqrt(weight.numel()), name
    for table in (built.embed.weight, built.heads["lm"].linear.weight):
        assert table.std().item() == pytest.approx(0.02, rel=4 / math.sqrt(2 * table.numel()))


def test_gains_are_one_biases_zero_and_everything_is_float32() -> None:
    for name, parameter in model({"kind": "plain"}).named_parameters():
        assert parameter.dtype == torch.float32
        if "norm" in name:
            assert (parameter == 1).all(), name
        elif name.endswith("bias"):
            assert (parameter == 0).all(), name


def test_a_seed_is_a_model() -> None:
    first, again, other = model({"kind": "plain"}), model({"kind": "plain"}), model({"kind": "plain"}, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.embed.weight, other.embed.weight)


def test_the_first_loss_is_that_of_guessing() -> None:
    tokens = torch.randint(512, (8, 64), generator=torch.Generator().manual_seed(0))
    loss = model({"kind": "plain"})(tokens, targets=tokens.roll(-1, 1)).loss
    assert loss.item() == pytest.approx(math.log(512), rel=0.02)
