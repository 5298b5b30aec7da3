"""Successive halving finds a planted optimum, goes on where it was stopped, and writes a recipe that pretrain takes."""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from apps.ablate import cell, plan, search
from apps.ablate.__main__ import run as ablate_app
from apps.ablate.cell import Cell
from apps.ablate.schedule import Outcome, Task
from apps.common import recipes
from apps.common.console import Console
from apps.common.errors import BadRequest
from apps.common.variants import Table
from tests.ablation import answered

FILE = """
train: {{recipe: {recipe}, overrides: {{train.steps: 40, optim.schedule.warmup: 4}}}}
space:
  optim.learning_rate: {{log: [1.0e-4, 1.0e-1]}}
  optim.weight_decay: {{linear: [0.0, 0.4]}}
  model.layers.0.ffn.hidden: {{linear: [16, 128], multiple: 8}}
  model.norm.affine: {{choices: [true, false]}}
trials: 27
first: 2
rungs: 3
seed: 5
"""
QUIET = Console(main_process=False)


@pytest.fixture
def file(tmp_path: Path, tiny_recipe: Path) -> Path:
    (tmp_path / "search.yaml").write_text(FILE.format(recipe=tiny_recipe))
    return tmp_path / "search.yaml"


def planted(task: Task, chance: random.Random) -> float:
    """Best at a rate of 3e-3 and a decay of 0.1; the shorter the run, the more of it is chance."""
    optim = task.recipe.optim
    distance = abs(math.log10(optim.learning_rate / 3e-3)) + 4 * abs(optim.weight_decay - 0.1)  # ty: ignore
    return 1.0 + distance + 0.5 * chance.random() / task.steps


class Surrogate:
    """Trains nothing: writes the cells that the planted function says, `most` of them."""

    def __init__(self, most: int = 1000) -> None:
        self.most, self.trained = most, []

    def __call__(self, tasks: Sequence[Task]) -> Outcome:
        for at, task in enumerate(tasks):
            if len(self.trained) == self.most:
                return Outcome(at, {}, "SIGTERM")
            self.trained.append((task.folder.name, task.arm.name))
            task.folder.mkdir(parents=True, exist_ok=True)
            found = Cell(
                variant=task.arm.name,
                seed=task.seed,
                status="done",
                reason=None,
                overrides=task.arm.overrides,
                steps=task.steps,
                tokens=100,
                parameters=1,
                flops_per_token=1.0,
                val_bpb=planted(task, random.Random(f"{task.arm.name} {task.steps}")),
                seconds=1.0,
                tokens_per_second=1.0,
                jobs=1,
                data=task.data,
                environment={},
                recipe=cell.recorded(task.recipe),
                text=task.text,
            )
            cell.write(task.folder, found)
        return Outcome(len(tasks), {})


def planned(file: Path, out: Path) -> tuple[search.Search, plan.Plan]:
    wanted = search.read(file)
    arms = search.arms(file, wanted)
    return wanted, plan.of(out, Table(train=wanted.train, variants={}), arms, "fp32", QUIET)


def test_the_planted_optimum_is_found(file: Path, tmp_path: Path) -> None:
    wanted, there = planned(file, tmp_path / "out")
    runner = Surrogate()
    found = search.run(wanted, there, QUIET, runner)
    assert isinstance(found, search.Found)
    # 27 of 2 steps, 9 of 6, 3 of 18
    assert [len(cells) for cells in found.rungs] == [27, 9, 3]
    assert [{each.steps for each in cells} for cells in found.rungs] == [{2}, {6}, {18}]
    trials = {name: arm for name, arm in there.arms.items() if name != "plain"}
    assert len(trials) == 27
    quiet = {
        name: abs(math.log10(arm.recipe.optim.learning_rate / 3e-3)) + 4 * abs(arm.recipe.optim.weight_decay - 0.1)  # ty: ignore
        for name, arm in trials.items()
    }
    assert sorted(quiet, key=lambda name: quiet[name])[0] == found.best.variant
    assert {arm.recipe.model.layers[0].ffn.hidden % 8 for arm in trials.values()} == {0}  # ty: ignore
    assert {arm.recipe.model.norm.affine for arm in trials.values()} == {True, False}
    rates = [arm.recipe.optim.learning_rate for arm in trials.values()]
    assert 1e-4 <= min(rates) < 1e-3 < 1e-2 < max(rates) <= 1e-1
    drawn = {key: found.best.overrides[key] for key in wanted.space}
    path = search.write(found, there.plain, tmp_path, drawn)
    best = recipes.load(path)
    assert (best.train.steps, best.optim.schedule.warmup, best.train.seed) == (40, 4, 0)
    assert best == there.arms[found.best.variant].recipe
    assert search.markdown(wanted, found).count("\n") == 28


def test_a_stopped_search_goes_on(file: Path, tmp_path: Path) -> None:
    wanted, there = planned(file, tmp_path / "whole")
    whole = search.run(wanted, there, QUIET, Surrogate())
    there = replace(there, out=tmp_path / "stopped")
    first, second = Surrogate(most=30), Surrogate()
    outcome = search.run(wanted, there, QUIET, first)
    assert isinstance(outcome, Outcome)
    assert outcome.stopped == "SIGTERM"
    found = search.run(wanted, there, QUIET, second)
    assert isinstance(found, search.Found)
    assert isinstance(whole, search.Found)
    assert len(second.trained) == 39 - 30
    assert not set(first.trained) & set(second.trained)
    assert [[each.variant for each in cells] for cells in found.rungs] == [
        [each.variant for each in cells] for cells in whole.rungs
    ]


def test_the_app_searches(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: Callable[[], list[str]] = answered(tmp_path, monkeypatch)
    monkeypatch.setenv("BEST_RATE", "0.003")
    text = (
        file.read_text().replace("trials: 27", "trials: 4").replace("rungs: 3", "rungs: 2").replace("seed: 5", "eta: 2")
    )
    file.write_text(text)
    command = ["ablate", "--search", str(file), "--out", str(tmp_path / "out"), "--json"]
    monkeypatch.setattr(sys, "argv", command)
    assert ablate_app() == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["status"], result["trained"], len(calls())) == ("done", 4 + 2, 6)
    rates = {float(line.split()[1]) for line in calls()}
    best = min(rates, key=lambda rate: abs(math.log2(rate / 0.003)))
    assert recipes.load(result["best"]).optim.learning_rate == pytest.approx(best)
    assert ablate_app() == 0
    assert len(calls()) == 6


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("trials: 27", "trials: 8", "leave none for the last of 3 rungs; from 9"),
        ("log: [1.0e-4, 1.0e-1]", "log: [0.0, 1.0e-1]", "optim.learning_rate.*log"),
        ("linear: [0.0, 0.4]", "linear: [0.4, 0.0]", "optim.weight_decay.*linear"),
        ("linear: [0.0, 0.4]", "linear: [0.0, 0.4], log: [1, 2]", "give one of linear, log and choices"),
        ("optim.weight_decay", "train.steps", "'train.steps' is not searched"),
        ("optim.weight_decay", "optim.weight_dcay", "0 make a recipe; .*weight_dcay"),
        (
            "model.norm.affine: {{choices: [true, false]}}",
            "model.norm.affine: {{choices: []}}",
            "choices: at least one",
        ),
        ("rungs: 3", "rungs: 0", "rungs of at least 1"),
    ],
)
def test_a_search_that_cannot_be_is_one_line(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, words: str
) -> None:
    assert old in FILE
    (tmp_path / "search.yaml").write_text(FILE.replace(old, new).format(recipe=tiny_recipe))
    monkeypatch.setattr(
        sys, "argv", ["ablate", "--search", str(tmp_path / "search.yaml"), "--out", str(tmp_path / "o")]
    )
    with pytest.raises(BadRequest, match=words) as caught:
        ablate_app()
    assert "\n" not in str(caught.value)
