"""Claim: a run that is killed with -9 anywhere and resumed ends with the same metrics.jsonl and the same weights, bit for
bit, as one that never was: at random steps, inside the save, with two processes, and when one of them is killed alone; also
with an average of the weights, several micro-batches a step and an optimizer inside a window of several steps."""

from __future__ import annotations

import json
import random
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

Sessions = Callable[[Sequence[dict[str, Any]]], Any]
KILL = int(signal.SIGKILL)
FINAL = Path("checkpoints") / "step_00000012"
EVENTS = 110  # a session from step 0 to 12 has more writes, fsyncs and renames than this
# the slow momentum is renewed in steps 5 and 10, checkpoints are of steps 4, 8 and 12: each lies inside a window
M3 = ["--optim.kind", "m3", "--optim.slow_period", "5", "--train.ema", "0.9", "--train.micro_batch", "2"]
SHARED_MUON = ["--optim.kind", "muon", "--optim.shared", "true", "--train.ema", "0.9", "--train.micro_batch", "2"]
AVERAGE = FINAL / "average.safetensors"


def assert_same_run(run: Path, reference: Path) -> None:
    for name in ("metrics.jsonl", "samples.md", FINAL / "model.safetensors", FINAL / "optimizer.safetensors", AVERAGE):
        if name is AVERAGE and not (reference / name).exists():
            assert not (run / name).exists()
            continue
        assert (run / name).read_bytes() == (reference / name).read_bytes(), name
    saved, expected = (json.loads((path / FINAL / "trainer.json").read_text()) for path in (run, reference))
    for key in ("step", "tokens", "data", "best", "latest"):
        assert saved[key] == expected[key]


def killed_chain(run: Path, start: list[str], events: Sequence[int], world: int) -> list[dict[str, Any]]:
    """A first session and as many resumed ones as needed, each killed at its event; the last one finishes."""
    first = [*start, "--out", str(run)]
    again = ["--resume", str(run)]
    jobs = [
        {"argv": first if not index else again, "world": world, "hurt": {"rank": 0, "event": event, "signal": KILL}}
        for index, event in enumerate(events)
    ]
    return [*jobs, {"argv": again, "world": world}]


def test_killed_five_times_anywhere(sessions: Sessions, tiny_recipe: Path, tmp_path: Path) -> None:
    whole, run = tmp_path / "runs" / "whole", tmp_path / "runs" / "killed"
    chance = random.Random(2)
    # the first kill after the directory exists, the others after any write of any session
    events = [chance.randrange(20, EVENTS)] + [chance.randrange(3, EVENTS // 2) for _ in range(4)]
    jobs = [{"argv": ["--recipe", str(tiny_recipe), "--out", str(whole)]}]
    results = sessions([*jobs, *killed_chain(run, ["--recipe", str(tiny_recipe)], events, world=1)])
    assert [result.codes for result in results] == [[0], *[[-KILL]] * 5, [0]], [result.err for result in results]
    assert_same_run(run, whole)


def test_two_processes_one_of_them_killed(sessions: Sessions, tiny_recipe: Path, tmp_path: Path) -> None:
    whole, run = tmp_path / "runs" / "whole", tmp_path / "runs" / "killed"
    recipe, again = ["--recipe", str(tiny_recipe)], ["--resume", str(run)]
    chance = random.Random(3)
    other = {"rank": 1, "step": 7, "signal": KILL}
    main = {"rank": 0, "event": chance.randrange(20, EVENTS // 2), "signal": KILL}
    reference, lost, lost_main, finished = sessions(
        [
            {"argv": [*recipe, "--out", str(whole)], "world": 2},
            {"argv": [*recipe, "--out", str(run)], "world": 2, "hurt": other},
            {"argv": again, "world": 2, "hurt": main},
            {"argv": [*again, "--json"], "world": 2},
        ]
    )
    assert reference.codes == [0, 0], reference.err
    assert lost.codes == [1, -KILL]
    assert lost.err.count("error:") == 1
    assert "lost another process" in lost.err
    assert lost_main.codes == [-KILL, 1]
    assert max(lost.seconds, lost_main.seconds) < 60
    assert finished.codes == [0, 0], finished.err
    assert finished.json["processes"] == 2
    assert sorted(path.name for path in (run / FINAL).glob("rng-*")) == [
        "rng-00000.safetensors",
        "rng-00001.safetensors",
    ]
    assert_same_run(run, whole)


@pytest.mark.parametrize(
    ("options", "world", "seed"), [(M3, 1, 5), (M3, 2, 6), (SHARED_MUON, 2, 7)], ids=["m3", "two m3", "two shared muon"]
)
def test_killed_inside_a_window(
    sessions: Sessions, tiny_recipe: Path, tmp_path: Path, options: list[str], world: int, seed: int
) -> None:
    """With an average, several micro-batches a step and an optimizer whose state is more than moments; inside the save of a
    checkpoint and between two."""
    whole, run = tmp_path / "runs" / "whole", tmp_path / "runs" / "killed"
    start, chance = ["--recipe", str(tiny_recipe), *options], random.Random(seed)
    between = {
        "rank": world - 1,
        "step": chance.randrange(6, 8),
        "signal": KILL,
    }  # of the first session: saved is step 4
    inside = [chance.randrange(3, EVENTS // 2) for _ in range(2)]
    chain = killed_chain(run, start, [0, *inside], world)
    chain[0]["hurt"] = between
    reference, *results = sessions([{"argv": [*start, "--out", str(whole)], "world": world}, *chain])
    assert reference.codes == [0] * world, reference.err
    assert [-KILL in result.codes for result in results] == [True, True, True, False], [r.err for r in results]
    assert results[-1].codes == [0] * world, results[-1].err
    assert_same_run(run, whole)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("options", [[], M3], ids=["adamw", "m3"])
def test_killed_at_every_event(sessions: Sessions, tiny_recipe: Path, tmp_path: Path, options: list[str]) -> None:
    """Every write, fsync and rename of a whole session, not a choice of them."""
    whole = tmp_path / "runs" / "whole"
    recipe = ["--recipe", str(tiny_recipe), *options]
    (reference,) = sessions([{"argv": [*recipe, "--out", str(whole)]}])
    assert reference.codes == [0], reference.err
    event, places, killed = 1, 0, True
    while killed:
        batch = range(event, event + 16)
        runs = {number: tmp_path / "runs" / f"event{number}" for number in batch}
        jobs = []
        for number, run in runs.items():
            start = [*recipe, "--out", str(run)]
            jobs.append({"argv": start, "hurt": {"rank": 0, "event": number, "signal": KILL}})
            # before the directory has its name there is nothing to resume: the same command starts it
            jobs.append({"argv": start, "resume": str(run)})
        results = sessions(jobs)
        for run, first, second in zip(runs.values(), results[::2], results[1::2], strict=True):
            killed = first.codes == [-KILL]
            assert second.codes == [0] or "is finished" in second.err, (run, second.err)
            assert_same_run(run, whole)
            shutil.rmtree(run)
            places += killed
        event += len(batch)
    print(f"\nkilled at {places} places")
    assert places > EVENTS
