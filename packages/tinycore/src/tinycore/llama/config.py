"""The config.json of a Llama, Mistral or Qwen3 model as a `ModelConfig`, or one line saying why it cannot be one.

Every key is accounted for: read here, or in `NEUTRAL` (it says how to save, train or sample, or what files are called,
never what the network computes), or in `OFF` with the value that turns its feature off. Whatever else has a value,
known to us or not, is refused, all of it in one line: a model that computes something else must not load quietly. Keys
that are null count as absent. Where a key is left out, the default is that of the model's class in transformers.

Two keys that change something are neutral on purpose: `attention_dropout` (training only, and we have none) and
`pretraining_tp` (the same sums in another order).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tinycore.config import ConfigError
from tinycore.model_config import ModelConfig


class LlamaError(ValueError):
    """A model that the base decoder cannot be, or weights that are not the config's; one line naming all of it."""


@dataclass(frozen=True)
class Defaults:
    """What transformers' class of an architecture assumes for keys that config.json leaves out."""

    architecture: str
    kv_heads: int | None = None
    head_dim: int | None = None
    window: int | None = None
    qk_norm: bool = False


CLASSES = {
    "llama": Defaults("LlamaForCausalLM"),
    "mistral": Defaults("MistralForCausalLM", kv_heads=8, window=4096),
    "qwen3": Defaults("Qwen3ForCausalLM", kv_heads=32, head_dim=128, qk_norm=True),
}
SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
)
MOST = 20  # of a stranger's keys that one line names
READ = {
    *SIZES,
    *("model_type", "architectures", "num_key_value_heads", "head_dim", "rms_norm_eps", "tie_word_embeddings"),
    *("rope_theta", "rope_scaling", "rope_parameters", "layer_types", "sliding_window", "use_sliding_window"),
    "max_window_layers",
}
OFF: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "partial_rotary_factor": (1,),
    "rope_interleaved": (False,),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "tie_encoder_decoder": (False,),
    "chunk_size_feed_forward": (0,),
    "pruned_heads": ({},),
}
NEUTRAL = {
    # how it is saved and run
    *("_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache", "torchscript", "use_bfloat16"),
    *("return_dict", "pretraining_tp", "_attn_implementation", "_attn_implementation_autoset", "attn_implementation"),
    *("transformers.js_config", "is_llama_config", "output_attentions", "output_hidden_states", "is_decoder"),
    *("unsloth_version", "unsloth_fixed"),
    # how it is trained
    *("initializer_range", "attention_dropout", "hidden_dropout", "classifier_dropout", "tokenizer_class"),
    *("task_specific_params", "finetuning_task", "problem_type", "id2label", "label2id", "prefix"),
    # how it is sampled
    *("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "unk_token_id", "decoder_start_token_id"),
    *("forced_bos_token_id", "forced_eos_token_id", "max_length", "min_length", "do_sample", "early_stopping"),
    *("num_beams", "num_beam_groups", "diversity_penalty", "temperature", "top_k", "top_p", "typical_p"),
    *("repetition_penalty", "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size"),
    *("bad_words_ids", "num_return_sequences", "output_scores", "return_dict_in_generate", "suppress_tokens"),
    *("begin_suppress_tokens", "remove_invalid_values", "exponential_decay_length_penalty"),
}


def read_config(document: Mapping[str, Any]) -> ModelConfig:
    """The `ModelConfig` of a config.json. Raises LlamaError with one line that names everything in the way."""
    known = {key: value for key, value in document.items() if value is not None}
    kind = known.get("model_type")
    if not isinstance(kind, str) or kind not in CLASSES:
        raise LlamaError(f"model_type {_shown(kind)}: not one of {', '.join(CLASSES)}, the layouts that can be read")
    defaults = CLASSES[kind]
    lacking: list[str] = []
    if known.get("architectures", [defaults.architecture]) != [defaults.architecture]:
        lacking.append(f"architectures={_shown(known['architectures'])} (only {defaults.architecture})")
    theta = _rope(known, lacking)
    window = _window(known, document, defaults, lacking)
    for key, value in known.items():
        if (key in OFF and value not in OFF[key]) or key not in READ | OFF.keys() | NEUTRAL:
            lacking.append(f"{_named(key)}={_shown(value)}")
    if lacking:
        listed = (
            ", ".join(lacking)
            if len(lacking) <= MOST
            else f"{', '.join(lacking[:MOST])} and {len(lacking) - MOST} more"
        )
        raise LlamaError(f"the decoder here has nothing like {listed}; such a model cannot be imported")

    sizes = {key: _whole(known, key) for key in SIZES}
    heads, dim = sizes["num_attention_heads"], sizes["hidden_size"]
    # a key that is null, unlike one left out, means "follow from the others"
    kv_heads = _whole(known, "num_key_value_heads", heads if "num_key_value_heads" in document else defaults.kv_heads)
    head_dim = _whole(known, "head_dim", None if "head_dim" in document else defaults.head_dim)
    mixer = {
        "kind": "attention",
        "heads": heads,
        "kv_heads": None if kv_heads == heads else kv_heads,
        "head_dim": None if head_dim is None or head_dim * heads == dim else head_dim,
        "theta": theta,
        "qk_norm": defaults.qk_norm,
        "window": window,
    }
    layer = {"mixer": mixer, "ffn": {"kind": "swiglu", "hidden": sizes["intermediate_size"]}}
    try:
        return ModelConfig.from_dict(
            {
                "vocab_size": sizes["vocab_size"],
                "dim": dim,
                "max_seq_len": sizes["max_position_embeddings"],
                "layers": [{"repeat": sizes["num_hidden_layers"], **layer}],
                "embed": {"kind": "table", "tied": _switch(known, "tie_word_embeddings")},
                "norm": {"placement": "pre", "eps": _number(known, "rms_norm_eps", 1e-6)},
            }
        )
    except ConfigError as error:
        raise LlamaError(f"no such model can be built: {error}") from None


def _rope(known: Mapping[str, Any], lacking: list[str]) -> float:
    """The base of RoPE; what scales or shortens it is added to `lacking`."""
    theta = _number(known, "rope_theta", None)
    for key in ("rope_scaling", "rope_parameters"):
        settings = known.get(key, {})
        if not isinstance(settings, Mapping):
            raise LlamaError(f"{key}={_shown(settings)}: not a mapping")
        settings = {name: value for name, value in settings.items() if value is not None}
        odd = {name: value for name, value in settings.items() if not _plain_rope(name, value)}
        lacking += [f"{key}.{_named(name)}={_shown(value)}" for name, value in odd.items()]
        given = _number(settings, "rope_theta", theta)
        if theta is not None and given != theta:
            raise LlamaError(f"rope_theta={theta:g} and {key}.rope_theta={given:g} disagree")
        theta = given
    return 10000.0 if theta is None else theta


def _plain_rope(name: str, value: Any) -> bool:
    return name == "rope_theta" or (name in ("type", "rope_type") and value == "default") or value in OFF.get(name, ())


def _window(
    known: Mapping[str, Any], document: Mapping[str, Any], defaults: Defaults, lacking: list[str]
) -> int | None:
    """The window of all layers, None without one; windows of some layers only are added to `lacking`."""
    layers = _whole(known, "num_hidden_layers")
    window = _whole(known, "sliding_window", None if "sliding_window" in document else defaults.window)
    if known.get("model_type") == "llama":
        lacking += [f"{key}={_shown(known[key])}" for key in ("sliding_window", "use_sliding_window") if known.get(key)]
    if defaults.qk_norm and not _switch(known, "use_sliding_window"):
        window = None  # Qwen3 keeps the number in the file and has a switch for it
    if "layer_types" in known:
        kinds = known["layer_types"]
        if not isinstance(kinds, list) or len(kinds) != layers:
            raise LlamaError(f"layer_types={_shown(kinds)}: not a list with an entry for each of {layers} layers")
        uniform = "sliding_attention" if window is not None else "full_attention"
        if any(kind != uniform for kind in kinds):
            lacking.append(f"layer_types={_shown(sorted(set(map(str, kinds))))}")
    elif defaults.qk_norm and window is not None:
        first = _whole(known, "max_window_layers", 28, least=0)
        if first >= layers:
            return None
        if first > 0:
            lacking.append(f"max_window_layers={first} (a window in some layers only)")
    return window


def _whole(known: Mapping[str, Any], key: str, default: int | None = None, least: int = 1) -> Any:
    value = known.get(key, default)
    if value is None and (key not in SIZES):
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**31:
        missing = "missing" if value is None else f"{_shown(value)} is not a count"
        raise LlamaError(f"{key}: {missing}")
    return value


def _number(known: Mapping[str, Any], key: str, default: float | None) -> Any:
    value = known.get(key, default)
    if value is not None and (not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e30):
        raise LlamaError(f"{key}: {_shown(value)} is not a positive number")
    return None if value is None else float(value)


def _switch(known: Mapping[str, Any], key: str) -> bool:
    value = known.get(key, False)
    if not isinstance(value, bool):
        raise LlamaError(f"{key}: {_shown(value)} is not true or false")
    return value


def _named(key: object) -> str:
    return key if isinstance(key, str) and re.fullmatch(r"[\w.-]{1,60}", key) else _shown(key)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
