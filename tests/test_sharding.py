"""Claim: laid out over processes (FSDP2), a run computes what it computes without; its checkpoints are whole and load under any
number of processes, killing and resuming it is exact, and what does not go with shards is refused in one line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tinycore
from apps.common import overrides, recipes, sharding
from apps.common.errors import BadRequest

Sessions = Callable[[Sequence[dict[str, Any]]], Any]
FINAL = Path("checkpoints") / "step_00000012"
FULL = ["--train.sharding", "full"]
KILL = int(signal.SIGKILL)
# one process's loss is not finite in steps 5, 6 and 7: the run goes back to step 4
POISON = {"rank": 0, "poison": [40, 56]}
LOOPED = ["--model.depth.kind", "looped", "--model.depth.loops", "2"]
AVERAGED = ["--train.micro_batch", "2", "--train.ema", "0.9", *LOOPED]
M3 = ["--optim.kind", "m3", "--optim.slow_period", "5"]
FILES = ("metrics.jsonl", *(str(FINAL / f"{name}.safetensors") for name in ("model", "optimizer", "average")))


def assert_alike(run: Path, reference: Path) -> None:
    """The same logs and checkpoints, but for the order of sums."""
    rows = [
        [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()] for path in (run, reference)
    ]
    assert [row.keys() for row in rows[0]] == [row.keys() for row in rows[1]]
    for found, expected in zip(*rows, strict=True):
        for key, value in found.items():
            assert value == pytest.approx(expected[key], abs=1e-4), (found["step"], key)
    for file in FILES[1:]:
        assert (run / file).exists() == (reference / file).exists()
        if not (run / file).exists():
            continue
        saved, other = load_file(run / file), load_file(reference / file)
        assert {name: tensor.shape for name, tensor in saved.items()} == {name: t.shape for name, t in other.items()}
        for name, tensor in saved.items():
            assert (tensor - other[name]).norm() <= 1e-3 * other[name].norm(), (file, name)
    tinycore.load(run / FINAL)


def test_shards_are_no_other_run_and_resume_exactly(sessions: Sessions, tiny_recipe: Path, tmp_path: Path) -> None:
    """With several micro-batches, layers called twice, an average, and steps that come to nothing."""
    runs = {name: tmp_path / "runs" / name for name in ("whole", "parts", "killed")}
    start = ["--recipe", str(tiny_recipe), *AVERAGED, "--json"]  # so that all it says is on stderr
    killing = {**POISON, "event": 60, "signal": KILL}
    jobs = [
        {"argv": [*start, "--out", str(runs["whole"])], "world": 2, "hurt": POISON},
        {"argv": [*start, *FULL, "--out", str(runs["parts"])], "world": 2, "hurt": POISON},
        {"argv": [*start, *FULL, "--out", str(runs["killed"])], "world": 2, "hurt": killing},
        {"argv": ["--resume", str(runs["killed"])], "world": 2, "hurt": POISON},
    ]
    whole, parts, killed, resumed = sessions(jobs)
    assert whole.codes == [0, 0], whole.err
    assert parts.codes == [0, 0], parts.err
    assert "back at step_00000004" in parts.err
    assert "in shards" in parts.err
    assert killed.codes[0] == -KILL
    assert resumed.codes == [0, 0], resumed.err
    assert_alike(runs["parts"], runs["whole"])
    for file in FILES:
        assert (runs["killed"] / file).read_bytes() == (runs["parts"] / file).read_bytes(), file


def test_a_process_lost_while_parts_travel_and_one_that_goes_on_alone(
    sessions: Sessions, tiny_recipe: Path, tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "a"
    start = ["--recipe", str(tiny_recipe), *AVERAGED, *FULL, "--out", str(run)]
    lost, alone = sessions(
        [
            {"argv": start, "world": 2, "hurt": {"rank": 1, "step": 7, "signal": KILL}},
            {"argv": ["--resume", str(run), "--json"]},
        ]
    )
    assert lost.codes == [1, -KILL]
    assert lost.err.count("error:") == 1
    assert "lost another process" in lost.err
    assert alone.codes == [0], alone.err
    assert alone.json["processes"] == 1
    # two processes saved what one went on from: names and shapes are the model's
    model = tinycore.load(run / "checkpoints" / "step_00000012")
    assert {name for name, _ in model.named_parameters()} == set(load_file(run / FILES[-1]))


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_shards_are_no_other_run_on_two_gpus(tiny_recipe: Path, tmp_path: Path) -> None:
    """Over NCCL, in processes of their own: the driver's are forked, which CUDA does not outlive."""
    runs = {name: tmp_path / "runs" / name for name in ("whole", "parts")}
    for run, options in zip(runs.values(), ([], FULL), strict=True):
        argv = [
            "--recipe",
            str(tiny_recipe),
            *AVERAGED,
            *options,
            "--device",
            "cuda",
            "--processes",
            "2",
            "--out",
            str(run),
        ]
        done = subprocess.run(
            [sys.executable, "-m", "apps.pretrain", *argv], capture_output=True, text=True, timeout=280
        )
        assert done.returncode == 0, done.stderr
    assert_alike(runs["parts"], runs["whole"])


def test_matrices_in_shards_are_orthogonalised_whole(sessions: Sessions, tiny_recipe: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "runs" / "whole", tmp_path / "runs" / "parts"
    start = ["--recipe", str(tiny_recipe), *M3]
    results = sessions(
        [
            {"argv": [*start, "--out", str(whole)], "world": 2},
            {"argv": [*start, *FULL, "--out", str(parts)], "world": 2},
        ]
    )
    assert [result.codes for result in results] == [[0, 0], [0, 0]], [result.err for result in results]
    assert_alike(parts, whole)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--optim.kind", "delta_gd"], "optim.kind delta_gd needs whole parameters"),
        (["--optim.kind", "deep_momentum"], "optim.kind deep_momentum needs whole parameters"),
        (["--optim.kind", "muon", "--optim.shared", "true"], "optim.shared shares out whole matrices"),
        (["--train.compile", "true"], "leave one of sharding and compile out"),
        (["--train.precision", "fp16"], "scaled loss"),
        (["--train.lora.rank", "4"], "leave one of sharding and lora out"),
        (["--model.heads.jepa.span", "2"], "model.heads.jepa looks at the weights between steps"),
    ],
)
def test_what_does_not_go_with_shards_is_one_line(tiny_recipe: Path, options: list[str], reason: str) -> None:
    given = [*FULL, *options]
    changes = [
        overrides.read(key.removeprefix("--"), value) for key, value in zip(given[::2], given[1::2], strict=True)
    ]
    recipe = recipes.load(tiny_recipe, changes)
    with pytest.raises(BadRequest, match=reason):
        sharding.require_possible(recipe, measured=False)


def test_time_is_not_measured_with_shards(sessions: Sessions, tiny_recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "a"
    argv = ["--recipe", str(tiny_recipe), *FULL, "--train.max_hours", "1", "--out", str(run)]
    (result,) = sessions([{"argv": argv, "world": 2}])
    assert result.codes == [2, 2]
    assert "error: train.sharding: time is not measured with shards" in result.err
    assert not run.exists()


def test_which_layers_are_gathered_one_by_one(tiny_recipe: Path) -> None:
    recipe = recipes.load(tiny_recipe)
    assert sharding.by_layer(recipe)

    def deep(**settings: Any) -> recipes.Recipe:
        return replace(recipe, model=tinycore.ModelConfig.from_dict({**recipe.model.to_dict(), "depth": settings}))

    assert sharding.by_layer(deep(kind="looped", loops=3))
    assert sharding.by_layer(deep(kind="shared", times=2))
    assert not sharding.by_layer(deep(kind="looped", loops=3, fewest=1))
    assert not sharding.by_layer(deep(kind="universal", most=2))
    assert not sharding.by_layer(replace(recipe, train=replace(recipe.train, recompute="layers")))


def test_without_shards_nothing_is_copied(tiny_recipe: Path) -> None:
    model = tinycore.build(recipes.load(tiny_recipe).model)
    parts = sharding.Parts(model, torch.optim.AdamW(model.parameters()), None)
    world: Any = None  # nobody is asked
    assert sharding.gathered(world, parts) is parts
    assert sharding.gathered_model(world, model) is model
    assert sharding.restored(world, parts, lambda given: given) is parts
