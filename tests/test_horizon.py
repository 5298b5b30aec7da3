"""Claim: --tokens and --minutes set the steps of any recipe, say so, contradict nothing, and change nothing else.

Time is never asserted on: the machine is measured for real, and what follows from figures is checked on given ones.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from apps.common import command_line, horizon, recipes
from apps.common.console import Console
from apps.common.errors import BadRequest
from apps.common.horizon import Pace
from apps.common.recipe import Recipe
from apps.pretrain import pace, session

PACE = Pace(micro_batch=0.25, start=2.0, validation=3.0, samples=1.0)


def parse(*argv: str) -> command_line.Request:
    return command_line.parse("pretrain", list(argv))


def steps_of(request: command_line.Request) -> int:
    return request.recipe.train.steps


def test_tokens_become_steps_rounded_up() -> None:
    request = parse("--tokens", "20M")
    assert steps_of(request) == request.recipe_mapping["train"]["steps"] == math.ceil(20_000_000 / (8 * 256))
    assert request.recipe == replace(
        recipes.load("demo"), train=replace(recipes.load("demo").train, steps=steps_of(request))
    )
    assert [entry.key for entry in request.derived] == ["train.steps"]
    assert steps_of(parse("--tokens", "1")) == 1
    assert steps_of(parse("--tokens", str(5 * 8 * 256))) == 5
    assert steps_of(parse("--tokens", "8M", "--train.batch_size", "64")) == math.ceil(8_000_000 / (64 * 256))


def test_a_warmup_for_a_longer_run_is_shortened_and_said() -> None:
    request = parse("--recipe", "brandon-10m", "--tokens", "20M")
    steps = math.ceil(20_000_000 / 65_536)
    assert steps_of(request) == steps
    assert request.recipe.optim.schedule.warmup == round(500 * steps / 15_000)
    assert request.recipe.optim.schedule.warmup == request.recipe_mapping["optim"]["schedule"]["warmup"]
    assert request.derived[1].rule == "shortened with the steps, from 500 of 15,000"
    given = parse("--recipe", "brandon-10m", "--tokens", "20M", "--optim.schedule.warmup", "400")
    assert given.recipe.optim.schedule.warmup == 400
    assert given.derived[1].rule.startswith("yours")


def test_with_a_size_the_batch_and_the_rates_follow_the_tokens() -> None:
    longer, shorter = parse("--size", "10M"), parse("--size", "10M", "--tokens", "2M")
    a, b = longer.recipe, shorter.recipe
    assert a.model == b.model
    assert a.train.batch_size > b.train.batch_size
    assert a.optim.learning_rate > b.optim.learning_rate
    assert steps_of(shorter) == math.ceil(2_000_000 / (b.train.batch_size * 512))
    assert b.optim.schedule.warmup <= 0.1 * steps_of(shorter)
    given = parse("--size", "10M", "--tokens", "2M", "--train.batch_size", "10")
    assert steps_of(given) == math.ceil(2_000_000 / (10 * 512))


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--tokens", "1M", "--minutes", "3"], ["--tokens and --minutes"]),
        (["--tokens", "1M", "--train.steps", "3"], ["--tokens and --train.steps"]),
        (["--minutes", "1", "--train.steps", "3"], ["--minutes and --train.steps"]),
        (["--size", "1M", "--tokens", "1M", "--train.steps", "3"], ["--tokens and --train.steps"]),
        (["--size", "1M", "--recipe", "demo"], ["--size", "--recipe"]),
        (["--resume", "runs/a", "--tokens", "1M"], ["--tokens", "--resume", "--train.steps"]),
        (["--resume", "runs/a", "--minutes", "1"], ["--minutes", "--resume", "--train.steps"]),
        (["--resume", "runs/a", "--size", "1M"], ["--size", "--resume"]),
        (["--tokens", "many"], ["--tokens", "'many'", "1.5B"]),
        (["--tokens", "0"], ["--tokens", "'0'"]),
        (["--tokens", "-3"], ["--tokens", "'-3'"]),
        (["--minutes", "soon"], ["--minutes", "'soon'"]),
        (["--minutes", "0"], ["--minutes", "'0'"]),
        (["--minutes", "nan"], ["--minutes", "'nan'"]),
    ],
)
def test_what_contradicts_is_one_line(argv: list[str], words: list[str]) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(*argv)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_due_counts_what_the_trainer_does() -> None:
    chance = random.Random(0)
    for _ in range(300):
        steps, first, second = chance.randrange(1, 40), chance.randrange(0, 12), chance.randrange(0, 12)
        expected = sum(
            step == steps or any(every and step % every == 0 for every in (first, second))
            for step in range(1, steps + 1)
        )
        assert horizon.due(steps, first, second) == expected, (steps, first, second)


def test_the_steps_are_the_most_that_fit() -> None:
    recipe = recipes.load("demo")
    for seconds in (30.0, 61.0, 100.0, 1_000.0, 100_000.0):
        steps = horizon.steps_within(recipe, 1, 900_000, PACE, seconds)

        def total(number: int) -> float:
            return horizon.expected_seconds(recipe, 1, 900_000, PACE, number)

        assert total(steps) <= seconds < total(steps + 1)


def test_the_expected_time_adds_up_its_parts() -> None:
    """1,000 steps of one micro-batch; validated at 200, 400, ..., 1000; saved at 400, 800, 1000; sampled at the end."""
    expected = horizon.expected_seconds(recipes.load("demo"), 1, 1_000_000, PACE, 1_000)
    checkpoint = horizon.CHECKPOINT_SECONDS + 12e6 / horizon.CHECKPOINT_BYTES_PER_SECOND
    assert expected == pytest.approx(2 + 1_000 * 0.25 + 5 * 3 + 3 * checkpoint + 1 + horizon.REPORT_SECONDS)
    accumulated = parse("--train.micro_batch", "2").recipe
    assert horizon.expected_seconds(accumulated, 2, 1_000_000, PACE, 1_000) == pytest.approx(expected + 250)


def test_no_time_for_one_step_is_one_line() -> None:
    with pytest.raises(BadRequest, match="give more time") as caught:
        horizon.steps_within(recipes.load("demo"), 1, 900_000, PACE, 5.0)
    assert "\n" not in str(caught.value)


def trained(argv: list[str], folder: Path) -> tuple[Recipe, dict[str, bytes]]:
    """The frozen recipe of a run in `folder`, and the bytes of its log and weights."""
    assert session.pretrain(parse(*argv, "--device", "cpu", "--out", str(folder)), Console(json=True)) == 0
    kept = [folder / "metrics.jsonl", *sorted(folder.glob("checkpoints/*/*.safetensors"))]
    return recipes.load(folder / "recipe.yaml"), {str(path.relative_to(folder)): path.read_bytes() for path in kept}


def test_minutes_measure_and_change_nothing_but_the_steps(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The machine is really measured; the figures are then replaced by ones that give 12 steps on any machine."""
    measured: list[Pace] = []
    really = pace.measure

    def measure(*given: Any) -> Pace:
        measured.append(really(*given))
        return Pace(micro_batch=1_000.0, start=0.0, validation=0.0, samples=0.0)

    monkeypatch.setattr(pace, "measure", measure)
    minutes = 12.5 * 2 * 1_000.0 / 60  # a step is two micro-batches
    recipe, by_minutes = trained(["--recipe", str(tiny_recipe), "--minutes", str(minutes)], tmp_path / "minutes")
    assert "measured 0 tokens/s: 12 steps" in capsys.readouterr().err
    same, by_steps = trained(["--recipe", str(tiny_recipe), "--train.steps", "12"], tmp_path / "steps")
    assert recipe == same
    assert recipe.train.steps == 12
    assert by_minutes == by_steps
    assert len(measured) == 1
    assert min(vars(measured[0]).values()) >= 0
    assert measured[0].micro_batch > 0
    assert measured[0].validation > 0
    assert measured[0].samples > 0


def test_with_a_size_minutes_turn_the_dial_once(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[int] = []

    def measure(recipe: Recipe, *rest: Any) -> Pace:
        rows.append(recipe.micro_batch(1))
        return Pace(micro_batch=100.0 * recipe.micro_batch(1), start=0.0, validation=0.0, samples=0.0)

    monkeypatch.setattr(pace, "measure", measure)
    data = recipes.read(tiny_recipe)["data"]
    small = ["--size", "0.2M", "--data.cache", data["cache"], "--data.sources", str(data["sources"])]
    small += ["--data.tokenizer.vocab_size", "320", "--model.vocab_size", "1024", "--train.validate_rows", "8"]
    small += ["--sample.max_new_tokens", "4", "--train.precision", "fp32"]
    recipe, _ = trained([*small, "--minutes", str(20 * 400.0 / 60)], tmp_path / "a")
    by_tokens = parse("--size", "0.2M", "--tokens", str(recipe.train.steps * recipe.train.batch_size * 256)).recipe
    assert (recipe.train.batch_size, recipe.optim.learning_rate) == (
        by_tokens.train.batch_size,
        by_tokens.optim.learning_rate,
    )
    assert rows == [parse("--size", "0.2M").recipe.train.batch_size, recipe.train.batch_size]
    assert recipe.train.steps == 19
    assert f"{recipe.train.batch_size} rows of 256 a step" in capsys.readouterr().err


def test_two_processes_agree_and_a_resumed_run_is_not_measured_again(
    sessions: Callable[..., Any], tiny_recipe: Path, tmp_path: Path
) -> None:
    """Stopped before the second step of a run of far more steps than anyone would wait for."""
    run, stop = tmp_path / "runs" / "a", {"rank": 0, "step": 2, "signal": 15}
    argv = ["--recipe", str(tiny_recipe), "--minutes", "1000", "--out", str(run), "--device", "cpu"]
    [first] = sessions([{"argv": argv, "world": 2, "hurt": stop}])
    assert first.codes == [3, 3], first.err
    assert "measured" in first.out
    frozen = recipes.load(run / "recipe.yaml")
    assert frozen.train.steps > 12
    [second] = sessions([{"resume": str(run), "world": 2, "hurt": stop}])
    assert second.codes == [3, 3], second.err
    assert "measured" not in second.out
    assert recipes.load(run / "recipe.yaml") == frozen
