"""Claim: a run that vanishes goes on from its mirror to the same weights and logs, bit for bit, wherever the run or the
copying was killed; what cannot be a mirror is refused before training, and a mirror that fails stops no run."""

from __future__ import annotations

import json
import random
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import tinycore
from apps.common import checkpoints, files, recipes

Sessions = Callable[[Sequence[dict[str, Any]]], Any]
KILL = int(signal.SIGKILL)
FINAL = Path("checkpoints") / "step_00000012"
# writes, fsyncs and renames of the copying of a whole run: how many there are depends on how fast the copying is, since
# a newer checkpoint may replace one that waits
FEWEST = 70


@pytest.fixture(scope="module")
def whole(sessions: Sessions, tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without a mirror that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "runs" / "whole"
    (result,) = sessions([{"argv": ["--recipe", str(tiny_recipe), "--out", str(run)]}])
    assert result.codes == [0], result.err
    return run


def start(recipe: Path, run: Path) -> list[str]:
    return ["--recipe", str(recipe), "--out", str(run), "--train.mirror", str(run.parents[1] / "mirrors"), "--json"]


def mirror_of(run: Path) -> Path:
    return run.parents[1] / "mirrors" / run.name


def refused(result: Any) -> str:
    assert result.codes == [2], (result.codes, result.err)
    (line,) = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in result.err
    return line


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def assert_same_run(run: Path, reference: Path) -> None:
    for name in ("metrics.jsonl", "samples.md", "best", "latest"):
        assert (run / name).read_bytes() == (reference / name).read_bytes(), name
    for name in ("model.safetensors", "optimizer.safetensors", "rng-00000.safetensors", "tokenizer.json"):
        assert (run / FINAL / name).read_bytes() == (reference / FINAL / name).read_bytes(), name


def good_step(mirror: Path) -> int:
    """The step that the mirror can go on from: its newest checkpoint verifies and has its logs. 0 where it has none."""
    found = checkpoints.newest(mirror / "checkpoints") if mirror.exists() else None
    if found is None:
        return 0
    assert found.damaged == []
    step = int(found.path.name[5:])
    logged = [json.loads(line)["step"] for line in (mirror / "metrics.jsonl").read_text().splitlines()]
    assert set(range(1, step + 1)) <= set(logged)
    return step


def test_the_mirror_of_a_run_is_that_run(sessions: Sessions, tiny_recipe: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "a"
    mirrored, again = sessions(
        [{"argv": start(tiny_recipe, run)}, {"argv": ["--resume", str(mirror_of(run)), "--train.mirror", "null"]}]
    )
    mirror = mirror_of(run)
    assert mirrored.codes == [0], mirrored.err
    assert mirrored.json["mirror"] == str(mirror)
    assert f"mirror: {mirror} is complete (step_00000012)" in mirrored.err
    # what a stranger's machine must have is said at the start
    assert f"takes also {tiny_recipe.parent / 'text.txt'} (data.sources.0.path)" in mirrored.err
    assert_same_run(mirror, whole)
    here, there = content(run), content(mirror)
    assert here.keys() == there.keys()
    assert {name for name in here if here[name] != there[name]} == {"recipe.yaml"}
    assert recipes.load(run / "recipe.yaml").train.mirror == str(mirror.parent)
    assert recipes.load(mirror / "recipe.yaml").train.mirror is None
    for path in mirror.rglob("*"):
        assert path.is_dir() or path.lstat().st_nlink == 1
        assert not path.is_symlink()
    assert "is finished (step 12)" in refused(again)


def test_killed_anywhere_and_continued_from_the_mirror(
    sessions: Sessions, tiny_recipe: Path, whole: Path, tmp_path: Path
) -> None:
    chance = random.Random(5)
    # anywhere in the run itself, then anywhere in its copying
    hurts = [{"step": 12}, {"event": chance.randrange(40, 110)}]
    # the first 14 events make the mirror itself: before them there is nothing to go on from
    hurts += [{"event": chance.randrange(15, FEWEST), "within": "mirrors"} for _ in range(3)]
    for number, hurt in enumerate(hurts):
        run = tmp_path / "runs" / f"killed{number}"
        mirror = mirror_of(run)
        (killed,) = sessions([{"argv": start(tiny_recipe, run), "hurt": {"rank": 0, "signal": KILL, **hurt}}])
        assert killed.codes == [-KILL], killed.err
        good_step(mirror)
        shutil.rmtree(run)
        (finished,) = sessions([{"argv": ["--resume", str(mirror), "--json"]}])
        assert finished.codes == [0], (hurt, finished.err)
        assert finished.json["mirror"] is None
        assert_same_run(mirror, whole)


def test_a_killed_copy_is_taken_up_again(sessions: Sessions, tiny_recipe: Path, whole: Path, tmp_path: Path) -> None:
    """The run itself survives: resumed, it brings its mirror up to date, and what was cut off leaves nothing behind."""
    run = tmp_path / "runs" / "a"
    chance = random.Random(6)
    resume = ["--resume", str(run), "--json"]
    before, endings = 0, []
    for argv in (start(tiny_recipe, run), resume, resume):
        hurt = {"rank": 0, "within": "mirrors", "signal": KILL, "event": chance.randrange(20, 45)}
        endings += sessions([{"argv": argv, "hurt": hurt}])
        now = good_step(mirror_of(run))
        assert now >= before  # what the mirror had it still has, or newer
        before = now
    assert endings[0].codes == [-KILL]
    (finished,) = sessions([{"argv": resume}])
    assert finished.codes == [0], finished.err
    assert_same_run(run, whole)
    assert_same_run(mirror_of(run), whole)
    assert content(run).keys() == content(mirror_of(run)).keys()
    assert not list(mirror_of(run).rglob(f"{files.TEMPORARY}*"))


def test_a_stopped_run_is_waited_for_and_a_mirror_may_be_added(
    sessions: Sessions, tiny_recipe: Path, whole: Path, tmp_path: Path
) -> None:
    run, mirrors = tmp_path / "runs" / "a", tmp_path / "mirrors"
    stop = {"rank": 0, "step": 6, "signal": int(signal.SIGTERM)}
    again = {"rank": 0, "step": 1, "signal": int(signal.SIGTERM)}
    resume = ["--resume", str(run), "--train.mirror", str(mirrors), "--json"]
    stopped, added = sessions(
        [
            {"argv": ["--recipe", str(tiny_recipe), "--out", str(run), "--json"], "hurt": stop},
            {"argv": resume, "hurt": again},  # not one step later, the mirror has everything
        ]
    )
    assert (stopped.codes, stopped.json["mirror"]) == ([3], None)
    assert added.codes == [3], added.err
    assert "train.mirror  nothing -> " in added.err
    assert added.json["mirror"] == str(mirrors / "a")
    status = json.loads((mirrors / "a" / "status.json").read_text())
    assert (status["status"], status["step"]) == ("stopped", 5)
    finished, overtaken = sessions([{"argv": ["--resume", str(mirrors / "a")]}, {"argv": ["--resume", str(run)]}])
    assert finished.codes == [0], finished.err
    assert_same_run(mirrors / "a", whole)
    # the copy went on by itself: the run must not write over what is ahead of it
    line = refused(overtaken)
    assert f"{mirrors / 'a'} is at step 12, this run at 5; go on from there with " in line


def test_two_processes_have_one_mirror(sessions: Sessions, tiny_recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "two"
    stop = {"rank": 1, "step": 6, "signal": int(signal.SIGTERM)}
    stopped, finished, whole = sessions(
        [
            {"argv": start(tiny_recipe, run), "world": 2, "hurt": stop},
            {"argv": ["--resume", str(mirror_of(run))], "world": 2},
            {"argv": ["--recipe", str(tiny_recipe), "--out", str(tmp_path / "runs" / "whole")], "world": 2},
        ]
    )
    assert (stopped.codes, finished.codes, whole.codes) == ([3, 3], [0, 0], [0, 0]), stopped.err + finished.err
    assert stopped.json["mirror"] == str(mirror_of(run))
    assert_same_run(mirror_of(run), tmp_path / "runs" / "whole")
    assert (mirror_of(run) / FINAL / "rng-00001.safetensors").is_file()


def test_what_cannot_be_a_mirror_is_refused_before_anything_is_made(
    sessions: Sessions, tiny_recipe: Path, tmp_path: Path
) -> None:
    runs, other = tmp_path / "runs", tmp_path / "other"
    (tmp_path / "file").write_text("")
    (other / "a").mkdir(parents=True)
    (other / "a" / "thesis.tex").write_text("years of work")
    base = ["--recipe", str(tiny_recipe), "--out", str(runs / "a"), "--train.mirror"]
    under_a_file, same, inside, no_run, empty = sessions(
        [{"argv": [*base, str(folder)]} for folder in (tmp_path / "file" / "x", runs, runs / "a" / "m", other, '""')]
    )
    assert "cannot be made or written (not a directory)" in refused(under_a_file)
    assert "is not apart from the run itself" in refused(same)
    assert "is not apart from the run itself" in refused(inside)
    assert f"{other / 'a'} exists and is not a run" in refused(no_run)
    assert "train.mirror: an empty path" in refused(empty)
    assert list(runs.iterdir()) == []
    assert [path.name for path in (other / "a").iterdir()] == ["thesis.tex"]
    both = sessions([{"argv": [*base, str(tmp_path / "file" / "x")], "world": 2}])[0]
    assert both.codes == [2, 2]
    assert both.err.count("error:") == 1


def test_a_mirror_that_vanishes_costs_one_warning(
    sessions: Sessions, tiny_recipe: Path, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "a"
    (result,) = sessions([{"argv": start(tiny_recipe, run), "hurt": {"remove": str(tmp_path / "mirrors"), "step": 6}}])
    assert result.codes == [0], result.err
    assert_same_run(run, whole)
    assert not (tmp_path / "mirrors").exists()  # what vanished is not made again
    assert result.err.count("could not be copied") == 1
    assert f"to {mirror_of(run)} (no such file or directory); training goes on" in result.err
    assert f"mirror: {mirror_of(run)} is not complete" in result.err
    assert result.json["mirror"] is None


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_killed_at_every_event_of_the_copying(
    sessions: Sessions, tiny_recipe: Path, whole: Path, tmp_path: Path
) -> None:
    """Every write, fsync and rename in the mirror, not a choice of them."""
    event = survived = 0
    while survived < 5:  # in a row: there are no more events, however fast the copying was
        event += 1
        run = tmp_path / "runs" / f"event{event}"
        hurt = {"rank": 0, "event": event, "within": "mirrors", "signal": KILL}
        (first,) = sessions([{"argv": start(tiny_recipe, run), "hurt": hurt}])
        survived = 0 if first.codes == [-KILL] else survived + 1
        mirror = mirror_of(run)
        good_step(mirror)
        copy = tmp_path / "elsewhere" / run.name
        if mirror.exists():
            shutil.copytree(mirror, copy)
        # from the copy on another machine, and from the run itself where its mirror is as it was left
        argv = ["--recipe", str(tiny_recipe), "--out", str(copy)]
        results = sessions([{"argv": argv, "resume": str(copy)}, {"argv": start(tiny_recipe, run), "resume": str(run)}])
        for result, path in zip(results, (copy, run), strict=True):
            assert result.codes == [0] or "is finished" in result.err, (event, path, result.err)
            assert_same_run(path, whole)
        if results[1].codes == [0]:  # a run that was killed when it was done has nothing left to do
            assert_same_run(mirror, whole)
            tinycore.checkpoint.verify(mirror / FINAL)
    assert event > FEWEST
