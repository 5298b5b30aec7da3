"""Tensors in Llama's layout put into the base decoder, and the names they have on both sides.

    ours                                 theirs
    embed.weight                         model.embed_tokens.weight
    layers.N.branches.mixer.q.weight     model.layers.N.self_attn.q_proj.weight      (k, v, o; q_norm, k_norm)
    layers.N.branches.ffn.gate.weight    model.layers.N.mlp.gate_proj.weight         (up, down)
    layers.N.norms.mixer.norm.weight     model.layers.N.input_layernorm.weight       (ffn: post_attention_layernorm)
    norm.weight                          model.norm.weight
    heads.lm.linear.weight               lm_head.weight                              (untied only)

Nothing is allocated from what a config claims: the model is built without storage, the names are compared before any
tensor is read, and each tensor takes its place only in the shape that the config gives it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from tinycore.llama.config import LlamaError
from tinycore.mixers.attention import Attention
from tinycore.model import Decoder, build
from tinycore.model_config import ModelConfig
from tinycore.norms.pre import PreNorm

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
LAYER = {
    **{f"branches.mixer.{name}.weight": f"self_attn.{name}_proj.weight" for name in "qkvo"},
    **{f"branches.ffn.{name}.weight": f"mlp.{name}_proj.weight" for name in ("gate", "up", "down")},
    "norms.mixer.norm.weight": "input_layernorm.weight",
    "norms.ffn.norm.weight": "post_attention_layernorm.weight",
}
QK_NORM = {f"branches.mixer.{name}_norm.weight": f"self_attn.{name}_norm.weight" for name in "qk"}
_BUFFER = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")  # old files save what the base determines
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def tensor_names(config: ModelConfig) -> dict[str, str]:
    """{our name: theirs} of every tensor of a decoder in Llama's layout. Raises LlamaError if it has registers."""
    if config.embed.register_slots:
        raise LlamaError(
            f"embed.registers: {config.embed.register_slots} vectors that stand before every document; Llama has none"
        )
    names = {"embed.weight": EMBEDDING}
    for index, layer in enumerate(config.flat_layers()):
        normed = isinstance(layer.mixer, Attention.Config) and layer.mixer.qk_norm
        parts = LAYER | QK_NORM if normed else LAYER
        names |= {f"layers.{index}.{own}": f"model.layers.{index}.{other}" for own, other in parts.items()}
    names["norm.weight"] = "model.norm.weight"
    if not config.embed.tied:
        names["heads.lm.linear.weight"] = HEAD
    return names


def load(config: ModelConfig, tensors: Mapping[str, Tensor]) -> Decoder:
    """The decoder of `config` (from `read_config`) with copies of `tensors`, by their names, in float32.

    `tensors` may read each one when it is asked for: they are taken once each, in the model's order. Raises LlamaError
    where one is missing, left over, of another shape, not floating point or not finite.
    """
    names = tensor_names(config)
    _compare(names.values(), tensors)
    try:
        with torch.device("meta"):
            model = build(config)
    except (RuntimeError, TypeError) as error:  # what torch raises for sizes beyond 64 bits
        raise LlamaError(f"no such model can be built: {' '.join(str(error).split())[:200]}") from None
    expected, state = model.state_dict(), {}
    for own, other in names.items():
        state[own] = _checked(other, tensors[other], expected[own])
    if config.embed.tied and HEAD in tensors and not torch.equal(tensors[HEAD].float(), state["embed.weight"]):
        raise LlamaError(f"tie_word_embeddings is true, and {HEAD} differs from {EMBEDDING}")
    _absorb_epsilon(model, state)
    model.load_state_dict(state, assign=True)
    return model


def _compare(wanted: Collection[str], tensors: Mapping[str, Tensor]) -> None:
    present, wanted = set(tensors), set(wanted)
    missing = sorted(wanted - present)
    extra = sorted(name for name in present - wanted if not _BUFFER.fullmatch(name) and name != HEAD)
    faults = [f"{word} {_some(names)}" for word, names in (("lack", missing), ("have unexpected", extra)) if names]
    if faults:
        raise LlamaError(f"the weights {' and '.join(faults)}; they are not those of the config")


def _some(names: list[str]) -> str:
    shown = ", ".join(repr(name)[1:-1][:100] for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _checked(name: str, tensor: Tensor, expected: Tensor) -> Tensor:
    """A copy of `tensor` as the model takes it."""
    if tensor.shape != expected.shape:
        raise LlamaError(f"{name} has shape {tuple(tensor.shape)}, the config says {tuple(expected.shape)}")
    if tensor.dtype not in _DTYPES:
        raise LlamaError(
            f"{name} is {tensor.dtype}; only float32, float16, bfloat16 and float64 are weights by themselves"
        )
    value = tensor.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    if not value.sum(dtype=torch.float64).isfinite():  # float32 values cannot overflow it
        raise LlamaError(f"{name} has values that are not finite; the file is damaged")
    return value


def _absorb_epsilon(model: Decoder, state: dict[str, Tensor]) -> None:
    """Make queries and keys larger where the eps of their norms here is larger than the model's.

    x / sqrt(mean x^2 + e) is (s x) / sqrt(mean (s x)^2 + e') for s^2 = e' / e, so the function is exactly theirs.
    """
    norm = model.config.norm
    if not isinstance(norm, PreNorm.Config):
        raise TypeError("tensors in Llama's layout belong into a pre-norm decoder")
    layers: Any = model.layers
    for index, layer in enumerate(layers):
        for name in "qk":
            inner = getattr(layer.branches["mixer"], f"{name}_norm")
            if inner is not None and inner.eps != norm.eps:
                state[f"layers.{index}.branches.mixer.{name}.weight"] *= (inner.eps / norm.eps) ** 0.5
