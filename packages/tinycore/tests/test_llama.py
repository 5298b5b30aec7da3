"""The base decoder is the Llama decoder: with copied weights, transformers' Llama, Qwen3 (QK-norm) and Mistral (window)
give the same logits, the same loss and the same cached decoding, in float32 to 1e-4.

Run: uv run pytest packages/tinycore/tests/test_llama.py (skipped where transformers is not installed)
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import tinycore

transformers = pytest.importorskip("transformers")

V, D, HIDDEN, LAYERS, T = 211, 48, 112, 3, 24
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], bool]] = {
    # name: (architecture, our mixer, their extra settings, tied)
    "llama, tied": ("Llama", {"heads": 4}, {}, True),
    "llama, untied": ("Llama", {"heads": 4}, {}, False),
    "llama, grouped": ("Llama", {"heads": 6, "kv_heads": 2}, {}, True),
    "llama, one key head, wide heads, another base": (
        "Llama",
        {"heads": 4, "kv_heads": 1, "head_dim": 16, "theta": 500.0},
        {"head_dim": 16},
        False,
    ),
    "qwen3, qk-norm": (
        "Qwen3",
        {"heads": 4, "kv_heads": 2, "head_dim": 16, "qk_norm": True},
        {"head_dim": 16, "attention_bias": False},
        True,
    ),
    "mistral, window": ("Mistral", {"heads": 4, "kv_heads": 2, "window": 7}, {"sliding_window": 7}, False),
}


def pair(case: str) -> tuple[tinycore.Decoder, Any]:
    """Our model and theirs, with our weights copied into theirs."""
    architecture, mixer, extra, tied = CASES[case]
    torch.manual_seed(0)
    ours = tinycore.build(
        tinycore.ModelConfig.from_dict(
            {
                "vocab_size": V,
                "dim": D,
                "max_seq_len": 64,
                "layers": [
                    {
                        "repeat": LAYERS,
                        "mixer": {"kind": "attention", **mixer},
                        "ffn": {"kind": "swiglu", "hidden": HIDDEN},
                    }
                ],
                "embed": {"kind": "table", "tied": tied},
            }
        )
    ).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)  # so that gains differ from one and logits from zero
    config = getattr(transformers, f"{architecture}Config")(
        vocab_size=V,
        hidden_size=D,
        intermediate_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=mixer["heads"],
        num_key_value_heads=mixer.get("kv_heads", mixer["heads"]),
        max_position_embeddings=64,
        rms_norm_eps=1e-5,
        tie_word_embeddings=tied,
        rope_parameters={"rope_type": "default", "rope_theta": mixer.get("theta", 10000.0)},
        attn_implementation="eager",
        **extra,
    )
    theirs = getattr(transformers, f"{architecture}ForCausalLM")(config).eval()
    missing = theirs.load_state_dict(renamed(ours), strict=False)
    assert missing.unexpected_keys == []
    assert set(missing.missing_keys) <= {"lm_head.weight"}, "the tied head is all that is not copied by name"
    return ours, theirs


def renamed(ours: tinycore.Decoder) -> dict[str, Tensor]:
    """Our tensors under the names of transformers' Llama layout."""
    names = tinycore.llama.tensor_names(ours.config)
    return {names[name]: tensor for name, tensor in ours.state_dict().items()}


@pytest.fixture(scope="module", params=CASES)
def models(request: pytest.FixtureRequest) -> tuple[tinycore.Decoder, Any]:
    return pair(request.param)


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    return torch.randint(V, (3, T), generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def test_logits_are_equal(models: tuple[tinycore.Decoder, Any], tokens: Tensor) -> None:
    ours, theirs = models
    expected = theirs(tokens).logits
    assert expected.std() > 0.1, "logits that are all alike would prove nothing"
    assert (ours(tokens).logits - expected).abs().max() < 1e-4


@torch.no_grad()
def test_loss_is_equal(models: tuple[tinycore.Decoder, Any], tokens: Tensor) -> None:
    """They shift labels inside of the model; here they come shifted."""
    ours, theirs = models
    targets = torch.cat([tokens[:, 1:], torch.full_like(tokens[:, :1], -100)], 1)
    assert ours(tokens, targets=targets).loss.item() == pytest.approx(
        theirs(tokens, labels=tokens).loss.item(), abs=1e-5
    )


@torch.no_grad()
def test_cached_decoding_is_equal(models: tuple[tinycore.Decoder, Any], tokens: Tensor) -> None:
    ours, theirs = models
    out, other = ours(tokens[:, :9]), theirs(tokens[:, :9], use_cache=True)
    for t in range(9, T):
        out = ours(tokens[:, t : t + 1], state=out.state)
        other = theirs(tokens[:, t : t + 1], past_key_values=other.past_key_values, use_cache=True)
        assert (out.logits - other.logits).abs().max() < 1e-4


def test_gradients_are_equal(models: tuple[tinycore.Decoder, Any], tokens: Tensor) -> None:
    ours, theirs = models
    targets = torch.cat([tokens[:, 1:], torch.full_like(tokens[:, :1], -100)], 1)
    ours.zero_grad()
    theirs.zero_grad()
    ours(tokens, targets=targets).loss.backward()
    theirs(tokens, labels=tokens).loss.backward()
    expected = dict(theirs.named_parameters())
    for name, other in tinycore.llama.tensor_names(ours.config).items():
        gradient = ours.get_parameter(name).grad
        gap = (gradient - expected[other].grad).abs().max()
        assert gap < 1e-5 * (1 + expected[other].grad.abs().max()), name
