"""Claim: a cell's process is its own: its arguments, environment, output and session, whatever it was forked from has.

uv run pytest tests/test_ablate_nursery.py
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from apps.ablate import nursery

PROGRAM = """
import os, sys
print("out", sys.argv[1:], sorted(os.environ), os.getsid(0) == os.getpid(), __name__)
sys.stderr.write("err\\n")
action = sys.argv[-1]
if action == "refuse":
    sys.exit(2)
if action == "words":
    sys.exit("error: in words")
if action == "raise":
    raise RuntimeError("unforeseen")
if action == "kill":
    os.kill(os.getpid(), 9)
"""


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nursery, "PRELOADED", [])


@pytest.mark.parametrize(
    ("action", "code", "said"),
    [
        ("end", 0, "err\n"),
        ("refuse", 2, "err\n"),
        ("words", 1, "error: in words"),
        ("raise", 1, "RuntimeError: unforeseen"),
        ("kill", -signal.SIGKILL, "err\n"),
    ],
)
def test_a_process_is_its_own(tmp_path: Path, action: str, code: int, said: str) -> None:
    program, out, err = (tmp_path / name for name in ("program.py", "out", "err"))
    program.write_text(PROGRAM)
    process = nursery.start(program, ["--json", action], {"OMP_NUM_THREADS": "1", "HOME": "/"}, out, err)
    process.join(60)
    assert process.exitcode == code
    assert said in err.read_text()
    if action != "kill":  # which leaves what was not flushed unsaid
        assert out.read_text() == f"out {['--json', action]} {['HOME', 'OMP_NUM_THREADS']} True __main__\n"


def test_the_environment_here_is_left_alone(tmp_path: Path) -> None:
    before = dict(os.environ)
    (tmp_path / "program.py").write_text("")
    process = nursery.start(tmp_path / "program.py", [], {}, tmp_path / "out", tmp_path / "err")
    process.join(60)
    assert dict(os.environ) == before
