"""Llama's layout: the base decoder from other people's config and weights, equal to what they compute.

    config = llama.read_config(json.load(...))         # config.json of Llama, Mistral or Qwen3, strictly
    model = llama.load(config, tensors)                # tensors by their names there, float32 here

Llama is arXiv 2302.13971, Mistral (a window) 2310.06825, Qwen3 (a norm on queries and keys) 2505.09388.
"""

from tinycore.llama.config import LlamaError, read_config
from tinycore.llama.weights import load, tensor_names

__all__ = ["LlamaError", "load", "read_config", "tensor_names"]
