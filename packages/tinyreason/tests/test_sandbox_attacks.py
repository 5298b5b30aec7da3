"""Every attack of attacks.py succeeds under a bare interpreter and fails in the sandbox.

Success is what the attack leaves behind, never a message. The bare interpreters are contained here: their own session,
which is killed afterwards, bounds for memory, CPU, file sizes and time, and a folder of their own.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import runpy
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tinyreason.sandbox import CodeSandbox, SandboxUnavailable

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the canaries live in /proc")

FOLDER = Path(__file__).parent
ATTACKS = runpy.run_path(str(FOLDER / "attacks.py"), run_name="attacks")["ATTACKS"]
SECONDS, SLACK = 0.4, 0.5
BYTES = 2**26
CONTROL_SECONDS = {"time": 0.5, "left": 0.5}  # the others end by themselves, or when they have done it
GREEDY = 200 * 2**20


@dataclass(frozen=True)
class Observed:
    output: str
    running: bool = False  # beyond its time
    greedy: bool = False
    crashed: bool = False


class Canaries:
    """A folder, a socket and a process that an attack may reach for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "canaries"
        self.folder.mkdir()
        self.secret = f"secret-{uuid.uuid4().hex}"
        self.marker = f"marker-{uuid.uuid4().hex}"
        self.files = {name: self.folder / name for name in ("SECRET_FILE", "VICTIM_FILE", "CREATED_FILE")}
        self.files["SECRET_FILE"].write_text(self.secret)
        self.files["VICTIM_FILE"].write_text("alive")
        (self.folder / self.secret).touch()  # for attacks that list the folder
        (self.folder / "canary.py").write_text(f"VALUE = {self.secret!r}")
        self.standard_input = folder / "standard_input"
        self.standard_input.write_text(f"print({self.secret!r})\n")  # what breakpoint() would be told, too
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.process = subprocess.Popen(["sleep", "60"])
        self.environment = {
            "CANARY": self.secret,
            "HOME": str(folder),
            "PATH": os.environ["PATH"],
            "TMPDIR": str(folder),
        }

    def fill(self, source: str) -> str:
        words = {**{name: str(path) for name, path in self.files.items()}, "FOLDER": str(self.folder)}
        words |= {
            "PORT": str(self.listener.getsockname()[1]),
            "VICTIM_PROCESS": str(self.process.pid),
            "MARKER": self.marker,
        }
        for word, value in words.items():
            source = source.replace(word, value)
        return source

    def triggered(self, canary: str, observed: Observed) -> bool:
        match canary:
            case "secret":
                return self.secret in observed.output
            case "created":
                return self.files["CREATED_FILE"].exists()
            case "deleted":
                return not self.files["VICTIM_FILE"].exists()
            case "connected":
                try:
                    self.listener.accept()[0].close()
                except BlockingIOError:
                    return False
                return True
            case "killed":
                time.sleep(0.02)
                return self.process.poll() is not None
            case "left":
                return bool(self.marked_processes())
            case "time":
                return observed.running
            case "memory":
                return observed.greedy
            case "output":
                return len(observed.output) > 2**20
            case "crash":
                return observed.crashed
        raise ValueError(canary)

    def marked_processes(self) -> list[int]:
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if self.marker in path.read_text(errors="replace"):
                    found.append(int(path.parent.name))
            except OSError:  # it has ended
                continue
        return found

    def close(self) -> None:
        for process in self.marked_processes():
            os.kill(process, signal.SIGKILL)
        Path("/dev/shm", self.marker).unlink(missing_ok=True)
        self.process.kill()
        self.process.wait()
        self.listener.close()


@pytest.fixture
def canaries(tmp_path: Path) -> Iterator[Canaries]:
    canaries = Canaries(tmp_path)
    yield canaries
    canaries.close()


def contain() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (512 * 2**20,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * 2**20,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (3, 3))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def bare(source: str, canaries: Canaries, folder: Path, seconds: float) -> Observed:
    """Run a source under a bare interpreter, contained, for some seconds. What still runs then is left to the caller."""
    output = folder / "output"
    with output.open("wb") as sink, canaries.standard_input.open() as standard_input:
        process = subprocess.Popen(
            # A parent in between: attacks on it must not reach pytest.
            ["/bin/sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-I", "-c", source],
            stdin=standard_input,
            stdout=sink,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=canaries.environment,
            start_new_session=True,
            preexec_fn=contain,
        )
    deadline = time.perf_counter() + seconds
    running, greedy, status = True, False, 0
    while running and not greedy and time.perf_counter() < deadline:
        time.sleep(0.01)
        greedy = peak_of_session(process.pid) > GREEDY
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            running, process.returncode = False, os.waitstatus_to_exitcode(status)
            greedy = greedy or usage.ru_maxrss * 1024 > GREEDY
    text = output.read_text(errors="replace")
    crashed = not running and not 0 <= process.returncode <= 128  # the shell reports a signal as 128 and more
    return Observed(text, running, greedy or "MemoryError" in text, crashed)


def peak_of_session(session: int) -> int:
    """The largest peak of a living process of a session, in bytes."""
    peak = 0
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            if os.getsid(int(path.parent.name)) == session:
                lines = path.read_text().splitlines()
                peak = max([peak, *(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))])
        except OSError:  # it has ended
            continue
    return peak


class Host:
    """A process with an engine in it; it answers as long as it lives."""

    def __init__(self, engine: str, canaries: Canaries) -> None:
        to_host, to_test = os.pipe(), os.pipe()
        with canaries.standard_input.open() as standard_input:
            self.process = subprocess.Popen(
                [sys.executable, str(FOLDER / "attacks_host.py"), engine, str(to_host[0]), str(to_test[1])],
                stdin=standard_input,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "CANARY": canaries.secret},
                pass_fds=(to_host[0], to_test[1]),
                start_new_session=True,
            )
        os.close(to_host[0])
        os.close(to_test[1])
        self._requests, self._answers = os.fdopen(to_host[1], "w", buffering=1), os.fdopen(to_test[0])
        assert self._answers.readline() == "ready\n"

    def run(self, source: str, seconds: float = SECONDS, bytes: int = BYTES) -> dict[str, Any] | None:
        """The host's report, or None when it died."""
        self._requests.write(json.dumps({"source": source, "seconds": seconds, "bytes": bytes}) + "\n")
        line = self._answers.readline()
        return json.loads(line) if line else None

    def close(self) -> None:
        self._requests.close()
        self._answers.close()
        self.process.wait(timeout=5)


@pytest.fixture(scope="module", params=["monty", "full"])
def engine(request: pytest.FixtureRequest) -> str:
    pytest.importorskip({"monty": "pydantic_monty", "full": "sandlock"}[request.param])
    try:
        CodeSandbox(request.param)
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    return request.param


@pytest.fixture(scope="module")
def host(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, str]]:
    own = Canaries(tmp_path_factory.mktemp("host"))
    host = Host(engine, own)
    yield host, own.secret
    host.close()
    own.close()


@pytest.mark.parametrize("attack", [a for a in ATTACKS if a.control], ids=lambda attack: attack.name)
def test_the_attack_works_without_a_sandbox(attack: Any, canaries: Canaries, tmp_path: Path) -> None:
    try:
        observed = bare(canaries.fill(attack.source), canaries, tmp_path, CONTROL_SECONDS.get(attack.canary, 3.0))
        assert canaries.triggered(attack.canary, observed), observed.output[-500:]
    finally:
        end_processes_in(tmp_path)


def end_processes_in(folder: Path) -> None:
    """Kill what works in this test's folder: every process of a bare run, whatever session it moved to."""
    for path in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):  # it has ended
            if os.readlink(path) == str(folder):
                os.kill(int(path.parent.name), signal.SIGKILL)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_the_attack_fails_in_the_sandbox(attack: Any, host: tuple[Host, str], canaries: Canaries) -> None:
    asked, secret = host
    for attempt in range(3):
        report = asked.run(canaries.fill(attack.source))
        assert report is not None, "the host died"
        late = report["seconds"] > SECONDS + SLACK
        if not late or attempt == 2:  # a busy machine may be late once
            break
    greedy = report["growth"] > BYTES or report["workers"] > GREEDY
    observed = Observed(report["output"], late, greedy, crashed=asked.process.poll() is not None)
    assert not canaries.triggered(attack.canary, observed)
    assert secret not in report["output"]
    assert canaries.secret not in report["output"]
    assert not late
    assert not greedy, (report["growth"], report["workers"])
    assert len(report["output"]) <= 2**16
    assert not canaries.marked_processes()
    assert report["error"] is None or "\n" not in report["error"]
    assert canaries.process.poll() is None


def test_memory_is_measured_and_a_large_print_does_not_grow_the_host(engine: str, canaries: Canaries) -> None:
    host = Host(engine, canaries)  # a fresh one: the peak of ended processes is never forgotten
    trivial = host.run("print(1)")
    assert trivial is not None
    assert trivial["workers"] < GREEDY
    report = host.run("print('x' * 300_000_000)", seconds=5, bytes=2**30)
    host.close()
    assert report is not None
    assert report["error"] == "output: more than 64 KiB"
    assert report["workers"] > GREEDY
    assert report["growth"] < 2**24
