"""Models of other people's layout: config and tensors of random transformers models give the same logits here, and what
the decoder lacks, or what the weights are not, is one line.

Run: uv run pytest packages/tinycore/tests/test_llama_import.py (skipped where transformers is not installed)
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor

import tinycore
from tinycore import llama
from tinycore.llama import LlamaError

transformers = pytest.importorskip("transformers")

SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, defaults": ("Llama", {}),
    "llama, grouped, tied": ("Llama", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "llama, wide heads": ("Llama", {"head_dim": 12, "num_key_value_heads": 1, "rms_norm_eps": 1e-5}),
    "llama, base": ("Llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 1234.5}}),
    "mistral, window": ("Mistral", {"num_key_value_heads": 2, "sliding_window": 6}),
    "mistral, no window": ("Mistral", {"num_key_value_heads": 2, "sliding_window": None, "head_dim": None}),
    "qwen3, its eps": ("Qwen3", {"num_key_value_heads": 2, "head_dim": 16, "rms_norm_eps": 1e-6}),
    "qwen3, large eps": ("Qwen3", {"num_key_value_heads": 4, "rms_norm_eps": 1e-2, "tie_word_embeddings": True}),
    "qwen3, window": (
        "Qwen3",
        {"num_key_value_heads": 2, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 0},
    ),
}
TOKENS = torch.randint(SIZES["vocab_size"], (2, 40), generator=torch.Generator().manual_seed(3))


def theirs(case: str) -> Any:
    """A random model of transformers whose gains and queries are not all alike."""
    architecture, extra = CASES[case]
    torch.manual_seed(1)
    config = getattr(transformers, f"{architecture}Config")(**SIZES, **extra, attn_implementation="eager")
    model = getattr(transformers, f"{architecture}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def document(model: Any) -> dict[str, Any]:
    """What save_pretrained writes into config.json."""
    return json.loads(model.config.to_json_string())


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_logits_are_theirs(case: str) -> None:
    model = theirs(case)
    ours = llama.load(llama.read_config(document(model)), model.state_dict())
    expected = model(TOKENS).logits
    assert expected.std() > 0.1
    assert (ours(TOKENS).logits - expected).abs().max() < 1e-4
    assert all(parameter.requires_grad for parameter in ours.parameters())


@pytest.mark.parametrize("architecture", ["Llama", "Mistral", "Qwen3"])
def test_what_a_file_leaves_out_is_what_transformers_assumes(architecture: str) -> None:
    sizes = {**SIZES, "hidden_size": 256, "num_attention_heads": 32}
    full = json.loads(getattr(transformers, f"{architecture}Config")(**sizes).to_json_string(use_diff=False))
    assert llama.read_config({**sizes, "model_type": architecture.lower()}) == llama.read_config(full)


@torch.no_grad()
def test_half_precision_becomes_float32_and_is_copied() -> None:
    model = theirs("llama, grouped, tied")
    tensors = {name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items()}
    model.load_state_dict(tensors)  # rounded, and float32 again
    ours = llama.load(llama.read_config(document(model)), tensors)
    assert {tensor.dtype for tensor in ours.state_dict().values()} == {torch.float32}
    assert (ours(TOKENS).logits - model(TOKENS).logits).abs().max() < 1e-4
    wide = {name: tensor.float() for name, tensor in tensors.items()}
    copied = llama.load(ours.config, wide)
    wide["model.norm.weight"].zero_()
    assert copied.state_dict()["norm.weight"].abs().max() > 0


LACKING: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"rope_scaling": {"type": "linear", "factor": 2.0}}, ("rope_scaling.type='linear'", "rope_scaling.factor=2.0")),
    ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5}}, ("rope_parameters.rope_type='llama3'",)),
    ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, ("partial_rotary_factor=0.5",)),
    ({"partial_rotary_factor": 0.25}, ("partial_rotary_factor=0.25",)),
    ({"attention_bias": True, "mlp_bias": True}, ("attention_bias=True", "mlp_bias=True")),
    ({"hidden_act": "gelu"}, ("hidden_act='gelu'",)),
    ({"num_local_experts": 8, "num_experts_per_tok": 2}, ("num_local_experts=8", "num_experts_per_tok=2")),
    ({"final_logit_softcapping": 30.0, "logit_scale": 0.5}, ("final_logit_softcapping=30.0", "logit_scale=0.5")),
    ({"embedding_multiplier": 12}, ("embedding_multiplier=12",)),
    ({"quantization_config": {"bits": 4}}, ("quantization_config",)),
    ({"auto_map": {"AutoModel": "stranger.py"}}, ("auto_map",)),
    ({"use_rope": False}, ("use_rope=False",)),
    ({"no_rope_layers": [1, 0]}, ("no_rope_layers",)),
    ({"sliding_window": 64}, ("sliding_window=64",)),
    ({"model_type": "mistral", "layer_types": ["sliding_attention", "full_attention"]}, ("layer_types",)),
    (
        {"model_type": "qwen3", "use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
        ("max_window_layers",),
    ),
    ({"architectures": ["LlamaForSequenceClassification"]}, ("LlamaForSequenceClassification",)),
    ({"a\nb" * 50: 1}, ("a\\nb",)),
]


@pytest.mark.parametrize(("settings", "words"), LACKING)
def test_what_the_decoder_lacks_is_refused_by_name(settings: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(LlamaError) as caught:
        llama.read_config({**SIZES, "model_type": "llama", **settings})
    message = str(caught.value)
    assert all(word in message for word in words)
    assert "\n" not in message


def test_everything_in_the_way_is_in_one_line() -> None:
    settings = {"mlp_bias": True, "hidden_act": "relu", "rope_scaling": {"rope_type": "yarn"}, "unheard_of": 7}
    with pytest.raises(LlamaError) as caught:
        llama.read_config({**SIZES, "model_type": "llama", **settings})
    assert all(word in str(caught.value) for word in ("mlp_bias", "hidden_act", "yarn", "unheard_of=7"))
    with pytest.raises(LlamaError, match="and 80 more") as caught:
        llama.read_config({**SIZES, "model_type": "llama", **{f"key{i}": i for i in range(100)}})
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2'"),
        ({"model_type": None}, "model_type None"),
        ({"hidden_size": "big"}, "hidden_size: 'big'"),
        ({"num_hidden_layers": None}, "num_hidden_layers: missing"),
        ({"num_hidden_layers": True}, "num_hidden_layers: True"),
        ({"num_hidden_layers": 10**6}, "4096"),
        ({"vocab_size": 2**60}, "vocab_size"),
        ({"num_attention_heads": 5}, "heads"),
        ({"num_key_value_heads": 3}, "kv_heads"),
        ({"rms_norm_eps": 0}, "rms_norm_eps"),
        ({"rope_theta": float("nan")}, "rope_theta"),
        ({"rope_theta": 10.0, "rope_parameters": {"rope_theta": 20.0}}, "disagree"),
        ({"rope_scaling": "linear"}, "not a mapping"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ({"layer_types": "full_attention"}, "layer_types"),
    ],
)
def test_nonsense_is_one_line(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(LlamaError) as caught:
        llama.read_config({**SIZES, "model_type": "llama", **settings})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def without(tensors: dict[str, Tensor]) -> None:
    del tensors["model.norm.weight"], tensors["model.layers.1.mlp.up_proj.weight"]


def with_biases(tensors: dict[str, Tensor]) -> None:
    tensors |= {f"model.layers.{i}.self_attn.q_proj.bias": torch.zeros(32) for i in range(5)}


def of_another_shape(tensors: dict[str, Tensor]) -> None:
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(32, 80)


def quantised(tensors: dict[str, Tensor]) -> None:
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(80, 32, dtype=torch.int8)


def damaged(tensors: dict[str, Tensor]) -> None:
    tensors["model.norm.weight"][3] = float("nan")


def untied(tensors: dict[str, Tensor]) -> None:
    tensors["lm_head.weight"] = torch.zeros_like(tensors["model.embed_tokens.weight"])


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (without, "lack model.layers.1.mlp.up_proj.weight, model.norm.weight"),
        (with_biases, "unexpected model.layers.0.self_attn.q_proj.bias"),
        (of_another_shape, "shape (32, 80), the config says (80, 32)"),
        (quantised, "torch.int8"),
        (damaged, "not finite"),
        (untied, "lm_head.weight differs"),
    ],
)
def test_tensors_that_are_not_the_configs_are_one_line(harm: Any, words: str) -> None:
    model = theirs("llama, grouped, tied")
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    harm(tensors)
    with pytest.raises(LlamaError) as caught:
        llama.load(llama.read_config(document(model)), tensors)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_config_that_claims_terabytes_allocates_nothing() -> None:
    huge = {**SIZES, "vocab_size": 2**31 - 1, "hidden_size": 2**30, "intermediate_size": 2**31 - 1}
    config = llama.read_config({**huge, "num_hidden_layers": 1, "model_type": "llama"})
    small = {name: torch.zeros(1) for name in llama.tensor_names(config).values()}
    with pytest.raises(LlamaError, match="the config says"):
        llama.load(config, small)
    assert tinycore.count(config).parameters > 2**62


def test_buffers_of_old_files_are_left_out() -> None:
    model = theirs("llama, defaults")
    tensors = {**model.state_dict(), "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    llama.load(llama.read_config(document(model)), tensors)
