"""The registered members, each placed in a small stack, and what they declare about the invariants.

A member is found in its family's registry. `EXAMPLES` gives it settings to be tested with, under a name each; a member
may be left out of the table only if its config loads without arguments. `IDENTITIES` pairs settings of an add-on with
the settings of the stack that it must then equal. An invariant that does not hold is declared where the member is
written, with the reason: `exempt: ClassVar = {"causal": "picks its tokens over the whole sequence"}`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tinycore.config import ConfigError, Family, load
from tinycore.families import (
    IN_PLACE,
    DepthConfig,
    EmbedConfig,
    FeedForwardConfig,
    HeadConfig,
    LinearConfig,
    MemoryConfig,
    MixerConfig,
    NormConfig,
    ResidualConfig,
    RoutingConfig,
)
from tinycore.model_config import ModelConfig

Settings = Mapping[str, Any]

FAMILIES: dict[str, type[Family]] = {
    "linear": LinearConfig,
    "mixer": MixerConfig,
    "ffn": FeedForwardConfig,
    "norm": NormConfig,
    "residual": ResidualConfig,
    "depth": DepthConfig,
    "routing": RoutingConfig,
    "memory": MemoryConfig,
    "embed": EmbedConfig,
    "heads": HeadConfig,
}

PLAIN_FFN: Settings = {"kind": "swiglu", "hidden": 24}

# family -> kind -> name of the example -> settings; the stack is 16 wide, two layers, 32 tokens in the vocabulary
EXAMPLES: dict[str, dict[str, dict[str, Settings]]] = {
    "linear": {
        "dense": {"plain": {}, "bias": {"bias": True}},
        "bit": {"plain": {}, "median": {"scale": "median", "bias": True}},
        "cola": {"plain": {"rank": 6}, "quarter": {"bias": True}, "linear": {"rank": 8, "activation": "none"}},
        "cola_fan": {"plain": {"rank": 6}, "bias": {"rank": 5, "p": 0.25, "dropout": 0.0, "bias": True}},
    },
    "mixer": {
        "attention": {
            "grouped": {"heads": 4, "kv_heads": 2},
            "full": {"heads": 2, "head_dim": 6, "qk_norm": True, "theta": 100.0},
            "window": {"heads": 4, "kv_heads": 1, "window": 5},
            "periodic input": {"heads": 4, "fan": 0.125, "rotary": 2},
            "both directions": {"heads": 4, "kv_heads": 2, "causal": False, "soft_cap": 3.0},
            "first values": {"heads": 4, "kv_heads": 2, "value_residual": {}},
            "capped": {
                "heads": 4,
                "kv_heads": 2,
                "soft_cap": 2.0,
                "qk_norm": True,
                "qk_gain": 1.5,
                "rotary": 0,
                "window": 9,
            },
        },
        "mamba": {
            "paper": {"state": 4},
            "jamba": {"expand": 1, "state": 3, "conv": 2, "dt_rank": 2, "norms": True},
        },
        "mlgru": {"normed": {}, "sigmoid": {"gate": "sigmoid"}, "unbounded": {"lower_bound": False}},
        "titans": {
            "deep": {"heads": 2, "chunk": 5, "expansion": 2, "learning_rate": 0.2},
            "matrix": {
                "heads": 4,
                "chunk": 5,
                "depth": 1,
                "momentum": False,
                "conv": 3,
                "learning_rate": 0.3,
                "write_limit": None,
            },
            "self-modifying": {"heads": 2, "chunk": 5, "expansion": 1, "self_modifying": True},
        },
        "token_mlp": {"plain": {"hidden": 24}},
        "memory_attention": {"plain": {"heads": 2}},
    },
    "ffn": {
        "swiglu": {"plain": {"hidden": 24}},
        "relu2": {"plain": {"hidden": 24}, "gated": {"hidden": 24, "gated": True, "sub_norm": True}},
        "cms": {
            "chain": {"periods": [1, 2, 3], "hidden": 12},
            "branches": {"mode": "branches", "periods": [1, 8], "hidden": 12, "gate_bias": -2.0},
        },
        "experts": {
            "soft": {"hidden": 12, "router_hidden": 5},
            "top1": {"names": ["language", "logic", "world"], "mode": "top1", "hidden": 12},
        },
        "moe": {"two of four": {"experts": 4, "hidden": 12}, "one of three": {"experts": 3, "active": 1, "hidden": 12}},
    },
    "norm": {
        "pre": {"affine": {}, "without gain": {"affine": False}},
        "post": {"affine": {}, "without gain": {"affine": False}},
        "hybrid": {"affine": {}, "without gain": {"affine": False}},
        "hybrid_star": {"affine": {}},
    },
    "residual": {
        "gated": {"half open": {}, "opened": {"start": 2.0}},
        "denseformer": {"every output": {}, "sparse": {"dilation": 2, "period": 2}, "table": {"table": "rectangular"}},
        "scaled": {"stream": {}, "branches": {"branches": True}},
    },
    "depth": {
        "plain": {"plain": {}},
        "shared": {"twice": {"times": 2}, "thrice": {"times": 3}, "together": {"times": 2, "group": 2}},
        "looped": {
            "all layers": {"loops": 3, "step": "add", "injection": True, "similarity": 0.1},
            "top down": {"loops": 2, "start": 1, "step": "adaln", "feedback": True},
            "halting": {"loops": 3, "fewest": 3, "step": "add", "halt": {"threshold": 0.5, "saturation": 0.9}},
        },
        "hourglass": {
            "average": {"factors": [2], "outside": [1]},
            "linear": {"factors": [3], "outside": [1], "shorten": "linear", "lengthen": "linear"},
            "attention": {"factors": [3], "outside": [1], "shorten": "attention", "lengthen": "attention"},
            "two levels": {"factors": [2, 3], "outside": [1, 0], "shorten": "linear"},
        },
        "feedback": {
            "as published": {"kv_heads": 2, "head_dim": 4},
            "chunks": {"kv_heads": 1, "head_dim": 4, "chunk": 3},
        },
        "pooled": {
            "learned": {"outside": 1, "hidden": 5, "rate": 2.0},
            "entropy": {"outside": 1, "boundaries": "entropy", "rate": 2.5, "lag": False},
            "judge": {
                "outside": 1,
                "boundaries": "judge",
                "rate": 2.0,
                "shorten": "attention",
                "lengthen": "attention",
            },
        },
        "universal": {
            "act": {"most": 3, "bias": -1.0},
            "ponder": {"most": 3, "halting": "ponder", "step": "adaln", "prior": 0.4},
        },
        "recursive": {
            "one step": {"H_cycles": 2, "L_cycles": 2, "supervision": 1},
            "two steps": {"H_cycles": 1, "L_cycles": 1, "supervision": 2},
        },
    },
    "routing": {
        "mod": {
            "top k": {"capacity": 0.5, "gate": "sigmoid"},
            "threshold": {"capacity": 0.6, "selection": "threshold"},
        },
        "budget": {"partial": {"budget": 1.4}},
        "early_exit": {"half": {"threshold": 0.5}},
    },
    "memory": {
        "slots": {"plain": {"slots": 3, "chunk": 5}},
        "resonance": {"plain": {"buffers": 3, "inject": 0.5}},
    },
    "embed": {
        "table": {
            "tied": {},
            "untied": {"tied": False, "scale": 4.0},
            "registers": {"registers": 3, "scale": 2.0},
        },
        "blt": {
            "grams": {"ngrams": [2, 3], "buckets": 7, "judge": {"dim": 8, "heads": 2, "window": 5}},
            "judge alone": {"ngrams": [], "judge": {"dim": 8, "heads": 2, "layers": 2}},
        },
        "factorised": {
            "tied": {"channels": 6},
            "untied": {"channels": 5, "tied": False, "scale": 3.0, "registers": 2},
        },
    },
    "heads": {
        "lm": {
            "chunks": {"chunk": 7},
            "low rank": {"linear": {"kind": "cola", "rank": 5}, "chunk": 5},
            "stablemax": {"probabilities": "stablemax"},
            "scaled": {"scale": 0.25, "chunk": 7},
        },
        "halt": {"in place": {}},
        "mtp": {"three": {"tokens": 3}, "growing": {"tokens": 4, "curriculum": "forward"}},
        "value": {"plain": {}},
        "jepa": {"final": {"span": 2, "samples": 40}, "inside": {"span": 3, "tap": "0", "width": 6, "samples": 500}},
    },
}

# family -> kind -> (settings of the add-on, settings of what it must equal[, where the add-on keeps the weights of the
# latter under other names: {part of a name: what stands there instead}]); None = the stack without that family
IDENTITIES: dict[str, dict[str, tuple[tuple[Any, ...], ...]]] = {
    "linear": {
        "dense": (({"bias": True}, {}),),
        "bit": (({"bias": True}, {}),),
        "cola": (({"rank": 4, "bias": True}, {"rank": 4}),),
        "cola_fan": (({"rank": 4, "p": 0.0, "bias": True}, {"kind": "cola", "rank": 4, "bias": True}),),
    },
    "mixer": {
        "attention": (
            ({"heads": 4, "window": 20}, {"heads": 4}),
            ({"heads": 4, "kv_heads": 4, "head_dim": 4}, {"heads": 4}),
            ({"heads": 4, "value_residual": {"first": 0.0, "own": 1.0}}, {"heads": 4}),
            ({"heads": 4, "qk_gain": 1.0}, {"heads": 4}),
            ({"heads": 4, "rotary": 4}, {"heads": 4}),
        ),
        "mamba": (({"dt_rank": 1, "state": 16, "conv": 4, "expand": 2}, {}),),
        "titans": (
            ({"heads": 2, "chunk": 3, "conv": 4}, {"heads": 2, "chunk": 3, "conv": 0}),
            ({"heads": 2, "chunk": 20}, {"heads": 2, "chunk": 64}),
        ),
    },
    "ffn": {
        "cms": (({"periods": [4], "hidden": 24}, PLAIN_FFN, {"branches.ffn.": "branches.ffn.levels.0.mlp."}),),
        "experts": tuple(
            ({"names": ["all"], "mode": mode, "hidden": 24}, PLAIN_FFN, {"branches.ffn.": "branches.ffn.experts.0."})
            for mode in ("soft", "top1")
        ),
        "moe": (({"experts": 1, "active": 1, "hidden": 24}, PLAIN_FFN, {"branches.ffn.": "branches.ffn.experts.0."}),),
    },
    "norm": {"pre": (({"affine": True}, {"affine": False}),)},
    "residual": {
        "gated": (({"start": 40.0}, {"kind": "plain"}),),
        "denseformer": tuple(
            (setting, {"kind": "plain"}) for setting in ({"dilation": 1}, {"dilation": 2}, {"table": "rectangular"})
        ),
        "scaled": (({"branches": False}, {"kind": "plain"}), ({"branches": True}, {"kind": "plain"})),
    },
    "depth": {
        "shared": (({"times": 1, "group": 2}, {"kind": "plain"}),),
        "looped": (
            *(({"loops": 1, "step": step, "feedback": True}, {"kind": "plain"}) for step in ("none", "add", "adaln")),
            (
                {"loops": 3, "injection": True, "feedback": True, "step": "add"},
                {"kind": "shared", "times": 3, "group": 2},
            ),
            ({"loops": 3, "halt": {"threshold": 1.0}}, {"kind": "shared", "times": 3, "group": 2}),
        ),
        "hourglass": tuple(
            ({"factors": [1], "outside": [0], "shorten": shorten, "lengthen": lengthen}, {"kind": "plain"})
            for shorten, lengthen in (("average", "repeat"), ("linear", "linear"), ("attention", "attention"))
        ),
        "pooled": (({"boundaries": "all", "lag": False, "outside": 0}, {"kind": "plain"}),),
        "universal": tuple(
            ({"most": 1, "halting": kind, "ponder_cost": 0.0}, {"kind": "plain"}) for kind in ("act", "ponder")
        ),
    },
    "routing": {
        "mod": (
            ({"capacity": 1.0, "gate": "none", "every": 1}, None),
            ({"capacity": 1.0, "gate": "none", "selection": "threshold"}, None),
        ),
        "budget": (({"budget": 1e9}, None),),
        "early_exit": (({"threshold": 1.0}, None),),
    },
    "memory": {
        "slots": (({"slots": 3, "chunk": 5}, None),),
        "resonance": (({"inject": 0.0}, None),),
    },
    "embed": {"blt": (({"ngrams": [2, 3], "judge": {"dim": 8, "heads": 2}}, None),)},
    "heads": {
        "lm": (({"chunk": 1}, {"chunk": 1024}), ({"scale": 1.0}, {})),
        "mtp": (({"tokens": 4}, None),),
        "value": (({}, None),),
        "jepa": (({"span": 2}, None),),
    },
}


@dataclass(frozen=True)
class Member:
    """A registered component under one example's settings."""

    family: str
    kind: str
    example: str
    settings: Settings

    @property
    def config(self) -> ModelConfig:
        return stack(**{self.family: {FAMILIES[self.family].tag: self.kind, **self.settings}})

    def __str__(self) -> str:
        return f"{self.family} {self.kind} ({self.example})"


def stack(**parts: Settings) -> ModelConfig:
    """Two layers of attention and SwiGLU, 16 wide, with the named parts put in their place.

    Parts: `block`, `mixer` and `ffn` (of both layers), and the model's own keys. Raises ConfigError as `ModelConfig.from_dict`.
    """
    parts = dict(parts)
    if parts.get("heads", {}).get("kind") == "halt":  # which only recursive models that predict in place have
        parts.setdefault("depth", {"kind": "recursive", "H_cycles": 1, "L_cycles": 1, "supervision": 2})
        parts.setdefault("mixer", {"kind": "attention", "heads": 4, "kv_heads": 2, "causal": False})
    if parts.get("depth", {}).get("kind") == "recursive":  # as published: its latents are as large as what it embeds
        parts.setdefault("norm", {"placement": "post", "affine": False})
        parts.setdefault("embed", {"scale": 50.0})
    remembers = (
        ("depth", {"kind": "feedback", "kv_heads": 2, "head_dim": 4}),
        ("mixer", {"kind": "memory_attention", "heads": 4}),
    )
    if any(parts.get(name, {}).get("kind") == settings["kind"] for name, settings in remembers):
        for name, settings in remembers:
            parts.setdefault(name, settings)
    if parts.get("depth", {}).get("boundaries") == "judge":
        parts.setdefault("embed", {"kind": "blt", "ngrams": [2, 3], "buckets": 5, "judge": {"dim": 8, "heads": 2}})
    outside = parts.get("depth", {}).get("outside", 0)  # layers before and after those that see groups of tokens
    around = 2 * (sum(outside) if isinstance(outside, list) else outside)
    layer = {
        "repeat": around + 1 if around else 2,
        "block": parts.pop("block", "sequential"),
        "mixer": parts.pop("mixer", {"kind": "attention", "heads": 4, "kv_heads": 2}),
        "ffn": parts.pop("ffn", PLAIN_FFN),
    }
    head = dict(parts.pop("heads", {"kind": "lm"}))
    heads = {"lm": {}, head.pop("kind"): head}
    if "linear" in head:  # a matrix of its own
        parts.setdefault("embed", {"tied": False})
    return ModelConfig.from_dict(
        {"vocab_size": 32, "dim": 16, "max_seq_len": 64, "layers": [layer], "heads": heads, **parts}
    )


def members() -> list[Member]:
    """Every registered member, once for each of its examples."""
    found = []
    for family, cls in FAMILIES.items():
        for kind in sorted(cls.members):
            examples = EXAMPLES.get(family, {}).get(kind, {"default": {}})
            found += [Member(family, kind, name, settings) for name, settings in examples.items()]
    return found


def without_example() -> list[str]:
    """Members that have no example and cannot be built without arguments: the suite cannot cover them."""
    lacking = []
    for family, cls in FAMILIES.items():
        for kind in sorted(cls.members):
            if kind not in EXAMPLES.get(family, {}):
                try:
                    load(cls, {cls.tag: kind}, family)
                except ConfigError:
                    lacking.append(f"{family} {kind}")
    return lacking


def identities() -> list[tuple[str, ModelConfig, ModelConfig, Settings]]:
    """(name, config of the add-on, config of what it must equal, weights renamed) for every declared identity."""
    found = []
    for family, kinds in IDENTITIES.items():
        tag = FAMILIES[family].tag
        for kind, pairs in kinds.items():
            for setting, plain, *renamed in pairs:
                names = ", ".join(f"{key} {value}" for key, value in setting.items())
                added = stack(**{family: {tag: kind, **setting}})
                reference = stack() if plain is None else stack(**{family: {tag: kind, **plain}})
                found.append((f"{family} {kind} ({names})", added, reference, renamed[0] if renamed else {}))
    return found


def exemptions(config: ModelConfig) -> dict[str, str]:
    """Invariants that some component of `config` declares not to hold, with the reasons."""
    found = {name: reason for part in _components(config) for name, reason in type(part).exempt.items()}
    ahead = () if config.causal else ("learns", "mixes", "causal", "streams", "float32")
    return found | dict.fromkeys(ahead, IN_PLACE)


def _components(value: object) -> Iterator[Family]:
    if isinstance(value, Family):
        yield value
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _components(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _components(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _components(getattr(value, field.name))
