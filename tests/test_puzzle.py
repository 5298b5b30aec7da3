"""Claim: puzzles are trained, stopped, resumed, scored and shown by one command, and bad input is one line."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tinycore
from apps.common import checkpoints, command_line, comparison, logs, puzzles, recipes, run_record
from apps.common.console import Console
from apps.common.puzzle_config import SudokuData
from apps.common.puzzle_task import answers_by_step
from apps.puzzle import __main__ as program
from apps.puzzle import scoring
from tinycore.objectives import solved
from tinydata.puzzles import Boards
from tinydata.synthetic.chance import Chance

RECIPE = """
description: a recursive model of a few thousand parameters
model:
  vocab_size: null
  dim: 16
  max_seq_len: null
  embed: {tied: false, scale: 50.0}
  layers: [{repeat: 1, mixer: {kind: attention, heads: 2, causal: false}, ffn: {kind: swiglu, hidden: 32}}]
  norm: {placement: post, affine: false}
  depth: {kind: recursive, H_cycles: 1, L_cycles: 2, supervision: 3}
  heads: {lm: {probabilities: stablemax}, halt: {}}
data: {kind: sudoku, side: 4, puzzles: 20, held_out: 12, slots: 2}
optim: {kind: adam_atan2, learning_rate: 0.01, schedule: {kind: constant, warmup: 2}}
train:
  steps: 6
  batch_size: 8
  ema: 0.9
  precision: fp32
  log_every: 1
  validate_every: 2
  validate_rows: 12
  save_every: 2
  sample_every: 3
  keep: 10
"""


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "small.yaml"
    file.write_text(RECIPE)
    return file


def puzzle(*arguments: str | Path, directory: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "apps.puzzle", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.run(command, capture_output=True, text=True, cwd=directory, env=environment, check=False)


@pytest.fixture(scope="module")
def run(recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    done = puzzle("--recipe", recipe_file, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["status"] == "done"
    assert {"val_loss", "val_exact", "val_cells"} <= result.keys()
    assert f"uv run apps/puzzle show {out}" in done.stderr
    return out


def test_logs_say_what_happened(run: Path) -> None:
    records = logs.read(run / "metrics.jsonl")
    assert [record["step"] for record in records if "loss" in record] == [1, 2, 3, 4, 5, 6]
    assert all({"loss/lm", "loss/halt"} <= record.keys() for record in records if "loss" in record)
    assert all(0 <= record["val_exact"] <= record["val_cells"] <= 1 for record in records if "val_exact" in record)
    samples = (run / "samples.md").read_text()
    assert samples.count("## Step") == 2
    assert samples.count("after supervision step 3") == 2
    report = (run / "report.md").read_text()
    assert "held-out puzzles solved" in report
    assert (run / "exact.png").is_file()


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(run: Path, recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "halves"
    assert puzzle("--recipe", recipe_file, "--train.steps", "4", "--out", out).returncode == 0
    status = json.loads((out / "status.json").read_text())
    (out / "status.json").write_text(json.dumps(status | {"status": "running"}))
    resumed = puzzle("--resume", out, "--train.steps", "6", "--allow-changes")
    assert resumed.returncode == 0, resumed.stderr
    for name in ("model.safetensors", "average.safetensors", "optimizer.safetensors"):
        whole, halves = (root / "checkpoints/step_00000006" / name for root in (run, out))
        assert whole.read_bytes() == halves.read_bytes(), name
    assert [r for r in logs.read(run / "metrics.jsonl") if r["step"] > 4] == [
        r for r in logs.read(out / "metrics.jsonl") if r["step"] > 4
    ]


def test_mazes_are_trained_by_naming_them(recipe_file: Path, tmp_path: Path) -> None:
    maze = [
        "--data.kind",
        "maze",
        "--data.side",
        "9",
        "--data.puzzles",
        "8",
        "--data.held_out",
        "4",
        "--data.slots",
        "1",
    ]
    done = puzzle("--recipe", recipe_file, *maze, "--train.steps", "2", "--out", tmp_path / "maze")
    assert done.returncode == 0, done.stderr
    shown = puzzle("show", tmp_path / "maze")
    assert shown.returncode == 0, shown.stderr
    assert {"S", "G", "#"} <= set(shown.stdout)


def test_an_average_may_begin_in_the_middle(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "late"
    assert puzzle("--recipe", recipe_file, "--train.ema", "null", "--train.steps", "2", "--out", out).returncode == 0
    assert not (out / "checkpoints/step_00000002/average.safetensors").exists()
    changes = ["--train.ema", "0.9", "--train.steps", "4", "--allow-changes"]
    resumed = puzzle("--resume", out, *changes)
    assert resumed.returncode == 0, resumed.stderr
    assert "begins with the weights as they are" in resumed.stderr
    assert (out / "checkpoints/step_00000004/average.safetensors").is_file()


def test_two_processes_share_the_rows_of_a_step(recipe_file: Path, tmp_path: Path) -> None:
    """With as many supervision steps for every row, two processes compute what one does."""
    found = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        done = puzzle(
            *("--recipe", recipe_file, "--out", out, "--processes", str(processes), "--train.steps", "2"),
            *("--model.heads", "{lm: {probabilities: stablemax}}"),
        )
        assert done.returncode == 0, done.stderr
        found.append(tinycore.load(out / "checkpoints/step_00000002").state_dict())
    for name, tensor in found[0].items():
        assert (tensor - found[1][name]).abs().max() < 1e-4, name


def test_two_processes_whose_rows_halt_at_different_steps_do_not_wait_for_ever(
    recipe_file: Path, tmp_path: Path
) -> None:
    done = puzzle("--recipe", recipe_file, "--out", tmp_path / "two", "--processes", "2", "--train.steps", "3")
    assert done.returncode == 0, done.stderr


def test_averages_are_what_is_scored_and_used(run: Path) -> None:
    checkpoint = run_record.checkpoint_of(run)
    own, averaged = tinycore.load(checkpoint), checkpoints.load_model(checkpoint)
    assert any(not torch.equal(a, b) for a, b in zip(own.parameters(), averaged.parameters(), strict=True))
    recipe = recipes.load(run / "recipe.yaml")
    assert isinstance(recipe.data, SudokuData)
    boards = puzzles.boards(recipe.data, "validation", Console(json=True))
    found = scoring.score(averaged.eval(), boards, 12)
    saved = checkpoints.read_progress(checkpoint)[0].latest
    assert saved is not None
    assert found.exact[-1].value == pytest.approx(saved["val_exact"])
    assert found.cells[-1].value == pytest.approx(saved["val_cells"])


def test_evaluate_and_show(run: Path) -> None:
    done = puzzle("evaluate", run, "--votes", "3", "--limit", "5", "--json", "--model.depth.supervision", "4")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["puzzles"] == 5
    assert len(result["exact_by_step"]) == 4
    assert result["voted"]["votes"] == 3
    shown = puzzle("show", run, "--puzzle", "1", "--json")
    assert shown.returncode == 0, shown.stderr
    assert len(json.loads(shown.stdout)["steps"]) == 3
    yours = puzzle("show", run, "--board", "1...|..3.|.4..|...2")
    assert yours.returncode == 0, yours.stderr
    assert "supervision step 3" in yours.stdout


def test_runs_compare_by_what_they_solve(run: Path, tmp_path: Path) -> None:
    record = run_record.read(run)
    text = comparison.write([record, record], tmp_path).read_text()
    assert "comparison_exact.png" in text
    assert "whether the runs compare" not in text
    other = dataclasses.replace(record, recipe=recipes.load("trm-sudoku-6x6"))
    assert comparison.caveats([record, other])[0] == "The runs learned from or were scored on different data."


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("evaluate",), "give one run or checkpoint"),
        (("evaluate", "{run}", "--model.dim", "3"), "of this trained model only model.depth.H_cycles"),
        (("show", "{run}", "--puzzle", "99"), "there are 12, from 0 on"),
        (("show", "{run}", "--board", "1..9|....|....|...."), "expected 4 rows of 4"),
        (("show", "{run}", "--board", "....|....|....|...."), "has several solutions"),
        (("--recipe", "demo"), "learns text, not puzzles"),
        (("--recipe", "trm-arc", "--train.precision", "fp32"), "arc/training_challenges.json: no such file"),
        (("--train.compile", "true"), "train.compile: rows leave a batch that halts"),
        (("--data.slots", "-1"), "data.slots: -1 is negative"),
        (("--model.layers.0.mixer.causal", "true"), "heads.halt.kind: halt reads position 0"),
    ],
)
def test_bad_input_is_one_line(
    run: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["puzzle", *(text.replace("{run}", str(run)) for text in arguments)])
    with pytest.raises(SystemExit) as left:
        command_line.main(program.run)
    assert left.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert reason in said[0]


def test_text_and_puzzles_need_models_of_their_kind(recipe_file: Path) -> None:
    mapping = recipes.read(recipe_file)
    with pytest.raises(tinycore.ConfigError, match="a mixer sees the tokens that it should predict"):
        recipes.from_dict(mapping | {"data": {"kind": "text"}, "model": mapping["model"] | {"max_seq_len": 256}})
    plain = mapping["model"] | {"heads": {"lm": {}}, "layers": [{"mixer": {"kind": "attention", "heads": 2}}]}
    with pytest.raises(tinycore.ConfigError, match="a puzzle is answered in place"):
        recipes.from_dict(mapping | {"model": plain})
    with pytest.raises(tinycore.ConfigError, match=r"model\.max_seq_len: 40, and a puzzle has 2 slots and 16 cells"):
        recipes.from_dict(mapping | {"model": mapping["model"] | {"max_seq_len": 40}})


@pytest.mark.parametrize("name", ["sudoku", "maze"])
def test_scores_are_those_of_a_loop_over_puzzles(name: str, recipe_file: Path) -> None:
    mapping = recipes.read(recipe_file)
    if name == "maze":
        mapping["data"] = {"kind": "maze", "side": 9, "puzzles": 4, "held_out": 7, "slots": 2}
    recipe = recipes.from_dict(mapping)
    torch.manual_seed(0)
    model = tinycore.build(recipe.model).eval()
    boards: Boards = puzzles.boards(recipe.data, "test", Console(json=True))  # ty: ignore[invalid-argument-type]
    found = scoring.score(model, boards, 7, batch=3)
    exact, cells = [0] * 3, [0] * 3
    for index in range(7):
        inputs, answers = (torch.from_numpy(part)[None] for part in boards.row(index))
        for step, (logits, _) in enumerate(answers_by_step(model, inputs)):
            asked = answers != -100
            exact[step] += bool(solved(logits, answers))
            cells[step] += int((logits.argmax(-1) == answers)[asked].sum())
    assert [share.right for share in found.exact] == exact
    assert [share.right for share in found.cells] == cells


def test_a_vote_is_for_the_answer_that_most_copies_give(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is wrong about the puzzle itself and right about its copies."""
    recipe = recipes.load(recipe_file)
    assert isinstance(recipe.data, SudokuData)
    boards = puzzles.boards(recipe.data, "test", Console(json=True))
    model = tinycore.build(recipe.model).eval()
    own = np.zeros((2, 16), dtype=np.int64)
    right = {index: boards.row(index)[1][boards.slots :] for index in range(2)}

    def answered(index: int, chance: Chance) -> Any:
        inputs, _ = boards.row(index)
        return inputs, lambda cells: right[index].copy()

    monkeypatch.setattr(boards, "disguised", answered)
    elected = scoring.elected(model, boards, range(2), own, 3, batch=2)
    assert [[cells.tolist() for cells in attempts] for attempts in elected] == [
        [right[0].tolist()],
        [right[1].tolist()],
    ]
    assert scoring.elected(model, boards, range(2), own, 1, batch=2)[0][0].tolist() == own[0].tolist()
    boards.attempts = 2
    ((first, second), _) = scoring.elected(model, boards, range(2), own, 3, batch=2)
    assert (first.tolist(), second.tolist()) == (right[0].tolist(), own[0].tolist())


def test_sides_share_no_solution() -> None:
    from tinydata.puzzles import canonical_sudoku

    data = SudokuData(side=6, puzzles=30, held_out=20)
    prepared = puzzles.prepare(data, Console(json=True))

    def classes(boards: Boards) -> set[bytes]:
        return {
            canonical_sudoku(boards.row(index)[1][16:].reshape(6, 6).astype(np.int8) - 1).tobytes()
            for index in range(len(boards))
        }

    train, validation, test = (classes(side) for side in (prepared.train, prepared.validation, prepared.test))
    assert not train & validation
    assert not train & test
    assert not validation & test


def test_help_names_the_subcommands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command_line.parse("puzzle", ["--help"], "trm-sudoku-4x4")
    shown = capsys.readouterr().out
    assert "uv run apps/puzzle evaluate runs/six" in shown
    assert "--data.kind" in shown
