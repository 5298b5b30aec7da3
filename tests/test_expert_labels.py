"""Claim: what a recipe says of its sources reaches the routers of the cognitive experts and nothing else, and a name that
is none is one line."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from apps.common import overrides, recipes, strict_yaml
from apps.common.console import Console
from apps.common.data import prepare
from apps.common.errors import BadRequest
from tinycore import ConfigError

Sessions = Callable[[Sequence[dict[str, Any]]], Any]


@pytest.fixture(scope="module")
def recipe(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny recipe with two experts and two sources, words and sums, which the router is told apart."""
    folder = tmp_path_factory.mktemp("labelled")
    chance = random.Random(0)
    words = (tiny_recipe.parent / "text.txt").read_text().split("\n###\n")[:300]
    sums = [" ".join(f"{chance.randrange(99)} + {chance.randrange(99)} ." for _ in range(8)) for _ in range(300)]
    for name, documents in (("words", words), ("sums", sums)):
        (folder / f"{name}.txt").write_text("\n###\n".join(documents))
    plain = recipes.to_dict(recipes.load(tiny_recipe))
    plain["model"]["layers"][0]["ffn"] = {"kind": "experts", "hidden": 32, "supervision": 1.0, "balance": 0.0}
    plain["data"]["sources"] = [
        {"kind": "files", "path": str(folder / f"{name}.txt"), "separator": "###"} for name in ("words", "sums")
    ]
    plain["data"]["cache"] = str(folder / "data")
    plain["data"]["experts"] = {"language": [str(folder / "words.txt")], "logic": [str(folder / "sums.txt")]}
    file = folder / "labelled.yaml"
    file.write_text(strict_yaml.dump(plain))
    return file


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_routers_learn_what_sources_are_for(sessions: Sessions, recipe: Path, tmp_path: Path) -> None:
    told, alone, two = (tmp_path / "runs" / name for name in ("told", "alone", "two"))
    start = ["--recipe", str(recipe), "--train.steps", "30", "--train.log_every", "10", "--out"]
    results = sessions(
        [
            {"argv": [*start, str(told)]},
            {"argv": [*start, str(alone), "--data.experts", "{}", "--model.layers.0.ffn.balance", "0.01"]},
            {"argv": [*start, str(two), "--train.micro_batch", "4"], "world": 2},
        ]
    )
    assert [result.codes for result in results] == [[0], [0], [0, 0]], [result.err for result in results]
    logged = [row for row in rows(told) if "loss" in row]
    assert logged[-1]["experts/agreement"] > 0.9
    assert logged[-1]["loss/routing"] < 0.5 * logged[0]["loss/routing"]
    assert 0.3 < logged[-1]["experts/usage/logic"] < 0.8
    assert not {"experts/agreement", "loss/routing"} & {name for row in rows(alone) for name in row}
    assert any("loss/balance" in row for row in rows(alone))
    # two processes see the same rows and labels
    shared = [row for row in rows(two) if "loss" in row]
    for name in ("loss", "experts/agreement", "loss/routing"):
        assert shared[-1][name] == pytest.approx(logged[-1][name], rel=0.02), name


def test_names_that_are_none_are_one_line(sessions: Sessions, recipe: Path, tmp_path: Path) -> None:
    start = ["--recipe", str(recipe), "--out", str(tmp_path / "runs" / "a")]
    unknown, nowhere = sessions(
        [
            {"argv": [*start, "--data.experts.logik", "[a]"]},
            {"argv": [*start, "--data.experts", "{logic: [sums]}"]},
        ]
    )
    for result, line in ((unknown, "unknown expert of the model 'logik'; did you mean 'logic'?"), (nowhere, "'sums'")):
        assert result.codes == [2]
        (said,) = [line for line in result.err.splitlines() if line.startswith("error: ")]
        assert "data.experts: unknown" in said
        assert line in said


def test_data_of_an_earlier_version_is_refused_in_one_line(recipe: Path, tmp_path: Path) -> None:
    chosen = recipes.load(recipe, [overrides.read("data.cache", str(tmp_path / "data"))])
    prepared = prepare(chosen, Console(json=True))
    for split in ("train", "validation"):
        file = prepared.directory / split / "manifest.json"
        manifest = json.loads(file.read_text())
        del manifest["source_runs"]
        file.write_text(json.dumps(manifest))
    with pytest.raises(BadRequest, match=f"{prepared.directory}: prepared by an earlier version.*remove it"):
        prepare(chosen, Console(json=True))
    unlabelled = recipes.load(
        recipe, [overrides.read("data.cache", str(tmp_path / "data")), overrides.read("data.experts", "{}")]
    )
    assert prepare(unlabelled, Console(json=True)).key == prepared.key


def test_a_recipe_that_contradicts_itself_is_refused(recipe: Path) -> None:
    plain = strict_yaml.read(recipe)
    plain["data"]["experts"] = {"language": ["a", "b"], "logic": ["b"]}
    with pytest.raises(ConfigError, match=r"data\.experts: source 'b' is given to an expert twice"):
        recipes.from_dict(plain)
    plain["data"]["experts"] = {"language": ["a"]}
    layer = plain["model"]["layers"][0]
    plain["model"]["layers"].append({**layer, "ffn": {"kind": "experts", "names": ["logic", "language"]}})
    with pytest.raises(ConfigError, match="experts differ between layers"):
        recipes.from_dict(plain)


def test_numbers_are_the_model_s(recipe: Path) -> None:
    folder = recipe.parent
    labels = recipes.load(recipe).expert_labels()
    assert labels == {str(folder / "words.txt"): 0, str(folder / "sums.txt"): 1}
    assert recipes.load("demo").expert_labels() is None
