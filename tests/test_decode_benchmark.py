"""`apps/bench decode`: every way that a trained model can be decoded in is measured, and one that has none is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from apps.bench import decode
from apps.common.errors import BadRequest

Sessions = Callable[[Sequence[dict[str, Any]]], Any]
HEADS = ["--model.heads.mtp", "{tokens: 3}", "--model.heads.jepa", "{span: 2}", "--model.routing", "{kind: early_exit}"]


def trained(sessions: Sessions, recipe: Path, directory: Path, *changes: str) -> Path:
    """A run of two steps."""
    (done,) = sessions([{"argv": ["--recipe", str(recipe), "--train.steps", "2", *changes, "--out", str(directory)]}])
    assert done.codes == [0], done.err
    return directory


def test_every_way_is_measured_beside_plain(
    sessions: Sessions, tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "decode.json"
    path = trained(sessions, tiny_recipe, tmp_path / "run", *HEADS)
    assert decode.main([str(path), "--prompts", "2", "--tokens", "20", "--rounds", "1", "--json", str(target)]) == 0
    ways = json.loads(target.read_text("utf-8"))["ways"]
    assert list(ways)[:3] == ["plain", "speculative", "early exit at 0.3"]
    assert {"early exit at 0.99", "selective at 0"} <= set(ways)
    for name in ("plain", "speculative", "early exit at 0.99", "selective at 0"):  # nobody is that sure after two steps
        assert (ways[name]["as_plain"], ways[name]["same_texts"]) == (1.0, 1.0)
    assert ways["selective at 0"]["saved"].startswith("0 %")
    assert "| speculative " in capsys.readouterr().out
    assert decode.main([str(path), "--prompt", "the old river", "--tokens", "4", "--rounds", "1"]) == 0
    assert "Prompts: 1, each continued by 4 tokens" in capsys.readouterr().out


def test_a_model_that_saves_nothing_is_refused_in_one_line(
    sessions: Sessions, tiny_recipe: Path, tmp_path: Path
) -> None:
    path = trained(sessions, tiny_recipe, tmp_path / "run")
    with pytest.raises(BadRequest, match="has no mtp or jepa head and no early exit"):
        decode.main([str(path), "--prompts", "1", "--tokens", "8"])
    with pytest.raises(BadRequest, match="--tokens: 400 and a prompt of 32 exceed the context of 64 tokens"):
        decode.main([str(path), "--tokens", "400"])
