"""The whole systems of the seeds: with its parts switched off one is the plain hybrid, and recipes have the parts they name."""

from __future__ import annotations

from typing import Any

import pytest

import tinycore
from apps.common import recipes, variants
from tinycore import testing

SMALL = {"vocab_size": 32, "dim": 16, "max_seq_len": 64}


def shrunk(name: str, **changes: Any) -> dict[str, Any]:
    """The architecture of a recipe at 16 channels, one layer for each kind of entry."""
    found = recipes.load(name).model.to_dict() | SMALL | changes
    for layer in found["layers"]:
        layer["repeat"] = 1
        layer["ffn"]["hidden"] = 24 if layer["ffn"]["kind"] == "swiglu" else 8
        if layer["mixer"]["kind"] == "attention":
            layer["mixer"] |= {"heads": 4, "kv_heads": 1}
        if layer["mixer"]["kind"] == "titans":
            layer["mixer"] |= {"heads": 2, "chunk": 5}
    return found


def test_nanosilhouette_with_its_parts_switched_off_is_the_hybrid() -> None:
    whole, hybrid = shrunk("nanosilhouette-nano"), shrunk("nanosilhouette-nano-hybrid")
    assert [layer["ffn"]["kind"] for layer in whole["layers"]] == ["swiglu", "cms", "swiglu", "cms"]
    assert set(whole["heads"]) == {"lm", "jepa"}
    renamed = {}
    for index, layer in enumerate(whole["layers"]):
        if layer["ffn"]["kind"] == "cms":  # one level, updated every step, is a plain feed-forward
            layer["ffn"] |= {"periods": [1], "hidden": 24}
            renamed[f"layers.{index}.branches.ffn."] = f"layers.{index}.branches.ffn.levels.0.mlp."
    whole["heads"]["jepa"]["weight"] = 0.0
    hybrid["layers"].append(dict(hybrid["layers"][2]))  # whose last seven layers are one entry
    testing.identity(tinycore.ModelConfig.from_dict(whole), tinycore.ModelConfig.from_dict(hybrid), renamed)


@pytest.mark.parametrize("name", ["nanosilhouette-nano", "hope-10m"])
def test_a_whole_system_holds_together(name: str) -> None:
    config = tinycore.ModelConfig.from_dict(shrunk(name))
    if "jepa" in config.heads:
        mapping = config.to_dict()
        mapping["heads"]["jepa"] |= {"span": 2, "samples": 64}
        config = tinycore.ModelConfig.from_dict(mapping)
    for check in ("causal", "streams", "isolated", "trainable", "round_trip"):
        testing.CHECKS[check](config)


def test_hope_is_self_modifying_memory_and_three_speeds() -> None:
    layers = recipes.load("hope-10m").model.flat_layers()
    assert {(layer.mixer.kind, layer.mixer.self_modifying, layer.ffn.kind) for layer in layers} == {
        ("titans", True, "cms")
    }
    assert {layer.ffn.periods for layer in layers} == {(1, 8, 64)}


@pytest.mark.parametrize("purpose", ["train", "speed"])
def test_every_variant_of_the_table_is_a_recipe(purpose: variants.Purpose) -> None:
    assert {"plain", "cms", "jepa", "all", "hope"} <= set(variants.arms(variants.find("ablate-systems"), purpose))
