"""Claim: SIGINT or SIGTERM to any process ends a run at the next step boundary, saved, with exit status 3, and what
follows is the run that was never stopped; a second signal ends the process at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from apps.common.signals import SAME_REQUEST, StopRequest

Sessions = Callable[[Sequence[dict[str, Any]]], Any]
FINAL = Path("checkpoints") / "step_00000012" / "model.safetensors"


def test_stopped_and_resumed_is_the_same_run(sessions: Sessions, tiny_recipe: Path, tmp_path: Path) -> None:
    whole, run, two = (tmp_path / "runs" / name for name in ("whole", "stopped", "two"))
    recipe, resume = ["--recipe", str(tiny_recipe)], ["--resume", str(run)]

    def asked(number: signal.Signals, step: int, rank: int = 0) -> dict[str, Any]:
        return {"rank": rank, "step": step, "signal": int(number)}

    reference, first, second, finished, two_stopped = sessions(
        [
            {"argv": [*recipe, "--out", str(whole)]},
            {"argv": [*recipe, "--out", str(run), "--json"], "hurt": asked(signal.SIGTERM, 6)},
            {"argv": resume, "hurt": asked(signal.SIGINT, 1)},
            {"argv": resume},
            {"argv": [*recipe, "--out", str(two)], "world": 2, "hurt": asked(signal.SIGTERM, 4, rank=1)},
        ]
    )
    assert reference.codes == [0], reference.err
    assert first.codes == [3], first.err
    assert first.json["status"] == "stopped"
    assert first.json["steps"] == 5
    assert first.json["checkpoint"] == str(run / "checkpoints" / "step_00000005")
    assert f"next: uv run apps/pretrain --resume {run}" in first.err
    assert second.codes == [3], second.err
    assert "stopped (SIGINT) and saved at step 5" in second.out
    assert finished.codes == [0], finished.err
    for name in (FINAL, Path("metrics.jsonl"), Path("samples.md")):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    assert json.loads((run / "status.json").read_text())["status"] == "done"
    # one process of two was asked: both agree, save together and end alike
    assert two_stopped.codes == [3, 3], two_stopped.err
    status = json.loads((two / "status.json").read_text())
    assert (status["status"], status["step"]) == ("stopped", 3)
    assert (two / "checkpoints" / "step_00000003" / "rng-00001.safetensors").exists()


def test_a_request_is_remembered_and_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert not stop.pending()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)  # delivered twice by a wrapper: the same request
        assert stop.pending()
        assert stop.received == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_process_at_once(number: signal.Signals) -> None:
    program = (
        "import time\nfrom apps.common.signals import StopRequest\n"
        "with StopRequest() as stop:\n    print('ready', flush=True)\n    time.sleep(60)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    time.sleep(SAME_REQUEST + 0.3)
    assert process.poll() is None
    process.send_signal(number)
    assert process.wait(timeout=20) == -number


def test_the_end_of_a_launcher_is_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    parent = os.getppid()
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    with StopRequest() as stop:
        assert not stop.pending()
        monkeypatch.setattr(os, "getppid", lambda: 1 if parent != 1 else 2)
        assert stop.pending()
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE")
    with StopRequest() as stop:  # a shell that ended is no reason to stop
        monkeypatch.setattr(os, "getppid", lambda: 3)
        assert not stop.pending()
