"""Writes that survive a crash: whole or not at all, on disk before they count.

A file is written under a temporary name beside its target, flushed to the device, and renamed over it; a directory is
filled under a temporary name, every file in it flushed, and renamed as a whole. Whoever reads therefore finds the old
content or the new, never a part. What a killed process leaves behind bears the temporary prefix and is removed by
`remove_leftovers`. Every file of a run directory is written here, so that `probe` sees each step and a test can kill
the process at any of them.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from apps.common.errors import RunError

TEMPORARY = ".incomplete-"  # prefix of everything that is not whole yet
RESERVE = 16 * 2**20  # bytes left free beside a checkpoint: logs and reports must still fit
JSON_BYTES = 64 * 2**20  # no JSON file of ours comes near; a larger one is not ours


def probe(event: str, path: Path) -> None:
    """Called after each "write", "fsync" and "rename" with the path it concerned; does nothing outside tests."""


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content` atomically. Raises RunError on a full disk; the old file then still stands."""
    temporary = path.with_name(f"{TEMPORARY}{path.name}")
    with full_disk_explained(path):
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            probe("write", temporary)
            os.fsync(file.fileno())
        probe("fsync", temporary)
        os.replace(temporary, path)
        probe("rename", path)
        flush_directory(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in UTF-8 atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as JSON atomically; NaN and infinity are refused (JSON has neither)."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises RunError, one line, for anything else, whoever wrote it."""
    try:
        if path.stat().st_size > JSON_BYTES:
            raise RunError(f"{path}: larger than {JSON_BYTES >> 20} MiB, which no file of a run is")
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"{path}: not valid JSON") from None
    if not isinstance(value, dict):
        raise RunError(f"{path}: holds {type(value).__name__} where a JSON object belongs")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def append_line(path: Path, line: str) -> None:
    """Add one line to `path` in a single write, so that a kill leaves at most the last line incomplete."""
    with full_disk_explained(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            content = (line + "\n").encode("utf-8")
            while content:
                content = content[os.write(descriptor, content) :]
            probe("write", path)
        finally:
            os.close(descriptor)


def flush(path: Path) -> None:
    """Have the device hold `path` as it is now; a path that does not exist is left alone."""
    with contextlib.suppress(FileNotFoundError), open(path, "rb+") as file:
        os.fsync(file.fileno())
        probe("fsync", path)


def flush_directory(directory: Path) -> None:
    """Have the device hold the directory's entries (a rename is lost with the power otherwise)."""
    if os.name == "nt":
        return  # Windows cannot open a directory; NTFS journals renames
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with _where_possible():
            os.fsync(descriptor)
        probe("fsync", directory)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def new_directory(path: Path, check: Callable[[Path], None] | None = None) -> Generator[Path]:
    """Fill the directory `path`, which must not exist while its parent must, atomically.

    Yields a temporary directory beside it. On a clean exit every file is flushed, `check` may still refuse the content
    by raising, and only then does the directory take its name. On an error nothing remains.
    """
    if path.exists():
        raise RunError(f"{path}: exists already")
    temporary = path.with_name(f"{TEMPORARY}{path.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    with full_disk_explained(path):
        try:
            temporary.mkdir()
            yield temporary
            for file in sorted(entry for entry in temporary.rglob("*") if entry.is_file()):
                # libraries may write private files; a run is as readable as its directory
                with _where_possible():
                    os.chmod(file, temporary.stat().st_mode & 0o666)
                probe("write", file)
                flush(file)
            flush_directory(temporary)
            if check is not None:
                check(temporary)
            os.replace(temporary, path)
            probe("rename", path)
            flush_directory(path.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def remove_directory(path: Path) -> None:
    """Remove a directory so that no part of it can be taken for the whole: it loses its name first."""
    temporary = path.with_name(f"{TEMPORARY}{path.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    os.replace(path, temporary)
    probe("rename", temporary)
    shutil.rmtree(temporary)


def remove_leftovers(directory: Path) -> None:
    """Remove what a killed process left incomplete directly in `directory`."""
    for path in sorted(directory.glob(f"{TEMPORARY}*")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def require_space(directory: Path, size: int) -> None:
    """Raise RunError unless `size` bytes and a reserve are free where `directory` (which must exist) lies."""
    free = shutil.disk_usage(directory).free
    if free < size + RESERVE:
        raise RunError(
            f"{directory}: needs {_megabytes(size + RESERVE)}, the disk has {_megabytes(free)} free; "
            "what was saved before is intact, make room and resume"
        )


@contextlib.contextmanager
def full_disk_explained(path: Path) -> Generator[None]:
    """Turn a full disk, a quota or a size limit met while writing `path` into a RunError of one line."""
    try:
        yield
    except Exception as error:
        code = _full_disk_code(error)
        if code is None:
            raise
        reason = os.strerror(code).lower()
        raise RunError(f"{path}: {reason}; what was saved before is intact, make room and resume") from error


@contextlib.contextmanager
def _where_possible() -> Generator[None]:
    """Let pass what the file system has no notion of: FAT and network drives lack permissions, locks or flushing."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM, errno.ENOLCK):
            raise


def _full_disk_code(error: Exception) -> int | None:
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if isinstance(error, OSError):
        return error.errno if error.errno in codes else None
    # safetensors writes in Rust and hands the code on as text only
    return next((code for code in codes if f"os error {code}" in str(error)), None)


def _megabytes(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


class Lock:
    """A claim on a directory that ends with the process that holds it, however it ends."""

    def __init__(self, directory: Path) -> None:
        """Raises RunError naming the holder where another process has the claim."""
        self.path = directory / ".lock"
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            with _where_possible():
                _lock(self._descriptor)
        except OSError:
            holder = os.read(self._descriptor, 20).decode("ascii", "replace").strip() or "unknown"
            os.close(self._descriptor)
            raise RunError(f"{directory}: process {holder} is writing this run; wait for it or stop it first") from None
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, str(os.getpid()).encode("ascii"))

    def release(self) -> None:
        """Give the claim up; the file stays, since removing it would race with the next holder."""
        os.close(self._descriptor)


if os.name == "nt":
    import msvcrt

    def _lock(descriptor: int) -> None:
        # a byte far past the holder's number, which stays readable
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
