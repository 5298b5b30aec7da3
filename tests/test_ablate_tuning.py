"""Every variant has its own learning rate, found at the same price; a stop costs what was being trained, hours are kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from apps.ablate import comparison, page
from apps.ablate.estimate import Estimate
from tests.ablation import INSTANT, ablate, answered, kept, table

TUNED = """
tune: {rates: [0.5, 1.0, 2.0], steps: 10, seed: 4}
seeds: [0, 1]
variants:
  plain: {note: the base}
  low: {note: starts lower, overrides: {optim.learning_rate: 0.002}}
  qk_norm: {note: normed queries and keys, overrides: {model.layers.0.mixer.qk_norm: true}}
"""
MORE = """
  refused: {note: "", overrides: {optim.learning_rate: 0.25}}
  wild: {note: "", overrides: {optim.learning_rate: 1.0}}
"""
DRIVER = """
import sys
from pathlib import Path
from apps.ablate import nursery, schedule
from apps.ablate.__main__ import run
from apps.common import command_line
nursery.PRELOADED = []
schedule.PRETRAIN, schedule.POLL = Path({instant!r}), 0.01
command_line.main(run)
"""


@pytest.fixture
def folder(tmp_path: Path, tiny_recipe: Path) -> Path:
    table(tmp_path, tiny_recipe, TUNED)
    return tmp_path


@pytest.fixture
def calls(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    monkeypatch.setenv("BEST_RATE", "0.01")
    return answered(folder, monkeypatch)


def test_each_variant_is_trained_at_the_rate_that_was_best_for_it(
    folder: Path, calls: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ablate(monkeypatch, folder, "--jobs", "1") == 0
    # tuned just before its first cell; then seed after seed
    assert calls() == [
        *("4 0.005", "4 0.01", "4 0.02", "0 0.01"),
        *("4 0.001", "4 0.002", "4 0.004", "0 0.004"),
        *("4 0.005", "4 0.01", "4 0.02", "0 0.01"),
        *("1 0.01", "1 0.004", "1 0.01"),
    ]
    cells = kept(folder)
    assert {name: cell["tuned"]["factor"] for name, cell in cells.items() if name.endswith("s1")} == {
        "plain-s1": 1.0,
        "low-s1": 2.0,
        "qk_norm-s1": 1.0,
    }
    found = cells["low-s0"]["tuned"]
    assert (found["edge"], found["steps"], found["seed"], found["learning_rate"]) == (True, 10, 4, 0.004)
    assert list(found["scores"]) == ["0.5", "1", "2"]
    assert found["scores"]["2"] == pytest.approx(1 + 1.3219281 + 0.04)  # log2(0.01 / 0.004), and the seed
    assert not cells["plain-s0"]["tuned"]["edge"]
    short = kept(folder, "cells/tune/x0.5")
    assert list(short) == ["low-s4", "plain-s4", "qk_norm-s4"]
    # three steps of warmup of thirty are one of ten
    assert (short["low-s4"]["steps"], short["low-s4"]["recipe"]["optim"]["schedule"]["warmup"]) == (10, 1)
    text = page.markdown(comparison.of(folder / "cells"))
    (line,) = [line for line in text.splitlines() if line.startswith("| low")]
    assert " 0.004* |" in line
    assert "best for the variant after 10 steps of seed 4, of its own times 0.5, 1, 2" in text
    before = calls()
    assert ablate(monkeypatch, folder) == 0
    assert calls() == before
    (folder / "cells" / "low-s1.json").unlink()
    assert ablate(monkeypatch, folder) == 0
    assert calls() == [*before, "1 0.004"]


def test_a_rate_that_cannot_be_tuned_fails_its_variant_alone(
    folder: Path,
    tiny_recipe: Path,
    calls: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table(folder, tiny_recipe, TUNED + MORE, "more")
    assert (
        ablate(monkeypatch, folder, "--seeds", "0", "--jobs", "1", "--only", "refused,wild", "--json", name="more") == 1
    )
    result = json.loads(capsys.readouterr().out)
    assert sorted(result["failed"]) == ["refused-s0", "tune/x0.5/refused-s4", "tune/x1/refused-s4"]
    assert "learning rate cannot be tuned" in result["failed"]["refused-s0"]
    cells = kept(folder)
    assert sorted(cells) == ["plain-s0", "wild-s0"]
    # half of it diverged: that is a score, of none
    assert cells["wild-s0"]["tuned"]["scores"]["0.5"] is None
    assert cells["wild-s0"]["tuned"]["factor"] == 1.0


def shown(folder: Path, out: str) -> str:
    """The table without what the moment decides."""
    lines = page.markdown(comparison.of(folder / out)).splitlines()
    head = [part.strip() for part in lines[0].split("|")]
    dropped = {head.index(name) for name in page.MEASURED if name in head}
    rows = [[part.strip() for part in line.split("|")] for line in lines if line.startswith("| ")]
    return "\n".join("|".join(part for at, part in enumerate(row) if at not in dropped) for row in rows)


def test_killed_and_resumed_it_has_the_table_of_one_that_was_not(
    folder: Path, calls: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ablate(monkeypatch, folder, out="whole") == 0
    command = ["--recipe", str(folder / "table.yaml"), "--out", str(folder / "cells"), "--jobs", "2"]
    program = [sys.executable, "-c", DRIVER.format(instant=str(INSTANT)), *command]
    environment = {**os.environ, "CALL_SECONDS": "0.2", "OMP_NUM_THREADS": "1"}
    before = len(calls())
    process = subprocess.Popen(program, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    end = time.monotonic() + 300
    while len(calls()) < before + 7:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    there = [*(folder / "cells").rglob("*-s*.json")]
    assert 0 < len(there) < 15
    assert ablate(monkeypatch, folder) == 0
    assert shown(folder, "cells") == shown(folder, "whole")
    assert len([*(folder / "cells").rglob("*-s*.json")]) == 15
    assert not [*(folder / "cells").rglob(".incomplete*")]


def test_no_cell_is_started_that_would_not_end_in_its_hours(
    folder: Path, calls: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CALL_SECONDS", "0.3")
    assert ablate(monkeypatch, folder, "--seeds", "0", "--only", "plain", "--jobs", "1") == 0
    before = calls()
    # a cell of thirty steps took 0.3 s or more: none fits into 0.18 s, and all of them into an hour
    assert ablate(monkeypatch, folder, "--seeds", "0,1", "--only", "plain", "--hours", "0.00005") == 3
    assert calls() == before
    assert "stopped (--hours 5e-05); finished cells are kept" in capsys.readouterr().out
    assert ablate(monkeypatch, folder, "--seeds", "0,1", "--only", "plain", "--hours", "1") == 0
    assert calls() == [*before, "1 0.01"]


def test_an_estimate_is_of_the_same_variant_if_there_is_one() -> None:
    estimate = Estimate()
    assert estimate.seconds("plain", 10) is None
    estimate.observe("plain", 10, 5.0)
    estimate.observe("slow", 10, 50.0)
    estimate.observe("slow", 100, 300.0)
    assert estimate.seconds("plain", 30) == 15.0
    assert estimate.seconds("slow", 20) == 100.0  # the slowest that was seen
    assert estimate.seconds("new", 10) == pytest.approx((5.0 + 50.0) / 2)


def test_rates_tried_for_all_steps_need_no_cell_of_their_own(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEST_RATE", "0.01")
    calls = answered(tmp_path, monkeypatch)
    table(tmp_path, tiny_recipe, TUNED.replace(", steps: 10", ""), name="whole")
    assert "steps" not in (tmp_path / "whole.yaml").read_text().partition("tune:")[2].partition("\n")[0]
    assert ablate(monkeypatch, tmp_path, "--jobs", "1", "--seeds", "4,5", "--only", "low", name="whole") == 0
    # the seed that the rates were tried with is there already, at the best of them
    assert calls() == [*("4 0.005", "4 0.01", "4 0.02", "4 0.001", "4 0.002", "4 0.004"), "5 0.01", "5 0.004"]
    cells = kept(tmp_path)
    assert list(cells) == ["low-s4", "low-s5", "plain-s4", "plain-s5"]
    assert cells["low-s4"]["tuned"]["factor"] == cells["low-s5"]["tuned"]["factor"] == 2.0
    assert cells["low-s4"]["tuned"]["steps"] == cells["low-s4"]["steps"] == 30
    assert ablate(monkeypatch, tmp_path, "--jobs", "1", "--seeds", "4,5", "--only", "low", name="whole") == 0
    assert len(calls()) == 8
    found = comparison.of(tmp_path / "cells")
    assert [row.variant for row in found.rows] == ["plain", "low"]
