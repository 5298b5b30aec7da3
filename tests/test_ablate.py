"""An experiment is the files of its cells: each trained as `apps/pretrain` trains, once, whatever stops it in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apps.ablate import baseline, nursery, schedule
from apps.ablate.__main__ import run as ablate_app
from apps.common import recipes
from apps.common.console import Console
from apps.common.data import Prepared, prepare
from apps.common.errors import BadRequest, RunError
from apps.common.language_task import VALIDATION_ORDER
from apps.common.recipe import Recipe
from tinydata import Loader
from tinyeval import NgramModel

INSTANT = Path(__file__).parent / "drivers" / "instant_pretrain.py"
TABLE = """
train: {{recipe: {recipe}, overrides: {{train.steps: 3, optim.schedule.warmup: 1}}}}
speed: {{recipe: demo}}
variants:
  plain: {{note: the base}}
  qk_norm: {{note: normed queries and keys, overrides: {{model.layers.0.mixer.qk_norm: true}}}}
  better: {{note: a lower rate, overrides: {{optim.learning_rate: 0.001}}}}
"""
FAILING = """
  diverging: {{note: "", overrides: {{optim.learning_rate: 0.5}}}}
  refused: {{note: "", overrides: {{optim.learning_rate: 0.25}}}}
  killed: {{note: "", overrides: {{optim.learning_rate: 0.125}}}}
  silent: {{note: "", overrides: {{optim.learning_rate: 0.0625}}}}
"""


@pytest.fixture
def folder(tmp_path: Path, tiny_recipe: Path) -> Path:
    """Where a table stands and cells are to go."""
    (tmp_path / "table.yaml").write_text(TABLE.format(recipe=tiny_recipe))
    (tmp_path / "failing.yaml").write_text((TABLE + FAILING).format(recipe=tiny_recipe))
    return tmp_path


@pytest.fixture
def calls(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """With it cells are answered by drivers/instant_pretrain.py; the seed and rate of each call so far."""
    monkeypatch.setattr(schedule, "PRETRAIN", INSTANT)
    monkeypatch.setattr(nursery, "PRELOADED", [])
    monkeypatch.setattr(schedule, "POLL", 0.01)
    monkeypatch.setenv("CALLS", str(folder / "calls"))
    return lambda: [line.rpartition(" ")[0] for line in (folder / "calls").read_text().splitlines()]


def ablate(monkeypatch: pytest.MonkeyPatch, folder: Path, *argv: str, table: str = "table") -> int:
    command = ["--recipe", str(folder / f"{table}.yaml"), "--out", str(folder / "cells"), *argv]
    monkeypatch.setattr(sys, "argv", ["ablate", *command])
    return ablate_app()


def kept(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in sorted((folder / "cells").glob("*-s*.json"))}


def test_a_cell_is_the_run_that_pretrain_makes(
    folder: Path,
    tiny_recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sessions: Callable[..., Any],
) -> None:
    assert ablate(monkeypatch, folder, "--only", "qk_norm", "--seeds", "1", "--jobs", "2", "--json") == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {
        "cells": 2,
        "finished": 2,
        "failed": {},
        "out": str(folder / "cells"),
        "status": "done",
    }
    assert "0.0 s left" in shown.err
    cells = kept(folder)
    assert list(cells) == ["plain-s1", "qk_norm-s1"]
    same = ["--train.steps", "3", "--optim.schedule.warmup", "1", "--train.seed", "1", "--json"]
    (alone,) = sessions([{"argv": ["--recipe", str(tiny_recipe), "--out", str(folder / "alone"), *same]}])
    plain, normed = cells.values()
    assert plain["val_bpb"] == alone.json["val_bpb"]
    assert plain["tokens"] == normed["tokens"] == alone.json["tokens"]
    assert (plain["parameters"], normed["parameters"]) == (28_832, 28_832 + 2 * 2 * 16)
    assert (plain["environment"]["threads"], plain["jobs"], plain["steps"], plain["status"]) == (1, 2, 3, "done")
    assert normed["val_bpb"] != plain["val_bpb"]
    assert sorted(path.name for path in (folder / "cells").iterdir()) == [
        ".lock",
        "bigram.json",
        "plain-s1.json",
        "qk_norm-s1.json",
    ]
    assert str(tiny_recipe.parent / "data") not in (folder / "cells" / "plain-s1.json").read_text()


def test_finished_cells_are_not_trained_again(
    folder: Path, calls: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ablate(monkeypatch, folder, "--seeds", "0", "--only", "better", "--jobs", "1") == 0
    assert calls() == ["0 0.01", "0 0.001"]
    first = {path: path.stat().st_mtime_ns for path in (folder / "cells").glob("*.json")}
    assert ablate(monkeypatch, folder, "--seeds", "0,7", "--jobs", "1", "--threads", "3") == 0
    # seed by seed, plain first; qk_norm has plain's rate
    assert calls()[2:] == ["0 0.01", "7 0.01", "7 0.01", "7 0.001"]
    assert {path: path.stat().st_mtime_ns for path in first} == first
    cells = kept(folder)
    assert {name: cell["environment"]["threads"] for name, cell in cells.items() if name.startswith("better")} == {
        "better-s0": 1,
        "better-s7": 3,
    }
    assert {cell["overrides"] == {} for name, cell in cells.items() if name.startswith("plain")} == {True}
    assert ablate(monkeypatch, folder, "--seeds", "0,7") == 0
    assert len(calls()) == 6


def test_a_cell_that_fails_is_told_and_the_others_go_on(
    folder: Path, calls: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ablate(monkeypatch, folder, "--seeds", "0", "--jobs", "4", "--json", table="failing") == 1
    result = json.loads(capsys.readouterr().out)
    assert (result["cells"], result["finished"], result["status"]) == (7, 4, "failed")
    assert result["failed"] == {
        "refused-s0": "no such corpus",
        "killed-s0": "its process was killed (SIGKILL)",
        "silent-s0": "its last line is no result: 'done'",
    }
    cells = kept(folder)
    assert list(cells) == ["better-s0", "diverging-s0", "plain-s0", "qk_norm-s0"]
    gone = cells["diverging-s0"]
    assert (gone["status"], gone["val_bpb"]) == ("diverged", None)
    assert gone["reason"] == "loss or gradient not finite at step 2"
    # a failure is tried again, a divergence is a result
    before = len(calls())
    assert ablate(monkeypatch, folder, "--seeds", "0", "--jobs", "1", table="failing") == 1
    assert calls()[before:] == ["0 0.25", "0 0.125", "0 0.0625"]


DRIVER = """
import sys
from pathlib import Path
from apps.ablate import nursery, schedule
from apps.ablate.__main__ import run
from apps.common import command_line
nursery.PRELOADED = []
schedule.PRETRAIN = Path({instant!r})
command_line.main(run)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_stop_costs_the_cells_that_were_being_trained(
    folder: Path, calls: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    command = ["--recipe", str(folder / "table.yaml"), "--out", str(folder / "cells"), "--seeds", "0", "--jobs", "1"]
    program = [sys.executable, "-c", DRIVER.format(instant=str(INSTANT)), *command]
    environment = {**os.environ, "CALL_SECONDS": "1.5", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(program, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    until(lambda: (folder / "calls").exists() and len(calls()) == 2)  # the first is done, the second begun
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert list(kept(folder)) == ["plain-s0"], err
    if number == signal.SIGTERM:
        assert process.returncode == 3, err
        assert "stopped (SIGTERM)" in out
        assert not list((folder / "cells").glob(".incomplete*"))
        child = int((folder / "calls").read_text().split()[-1])
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)
    first = (folder / "cells" / "plain-s0.json").stat().st_mtime_ns
    assert ablate(monkeypatch, folder, "--seeds", "0") == 0
    assert list(kept(folder)) == ["better-s0", "plain-s0", "qk_norm-s0"]
    assert (folder / "cells" / "plain-s0.json").stat().st_mtime_ns == first
    assert len(calls()) == 4
    assert not list((folder / "cells").glob(".incomplete*"))


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_two_at_once_in_one_folder_are_refused(
    folder: Path, calls: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from apps.common import files

    (folder / "cells").mkdir()
    lock = files.Lock(folder / "cells")
    with pytest.raises(RunError, match=f"process {os.getpid()} is writing"):
        ablate(monkeypatch, folder)
    lock.release()
    assert ablate(monkeypatch, folder, "--seeds", "0", "--only", "plain") == 0
    assert calls() == ["0 0.01"]


def prepared(recipe: Recipe) -> Prepared:
    return prepare(recipe, Console(main_process=False))


def test_the_bigram_is_asked_for_every_target_that_cells_are_scored_on(tiny_recipe: Path) -> None:
    recipe = recipes.load(tiny_recipe)
    data = prepared(recipe)
    found = baseline.measure(recipe, data)
    documents = [data.train.read(index) for index in range(data.train.documents)]
    model = NgramModel.train(documents, vocab_size=data.train.vocab_size, order=2)
    loader = Loader(data.validation, recipe.data.sequence_length, 2, seed=VALIDATION_ORDER, prefetch=0)
    bits, targets, size = 0.0, 0, 0
    for batch in loader.epoch_batches(recipe.train.validate_rows):
        size += batch.bytes
        for token, target in zip(batch.tokens.flat, batch.targets.flat, strict=True):
            if target >= 0:
                bits -= float(model.log2_probabilities(np.array([token, target]))[0])
                targets += 1
    assert (found.targets, found.rows, found.sequence_length) == (targets, 8, 64)
    assert found.val_bpb == pytest.approx(bits / size, rel=1e-9)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("}", "", "not valid JSON"),
        ('"seed": 0', '"seed": 1', "holds the cell plain-s1"),
        ('"seed": 0', '"seed": "0"', "seed: expected"),
        ('"status"', '"state"', "unknown key 'state'"),
        ('"val_bpb": 1.01', '"val_bpb": null', "done, without val_bpb"),
        ('"val_bpb": 1.01', '"val_bpb": NaN', "not valid JSON"),
        ('"kind": "attention"', '"kind": "attentoin"', "attentoin"),
        ('"variant": "plain"', '"variant": "../plain"', "name and seed"),
        ('"dim": 32', '"dim": 64', "model.dim is 64 there and 32 here"),
    ],
)
def test_a_damaged_or_foreign_cell_is_one_line(
    folder: Path,
    calls: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    old: str,
    new: str,
    words: str,
) -> None:
    only = ("--seeds", "0", "--only", "plain")
    assert ablate(monkeypatch, folder, *only) == 0
    path = folder / "cells" / "plain-s0.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(RunError, match=words) as caught:
        ablate(monkeypatch, folder, *only)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(calls()) == 1


def test_cells_of_another_budget_or_other_data_are_not_mixed(
    folder: Path, calls: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    only = ("--seeds", "0", "--only", "plain")
    assert ablate(monkeypatch, folder, *only) == 0
    with pytest.raises(RunError, match=r"train\.steps is 3 there and 4 here; give another --out"):
        ablate(monkeypatch, folder, *only, "--steps", "4")
    path = folder / "cells" / "plain-s0.json"
    path.write_text(path.read_text().replace('"data": "', '"data": "0'))
    with pytest.raises(RunError, match="other data"):
        ablate(monkeypatch, folder, *only)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--seeds", "0,x"], "--seeds"),
        (["--seeds", "1,1"], "--seeds"),
        (["--seeds", "99999999999999999999"], "--seeds"),
        (["--steps", "0"], "--steps"),
        (["--jobs", "0"], "--jobs"),
        (["--only", "qknorm"], "did you mean 'qk_norm'"),
        (["--model.dmi", "8"], "dmi"),
        (["--step", "8"], "--steps"),
        (["--table", "--seeds", "0", "--model.dim", "8"], "--seeds and --model.dim"),
        (["--table"], "no cell of plain"),
        (["--device", "tpu"], "tpu"),
    ],
)
def test_wrong_requests_are_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], words: str
) -> None:
    with pytest.raises(BadRequest, match=words) as caught:
        ablate(monkeypatch, folder, *argv)
    assert "\n" not in str(caught.value)
