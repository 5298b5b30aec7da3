"""Claim: every setting of a recipe has a verdict for when it changes between a saved run and a request to resume it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from apps.common import compare, recipes

REPORTING = {
    "description",
    "data.cache",
    "data.tokenizer.kind",
    "data.tokenizer.vocab_size",
    "train.spikes.window",
    "train.spikes.deviations",
    "train.log_every",
    "train.norms_every",
    "train.max_hours",
    "train.validate_every",
    "train.validate_rows",
    "train.save_every",
    "train.keep",
    "train.sample_every",
    "train.trackers",
    "train.mirror",
    "sample.prompts",
    "sample.max_new_tokens",
    "sample.temperature",
    "sample.top_p",
}
NUMERICS = {"train.micro_batch", "train.sharding", "train.compile", "train.recompute"}


def test_the_verdict_on_every_field(tiny_recipe: Path) -> None:
    """A field that is new and not named here must be architecture or need permission: the safe side."""
    keys = compare.flatten(recipes.to_dict(recipes.load(tiny_recipe)))
    for key in keys:
        if key.startswith(("model.", "train.lora.")) or key in ("train.lora", "train.freeze"):
            expected = "architecture"
        else:
            expected = "reporting" if key in REPORTING else "numerics" if key in NUMERICS else "training"
        assert compare.verdict_of(key) == expected, key
    assert keys.keys() >= REPORTING | NUMERICS
    assert {key for key in keys if compare.verdict_of(key) == "training"} >= {
        "optim.learning_rate",
        "optim.schedule.warmup",
        "data.sources.0.path",
        "data.sequence_length",
        "train.steps",
        "train.batch_size",
        "train.seed",
        "train.precision",
    }


@pytest.mark.parametrize(
    ("key", "verdict"),
    [
        ("tokenizer", "architecture"),
        ("dataset.train", "training"),
        ("environment.torch", "numerics"),
        ("environment.processes", "numerics"),
        ("something.new", "training"),
    ],
)
def test_the_verdict_on_what_is_not_in_the_recipe(key: str, verdict: str) -> None:
    assert compare.verdict_of(key) == verdict


def test_differences_are_found_and_shown_side_by_side(tiny_recipe: Path) -> None:
    saved = recipes.load(tiny_recipe)
    assert compare.differences(recipes.to_dict(saved), recipes.to_dict(saved)) == []
    changed = replace(
        saved,
        optim=replace(saved.optim, learning_rate=0.5),
        train=replace(saved.train, micro_batch=2),
        model=replace(saved.model, dim=64),
    )
    found = compare.differences(recipes.to_dict(saved), recipes.to_dict(changed))
    assert {entry.key: (entry.saved, entry.requested, entry.verdict) for entry in found} == {
        "model.dim": (32, 64, "architecture"),
        "optim.learning_rate": (0.01, 0.5, "training"),
        "train.micro_batch": (4, 2, "numerics"),
    }
    assert compare.side_by_side(found).splitlines() == [
        "  model.dim            32 -> 64",
        "  optim.learning_rate  0.01 -> 0.5",
        "  train.micro_batch    4 -> 2",
    ]


def test_added_and_removed_values_are_differences() -> None:
    old, new = {"optim": {"a": 1, "b": [1, 2]}}, {"optim": {"b": [1, 3], "c": None}}
    assert [(entry.key, entry.saved, entry.requested) for entry in compare.differences(old, new)] == [
        ("optim.a", 1, None),
        ("optim.b", [1, 2], [1, 3]),
        ("optim.c", None, None),
    ]
    layered = {"layers": [{"repeat": 1}, {"repeat": 2}]}
    assert compare.flatten(layered) == {"layers.0.repeat": 1, "layers.1.repeat": 2}


def test_the_environment_is_what_exactness_depends_on() -> None:
    found = compare.environment(torch.device("cpu"), processes=2)
    assert found.keys() == {"torch", "python", "device", "instructions", "threads", "processes"}
    assert found["torch"] == torch.__version__
    assert found["processes"] == 2
    assert found["threads"] == torch.get_num_threads()
