"""`apps/bench depth`: every variant is measured beside plain, and the table can be made of all of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from apps.bench import depth
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


@pytest.mark.parametrize("purpose", ["train", "speed"])
def test_every_variant_of_the_table_is_a_recipe(purpose: variants.Purpose) -> None:
    arms = variants.arms(depth.VARIANTS, purpose)
    assert {"looped_half", "universal_act", "universal_ponder", "hourglass", "pooled", "feedback"} <= set(arms)


def test_rows_too_short_are_refused() -> None:
    with pytest.raises(BadRequest, match="--length: is shorter than a prompt of 32 and 64 new tokens"):
        depth.main(["--length", "64"])
