"""`apps/bench experts`: what a source loses without an expert is the difference of its losses, row by row."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from apps.bench import experts
from apps.common import recipes, strict_yaml
from apps.common.errors import BadRequest

Sessions = Callable[[Sequence[dict[str, Any]]], Any]


def test_each_expert_is_silenced_in_turn(
    sessions: Sessions, tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = recipes.to_dict(recipes.load(tiny_recipe))
    plain["model"]["layers"][0]["ffn"] = {"kind": "experts", "hidden": 32}
    for name, word in (("words", "over the green hills "), ("sums", "1 + 1 = 2. ")):
        text = "\n###\n".join(word * (3 + index % 4) + str(index) for index in range(200))
        (tmp_path / f"{name}.txt").write_text(text)
    files = {name: str(tmp_path / f"{name}.txt") for name in ("words", "sums")}
    plain["data"]["sources"] = [{"kind": "files", "path": path, "separator": "###"} for path in files.values()]
    plain["data"]["experts"] = {"language": [files["words"]], "logic": [files["sums"]]}
    plain["train"]["steps"] = 4
    recipe, run, target = tmp_path / "labelled.yaml", tmp_path / "runs" / "labelled", tmp_path / "found.json"
    recipe.write_text(strict_yaml.dump(plain))
    (done,) = sessions([{"argv": ["--recipe", str(recipe), "--out", str(run)]}])
    assert done.codes == [0], done.err
    assert experts.main([str(run), "--rows", "8", "--json", str(target)]) == 0
    found = json.loads(target.read_text("utf-8"))["sources"]
    assert set(found) == set(files.values())
    for entry in found.values():
        assert entry["targets"] > 50
        assert all(
            abs(entry[name]["gain"]) < 1 and entry[name]["standard_error"] >= 0 for name in ("language", "logic")
        )
    assert "without logic" in capsys.readouterr().out


def test_gains_are_per_target_and_paired_by_row() -> None:
    scored = {
        experts.ALL: {"a": {0: (10.0, 5), 1: (4.0, 5)}, "b": {}},
        "logic": {"a": {0: (12.0, 5), 1: (8.0, 5)}, "b": {}},
    }
    found = experts.compare(scored, ["a", "b"], ["logic"])
    assert list(found) == ["a"]
    assert found["a"]["loss"] == 1.4
    assert found["a"]["logic"]["gain"] == pytest.approx(0.6)
    assert found["a"]["logic"]["standard_error"] == pytest.approx(2**0.5 / 10)


def test_a_run_without_labels_is_refused_in_one_line(sessions: Sessions, tiny_recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "plain"
    (done,) = sessions([{"argv": ["--recipe", str(tiny_recipe), "--train.steps", "1", "--out", str(run)]}])
    assert done.codes == [0], done.err
    with pytest.raises(BadRequest, match=r"no source of its data is told an expert \(data.experts\)"):
        experts.main([str(run)])
