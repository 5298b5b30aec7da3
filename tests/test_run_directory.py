"""Claim: a run directory is made once and never overwritten, appears with its recipe, and is cut back to any step."""

from __future__ import annotations

from pathlib import Path

import pytest

from apps.common import files, recipes, run_directory
from apps.common.errors import RunError
from apps.common.run_directory import RunDirectory, sample_heading


@pytest.fixture
def recipe(tiny_recipe: Path) -> recipes.Recipe:
    return recipes.load(tiny_recipe)


def finish(run: RunDirectory, status: run_directory.Status) -> None:
    run.write_status(status, 7, [])
    run.release()


def test_a_new_run_can_be_resumed_from_its_first_moment(tmp_path: Path, recipe: recipes.Recipe) -> None:
    run = run_directory.create(tmp_path / "runs" / "a", recipe, [{"event": "init-from"}])
    assert recipes.load(run.path / "recipe.yaml") == recipe
    written = {"status": "running", "step": 0, "lineage": [{"event": "init-from"}], "run_id": run.run_id}
    assert run_directory.read_status(run.path) == written
    run.release()
    again, status = run_directory.reopen(run.path)
    assert status["step"] == 0
    assert again.run_id == run.run_id
    again.release()


def test_a_finished_run_is_left_alone(tmp_path: Path, recipe: recipes.Recipe) -> None:
    names = []
    for _ in range(3):
        run = run_directory.create(tmp_path / "a", recipe, [])
        names.append(run.path.name)
        finish(run, "done")
    assert names == ["a", "a-2", "a-3"]


@pytest.mark.parametrize("status", ["running", "stopped", "failed"])
def test_an_unfinished_run_is_refused_with_the_command_that_resumes_it(
    tmp_path: Path, recipe: recipes.Recipe, status: run_directory.Status
) -> None:
    finish(run_directory.create(tmp_path / "a", recipe, []), status)
    before = {path: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    with pytest.raises(RunError) as caught:
        run_directory.create(tmp_path / "a", recipe, [])
    assert f"uv run apps/pretrain --resume {tmp_path / 'a'}" in str(caught.value)
    assert f"{status}, step 7" in str(caught.value)
    assert {path: path.read_bytes() for path in (tmp_path / "a").iterdir()} == before


def test_what_is_no_run_is_not_touched(tmp_path: Path, recipe: recipes.Recipe) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "final.tex").write_text("years of work")
    (tmp_path / "file").write_text("")
    for name in ("thesis", "file"):
        with pytest.raises(RunError, match="exists and is not a run"):
            run_directory.create(tmp_path / name, recipe, [])
    (tmp_path / "empty").mkdir()
    run_directory.create(tmp_path / "empty", recipe, []).release()
    with pytest.raises(RunError, match="cannot be made"):
        run_directory.create(tmp_path / "file" / "inside", recipe, [])


def test_only_a_run_is_reopened(tmp_path: Path, recipe: recipes.Recipe) -> None:
    with pytest.raises(RunError, match="no such run"):
        run_directory.reopen(tmp_path / "missing")
    run = run_directory.create(tmp_path / "a", recipe, [])
    with pytest.raises(RunError, match="is writing this run"):
        run_directory.reopen(run.path)
    run.release()
    (run.path / "checkpoints" / "step_00000001").mkdir(parents=True)
    with pytest.raises(RunError, match=f"not a run directory; resume {run.path}"):
        run_directory.reopen(run.path / "checkpoints" / "step_00000001")
    for text in ('{"status": "done"}', '{"status": "lost", "step": 1}', "{"):
        (run.path / "status.json").write_text(text)
        with pytest.raises(RunError, match="status"):
            run_directory.reopen(run.path)


def test_a_run_is_cut_back_to_a_step(tmp_path: Path, recipe: recipes.Recipe) -> None:
    run = run_directory.create(tmp_path / "a", recipe, [])
    for step in (2, 4):
        run.metrics.append({"step": step, "loss": 1.0})
        run.timing.append({"step": step, "clock": 1.0})
        run.append_samples(f"{sample_heading(step)}\n    ## Step 9\n    a sample\n")
    whole = (run.path / "samples.md").read_text()
    run.cut(4)
    assert (run.path / "samples.md").read_text() == whole
    run.cut(3)
    assert (run.path / "samples.md").read_text() == whole[: whole.index("## Step 4")]
    assert run.metrics.path.read_text() == '{"step": 2, "loss": 1.0}\n'
    assert run.timing.path.read_text() == '{"step": 2, "clock": 1.0}\n'
    run.release()


def test_pointers_are_text_and_leftovers_go(tmp_path: Path, recipe: recipes.Recipe) -> None:
    run = run_directory.create(tmp_path / "a", recipe, [])
    run.point("best", run.checkpoints / "step_00000004")
    assert (run.path / "best").read_text() == "step_00000004\n"
    assert not (run.path / "best").is_symlink()
    (run.path / f"{files.TEMPORARY}metrics.jsonl").write_text("half a")
    run.release()
    again, _ = run_directory.reopen(run.path)
    assert not list(run.path.glob(f"{files.TEMPORARY}*"))
    again.release()
