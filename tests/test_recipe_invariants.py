"""Every recipe's architecture, shrunk, holds the invariants that its components declare, and learns the next token.

Shrinking keeps what an architecture is (kinds, flags, ratios of heads, the order of layers) and takes away its size, so
that recipes of one family become the same small model and are tested once.
"""

from __future__ import annotations

import functools
import json
from math import gcd
from typing import Any

import pytest

import tinycore
from apps.common import recipes
from tinycore import testing
from tinycore.mixers.attention import Attention

# `compiled` is left to the members' own tests: tracing takes longer than all of these together
INVARIANTS = [name for name in testing.CHECKS if name != "compiled"]
CHANNELS = 4  # of an attention head
SIZES = {
    "hidden": 24,
    "head_dim": CHANNELS,
    "state": 4,
    "chunk": 5,
    "window": 6,
    "rank": 8,
    "experts": 3,
    "H_cycles": 2,
    "L_cycles": 2,
    "supervision": 2,
    "loops": 2,
    "most": 2,
    "times": 2,
    "buckets": 7,
    "slots": 3,
    "span": 3,
}  # what a key that is a size becomes, wherever it stands and is not null


def shrunk(config: tinycore.ModelConfig) -> dict[str, Any]:
    plain = shrink_sizes(config.to_dict())
    heads = [head for layer in plain["layers"] for head in shrink_layer(layer)]
    depth = plain["depth"]
    if "group" in depth:
        depth["group"] = min(depth["group"], sum(layer["repeat"] for layer in plain["layers"]))
    if "outside" in depth:  # a layer on tokens, one on groups of them, one on tokens
        several = isinstance(depth["outside"], list)
        depth["outside"] = [1] if several else 1
        plain["layers"][0]["repeat"] = 3
    if "judge" in plain["embed"]:
        plain["embed"]["judge"] |= {"dim": 2 * CHANNELS, "heads": 2}
    if "after" in (plain["routing"] or {}):
        plain["routing"]["after"] = None  # half-way
    if depth.get("fewest") is not None:
        depth["fewest"] = depth["loops"]  # how much a pass computes is no longer drawn
    return {**plain, "vocab_size": 32, "dim": CHANNELS * max(heads, default=CHANNELS), "max_seq_len": 64}


def shrink_sizes(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: SIZES[k] if k in SIZES and v is not None else shrink_sizes(v) for k, v in value.items()}
    return [shrink_sizes(item) for item in value] if isinstance(value, list) else value


def shrink_layer(layer: dict[str, Any]) -> list[int]:
    """Make a layer or group small in place; returns the numbers of query heads left in it."""
    layer["repeat"] = min(layer["repeat"], 2)
    mixer = layer["mixer"]
    heads = []
    if mixer is not None and "heads" in mixer and "kv_heads" not in mixer:
        heads.append(mixer["heads"])
    elif mixer is not None and "heads" in mixer:
        groups = mixer.get("kv_heads") or mixer["heads"]
        common = gcd(mixer["heads"], groups)
        several = max(1, 4 * common // mixer["heads"])  # a model of one or two heads is too narrow to learn anything
        mixer["heads"], mixer["kv_heads"] = (count // common * several for count in (mixer["heads"], groups))
        heads.append(mixer["heads"])
    return heads + [head for inner in layer["layers"] or [] for head in shrink_layer(inner)]


@functools.cache
def held(invariant: str, plain: str) -> None:
    testing.CHECKS[invariant](tinycore.ModelConfig.from_dict(json.loads(plain)))


# that mixers mix is held by their members' own tests each time, for whole recipes where slow tests are asked for
@pytest.mark.parametrize(
    "invariant",
    [pytest.param(name, marks=[pytest.mark.slow] if name == "mixes" else []) for name in INVARIANTS],
)
@pytest.mark.parametrize("name", recipes.names())
def test_recipe(name: str, invariant: str) -> None:
    plain = shrunk(recipes.load(name).model)
    if invariant not in testing.exemptions(tinycore.ModelConfig.from_dict(plain)):
        held(invariant, json.dumps(plain, sort_keys=True))


@pytest.mark.parametrize("name", recipes.names())
def test_shrinking_keeps_the_kinds_and_the_ratio_of_heads(name: str) -> None:
    large = recipes.load(name).model
    small = tinycore.ModelConfig.from_dict(shrunk(large))
    assert tinycore.count(small).parameters < 40_000
    for family in ("depth", "norm", "residual", "embed", "linear"):
        assert type(getattr(small, family)) is type(getattr(large, family))
    assert {kinds(layer) for layer in small.flat_layers()} == {kinds(layer) for layer in large.flat_layers()}
    for before, after in zip(attentions(large), attentions(small), strict=False):
        assert before.heads / before.groups == after.heads / after.groups


def kinds(layer: tinycore.LayerConfig) -> tuple[type, ...]:
    return type(layer.mixer), type(layer.ffn)


def attentions(config: tinycore.ModelConfig) -> list[Attention.Config]:
    return [layer.mixer for layer in config.flat_layers() if isinstance(layer.mixer, Attention.Config)]
