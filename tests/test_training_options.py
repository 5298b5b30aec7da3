"""Claim: a profile changes nothing; norms by family and layer sum to the gradient's; max_hours takes steps away and no more;
fp16 is scaled, and refused where it cannot be had."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from apps.common import gradient_norms, hardware, horizon, logs, precision, recipes
from apps.common.command_line import parse
from apps.common.console import Console
from apps.common.errors import BadRequest, RunError
from apps.common.horizon import Pace
from apps.common.loss_scale import FIRST, PERIOD, LossScale
from apps.pretrain import pace, session
from tinycore.config import ConfigError

Sessions = Callable[[Sequence[dict[str, Any]]], Any]
SLOW = Pace(micro_batch=300.0, start=0.0, validation=0.0, samples=0.0)  # a step is two micro-batches


def test_a_profile_is_written_and_changes_nothing(sessions: Sessions, tiny_recipe: Path, tmp_path: Path) -> None:
    plain, seen = (tmp_path / "runs" / name for name in ("plain", "seen"))
    argv = ["--recipe", str(tiny_recipe), "--out"]
    first, second, short = sessions(
        [
            {"argv": [*argv, str(plain)]},
            {"argv": [*argv, str(seen), "--profile"]},
            {"argv": [*argv, str(tmp_path / "runs" / "short"), "--profile", "--train.steps", "3"]},
        ]
    )
    assert (first.codes, second.codes, short.codes) == ([0], [0], [0]), second.err
    assert f"profile of 3 steps: {seen / 'profile'}" in second.out
    assert "aten::mm" in (seen / "profile" / "operations.txt").read_text()
    assert json.loads((seen / "profile" / "trace.json").read_text())["traceEvents"]
    for name in ("metrics.jsonl", "checkpoints/step_00000012/model.safetensors"):
        assert (plain / name).read_bytes() == (seen / name).read_bytes()
    assert "ended before its step 7; there is no profile" in short.err


def test_norms_by_family_and_layer_are_parts_of_the_norm(sessions: Sessions, tiny_recipe: Path, tmp_path: Path) -> None:
    """With every validation, or as often as asked, which changes nothing else."""
    usual, often = (tmp_path / "runs" / name for name in ("usual", "often"))
    argv = ["--recipe", str(tiny_recipe), "--out"]
    results = sessions([{"argv": [*argv, str(usual)]}, {"argv": [*argv, str(often), "--train.norms_every", "5"]}])
    assert [result.codes for result in results] == [[0], [0]], results[1].err
    rows, more = (logs.read(run / "metrics.jsonl") for run in (usual, often))
    name = "grad_norm/mixer"
    assert (
        [row["step"] for row in rows if name in row]
        == [3, 4, 6, 8, 9, 12]
        == [r["step"] for r in rows if "val_bpb" in r]
    )
    assert [row["step"] for row in more if name in row] == [5, 10, 12]
    whole = {row["step"]: row["grad_norm"] for row in more if "grad_norm" in row}
    assert whole == {row["step"]: row["grad_norm"] for row in rows if "grad_norm" in row}
    for row in [row for row in [*rows, *more] if name in row]:
        families = [row[f"grad_norm/{family}"] for family in ("norm", "embedding", "mixer", "ffn")]
        layers = [row[f"grad_norm/layer/{index}"] for index in (0, 1)]
        assert math.hypot(*families) == pytest.approx(whole[row["step"]], rel=1e-5)
        assert 0 < math.hypot(*layers) < whole[row["step"]]


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("embed.weight", ["embedding"]),
        ("layers.3.branches.mixer.q.weight", ["mixer", "layer/3"]),
        ("layers.0.branches.ffn.experts.2.gate.weight", ["ffn", "layer/0"]),
        ("layers.1.norms.ffn.norm.weight", ["norm", "layer/1"]),
        ("heads.lm.linear.weight", ["head"]),
        ("depth.stream.weight", ["other"]),
    ],
)
def test_the_family_of_a_parameter(name: str, groups: list[str]) -> None:
    assert gradient_norms.groups(name) == groups


def hours_of(monkeypatch: pytest.MonkeyPatch, argv: list[str], folder: Path) -> recipes.Recipe:
    """The frozen recipe of a run, on a machine as slow as SLOW."""
    monkeypatch.setattr(pace, "measure", lambda *_: SLOW)
    assert (
        session.pretrain(parse("pretrain", [*argv, "--device", "cpu", "--out", str(folder)]), Console(json=True)) == 0
    )
    return recipes.load(folder / "recipe.yaml")


def test_max_hours_fits_the_schedule_to_the_speed(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hours are not quite twelve steps of ten minutes: the rate decays to its end within eleven, the last one is saved."""
    run = tmp_path / "limited"
    recipe = hours_of(monkeypatch, ["--recipe", str(tiny_recipe), "--train.max_hours", "2"], run)
    assert (recipe.train.steps, recipe.train.max_hours) == (11, 2.0)
    rates = [row["learning_rate"] for row in logs.read(run / "metrics.jsonl") if "learning_rate" in row]
    assert len(rates) == 11
    assert rates[-1] == 0.0
    assert (run / "checkpoints" / "step_00000011" / "manifest.json").is_file()
    assert (run / "latest").read_text() == "step_00000011\n"


def test_max_hours_adds_no_step(tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["--recipe", str(tiny_recipe), "--train.steps", "3", "--train.max_hours", "100"]
    assert hours_of(monkeypatch, given, tmp_path / "a").train.steps == 3


def test_the_clock_of_max_hours_counts_what_went_before(tiny_recipe: Path) -> None:
    """Half of the hour was spent preparing, by the clock that is given."""
    request = parse("pretrain", ["--recipe", str(tiny_recipe), "--train.max_hours", "1"])
    for spent, steps in ((0.0, 5), (1800.0, 2)):

        class Here:
            size = 1
            on_main = staticmethod(lambda function: function())

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pace, "measure", lambda *_: SLOW)
            console: Any = Console(json=True, main_process=False)
            prepared: Any = None
            world: Any = Here()
            recipe, _ = pace.fit_minutes(
                request.recipe, request, prepared, world, console, 0.0, clock=lambda spent=spent: spent
            )
        assert recipe.train.steps == steps


def test_a_resumed_run_is_not_measured_again(sessions: Sessions, tiny_recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "a"
    argv = ["--recipe", str(tiny_recipe), "--train.max_hours", "0.5", "--train.steps", "1000000", "--out", str(run)]
    stop = {"step": 2, "signal": 15}
    first, second = sessions([{"argv": argv, "hurt": stop}, {"argv": ["--resume", str(run)], "hurt": stop}])
    assert (first.codes, second.codes) == ([3], [3]), first.err + second.err
    assert "measured" in first.out
    assert "measured" not in second.out
    assert 1 < recipes.load(run / "recipe.yaml").train.steps < 1_000_000


def test_hours_that_contradict_or_do_not_suffice_are_one_line(tiny_recipe: Path) -> None:
    with pytest.raises(BadRequest, match=r"--minutes and --train\.max_hours"):
        parse("pretrain", ["--minutes", "1", "--train.max_hours", "1"])
    with pytest.raises(ConfigError, match=r"max_hours: 0\.0 is not above 0"):
        parse("pretrain", ["--train.max_hours", "0.0"])
    with pytest.raises(BadRequest, match=r"^train\.max_hours: 5 s are left"):
        horizon.steps_within(recipes.load(tiny_recipe), 1, 30_000, SLOW, 5.0, "train.max_hours")


def test_fp16_is_for_cuda() -> None:
    with pytest.raises(BadRequest, match="fp16 is for CUDA devices, and this is cpu; use bf16, fp32 or auto"):
        precision.resolve("fp16", torch.device("cpu"))
    card = hardware.named("t4")
    assert card is not None
    assert card.flops("fp16") == 65e12


def test_the_scale_of_the_loss() -> None:
    """Halved by a gradient that is not finite, doubled after so many that are; powers of two, which round nothing."""
    weight = torch.tensor([3.0], requires_grad=True)
    scale = LossScale("fp16", {})
    scale.scaled((weight * 0.1).sum()).backward()
    assert weight.grad is not None
    assert weight.grad.item() == pytest.approx(0.1 * FIRST)
    scale.unscale([weight])
    assert weight.grad.item() == torch.tensor(0.1).item()
    assert scale.overflowed()
    assert scale.value == FIRST / 2
    for _ in range(PERIOD - 1):
        scale.held()
    resumed = LossScale("fp16", json.loads(json.dumps(scale.row())))
    for each in (scale, resumed):
        each.held()
        assert each.value == FIRST
    while scale.overflowed():
        pass
    assert scale.value == 1  # and what is not finite now is so by itself


def test_other_precisions_are_not_scaled() -> None:
    loss, scale = torch.tensor(2.0), LossScale("bf16", {"value": 8.0, "steps": 1})
    assert scale.scaled(loss) is loss
    assert not scale.overflowed()
    assert scale.row() == {}
    with pytest.raises(RunError, match="loss_scale is not what a run writes"):
        LossScale("fp16", {"value": "large"})


@pytest.mark.gpu
def test_fp16_learns_on_cuda(sessions: Sessions, tiny_recipe: Path, tmp_path: Path) -> None:
    """Stopped and resumed with its scale; the loss falls as in float32, to the rounding of fp16."""
    losses = {}
    for name in ("fp32", "fp16"):
        run = tmp_path / "runs" / name
        argv = ["--recipe", str(tiny_recipe), "--out", str(run), "--device", "cuda", "--train.precision", name]
        first, second = sessions([{"argv": argv, "hurt": {"step": 6, "signal": 15}}, {"argv": ["--resume", str(run)]}])
        assert (first.codes, second.codes) == ([3], [0]), first.err + second.err
        losses[name] = [row["loss"] for row in logs.read(run / "metrics.jsonl") if "loss" in row][-1]
    assert losses["fp16"] == pytest.approx(losses["fp32"], rel=0.02)


def test_the_average_is_scored_beside_the_weights(sessions: Sessions, tiny_recipe: Path, tmp_path: Path) -> None:
    """In logs, on the terminal, in the result, the best and the report; the weights score what they score without one."""
    plain, averaged = (tmp_path / "runs" / name for name in ("plain", "averaged"))
    argv = ["--recipe", str(tiny_recipe), "--json", "--out"]
    first, second = sessions(
        [{"argv": [*argv, str(plain)]}, {"argv": [*argv, str(averaged), "--train.ema", "0.5"]}],
    )
    assert (first.codes, second.codes) == ([0], [0]), second.err
    rows, both = (
        {row["step"]: row for row in logs.read(run / "metrics.jsonl") if "val_bpb" in row} for run in (plain, averaged)
    )
    assert [row["raw_val_bpb"] for row in both.values()] == [row["val_bpb"] for row in rows.values()]
    assert [row["raw_val_loss"] for row in both.values()] == [row["val_loss"] for row in rows.values()]
    assert all(row["val_bpb"] != row["raw_val_bpb"] for row in both.values())
    assert not any(name.startswith("raw_") for row in rows.values() for name in row)
    assert (second.json["val_bpb"], second.json["raw_val_bpb"]) == (both[12]["val_bpb"], both[12]["raw_val_bpb"])
    best = json.loads((averaged / "status.json").read_text())["best"]
    assert (best["val_bpb"], best["raw_val_bpb"]) == tuple(
        both[best["step"]][name] for name in ("val_bpb", "raw_val_bpb")
    )
    told = (averaged / "report.md").read_text()
    assert f"{best['val_bpb']:.4f} bits per byte with averaged weights, {best['raw_val_bpb']:.4f} without" in told
    assert f"| validation bits per byte of the weights before averaging | {both[12]['raw_val_bpb']:.4f} |" in told
    assert f"val_bpb {both[12]['val_bpb']:.3f}  raw {both[12]['raw_val_bpb']:.3f}" in second.err
