"""Writes a GGUF file of a llama the way llama.cpp's own converter does: with the gguf package, q and k reordered."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
CONTROL, USER_DEFINED, NORMAL = 3, 4, 1


def neighbouring(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q or k as llama.cpp wants them: those of channel i and i + d/2 of a head next to each other."""
    width = len(rows) // heads
    order = [
        head * width + half * width // 2 + i for head in range(heads) for i in range(width // 2) for half in (0, 1)
    ]
    return rows[order]


def write(
    path: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    tokenizer: Mapping[str, Any],
    *,
    kind: str = "F32",
    pre: str = "smollm",
    template: str | None = None,
    end_of_turn: str | None = None,
    extra: Mapping[str, float] | None = None,
    more: Mapping[str, np.ndarray] | None = None,
) -> None:
    """`config` has the keys of config.json, `tensors` the names of safetensors, `tokenizer` is a tokenizer.json.

    Matrices are stored as `kind`, vectors as F32. `extra`: numbers by key, `more`: tensors by their name in the file.
    """
    writer = gguf.GGUFWriter(path, "llama")
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])
    for key, value in (extra or {}).items():
        writer.add_float32(key, value)
    _add_tokenizer(writer, tokenizer, pre, template, end_of_turn)
    target = gguf.GGMLQuantizationType[kind]
    for name, values in tensors.items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            values = neighbouring(values, heads if "q_proj" in name else kv_heads)
        if values.ndim == 1:
            writer.add_tensor(_renamed(name), values)
        else:
            writer.add_tensor(_renamed(name), gguf.quants.quantize(values, target), raw_dtype=target)
    for name, values in (more or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def rounded(values: np.ndarray, kind: str) -> np.ndarray:
    """What a matrix is after being stored as `kind`."""
    target = gguf.GGMLQuantizationType[kind]
    if values.ndim == 1:
        return values
    return np.asarray(gguf.quants.dequantize(gguf.quants.quantize(values, target), target), dtype=np.float32)


def _renamed(name: str) -> str:
    whole = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in whole:
        return whole[name]
    _, _, layer, part = name.split(".", 3)
    return f"blk.{layer}.{NAMES[part.removesuffix('.weight')]}.weight"


def _add_tokenizer(
    writer: gguf.GGUFWriter, tokenizer: Mapping[str, Any], pre: str, template: str | None, end_of_turn: str | None
) -> None:
    ids = dict(tokenizer["model"]["vocab"])
    types = dict.fromkeys(ids, NORMAL)
    for token in tokenizer["added_tokens"]:
        ids[token["content"]] = token["id"]
        types[token["content"]] = CONTROL if token["special"] else USER_DEFINED
    names = sorted(ids, key=lambda name: ids[name])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(names)
    writer.add_token_types([types[name] for name in names])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    if end_of_turn is not None:
        writer.add_eos_token_id(ids[end_of_turn])
    if template is not None:
        writer.add_chat_template(template)
