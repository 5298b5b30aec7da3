"""What arms are matched by is equal between them, by counts that are made here in another way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import tinycore
from apps.ablate import comparison, matching, page
from apps.common import recipes, variants
from apps.common.errors import BadRequest, RunError
from tests.ablation import ablate, answered, kept, table

WIDE = """
knob: [{{model.layers.0.ffn.hidden: 1}}]
match: {match}
seeds: [0, 1]
variants:
  plain: {{note: the base}}
  wide: {{note: twice the feed-forward, overrides: {{model.layers.0.ffn.hidden: 128}}}}
  shared: {{note: one layer twice, overrides: {{model.layers.0.repeat: 1, model.depth: {{kind: shared, times: 2}}}}}}
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    return answered(tmp_path, monkeypatch)


def trained(tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, match: str) -> dict:
    table(tmp_path, tiny_recipe, WIDE.format(match=match))
    assert ablate(monkeypatch, tmp_path) == 0
    comparison.of(tmp_path / "cells")  # they compare
    return {name.removesuffix("-s0"): each for name, each in kept(tmp_path).items() if name.endswith("-s0")}


def test_flops(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, calls: Callable[[], list[str]]
) -> None:
    cells = trained(tmp_path, tiny_recipe, monkeypatch, "flops")
    # of a token, forward and backward: 6 a weight of a product; scores 12 x length x width a layer. Width 32, heads 2 over 1
    attention, row, vocabulary = 2 * (2 * 32 * 32 + 2 * 32 * 16), 64, 320
    plain = 6 * (attention + 2 * 3 * 32 * 64 + vocabulary * 32) + 2 * 12 * row * 32
    wide = plain + 6 * 2 * 3 * 32 * 64
    assert cells["wide"]["flops_per_token"] == wide
    assert cells["wide"]["steps"] == round(30 * plain / wide)
    assert cells["wide"]["recipe"]["optim"]["schedule"]["warmup"] == round(3 * cells["wide"]["steps"] / 30)
    assert cells["shared"]["steps"] == 30  # half of the parameters, the same products
    assert cells["wide"]["matched"]["by"] == "flops"
    text = page.markdown(comparison.of(tmp_path / "cells"))
    assert "Matched with plain by flops and not by tokens: shared, wide." in text


def test_parameters(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, calls: Callable[[], list[str]]
) -> None:
    cells = trained(tmp_path, tiny_recipe, monkeypatch, "parameters")
    assert cells["wide"]["parameters"] == cells["plain"]["parameters"]
    assert cells["shared"]["parameters"] == pytest.approx(cells["plain"]["parameters"], rel=0.01)
    assert cells["shared"]["overrides"]["model.layers.0.ffn.hidden"] > 128
    assert {each["steps"] for each in cells.values()} == {30}


def test_time(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, calls: Callable[[], list[str]]
) -> None:
    cells = trained(tmp_path, tiny_recipe, monkeypatch, "wall_clock")
    # the driver trains twice the feed-forward at half the speed
    assert {name: each["steps"] for name, each in cells.items()} == {"plain": 30, "wide": 15, "shared": 30}
    assert cells["wide"]["matched"] == {
        "by": "wall_clock",
        "tokens_per_second": 250.0,
        "plain_tokens_per_second": 500.0,
    }
    assert sorted(path.name for path in (tmp_path / "cells" / "calibrate").glob("*.json")) == [
        "plain-s0.json",
        "shared-s0.json",
        "wide-s0.json",
    ]
    before = len(calls())
    assert ablate(monkeypatch, tmp_path) == 0
    assert ablate(monkeypatch, tmp_path, "--seeds", "0,1,2") == 0
    assert len(calls()) == before + 3  # nothing is measured again


def test_bytes_are_those_of_the_packed_model() -> None:
    recipe = recipes.load(
        "demo", variants.as_overrides({"model.linear": {"kind": "bit"}, "model.layers.0.ffn.hidden": 385}, "")
    )
    model = tinycore.surgery.pack(tinycore.build(recipe.model))
    tensors = {id(tensor): tensor for tensor in model.state_dict().values()}.values()
    size = sum(
        tensor.numel() * (1 if tensor.dtype == torch.uint8 else 4 if tensor.dim() == 0 else 2) for tensor in tensors
    )
    assert matching.stored_bytes(recipe) == size - model.state_dict().get("heads.lm.weight", torch.zeros(0)).numel() * 2


def test_bytes(tmp_path: Path, tiny_recipe: Path) -> None:
    text = WIDE.format(match="bytes") + "  bit: {note: ternary, overrides: {model.linear: {kind: bit}}}\n"
    table(tmp_path, tiny_recipe, text)
    arms = variants.arms(tmp_path / "table.yaml", "train")
    found = matching.turned(arms["bit"], arms["plain"])
    assert matching.stored_bytes(found.recipe) == pytest.approx(matching.stored_bytes(arms["plain"].recipe), rel=0.01)
    assert tinycore.count(found.recipe.model).parameters > 2 * 28_832


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "knob: [{model.layers.0.ffn.hidden: 1}]",
            "",
            "shared: is to have plain's parameters, and the table names no knob",
        ),
        (
            "ffn.hidden: 1}",
            "ffn.hidden: 4096}",
            "wide: cannot be matched by parameters: model.layers.0.ffn.hidden gives",
        ),
        (
            "model.layers.0.ffn.hidden: 1}",
            "model.layers.0.ffn.hiden: 1}",
            "wide: cannot be matched by parameters: .*hiden",
        ),
        ("model.layers.0.ffn.hidden: 1}", "model.max_seq_len: 64}", "hardly changes it"),
        ("match: parameters", "match: parametres", "match: .*parameters"),
    ],
)
def test_what_cannot_be_matched_is_one_line(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, words: str
) -> None:
    text = WIDE.format(match="parameters")
    assert old in text
    order = "wide" if "wide" in words else "shared"
    table(tmp_path, tiny_recipe, text.replace(old, new))
    with pytest.raises(BadRequest, match=words) as caught:
        ablate(monkeypatch, tmp_path, "--only", order)
    assert "\n" not in str(caught.value)


def test_another_tokenizer_reads_the_same_text(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, calls: Callable[[], list[str]]
) -> None:
    text = """
seeds: [0]
variants:
  plain: {note: the base}
  bytes:
    note: bytes
    overrides: {data.tokenizer.vocab_size: 272, model.vocab_size: 272}
"""
    table(tmp_path, tiny_recipe, text)
    assert ablate(monkeypatch, tmp_path) == 0
    cells = kept(tmp_path)
    assert cells["bytes-s0"]["data"] != cells["plain-s0"]["data"]
    assert cells["bytes-s0"]["text"] == cells["plain-s0"]["text"]
    written = tiny_recipe.parent / "data"
    rates = {}
    for manifest in written.glob("*/manifest.json"):
        found = json.loads(manifest.read_text())
        if found["sha256"] in (cells["plain-s0"]["data"], cells["bytes-s0"]["data"]):
            rates[found["sha256"]] = found["splits"]["train"]["bytes"] / found["splits"]["train"]["tokens"]
    ours, theirs = rates[cells["bytes-s0"]["data"]], rates[cells["plain-s0"]["data"]]
    assert ours < theirs
    assert cells["bytes-s0"]["steps"] == round(30 * theirs / ours) > 30
    comparison.of(tmp_path / "cells")
    path = tmp_path / "cells" / "bytes-s0.json"
    path.write_text(path.read_text().replace('"text": "', '"text": "0'))
    with pytest.raises(RunError, match="trained on other texts"):
        comparison.of(tmp_path / "cells")


def test_another_recipe_and_another_size_are_variants(tmp_path: Path, tiny_recipe: Path) -> None:
    text = """
variants:
  plain: {note: the base}
  brandon: {note: the model and optimizer of a recipe, recipe: brandon-226k}
  larger: {note: the dial's, size: 0.5M}
"""
    table(tmp_path, tiny_recipe, text)
    arms = variants.arms(tmp_path / "table.yaml", "train")
    ours, theirs = arms["brandon"].recipe, recipes.load("brandon-226k")
    assert (ours.model.dim, ours.model.layers) == (theirs.model.dim, theirs.model.layers)
    assert (ours.data, ours.train, ours.model.vocab_size) == (
        arms["plain"].recipe.data,
        arms["plain"].recipe.train,
        320,
    )
    assert ours.optim.learning_rate == theirs.optim.learning_rate
    assert ours.optim.schedule.warmup == round(theirs.optim.schedule.warmup * 30 / theirs.train.steps)
    sized = arms["larger"].recipe
    assert tinycore.count(sized.model).parameters == pytest.approx(500_000, rel=0.02)
    assert sized.data.sources == arms["plain"].recipe.data.sources  # ty: ignore
    table(tmp_path, tiny_recipe, text.replace("note: the base", "note: the base, size: 1M"))
    with pytest.raises(BadRequest, match="needs 'plain'"):
        variants.arms(tmp_path / "table.yaml", "train")
