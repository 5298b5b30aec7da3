"""Claim: what `train.freeze` names stays as it is, to the bit, whatever trains the rest, and is named in one line where it
cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tinycore
from apps.common import checkpoints, command_line, dry_run, freezing, recipes
from apps.common.console import Console
from tinycore.config import ConfigError

Sessions = Callable[[Sequence[dict[str, Any]]], Any]
PATTERNS = ["embed.*", "layers.0.*"]
OPTIMIZERS = {
    "adamw": ["--optim.kind", "adamw"],
    "muon": ["--optim.kind", "muon"],
    "muon and average": ["--optim.kind", "muon", "--train.ema", "0.9"],
}


def frozen(name: str) -> bool:
    return name.startswith(("embed.", "layers.0."))


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_frozen_bytes_stay_and_the_others_move(
    sessions: Sessions, tiny_recipe: Path, tmp_path: Path, kind: str
) -> None:
    """Also stopped and resumed, by bits; with no state of the optimizer and no average of what is frozen."""
    whole, parts = (tmp_path / "runs" / name for name in ("whole", "parts"))
    argv = ["--recipe", str(tiny_recipe), *OPTIMIZERS[kind], "--train.freeze", json.dumps(PATTERNS), "--out"]
    first, stopped, resumed, changed = sessions(
        [
            {"argv": [*argv, str(whole)]},
            {"argv": [*argv, str(parts)], "hurt": {"step": 6, "signal": 15}},
            {"argv": ["--resume", str(parts)]},
            {"argv": ["--resume", str(parts), "--train.freeze", "[embed.*]", "--train.steps", "14", "--allow-changes"]},
        ]
    )
    assert (first.codes, stopped.codes, resumed.codes) == ([0], [3], [0]), first.err + stopped.err + resumed.err
    assert changed.codes == [2]
    assert "train.freeze: the run has ['embed.*', 'layers.0.*'], the request ['embed.*']" in changed.err
    assert (whole / "metrics.jsonl").read_bytes() == (parts / "metrics.jsonl").read_bytes()

    torch.manual_seed(0)
    before = dict(tinycore.build(recipes.load(whole / "recipe.yaml").model).named_parameters())
    last = whole / "checkpoints" / "step_00000012"
    after = load_file(last / "model.safetensors")
    assert {name: torch.equal(after[name], parameter) for name, parameter in before.items()} == {
        name: frozen(name) for name in before
    }
    state = {key.rpartition("/")[0] for key in load_file(last / "optimizer.safetensors")}
    assert state == {name for name in before if not frozen(name)}
    used = dict(checkpoints.load_model(last).named_parameters())
    assert all(torch.equal(used[name], parameter) == frozen(name) for name, parameter in before.items())
    left = sum(parameter.numel() for name, parameter in before.items() if not frozen(name))
    assert f"28,832 parameters, {left:,} of them trained on 1 process" in first.out
    assert (parts / "checkpoints" / last.name / "model.safetensors").read_bytes() == (
        last / "model.safetensors"
    ).read_bytes()


def test_the_dry_run_counts_what_is_trained(tiny_recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request = command_line.parse(
        "pretrain", ["--recipe", str(tiny_recipe), "--train.freeze", "[embed.*]", "--dry-run", "--json"]
    )
    assert dry_run.show(request, Console(json=True)) == 0
    shown = capsys.readouterr()
    plan = json.loads(shown.out.splitlines()[-1])
    assert plan["trained_parameters"] == plan["parameters"] - 320 * 32
    assert f"trained         {plan['trained_parameters']:,}, train.freeze keeps 10,240 as they are" in shown.err


@pytest.mark.parametrize(
    ("patterns", "words"),
    [
        (["layer.0.*"], ["'layer.0.*' matches no parameter", "layers.0."]),
        (["embed.*", "heads.lm.linear.weight"], ["'heads.lm.linear.weight'"]),  # tied: it is embed.weight
        (["*"], ["nothing would be trained"]),
    ],
)
def test_what_cannot_be_frozen_is_one_line(
    sessions: Sessions, tiny_recipe: Path, tmp_path: Path, patterns: list[str], words: list[str]
) -> None:
    run = tmp_path / "runs" / "a"
    argv = ["--recipe", str(tiny_recipe), "--out", str(run), "--train.freeze", json.dumps(patterns)]
    (result,) = sessions([{"argv": argv}])
    assert result.codes == [2]
    (line,) = result.err.splitlines()
    assert line.startswith("error: train.freeze: ")
    assert all(word in line for word in words), line
    assert not run.exists()


def test_patterns_span_dots_and_adapters_freeze_by_themselves(tiny_recipe: Path) -> None:
    names = ["embed.weight", "layers.0.branches.mixer.q.weight", "layers.1.branches.mixer.q.weight", "norm.weight"]
    assert freezing.matched(names, ["*.mixer.*"]) == set(names[1:3])
    assert freezing.matched(names, ["layers.[01].*", "norm.weight"]) == set(names[1:])
    assert freezing.matched(names, []) == set()
    mapping = recipes.to_dict(recipes.load(tiny_recipe))
    mapping["train"] |= {"freeze": ["embed.*"], "lora": {"rank": 2}}
    with pytest.raises(ConfigError, match="leave one of freeze and lora out"):
        recipes.from_dict(mapping)
