"""Claim: a file or directory is replaced whole or not at all, whatever interrupts the writing, and a full disk is one line
that names the path; a JSON file is read with limits; a lock names its holder and ends with it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections import namedtuple
from pathlib import Path

import pytest

from apps.common import files, logs
from apps.common.errors import RunError


class Interrupted(BaseException):
    """Stands for the end of the process: nothing may catch it and carry on."""


def interrupt_at(monkeypatch: pytest.MonkeyPatch, number: int) -> list[str]:
    """Has the `number`-th write, fsync or rename be the last; returns the list of those that happened."""
    seen: list[str] = []

    def probe(event: str, path: Path) -> None:
        seen.append(event)
        if len(seen) == number:
            raise Interrupted

    monkeypatch.setattr(files, "probe", probe)
    return seen


def test_a_file_is_old_or_new_at_every_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "value.json"
    files.write_json(path, {"value": 0})
    events = interrupt_at(monkeypatch, 0)
    files.write_json(path, {"value": 1})
    assert events == ["write", "fsync", "rename", "fsync"]
    for number in range(1, 5):
        interrupt_at(monkeypatch, 0)
        files.write_json(path, {"value": 1})
        interrupt_at(monkeypatch, number)
        with pytest.raises(Interrupted):
            files.write_json(path, {"value": 2})
        assert json.loads(path.read_text()) == {"value": 1 if number < 3 else 2}
        files.remove_leftovers(tmp_path)
        assert [entry.name for entry in tmp_path.iterdir()] == ["value.json"]


def test_a_directory_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(path: Path) -> None:
        with files.new_directory(path) as directory:
            (directory / "a").write_text("a")
            (directory / "b").write_text("b")

    events = interrupt_at(monkeypatch, 0)
    fill(tmp_path / "first")
    assert events == ["write", "fsync", "write", "fsync", "fsync", "rename", "fsync"]
    for number in range(1, len(events) + 1):
        path = tmp_path / f"at{number}"
        interrupt_at(monkeypatch, number)
        with pytest.raises(Interrupted):
            fill(path)
        assert path.exists() == (number >= 6)
        if path.exists():
            assert sorted(entry.name for entry in path.iterdir()) == ["a", "b"]


def test_a_directory_that_does_not_check_is_not_kept(tmp_path: Path) -> None:
    def refuse(directory: Path) -> None:
        raise RunError(f"{directory}: damaged")

    with pytest.raises(RunError, match="damaged"), files.new_directory(tmp_path / "new", check=refuse) as directory:
        (directory / "a").write_text("a")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "there").mkdir()
    with pytest.raises(RunError, match="exists already"), files.new_directory(tmp_path / "there"):
        pass


def test_a_removed_directory_loses_its_name_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").write_text("")
    interrupt_at(monkeypatch, 1)
    with pytest.raises(Interrupted):
        files.remove_directory(tmp_path / "old")
    assert not (tmp_path / "old").exists()
    files.remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_line_and_keeps_what_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    path = tmp_path / "file"
    files.write_text(path, "old")

    def full(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError) as caught:
        files.write_text(path, "new")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(RunError, match="what was saved before is intact"):
        files.append_line(tmp_path / "log", "line")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_device_is_recognised(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no space left on device"), files.full_disk_explained(tmp_path):
        Path("/dev/full").write_text("a")


def test_other_errors_are_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), files.full_disk_explained(tmp_path):
        raise PermissionError(errno.EACCES, "no")


def test_space_is_required_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 2**20 + files.RESERVE))
    files.require_space(tmp_path, 2**20)
    with pytest.raises(RunError, match="the disk has 17 MiB free"):
        files.require_space(tmp_path, 2**20 + 1)


@pytest.mark.parametrize(
    "content", ["", "[1]", "1", '{"a": NaN}', '{"a": Infinity}', "{", "[" * 100_000, '{"a": 1}garbage', '{"a": "\xff"}']
)
def test_json_is_an_object_or_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(RunError) as caught:
        files.read_json(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_json_has_a_size_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_json(tmp_path / "file.json", {"a": 1})
    assert files.read_json(tmp_path / "file.json") == {"a": 1}
    monkeypatch.setattr(files, "JSON_BYTES", 3)
    with pytest.raises(RunError, match="larger than"):
        files.read_json(tmp_path / "file.json")
    with pytest.raises(RunError, match="cannot be read"):
        files.read_json(tmp_path / "missing.json")
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(tmp_path / "file.json", {"a": float("nan")})


def test_one_lock_a_directory(tmp_path: Path) -> None:
    lock = files.Lock(tmp_path)
    with pytest.raises(RunError, match=f"process {os.getpid()} is writing this run"):
        files.Lock(tmp_path)
    lock.release()
    files.Lock(tmp_path).release()


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        files.Lock(tmp_path)
        os.write(writing, b"1")
        signal.pause()
    assert os.read(reading, 1) == b"1"
    with pytest.raises(RunError, match=f"process {child} "):
        files.Lock(tmp_path)
    os.kill(child, 9)
    os.waitpid(child, 0)
    files.Lock(tmp_path).release()


def test_a_log_is_cut_back_to_a_step(tmp_path: Path) -> None:
    log = logs.Log(tmp_path / "metrics.jsonl")
    for step in range(1, 6):
        log.append({"step": step, "loss": 1 / step, "bad": float("nan")})
    before = log.path.read_text().splitlines(keepends=True)
    with open(log.path, "a") as file:
        file.write('{"step": 6, "lo')  # a kill in the middle of a write
    assert [record["step"] for record in logs.read(log.path)] == [1, 2, 3, 4, 5]
    assert logs.read(log.path)[0] == {"step": 1, "loss": 1.0, "bad": None}
    log.cut(3)
    assert log.path.read_text() == "".join(before[:3])
    log.append({"step": 4, "loss": 0.25, "bad": None})
    assert log.path.read_text() == "".join(before[:4])
    log.cut(0)
    assert log.path.read_text() == ""
    with pytest.raises(KeyError):
        log.append({"loss": 1.0})
