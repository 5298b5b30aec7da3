"""The peer: `transformers.LlamaForCausalLM` with the shape and the weights of one of our models.

Layers that our model applies several times are several of theirs that hold the same parameters, each with its own
place in their cache.
"""

from __future__ import annotations

from typing import Any

import torch

from apps.common.errors import BadRequest
from tinycore import Decoder, llama
from tinycore.mixers.attention import Attention


def build(ours: Decoder) -> Any:
    """transformers' Llama that computes what `ours` does, in float32. BadRequest where it is not a Llama."""
    try:
        import transformers
    except ImportError:
        raise BadRequest(
            "the peer is transformers, which is not installed: uv run --extra bench apps/bench ..."
        ) from None
    config: Any = ours.config
    tensors = ours.state_dict()
    layers = config.flat_layers()
    sites = config.call_sites()
    mixer, ffn = layers[0].mixer, layers[0].ffn
    plain = isinstance(mixer, Attention.Config) and getattr(ffn, "kind", None) == "swiglu"
    if not plain or any(layer != layers[0] for layer in layers) or not config.embed.tied:
        raise BadRequest("the recipe is not a tied Llama of equal layers; benchmarks beside transformers need one")
    if getattr(config.embed, "scale", 1.0) != 1.0 or config.embed.register_slots or mixer.qk_norm or mixer.window:
        raise BadRequest(
            "the recipe scales its embedding, or has registers, QK-norm or a window, which transformers' Llama has not"
        )
    scope = config.scope()
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.dim,
            intermediate_size=ffn.width(scope),
            num_hidden_layers=len(sites),
            num_attention_heads=mixer.heads,
            num_key_value_heads=mixer.groups,
            head_dim=mixer.width(scope),
            max_position_embeddings=config.max_seq_len,
            rms_norm_eps=config.norm.eps,
            rope_parameters={"rope_type": "default", "rope_theta": mixer.theta},
            tie_word_embeddings=True,
            pad_token_id=None,
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    names = llama.tensor_names(config)
    owners: dict[int, Any] = {}
    with torch.no_grad():
        theirs.model.embed_tokens.weight.copy_(tensors["embed.weight"])
        theirs.model.norm.weight.copy_(tensors["norm.weight"])
        for site, layer in zip(sites, theirs.model.layers, strict=True):
            prefix, owner = f"model.layers.{site.layer}.", owners.setdefault(site.layer, layer)
            for own, other in names.items():
                if not other.startswith(prefix):
                    continue
                leaf = other.removeprefix(prefix)
                if owner is layer:
                    layer.get_parameter(leaf).copy_(tensors[own])
                else:
                    module, _, name = leaf.rpartition(".")
                    setattr(layer.get_submodule(module), name, owner.get_parameter(leaf))
    return theirs
