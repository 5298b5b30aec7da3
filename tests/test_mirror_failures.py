"""Claim: whatever the other disk does - full, gone and back, damaged, slow, hung - the mirror holds a good checkpoint, tells
the reason once, never blocks the run, and takes up where it can; only an older state of the same run is written over."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

import tinycore
from apps.common import checkpoints, files, mirror_directory, recipes, run_directory
from apps.common import mirror as mirrors
from apps.common.checkpoints import Progress
from apps.common.console import Console
from apps.common.data_config import EmbeddedSource, HubSource, TokenizerFile
from apps.common.errors import RunError
from apps.common.mirror import Mirror
from apps.common.recipe import Recipe
from apps.common.run_directory import sample_heading

PATIENCE = 10.0  # seconds that a test waits for what must happen at once


class Listener(Console):
    """Remembers what was said; silent."""

    def __init__(self) -> None:
        super().__init__(json=True)
        self.said: list[str] = []
        self.warned: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warned.append(text)


class Run:
    """A run whose checkpoints are small files with a true manifest, and its mirror."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.recipe = replace(recipe, train=replace(recipe.train, keep=2, mirror=str(folder / "mirrors")))
        self.console = Listener()
        self.directory = run_directory.create(folder / "runs" / "a", self.recipe, [])
        self.copy = folder / "mirrors" / "a"
        self.mirror = self.begin(0, [])

    def begin(self, step: int, lineage: list[dict[str, Any]]) -> Mirror:
        found = mirrors.begin(self.directory, self.recipe, step, lineage, self.console)
        assert found is not None
        assert found.path == self.copy
        return found

    def continued(self, step: int, lineage: list[dict[str, Any]]) -> Mirror:
        """The mirror as a later session of the run takes it."""
        self.mirror.close()
        self.mirror = self.begin(step, lineage)
        return self.mirror

    def progress(self, step: int, best: int | None = None, lineage: list[dict[str, Any]] | None = None) -> Progress:
        return Progress(
            step=step,
            tokens=step,
            data={},
            best={"step": best, "val_bpb": 1.0} if best else None,
            latest=None,
            recipe=recipes.to_dict(self.recipe),
            environment={},
            dataset={"train": "", "validation": ""},
            tokenizer="",
            lineage=lineage or [],
        )

    def save(self, step: int, best: int | None = None, lineage: list[dict[str, Any]] | None = None) -> Progress:
        """The checkpoint of `step` and its logs, as a run writes them; not offered to the mirror."""
        progress = self.progress(step, best, lineage)
        self.directory.metrics.append({"step": step})
        self.directory.append_samples(sample_heading(step))
        self.directory.checkpoints.mkdir(exist_ok=True)
        with files.new_directory(self.directory.checkpoints / checkpoints.directory_of(step)) as folder:
            (folder / "config.json").write_text("{}")
            (folder / "model.safetensors").write_bytes(os.urandom(5000))
            trainer = {"format_version": checkpoints.FORMAT_VERSION, **asdict(progress), "optimizer": {}}
            files.write_json(folder / "trainer.json", trainer)
            tinycore.checkpoint.write_manifest(folder)
        self.directory.write_status("running", step, progress.lineage)
        return progress

    def step(self, step: int, best: int | None = None) -> set[str]:
        """Save, offer and prune, as the trainer does; the checkpoints that must stay."""
        copied = self.mirror.offer(self.save(step, best))
        checkpoints.prune(self.directory.checkpoints, 2, copied)
        return copied

    def settle(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while self.mirror.reading():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def held(self) -> list[str]:
        """The mirror's checkpoints, all of which must verify."""
        found = checkpoints.existing(self.copy / "checkpoints")
        for path in found:
            tinycore.checkpoint.verify(path)
        return [path.name for path in found]

    def logged(self) -> list[int]:
        return [int(line.partition(": ")[2][:-1]) for line in (self.copy / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Path) -> Iterator[Run]:
    run = Run(tmp_path, recipes.load(tiny_recipe))
    yield run
    run.mirror.close()
    run.directory.release()


class Disk:
    """What the mirror's disk does: `code` fails each write, `held` blocks it while set, `flip` damages the weights."""

    def __init__(self) -> None:
        self.code: int | None = None
        self.held = threading.Event()
        self.blocked = threading.Event()
        self.flip = False

    def probe(self, event: str, path: Path) -> None:
        if "mirrors" not in path.parts:
            return
        while self.held.is_set():
            self.blocked.set()
            time.sleep(0.005)
        if self.code is not None and event == "write":
            raise OSError(self.code, os.strerror(self.code))
        if self.flip and event == "fsync" and path.name == "model.safetensors":
            content = bytearray(path.read_bytes())
            content[17] ^= 4
            path.write_bytes(content)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk()
    monkeypatch.setattr(files, "probe", disk.probe)
    yield disk
    disk.held.clear()


def test_the_newest_and_the_best_are_kept_with_their_logs(run: Run) -> None:
    for step in range(1, 6):
        run.step(step, best=1 if step < 5 else 5)
        run.settle()
        assert run.logged() == list(range(1, step + 1))
        if step == 4:
            assert run.held() == ["step_00000001", "step_00000003", "step_00000004"]
            assert (run.copy / "best").read_text() == "step_00000001\n"
    assert run.held() == ["step_00000004", "step_00000005"]
    assert (run.copy / "best").read_text() == (run.copy / "latest").read_text() == "step_00000005\n"
    status = run_directory.read_status(run.copy)
    assert (status["step"], status["run_id"]) == (5, run.directory.run_id)
    assert run.console.warned == []


def test_logs_are_those_of_the_checkpoint_even_when_the_run_is_ahead(run: Run, disk: Disk) -> None:
    disk.held.set()
    run.step(1)
    run.directory.metrics.append({"step": 2})
    run.directory.append_samples(sample_heading(2))
    disk.held.clear()
    run.settle()
    assert run.logged() == [1]
    assert (run.copy / "samples.md").read_text() == sample_heading(1)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.ENOTCONN, errno.EDQUOT, errno.EFBIG])
def test_a_disk_that_refuses_is_said_once_and_tried_again(run: Run, disk: Disk, code: int) -> None:
    run.step(1)
    run.settle()
    disk.code = code
    for step in (2, 3, 4):
        run.step(step)
        run.settle()
        assert run.held() == ["step_00000001"]
    (warning,) = run.console.warned
    assert f"step_00000002 could not be copied to {run.copy} ({os.strerror(code).lower()}); training goes on" in warning
    disk.code = None
    run.step(5)
    run.settle()
    assert run.held()[-1] == "step_00000005"
    assert f"{run.copy} is up to date again (step_00000005)" in run.console.said
    assert not list(run.copy.rglob(f"{files.TEMPORARY}*"))


def test_another_reason_is_another_warning(run: Run, disk: Disk) -> None:
    for step, code in ((1, errno.ENOSPC), (2, errno.EIO), (3, errno.ENOSPC)):
        disk.code = code
        run.step(step)
        run.settle()
    full, broken = run.console.warned
    assert os.strerror(errno.ENOSPC).lower() in full
    assert os.strerror(errno.EIO).lower() in broken
    assert not run.mirror.finish(run.progress(3), lambda: False)
    assert f"mirror: {run.copy} is not complete, it has got no checkpoint" in run.console.warned[-1]


def test_what_does_not_read_back_is_not_kept(run: Run, disk: Disk) -> None:
    for step in (1, 2):
        run.step(step)
        run.settle()
    disk.flip = True
    run.step(3)
    run.settle()
    assert run.held() == ["step_00000001", "step_00000002"]
    assert (run.copy / "latest").read_text() == "step_00000002\n"
    assert "model.safetensors: damaged" in run.console.warned[0]
    disk.flip = False
    assert run.mirror.finish(run.progress(3), lambda: False)
    assert run.held() == ["step_00000002", "step_00000003"]


def test_a_drive_that_goes_and_comes_back(run: Run) -> None:
    run.step(1)
    run.settle()
    mount = run.copy.parent
    away = mount.rename(mount.with_name("unmounted"))
    mount.mkdir()  # the empty mount point
    for step in (2, 3):
        run.step(step)
        run.settle()
    assert list(mount.iterdir()) == []
    assert len(run.console.warned) == 1
    mount.rmdir()
    away.rename(mount)
    run.step(4)
    run.settle()
    assert run.held() == ["step_00000001", "step_00000004"]
    files.write_json(run.copy / "status.json", {"status": "done", "step": 9, "run_id": "another"})
    run.step(5)
    run.settle()
    assert "holds another run now" in run.console.warned[-1]
    assert run.held() == ["step_00000001", "step_00000004"]


def test_a_slow_drive_gets_the_newest_and_the_run_keeps_what_is_read(run: Run, disk: Disk) -> None:
    disk.held.set()
    assert run.step(1) == {"step_00000001"}
    assert disk.blocked.wait(PATIENCE)
    for step in (2, 3, 4):  # nobody waits for the drive
        assert run.step(step) == {"step_00000001", f"step_0000000{step}"}
    here = [path.name for path in checkpoints.existing(run.directory.checkpoints)]
    assert here == ["step_00000001", "step_00000003", "step_00000004"]
    disk.held.clear()
    run.settle()
    assert run.held() == ["step_00000001", "step_00000004"]
    (warning,) = run.console.warned
    assert "step_00000002 is left out for step_00000003" in warning


@pytest.mark.parametrize("asked", [False, True])
def test_the_end_does_not_wait_for_ever(run: Run, disk: Disk, monkeypatch: pytest.MonkeyPatch, asked: bool) -> None:
    run.step(1)
    run.settle()
    disk.held.set()
    progress = run.save(2)
    monkeypatch.setattr(mirrors, "STALLED", 2 * PATIENCE if asked else 0.5)
    monkeypatch.setattr(mirrors, "SAY_EVERY", 0.1)
    answers = iter([False, False])  # a person asks while the run waits
    began = time.monotonic()
    complete = run.mirror.finish(progress, lambda: next(answers, asked))
    assert (complete, run.held()) == (False, ["step_00000001"])
    assert time.monotonic() - began < PATIENCE
    assert any(line.startswith(f"waiting for the copy in {run.copy}") for line in run.console.said)
    assert f"{run.copy} is not complete, its newest checkpoint is step_00000001" in run.console.warned[0]
    run.mirror.close()
    assert time.monotonic() - began < PATIENCE  # it has waited


def test_a_run_that_fails_gives_the_copy_a_moment(run: Run, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    disk.held.set()
    run.step(1)
    assert disk.blocked.wait(PATIENCE)
    threading.Timer(0.3, disk.held.clear).start()
    run.mirror.close()
    assert run.held() == ["step_00000001"]
    assert f"mirror: {run.copy} is complete (step_00000001)" in run.console.said
    disk.held.set()
    monkeypatch.setattr(mirrors, "FAREWELL", 0.3)
    run.continued(1, []).offer(run.save(2))
    began = time.monotonic()
    run.mirror.close()
    assert time.monotonic() - began < PATIENCE
    assert "it has got no checkpoint of this session" in run.console.warned[-1]


def test_only_an_older_state_of_the_same_run_is_written_over(run: Run) -> None:
    first, second = {"event": "resume", "step": 2}, {"event": "resume", "step": 4}
    run.step(1)
    run.step(2)
    run.settle()
    with pytest.raises(RunError, match="is writing this run"):
        run.begin(2, [])
    run.continued(2, [first]).offer(run.save(4, lineage=[first]))
    run.settle()
    run.continued(4, [first, second]).close()
    again = f"go on from there with `uv run apps/pretrain --resume {run.copy}`"
    with pytest.raises(RunError, match=f"is at step 4, this run at 3; {again}"):
        run.begin(3, [first])
    with pytest.raises(RunError, match=f"was continued apart from this run; {again}"):
        run.begin(6, [{**first, "changes": {"optim.learning_rate": [1, 2]}}])
    held = run.held()
    run.directory.run_id = "of another run"
    with pytest.raises(RunError, match="holds another run; give another folder, or this run another name with --out"):
        run.begin(6, [first])
    assert run.held() == held


def test_a_damaged_copy_of_an_earlier_session_is_made_again(run: Run) -> None:
    for step in (1, 2):
        run.step(step)
        run.settle()
    weights = run.copy / "checkpoints" / "step_00000002" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    (run.copy / "checkpoints" / f"{files.TEMPORARY}step_00000007").mkdir()
    run.continued(2, []).offer(run.progress(2))
    run.settle()
    assert run.held() == ["step_00000001", "step_00000002"]
    assert not list(run.copy.rglob(f"{files.TEMPORARY}*"))


def test_a_run_inside_its_mirror_is_refused(tmp_path: Path, tiny_recipe: Path) -> None:
    recipe = recipes.load(tiny_recipe)
    inner = run_directory.create(tmp_path / "a" / "b" / "a", recipe, [])
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b")
    for folder in (tmp_path, tmp_path / "a" / "b", tmp_path / "link", tmp_path / "a" / "b" / "a"):
        with pytest.raises(RunError, match="is not apart from the run itself"):
            mirror_directory.claim(folder, inner, recipe, 0, [])
    assert not (tmp_path / "a" / "status.json").exists()
    inner.discard()
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_file_system_without_locks_permissions_and_flushing_will_do(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What FAT and network drives answer to a lock, to chmod and to the fsync of a directory."""
    flush, answered = os.fsync, set()

    def lock(descriptor: int) -> None:
        answered.add("lock")
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    def chmod(path: Path, mode: int) -> None:
        answered.add("chmod")
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    def fsync(descriptor: int) -> None:
        if os.fstat(descriptor).st_mode & 0o40000:
            answered.add("fsync")
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        flush(descriptor)

    monkeypatch.setattr(files, "_lock", lock)
    monkeypatch.setattr(os, "chmod", chmod)
    monkeypatch.setattr(os, "fsync", fsync)
    run = Run(tmp_path, recipes.load(tiny_recipe))
    assert run.mirror.finish(run.save(1), lambda: False)
    run.mirror.close()
    assert run.held() == ["step_00000001"]
    again, _ = run_directory.reopen(run.copy)
    again.release()
    assert answered == {"lock", "chmod", "fsync"}


def test_what_going_on_elsewhere_takes(tiny_recipe: Path) -> None:
    recipe = recipes.load(tiny_recipe)

    def needed(*sources: Any, **more: Any) -> list[str]:
        return mirrors.needed_elsewhere(replace(recipe, data=replace(recipe.data, sources=sources, **more)))

    assert needed(EmbeddedSource(parts=("stories",))) == []
    assert "Python 3." in needed(EmbeddedSource())[0]
    assert needed(HubSource(name="a/b"), tokenizer=TokenizerFile(path="tok.json")) == [
        "the dataset a/b",
        "tok.json (data.tokenizer.path)",
    ]
