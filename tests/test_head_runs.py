"""Runs of models with several heads and routed calls: what grows while training goes on resumes exactly, on any step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from apps.common import logs, run_record

Sessions = Callable[[Sequence[dict[str, Any]]], Any]
HEADS = [
    "--model.heads.mtp",
    "{tokens: 4, curriculum: forward, ramp: 0.9}",
    "--model.heads.jepa",
    "{span: 3, momentum: 0.5}",
]
PARTS = {
    "heads": HEADS,
    "routed": ["--model.routing", "{kind: mod, capacity: 0.25}", "--model.memory", "{kind: slots, slots: 4, chunk: 8}"],
    "leaving": ["--model.routing", "{kind: early_exit}"],
}


def weights(run: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run_record.checkpoint_of(run) / "model.safetensors")


@pytest.mark.parametrize("part", PARTS)
def test_a_stopped_run_goes_on_as_if_it_had_not(
    sessions: Sessions, tiny_recipe: Path, tmp_path: Path, part: str
) -> None:
    whole, halves = tmp_path / "runs" / "whole", tmp_path / "runs" / "halves"
    start = ["--recipe", str(tiny_recipe), *PARTS[part], "--out"]
    stop = {"rank": 0, "step": 3, "signal": 15}  # no further head is awake then
    done, stopped = sessions([{"argv": [*start, str(whole)]}, {"argv": [*start, str(halves)], "hurt": stop}])
    assert done.codes == [0], done.err
    assert stopped.codes == [3], stopped.err
    (resumed,) = sessions([{"argv": ["--resume", str(halves)]}])
    assert resumed.codes == [0], resumed.err
    assert logs.read(whole / "metrics.jsonl") == logs.read(halves / "metrics.jsonl")
    found, expected = weights(halves), weights(whole)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_heads_wake_one_after_another_and_the_log_says_so(
    sessions: Sessions, tiny_recipe: Path, tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "heads"
    (done,) = sessions([{"argv": ["--recipe", str(tiny_recipe), *HEADS, "--out", str(run)]}])
    assert done.codes == [0], done.err
    rows = [row for row in logs.read(run / "metrics.jsonl") if "loss" in row]
    awake = [sum(f"loss/mtp_{k}" in row for k in (2, 3, 4)) for row in rows]
    assert awake == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3]  # of 12 steps, at 30, 60 and 90 %
    assert all({"loss/lm", "loss/jepa", "jepa/retrieval", "jepa/target_std"} <= row.keys() for row in rows)


def test_two_processes_train_what_one_does(sessions: Sessions, tiny_recipe: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "runs" / "one", tmp_path / "runs" / "two"
    start = ["--recipe", str(tiny_recipe), *HEADS, "--model.routing", "{kind: budget}", "--out"]
    alone, both = sessions([{"argv": [*start, str(one)]}, {"argv": [*start, str(two)], "world": 2}])
    assert alone.codes == [0], alone.err
    assert both.codes == [0, 0], both.err
    found, expected = (logs.read(run / "metrics.jsonl")[-1]["val_loss"] for run in (two, one))
    assert found == pytest.approx(expected, rel=1e-3)
