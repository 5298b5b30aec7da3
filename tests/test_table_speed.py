"""`apps/bench depth` and `routing`: every variant is measured beside plain, and the table can be made of all of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from apps.bench import depth, routing
from apps.common import variants
from apps.common.errors import BadRequest


def test_variants_are_measured_beside_plain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "depth.json"
    command = ["--only", "hourglass", "--length", "64", "--tokens", "4", "--rounds", "1", "--json", str(target)]
    assert depth.main(command) == 0
    found = json.loads(target.read_text("utf-8"))["variants"]
    assert list(found) == ["plain", "hourglass"]
    assert found["hourglass"]["training_flops_per_token"] < found["plain"]["training_flops_per_token"]
    assert all(entry["tokens_per_second"][kind]["median"] > 0 for entry in found.values() for kind in entry["ratio"])
    assert "| hourglass" in capsys.readouterr().out


def test_routing_is_measured_beside_plain(capsys: pytest.CaptureFixture[str]) -> None:
    assert routing.main(["--only", "mod,early_exit", "--length", "64", "--tokens", "4", "--rounds", "1"]) == 0
    assert "| mod " in capsys.readouterr().out


@pytest.mark.parametrize("purpose", ["train", "speed"])
@pytest.mark.parametrize(
    ("table", "names"),
    [
        ("ablate-calls", {"looped_half", "universal_act", "universal_ponder", "hourglass", "pooled", "feedback"}),
        (
            "ablate-routing",
            {"mod", "mod_half", "budget", "early_exit", "slots", "resonance", "factorised", "mtp", "jepa"},
        ),
    ],
)
def test_every_variant_of_a_table_is_a_recipe(table: str, names: set[str], purpose: variants.Purpose) -> None:
    assert names <= set(variants.arms(variants.find(table), purpose))


def test_rows_too_short_are_refused() -> None:
    with pytest.raises(BadRequest, match="--length: is shorter than a prompt of 32 and 64 new tokens"):
        depth.main(["--length", "64"])
