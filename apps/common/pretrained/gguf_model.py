"""The model in a GGUF file of the architecture `llama`, in the names and the layout of config.json and safetensors.

    llama.block_count, llama.embedding_length, ...   num_hidden_layers, hidden_size, ...
    token_embd, output_norm, output                  model.embed_tokens, model.norm, lm_head
    blk.N.attn_q, .ffn_gate, .attn_norm, ...         model.layers.N.self_attn.q_proj, .mlp.gate_proj, .input_layernorm

llama.cpp rotates neighbouring channels where everybody else rotates channel i with i + d/2, so that its files hold the
rows of q and k in another order: (heads, d/2, 2, in) here becomes (heads, 2, d/2, in).

A file has no key for most features, it has their tensors: biases, experts, factors of a scaled RoPE. Those are refused
as tensors that are left over, the keys as in config.json.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apps.common.errors import BadRequest
from apps.common.pretrained.gguf_file import GGUFFile

# what one of these says is said by the tensors or the tokenizer too, or says nothing about the function
NEUTRAL_KEYS = {"vocab_size", "attention.value_length", "rope.scaling.finetuned"}
# a feature is off where its key has this value
OFF_KEYS = {"expert_count": 0, "expert_used_count": 0, "rope.scaling.type": "none", "attention.causal": True}
KEYS = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
}
ROTATED = "llama.rope.dimension_count"
NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
LAYER_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_norm": "input_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_norm": "post_attention_layernorm",
}


def config(file: GGUFFile) -> dict[str, Any]:
    """The config.json that the file's metadata amount to. Raises BadRequest for another architecture.

    Keys that nothing is known about go in under their own name, for the reader of config.json to refuse.
    """
    architecture = file.metadata.get("general.architecture")
    if architecture != "llama":
        shown = repr(architecture)[:60]
        raise BadRequest(f"{file.path}: its architecture is {shown}; of GGUF files only `llama` can be imported")
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise BadRequest(f"{file.path}: has no token_embd.weight, so it holds no model")
    document: dict[str, Any] = {
        "model_type": "llama",
        "vocab_size": embedding.shape[0],
        "tie_word_embeddings": "output.weight" not in file.tensors,
    }
    for key, value in file.metadata.items():
        name = key.removeprefix("llama.")
        if name == key or name in NEUTRAL_KEYS or (name in OFF_KEYS and value == OFF_KEYS[name]):
            continue
        if isinstance(value, np.ndarray):
            value = value[:8].tolist()
        document[KEYS.get(name, key)] = _short(value) if isinstance(value, float) else value
    if document.pop(ROTATED, None) not in (None, _head_dim(document)):
        document[ROTATED] = file.metadata[ROTATED]  # a part of each head: refused with the other unknown keys
    return document


def _head_dim(document: Mapping[str, Any]) -> Any:
    heads, dim = document.get("num_attention_heads"), document.get("hidden_size")
    derived = dim // heads if isinstance(dim, int) and isinstance(heads, int) and heads > 0 else None
    return document.get("head_dim", derived)


class Weights(Mapping[str, Tensor]):
    """The file's tensors under the names of safetensors, each read and dequantised when it is asked for."""

    def __init__(self, file: GGUFFile, heads: int, kv_heads: int) -> None:
        """Raises BadRequest for tensors of types that cannot be read."""
        file.require_readable(file.tensors)
        self.file, self.heads = file, {"q_proj": heads, "k_proj": kv_heads}
        self.names = {_renamed(name): name for name in file.tensors}

    def __getitem__(self, name: str) -> Tensor:
        values = self.file.read(self.names[name])
        projection = re.search(r"self_attn\.([qk]_proj)\.weight$", name)
        return torch.from_numpy(_halves(values, self.heads[projection[1]]) if projection else values)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def _renamed(name: str) -> str:
    layer = re.fullmatch(r"blk\.(\d{1,9})\.(\w+)\.weight", name)
    if layer and layer[2] in LAYER_NAMES:
        return f"model.layers.{layer[1]}.{LAYER_NAMES[layer[2]]}.weight"
    return NAMES.get(name, name)


def _halves(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q or k from llama.cpp's order to that of half-split RoPE; other shapes are left for their error."""
    if values.ndim != 2 or len(values) % (2 * heads):
        return values
    pairs = values.reshape(heads, len(values) // heads // 2, 2, -1)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(values.shape)


def _short(value: float) -> float:
    """The shortest number that is this float32: files store 1e-5 as 9.99999974e-06."""
    return float(str(np.float32(value))) if float(np.float32(value)) == value else value
