"""tinycore: tiny language models as values. See the README for a tour; every public name is listed here."""

from tinycore import checkpoint, config, llama, losses, objectives, optim, state, surgery, targets
from tinycore.checkpoint import CheckpointError, load, save
from tinycore.config import ConfigError
from tinycore.count import Count, Memory, count
from tinycore.depth import feedback as _feedback  # noqa: F401  (registers the kind)
from tinycore.depth import hourglass as _hourglass  # noqa: F401
from tinycore.depth import looped as _looped  # noqa: F401
from tinycore.depth import pooled as _pooled  # noqa: F401
from tinycore.depth import recursive as _recursive  # noqa: F401
from tinycore.depth import shared as _shared  # noqa: F401
from tinycore.depth import universal as _universal  # noqa: F401
from tinycore.embed import blt as _blt  # noqa: F401
from tinycore.embed import factorised as _factorised  # noqa: F401
from tinycore.ffns import cms as _cms  # noqa: F401
from tinycore.ffns import experts as _experts  # noqa: F401
from tinycore.ffns import moe as _moe  # noqa: F401
from tinycore.ffns import relu2 as _relu2  # noqa: F401
from tinycore.ffns import swiglu as _swiglu  # noqa: F401
from tinycore.generation import Generation, Sampling, Selective, generate, stream
from tinycore.heads import halt as _halt  # noqa: F401
from tinycore.heads import jepa as _jepa  # noqa: F401
from tinycore.heads import mtp as _mtp  # noqa: F401
from tinycore.heads import value as _value  # noqa: F401
from tinycore.linears import bit as _bit  # noqa: F401
from tinycore.linears import cola as _cola  # noqa: F401
from tinycore.linears import cola_fan as _cola_fan  # noqa: F401
from tinycore.memory import resonance as _resonance  # noqa: F401
from tinycore.memory import slots as _slots  # noqa: F401
from tinycore.mixers import attention as _attention  # noqa: F401
from tinycore.mixers import mamba as _mamba  # noqa: F401
from tinycore.mixers import memory_attention as _memory_attention  # noqa: F401
from tinycore.mixers import mlgru as _mlgru  # noqa: F401
from tinycore.mixers import titans as _titans  # noqa: F401
from tinycore.mixers import token_mlp as _token_mlp  # noqa: F401
from tinycore.model import Decoder, Output, build
from tinycore.model_config import LayerConfig, ModelConfig
from tinycore.norms import hybrid as _hybrid  # noqa: F401
from tinycore.norms import post as _post  # noqa: F401
from tinycore.residual import denseformer as _denseformer  # noqa: F401
from tinycore.residual import gated as _gated  # noqa: F401
from tinycore.residual import scaled as _scaled  # noqa: F401
from tinycore.routing import budget as _budget  # noqa: F401
from tinycore.routing import early_exit as _early_exit  # noqa: F401
from tinycore.routing import mod as _mod  # noqa: F401

__all__ = [
    "CheckpointError",
    "ConfigError",
    "Count",
    "Decoder",
    "Generation",
    "LayerConfig",
    "Memory",
    "ModelConfig",
    "Output",
    "Sampling",
    "Selective",
    "build",
    "checkpoint",
    "config",
    "count",
    "generate",
    "llama",
    "load",
    "losses",
    "objectives",
    "optim",
    "save",
    "state",
    "stream",
    "surgery",
    "targets",
]
