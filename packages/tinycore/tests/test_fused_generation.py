"""Claims: the fused session gives the model's own logits, for ragged prompts, repeated and dropped rows, windows and
QK-norm; it takes only models whose every part it knows; packed products are the products.

Run: uv run pytest packages/tinycore/tests/test_fused_generation.py
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

import tinycore
from tinycore.generation import fused
from tinycore.generation.fused import FusedSession, can_fuse
from tinycore.generation.session import ModelSession
from tinycore.ops.packed_linear import PackedLinear


def build(mixer: dict[str, Any], dtype: torch.dtype = torch.float64, **more: Any) -> tinycore.Decoder:
    torch.manual_seed(0)
    layer = {"repeat": 2, "mixer": {"kind": "attention", "heads": 4, **mixer}, "ffn": {"kind": "swiglu"}}
    depth = {"kind": "shared", "times": 2}
    config = {"vocab_size": 97, "dim": 32, "max_seq_len": 256, "depth": depth, "layers": [layer], **more}
    model = tinycore.build(tinycore.ModelConfig.from_dict(config)).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)  # gains differ from one, logits from zero
    return model


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "grouped": ({"kv_heads": 2}, {}),
    "all heads": ({}, {}),
    "window": ({"kv_heads": 1, "window": 5}, {}),
    "qk-norm": ({"kv_heads": 2, "qk_norm": True}, {}),
    "untied, scaled": ({"kv_heads": 2}, {"embed": {"kind": "table", "tied": False, "scale": 2.0}}),
    "no gains": ({"kv_heads": 2}, {"norm": {"placement": "pre", "affine": False}}),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_logits_are_the_models(case: str, ragged: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "BLOCK", 10)
    mixer, more = CASES[case]
    model = build(mixer, dtype, **more)
    assert can_fuse(model)
    tolerance = 1e-10 if dtype == torch.float64 else 2e-4
    tokens = torch.randint(97, (3, 9), generator=torch.Generator().manual_seed(1))
    valid = torch.arange(9) >= torch.tensor([[0], [4], [8]]) if ragged else None
    for rows in (1, 3):
        sessions = [FusedSession(model, rows), ModelSession(model)]
        got, want = (s.prefill(tokens[:rows], None if valid is None else valid[:rows]) for s in sessions)
        assert want.std() > 0.1, "logits that are all alike would prove nothing"
        assert (got - want).abs().max() < tolerance
        for step in range(24):  # the cache grows twice
            if step in (3, 7):
                kept = torch.tensor([rows - 1, 0, 0] if step == 3 else [1, 2])
                for session in sessions:
                    session.select(kept)
                want = want[kept]
            chosen = want.argmax(-1)
            got, want = (session.step(chosen) for session in sessions)
            assert (got - want).abs().max() < tolerance


def test_models_with_other_parts_are_not_fused() -> None:
    assert can_fuse(build({}))
    assert not can_fuse(build({}).bfloat16())
    assert not can_fuse(build({}, linear={"kind": "dense", "bias": True}))
    for option in ({"fan": 0.125}, {"soft_cap": 30.0}, {"qk_gain": 1.0}, {"rotary": 4}, {"value_residual": {}}):
        assert not can_fuse(build(option)), option
    for placement in ("post", "hybrid", "hybrid_star"):
        assert not can_fuse(build({}, norm={"placement": placement})), placement
    hooked = build({})
    hooked.layers[0].register_forward_hook(lambda *_: None)
    assert not can_fuse(hooked)


@pytest.mark.parametrize("packed_for", [1, 2, 16])
@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("outputs", [48, 35])
def test_packed_products_are_the_products(packed_for: int, rows: int, outputs: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(outputs, 24, generator=generator), torch.randn(rows, 24, generator=generator)
    residual = torch.randn(rows, outputs, generator=generator)
    packed = PackedLinear(weight, packed_for)
    with torch.inference_mode():
        assert torch.allclose(packed(x), x @ weight.T, atol=1e-5)
        assert torch.allclose(packed.add(x, residual), residual + x @ weight.T, atol=1e-5)
