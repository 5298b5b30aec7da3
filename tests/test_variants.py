"""The table of variants: one change a row, made as a command line would make it, and a mistake is one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tinycore
from apps.common import recipes, variants
from apps.common.command_line import Grammar, take_apart
from apps.common.errors import BadRequest
from apps.common.overrides import read
from tinycore.linears.bit import Bit

TABLE = """
train: {recipe: demo, overrides: {train.steps: 7}}
speed: {recipe: brandon-226k}
variants:
  plain: {note: the base}
  window: {note: near tokens only, train: {model.layers.0.mixer.window: 32}, speed: {model.layers.0.mixer.window: 16}}
  small: {note: narrow, overrides: {model.layers.0.ffn: {kind: swiglu, hidden: 64}, optim.learning_rate: 1.0e-3}}
"""


def write(folder: Path, text: str = TABLE) -> Path:
    (folder / "table.yaml").write_text(text)
    return folder / "table.yaml"


def test_a_variant_is_what_the_command_line_makes_of_its_overrides(tmp_path: Path) -> None:
    found = variants.arms(write(tmp_path), "train")
    assert list(found) == ["plain", "window", "small"]
    typed = ["--train.steps", "7", "--model.layers.0.ffn.hidden", "64", "--optim.learning_rate", "1e-3"]
    assert found["small"].recipe == recipes.load("demo", take_apart(typed, Grammar({}, dotted=True)).overrides)
    assert found["plain"].recipe == recipes.load("demo", [read("train.steps", "7")])
    assert found["small"].recipe.train == found["plain"].recipe.train


def test_each_purpose_has_its_base_and_sizes(tmp_path: Path) -> None:
    path = write(tmp_path)
    for purpose, window in (("train", 32), ("speed", 16)):
        (layer, *_) = variants.arms(path, purpose)["window"].recipe.model.layers
        assert layer.mixer.window == window  # ty: ignore
    assert variants.arms(path, "speed")["plain"].recipe == recipes.load("brandon-226k")


def test_changes_of_the_base_reach_every_variant(tmp_path: Path) -> None:
    found = variants.arms(write(tmp_path), "train", changes=[read("model.dim", "64"), read("train.steps", "3")])
    assert {(arm.recipe.model.dim, arm.recipe.train.steps) for arm in found.values()} == {(64, 3)}


def test_the_chosen_ones_come_with_plain(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert list(variants.arms(path, "train", "small")) == ["plain", "small"]
    assert list(variants.arms(path, "train", "small, window")) == ["plain", "window", "small"]
    assert list(variants.arms(path, "train", "plain")) == ["plain"]


def test_every_variant_of_the_blocks_can_be_made_and_changes_something() -> None:
    for purpose in ("train", "speed"):
        found = variants.arms(variants.find(variants.DEFAULT), purpose)
        plain = found[variants.PLAIN].recipe
        assert all((arm.recipe == plain) == (name == variants.PLAIN) for name, arm in found.items())
        for arm in found.values():
            assert tinycore.count(arm.recipe.model).parameters > 0
            assert arm.note


def both(path: Path) -> None:
    variants.arms(path, "train")
    variants.arms(path, "speed")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("window: 32", "windw: 32", ["variant 'window'", "model.layers.0.mixer", "windw", "'window'"]),
        ("kind: swiglu", "kind: moee", ["variant 'small'", "model.layers.0.ffn.kind", "moee"]),
        ("model.layers.0.ffn:", "model.layers.9.ffn:", ["variant 'small'", "'9'"]),
        ("model.layers.0.ffn:", "model..ffn:", ["model..ffn", "empty"]),
        ("optim.learning_rate", "train.batch_size", ["variants.small", "train.batch_size"]),
        ("  small:", "  sm/all:", ["sm/all", "name"]),
        ("  plain: {note: the base}", "", ["needs 'plain'"]),
        ("note: the base", "note: the base, overrides: {model.dim: 8}", ["needs 'plain'"]),
        ("note: narrow", "notes: narrow", ["variants.small", "notes", "note"]),
        ("recipe: demo", "recipe: dmo", ["dmo", "demo"]),
        ("train.steps: 7", "train.step: 7", ["train", "step"]),
        ("window: 16", "window: 0", ["variant 'window'", "window: 0"]),
    ],
)
def test_a_mistake_is_one_line_naming_it(tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    assert old in TABLE
    path = write(tmp_path, TABLE.replace(old, new))
    with pytest.raises(BadRequest) as caught:
        both(path)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_unknown_names_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="unknown variant 'windw'; did you mean 'window'"):
        variants.arms(write(tmp_path), "train", "windw")
    with pytest.raises(BadRequest, match="cannot be read"):
        variants.arms(tmp_path / "none.yaml", "train")


@pytest.mark.parametrize("purpose", ["train", "speed"])
def test_wide_ternary_models_have_the_bytes_of_the_plain_one(purpose: str) -> None:
    """Weights of linears in two bits each, everything else in bf16."""

    def size(name: str) -> float:
        arm = variants.arms(variants.find(variants.DEFAULT), purpose, name)[name]
        with torch.device("meta"):
            model = tinycore.build(arm.recipe.model)
        ternary = sum(module.weight.numel() for module in model.modules() if isinstance(module, Bit))
        return ternary / 4 + 2 * (sum(parameter.numel() for parameter in model.parameters()) - ternary)

    assert size("bit_equal_bytes") == pytest.approx(size("plain"), rel=0.02)
