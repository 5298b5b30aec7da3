"""The benchmark of building blocks: counts that are the library's, ratios that are ratios, and a stop costs one variant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import tinycore
from apps.bench import blocks
from apps.common import recipes
from apps.common.errors import BadRequest, RunError

TABLE = """
train: {recipe: demo}
speed: {recipe: brandon-226k, overrides: {model.vocab_size: 512, data.tokenizer.vocab_size: 512}}
variants:
  plain: {note: the base}
  window: {note: near tokens only, overrides: {model.layers.0.mixer.window: 8}}
  looped: {note: layers called twice, overrides: {model.depth: {kind: shared, times: 2}}}
"""
BRIEF = ["--lengths", "16", "--rounds", "1"]
SHORT = ["--lengths", "16,32", "--tokens", "32", "--rounds", "2", "--precision", "fp32"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "table.yaml").write_text(TABLE)
    return tmp_path / "blocks.json"


def bench(file: Path, *argv: str) -> dict[str, Any]:
    arguments = ["--recipe", str(file.parent / "table.yaml"), "--json", str(file), *SHORT, *argv]
    assert blocks.main(arguments) == 0
    return json.loads(file.read_text())


def test_figures_of_each_variant_and_length(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = bench(file)
    assert list(document["variants"]) == ["plain", "window", "looped"]
    assert document["machine"]["threads"] == document["settings"]["threads"] == torch.get_num_threads()
    for entry in document["variants"].values():
        for length, rows in (("16", 2), ("32", 1)):
            at = entry["lengths"][length]
            assert at["rows"] == rows
            assert at["activation_bytes"] == pytest.approx(at["predicted_activation_bytes"], rel=0.05)
            assert at["peak_bytes"] == pytest.approx(at["predicted_peak_bytes"], rel=0.1)
            for name in blocks.PASSES:
                assert at["ratio"][name]["n"] == at["tokens_per_second"][name]["n"] == 2
                assert 0 < at["ratio"][name]["least"] <= at["ratio"][name]["median"] <= at["ratio"][name]["most"]
    plain, looped, window = (document["variants"][name] for name in ("plain", "looped", "window"))
    assert looped["parameters"] == plain["parameters"] == window["parameters"]
    for length in ("16", "32"):
        assert looped["lengths"][length]["state_bytes"] == 2 * plain["lengths"][length]["state_bytes"]
    assert window["lengths"]["32"]["state_bytes"] < plain["lengths"]["32"]["state_bytes"]
    shown = capsys.readouterr().out
    assert "| looped" in shown
    assert "0.0 s left" in shown


def test_the_flops_are_those_that_torch_counts(file: Path) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    found = bench(file, "--only", "looped", *BRIEF)["variants"]["looped"]["lengths"]["16"]["forward_flops_per_token"]
    recipe = recipes.from_dict(
        recipes.merge(
            recipes.read("brandon-226k"),
            blocks.variants.as_overrides(
                {
                    "model.vocab_size": 512,
                    "data.tokenizer.vocab_size": 512,
                    "model.depth": {"kind": "shared", "times": 2},
                },
                "",
            ),
        )
    )
    with torch.device("meta"):
        model = tinycore.build(recipe.model)
        tokens = torch.zeros(1, 16, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(tokens)
    assert found * 16 == counter.get_total_flops()


def test_a_stop_costs_the_variant_that_was_measured(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = blocks.measure

    def until_looped(arm: Any, *others: Any) -> Any:
        if arm.name == "looped":
            raise KeyboardInterrupt
        return measure(arm, *others)

    monkeypatch.setattr(blocks, "measure", until_looped)
    with pytest.raises(KeyboardInterrupt):
        bench(file, *BRIEF)
    first = json.loads(file.read_text())["variants"]
    assert list(first) == ["plain", "window"]
    monkeypatch.setattr(blocks, "measure", measure)
    whole = bench(file, "--resume", *BRIEF)["variants"]
    assert list(whole) == ["plain", "window", "looped"]
    assert {name: whole[name] for name in first} == first


def test_figures_of_other_settings_are_not_continued(file: Path) -> None:
    bench(file, "--only", "plain")
    for argv, words in (
        (["--rounds", "3"], "rounds 2, not 3"),
        (["--lengths", "16"], r"lengths \[16, 32\], not \[16\]"),
        (["--model.dim", "24"], "base"),
    ):
        with pytest.raises(BadRequest, match=words):
            bench(file, "--resume", *argv)
    table = file.parent / "table.yaml"
    table.write_text(TABLE.replace("recipe: brandon-226k,", "recipe: brandon-900k,"))
    with pytest.raises(BadRequest, match="'plain' was another model"):
        bench(file, "--resume")


def test_a_damaged_file_is_one_line(file: Path) -> None:
    document = bench(file, "--only", "plain")
    whole = json.dumps(document)
    del document["variants"]["plain"]["lengths"]["32"]
    for text, words in (
        (whole[:-40], "not valid JSON"),
        ("[]", "list"),
        ('{"variants": {}}', "holds no figures"),
        (whole.replace('"parameters"', '"paramters"'), "paramters"),
        (json.dumps(document), "'plain' is not whole"),
    ):
        file.write_text(text)
        with pytest.raises(RunError, match=words) as caught:
            bench(file, "--resume")
        assert "\n" not in str(caught.value)
        assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--lengths", "16,x"], "--lengths"),
        (["--lengths", "16,16"], "--lengths"),
        (["--lengths", "1"], "--lengths"),
        (["--lengths", "99999999999999"], "--lengths"),
        (["--rounds", "0"], "--rounds"),
        (["--precision", "fp8"], "fp8"),
        (["--only", "windw"], "windw"),
        (["--resume"], "--json"),
        (["--recipe", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_wrong_requests_are_one_line(argv: list[str], words: str) -> None:
    with pytest.raises(BadRequest, match=words) as caught:
        blocks.main(argv)
    assert "\n" not in str(caught.value)
