"""Claim: a loss that is not finite costs its step; several in a row cost the run its way since the last good checkpoint and
half of its learning rate, and neither a kill nor a stop nor another process changes a bit of that."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from apps.common import logs, recovery
from apps.common.errors import RunError
from apps.common.health import Health
from apps.common.recipe import SpikeConfig

Sessions = Callable[[Sequence[dict[str, Any]]], Any]
THREE = {"poison": [40, 56]}  # steps 5, 6 and 7 of 8 rows: then the run goes back to step 4
KEPT = ("model.safetensors", "optimizer.safetensors", "average.safetensors")
EMA = ["--train.ema", "0.9"]


def same(one: Path, other: Path) -> bool:
    """Whether two runs have the same log and the same last checkpoint, by bits."""
    last = Path("checkpoints") / "step_00000012"
    files = [Path("metrics.jsonl"), *(last / name for name in KEPT)]
    return all((one / file).read_bytes() == (other / file).read_bytes() for file in files)


def events(run: Path) -> list[dict[str, Any]]:
    lineage = json.loads((run / "status.json").read_text())["lineage"]
    return [event for event in lineage if event["event"] == recovery.EVENT]


@pytest.fixture(scope="module")
def went_back(sessions: Sessions, tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that met three such steps in a row and was never interrupted."""
    run = tmp_path_factory.mktemp("whole") / "runs" / "a"
    (result,) = sessions([{"argv": ["--recipe", str(tiny_recipe), *EMA, "--out", str(run)], "hurt": THREE}])
    assert result.codes == [0], result.err
    assert "step 5: loss or gradient not finite; step skipped (1 in a row)" in result.err
    assert "step 5: loss or gradient not finite; back at step_00000004, without the 24 rows since" in result.err
    return run


def test_going_back_is_recorded_and_halves_the_rate(
    went_back: Path, sessions: Sessions, tiny_recipe: Path, tmp_path: Path
) -> None:
    event = {"event": "rollback", "step": 4, "failed": 5, "skipped_rows": 24, "learning_rate_factor": 0.5}
    assert events(went_back) == [event]
    progress = json.loads((went_back / "checkpoints" / "step_00000012" / "trainer.json").read_text())
    assert progress["lineage"] == [event]
    assert progress["data"]["position"] == 15 * 8  # 12 steps, and 3 windows that were skipped
    assert (progress["health"]["skipped"], progress["health"]["in_a_row"]) == (3, 0)

    rows = logs.read(went_back / "metrics.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 13))
    (told,) = [row for row in rows if "rollback" in row]
    assert (told["step"], told["rollback"], told["failed"], told["skipped"]) == (5, 1, 5, 3)
    report = (went_back / "report.md").read_text()
    assert "| steps skipped, not finite | 3 |" in report
    assert "| times gone back | 1 |" in report
    plain = tmp_path / "runs" / "plain"
    (result,) = sessions([{"argv": ["--recipe", str(tiny_recipe), *EMA, "--out", str(plain)]}])
    assert result.codes == [0], result.err
    others = logs.read(plain / "metrics.jsonl")
    for row, other in zip(*([row for row in each if "loss" in row] for each in (rows, others)), strict=True):
        assert row["learning_rate"] == other["learning_rate"] * (0.5 if row["step"] > 4 else 1)
        if row["step"] <= 4:
            assert row == other


@pytest.mark.parametrize(
    ("place", "status"),
    [({"step": 9, "signal": 9}, -9), ({"step": 13, "signal": 9}, -9), ({"step": 7, "signal": 15}, 3)],
    ids=["killed before the next checkpoint", "killed after it", "stopped amid the three"],
)
def test_an_interrupted_run_is_the_same_by_bits(
    went_back: Path, sessions: Sessions, tiny_recipe: Path, tmp_path: Path, place: dict[str, int], status: int
) -> None:
    run = tmp_path / "runs" / "a"
    keep = ["--train.keep", "1"]  # a checkpoint amid the three must not push out the one to go back to
    first, second = sessions(
        [
            {"argv": ["--recipe", str(tiny_recipe), *EMA, *keep, "--out", str(run)], "hurt": {**THREE, **place}},
            {"argv": ["--resume", str(run)], "hurt": THREE},
        ]
    )
    assert (first.codes, second.codes) == ([status], [0]), first.err + second.err
    assert same(run, went_back)
    assert len(events(run)) == 1


def test_all_processes_skip_and_go_back_alike(sessions: Sessions, tiny_recipe: Path, tmp_path: Path) -> None:
    """Only the second of two has a loss that is not finite; killed on the way, the run is the same by bits."""
    whole, parts = (tmp_path / "runs" / name for name in ("whole", "parts"))
    argv = ["--recipe", str(tiny_recipe), *EMA, "--out"]
    ill = {"rank": 1, **THREE}
    results = sessions(
        [
            {"argv": [*argv, str(whole)], "world": 2, "hurt": ill},
            {"argv": [*argv, str(parts)], "world": 2, "hurt": {**ill, "step": 10, "signal": 9}},
            {"argv": ["--resume", str(parts)], "world": 2, "hurt": ill},
        ]
    )
    assert [result.codes[1] for result in results] == [0, -9, 0], [result.err for result in results]
    assert len(events(whole)) == 1
    assert same(whole, parts)


def test_adapters_go_back_too(went_back: Path, sessions: Sessions, tiny_recipe: Path, tmp_path: Path) -> None:
    whole, parts = (tmp_path / "runs" / name for name in ("whole", "parts"))
    argv = ["--recipe", str(tiny_recipe), "--init-from", str(went_back), "--train.lora", "{rank: 2}", "--out"]
    results = sessions(
        [
            {"argv": [*argv, str(whole)], "hurt": THREE},
            {"argv": [*argv, str(parts)], "hurt": {**THREE, "step": 13, "signal": 9}},
            {"argv": ["--resume", str(parts)], "hurt": THREE},
        ]
    )
    assert [result.codes for result in results] == [[0], [-9], [0]], [result.err for result in results]
    assert [event["step"] for event in events(whole)] == [4]
    for name in ("adapters.safetensors", "model.safetensors", "optimizer.safetensors"):
        file = Path("checkpoints") / "step_00000012" / name
        assert (whole / file).read_bytes() == (parts / file).read_bytes()


def test_a_run_goes_back_three_times_and_no_more(sessions: Sessions, tiny_recipe: Path, tmp_path: Path) -> None:
    run, early = tmp_path / "runs" / "a", tmp_path / "runs" / "early"
    argv = ["--recipe", str(tiny_recipe), "--out"]
    spent, none = sessions(
        [
            {"argv": [*argv, str(run)], "hurt": {"poison": [40, 100_000]}},
            {"argv": [*argv, str(early)], "hurt": {"poison": [16, 100_000]}},
        ]
    )
    assert (spent.codes, none.codes) == ([1], [1])
    line = spent.err.splitlines()[-1]
    assert line.startswith("error: loss or gradient not finite at step 5 after going back 3 times; the last good")
    assert f"{run}/checkpoints/step_00000004" in line
    assert [event["learning_rate_factor"] for event in events(run)] == [0.5, 0.25, 0.125]
    assert json.loads((run / "status.json").read_text())["status"] == "failed"
    assert "not finite at step 2; there is no checkpoint yet" in none.err.splitlines()[-1]


def test_a_rate_that_blows_the_weights_up_ends_in_one_line(
    sessions: Sessions, tiny_recipe: Path, tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "a"
    argv = ["--recipe", str(tiny_recipe), "--out", str(run), "--optim.learning_rate", "1e30", "--train.save_every", "1"]
    (result,) = sessions([{"argv": argv}])
    assert result.codes == [1]
    assert "Traceback" not in result.err
    line = result.err.splitlines()[-1]
    assert "error: loss or gradient not finite at step 2" in line
    assert "Lower optim.learning_rate" in line


def test_a_spike_is_told_once_and_a_noisy_or_falling_loss_has_none() -> None:
    health = Health(SpikeConfig(window=20, deviations=6.0), {})
    noise = torch.randn(200, generator=torch.Generator().manual_seed(0)).tolist()
    falling = [8 - 0.02 * step + 0.05 * noise[step] for step in range(100)]
    assert not any(health.learned(loss) for loss in falling)
    assert [health.learned(loss) is not None for loss in (9.0, 9.5, 9.2)] == [True, False, False]
    assert health.learned(6.0) is None
    found = health.learned(9.0)
    assert found is not None
    assert found.loss == 9.0
    assert 5.9 < found.median < 6.5


def test_health_goes_on_from_what_was_saved() -> None:
    losses = [3.0, 3.1, 2.9, 3.0, 9.0, 9.0, 3.0, 9.0]
    config = SpikeConfig(window=4, deviations=6.0)
    whole = Health(config, {})
    told = [whole.learned(loss) for loss in losses]
    for cut in range(len(losses)):
        first = Health(config, {})
        before = [first.learned(loss) for loss in losses[:cut]]
        second = Health(config, json.loads(json.dumps(first.row())))
        assert before + [second.learned(loss) for loss in losses[cut:]] == told
        assert second.row() == whole.row()
    with pytest.raises(RunError, match="health is not what a run writes"):
        Health(config, {"losses": "many"})
