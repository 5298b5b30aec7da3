"""BitNet's linear against its definition, one number at a time in float64, and its packed form against itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import tinycore
from tinycore import checkpoint, surgery, testing
from tinycore.linears.bit import Bit
from tinycore.linears.packed_bit import PackedBit, packed, unpacked


def definition(
    x: list[float], weight: list[list[float]], scale: float, eps: float = 1e-5
) -> tuple[list[int], list[float]]:
    """(activation codes, y) of one token."""
    size = (sum(v * v for v in x) / len(x) + eps) ** 0.5
    normed = [v / size for v in x]
    largest = max(max(abs(v) for v in normed), 1e-5)
    codes = [max(-128, min(127, round(v * (127 / largest)))) for v in normed]
    y = []
    for row in weight:
        ternary = [max(-1, min(1, round(w / scale))) for w in row]
        y.append(sum(c * t for c, t in zip(codes, ternary, strict=True)) * (largest / 127) * scale)
    return codes, y


def module(inputs: int, outputs: int, **settings: Any) -> Bit:
    torch.manual_seed(0)
    return Bit.Config(**settings).build(inputs, outputs)


@pytest.mark.parametrize("kind", ["mean", "median"])
@pytest.mark.parametrize(("inputs", "outputs"), [(7, 5), (16, 9), (1, 3)])
def test_equals_the_definition(kind: str, inputs: int, outputs: int) -> None:
    linear = module(inputs, outputs, scale=kind).double()
    x = torch.randn(4, inputs, dtype=torch.float64)
    weight = linear.weight.detach()
    magnitudes = sorted(weight.abs().flatten().tolist())
    scale = sum(magnitudes) / len(magnitudes) if kind == "mean" else magnitudes[(len(magnitudes) - 1) // 2]
    for found, token in zip(linear(x), x, strict=True):
        _, expected = definition(token.tolist(), weight.tolist(), max(scale, 1e-5))
        assert found.tolist() == pytest.approx(expected, abs=1e-12)


def test_gradients_are_those_of_a_dense_product_at_the_quantised_point() -> None:
    """Straight-through: of y = Q8(n) Q(W)^T with both factors taken as they are, and of the sub-norm before it."""
    linear = module(12, 5, bias=True).double()
    x = torch.randn(6, 12, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(6, 5, dtype=torch.float64)
    ours = torch.autograd.grad((linear(x) * upstream).sum(), [x, linear.weight, linear.bias])
    n = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5)
    scale = linear.weight.detach().abs().mean()
    ternary = (linear.weight.detach() / scale).round().clamp(-1, 1) * scale
    largest = n.detach().abs().amax(-1, keepdim=True)
    coded = (n.detach() * (127 / largest)).round() * (largest / 127)
    assert set((ternary / scale).unique().tolist()) <= {-1.0, 0.0, 1.0}
    through = n + (coded - n).detach()  # the value is rounded, the gradient is not
    latent = linear.weight + (ternary - linear.weight).detach()
    expected = torch.autograd.grad(
        ((through @ latent.T + linear.bias) * upstream).sum(), [x, linear.weight, linear.bias]
    )
    for found, theirs in zip(ours, expected, strict=True):
        assert theirs.abs().max() > 0
        assert (found - theirs).abs().max() < 1e-12


def test_the_product_is_the_same_under_autocast() -> None:
    """Integers stay exact: only the result is rounded to bf16."""
    linear, x = module(300, 40), torch.randn(8, 300)
    with torch.autocast("cpu", torch.bfloat16):
        low = linear(x)
    assert low.dtype == torch.bfloat16
    assert torch.equal(low, linear(x).to(torch.bfloat16))


def test_rows_too_long_for_exact_sums_are_refused() -> None:
    with pytest.raises(tinycore.ConfigError, match="132104"):
        Bit.Config().build(132_105, 1)


@pytest.mark.parametrize("shape", [(5, 1), (5, 4), (3, 7), (64, 130)])
@pytest.mark.parametrize("kind", ["mean", "median"])
def test_packing_is_exact_both_ways(shape: tuple[int, int], kind: str) -> None:
    outputs, inputs = shape
    linear = module(inputs, outputs, scale=kind, bias=True)
    small = packed(linear)
    assert small.codes.dtype == torch.uint8
    assert small.codes.numel() == outputs * -(-inputs // 4)
    scale = small.scale
    assert torch.equal(unpacked(small.codes, inputs), (linear.weight / scale).round().clamp(-1, 1))
    x = torch.randn(3, 6, inputs)
    assert torch.equal(small(x), linear(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(small(x), linear(x))


def ternary_model() -> tinycore.Decoder:
    torch.manual_seed(0)
    return tinycore.build(testing.stack(linear={"kind": "bit", "bias": True})).eval()


def test_a_packed_model_gives_the_same_bits_from_a_quarter_of_the_bytes(tmp_path: Path) -> None:
    model = ternary_model()
    small = surgery.pack(model)
    tokens = torch.randint(32, (2, 20))
    assert torch.equal(small(tokens).logits, model(tokens).logits)
    assert any(isinstance(part, PackedBit) for part in small.modules())
    assert not any(isinstance(part, Bit) for part in small.modules())
    tinycore.save(small, tmp_path)
    again = tinycore.load(tmp_path)
    assert torch.equal(again(tokens).logits, model(tokens).logits)
    stored = load_file(tmp_path / "model.safetensors")
    codes = sum(tensor.numel() for name, tensor in stored.items() if name.endswith(".codes"))
    latent = sum(part.weight.numel() for part in model.modules() if isinstance(part, Bit))
    assert codes * 4 == latent  # every width here is a multiple of 4
    text, plain = (tinycore.generate(m, [[1, 2, 3]], max_new_tokens=8, temperature=0) for m in (again, model))
    assert [row[0].ids for row in text] == [row[0].ids for row in plain]


def test_a_packed_model_does_not_train(tmp_path: Path) -> None:
    small = surgery.pack(ternary_model())
    with pytest.raises(RuntimeError, match="packed"):
        small(torch.zeros(1, 4, dtype=torch.long)).logits.sum().backward()
    with pytest.raises(ValueError, match="no ternary linear"):
        surgery.pack(tinycore.build(testing.stack()))


@pytest.mark.parametrize("damage", ["code", "size", "scale", "type"])
def test_damaged_codes_are_one_line(tmp_path: Path, damage: str) -> None:
    tinycore.save(surgery.pack(ternary_model()), tmp_path)
    tensors: dict[str, Tensor] = load_file(tmp_path / "model.safetensors")
    name = next(name for name in tensors if name.endswith(".codes"))
    if damage == "code":
        tensors[name][0, 0] = 255
    elif damage == "size":
        tensors[name] = tensors[name][:, :-1].contiguous()
    elif damage == "scale":
        tensors[name.removesuffix("codes") + "scale"].fill_(float("nan"))
    else:
        tensors[name] = tensors[name].to(torch.int32)
    save_file(tensors, tmp_path / "model.safetensors")
    checkpoint.write_manifest(tmp_path)
    with pytest.raises(checkpoint.CheckpointError, match=name.rpartition(".")[0]) as error:
        tinycore.load(tmp_path)
    assert "\n" not in str(error.value)


def test_a_packed_checkpoint_of_a_model_without_ternary_linears_is_refused(tmp_path: Path) -> None:
    tinycore.save(tinycore.build(testing.stack()), tmp_path)
    document = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**document, "packed": True}))
    checkpoint.write_manifest(tmp_path)
    with pytest.raises(checkpoint.CheckpointError, match="packed"):
        tinycore.load(tmp_path)
