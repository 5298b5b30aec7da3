"""Claim: a model with several kinds of layers is drawn letter by letter, with the ratio that its layers really have."""

from __future__ import annotations

from typing import Any

import pytest

import tinycore
from apps.common import command_line, dry_run, recipes
from apps.common.console import Console
from apps.common.layer_map import LayerMap, layer_map

ATTENTION = {"kind": "attention", "heads": 2}
MAMBA = {"kind": "mamba"}
SWIGLU = {"kind": "swiglu", "hidden": 8}


def drawn(*layers: dict[str, Any]) -> LayerMap | None:
    return layer_map(
        tinycore.ModelConfig.from_dict({"vocab_size": 8, "dim": 8, "max_seq_len": 8, "layers": list(layers)})
    )


@pytest.mark.parametrize(
    ("name", "text", "ratio"),
    [
        ("nano-hybrid", "MMMMAMMM MMMM", "11:1"),
        ("micro", "MMMMAMMM MMMMAMMM", "7:1"),
        ("small", "MMMMAMMM MMMMAMMM MMMMAMMM", "7:1"),
    ],
)
def test_hybrids_of_the_blueprint(name: str, text: str, ratio: str) -> None:
    found = layer_map(recipes.load(f"nanosilhouette-{name}").model)
    assert found == LayerMap(text, {"M": "mamba + swiglu", "A": "attention + swiglu"}, ratio)


def test_layers_that_are_alike_have_no_map() -> None:
    assert drawn({"repeat": 3, "mixer": MAMBA}) is None
    assert drawn({"mixer": MAMBA}, {"repeat": 2, "layers": [{"mixer": MAMBA}]}) is None


def test_layers_that_differ_in_a_setting_are_told_apart() -> None:
    found = drawn(
        {"repeat": 2, "mixer": {**ATTENTION, "window": 4}, "ffn": SWIGLU}, {"mixer": ATTENTION, "ffn": SWIGLU}
    )
    assert found == LayerMap(
        "AAT",
        {"A": "attention + swiglu (mixer.window 4)", "T": "attention + swiglu (mixer.window null)"},
        "2:1",
    )


def test_a_layer_may_be_a_mixer_or_a_feed_forward_alone() -> None:
    found = drawn({"mixer": MAMBA}, {"ffn": SWIGLU}, {"repeat": 2, "mixer": MAMBA, "ffn": SWIGLU})
    assert found == LayerMap("MSAA", {"M": "mamba", "S": "swiglu", "A": "mamba + swiglu"}, "2:1:1")


def test_more_kinds_than_letters_have_no_map() -> None:
    layers = [{"mixer": {**ATTENTION, "window": size}} for size in range(1, 28)]
    assert drawn(*layers) is None
    found = drawn(*layers[:26])
    assert found is not None
    assert len(found.legend) == 26


def test_a_dry_run_draws_a_hybrid_and_says_how_its_state_grows(capsys: pytest.CaptureFixture[str]) -> None:
    request = command_line.parse("pretrain", ["--recipe", "nanosilhouette-nano-hybrid", "--device", "cpu", "--dry-run"])
    assert dry_run.show(request, Console()) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "layers MMMMAMMM MMMM (11:1) M mamba + swiglu, A attention + swiglu" in shown
    # eleven states of 1024 x (16 + 3), and keys and values of two heads of 64 for every token, 4 bytes each
    assert "decoding state 1.8 MiB a row at full context, 1.1 MiB after 256 tokens, 837.0 KiB after the first" in shown
    assert (11 * 1024 * 19 + 2 * 2 * 64) * 4 == 857_088
    request = command_line.parse("pretrain", ["--recipe", "brandon-10m", "--device", "cpu", "--dry-run"])
    assert dry_run.show(request, Console()) == 0
    assert "layers " not in capsys.readouterr().out.replace("12 layers", "")
