"""Models that answer in place through `apps/evaluate`: as many puzzles right as by apps/puzzle, votes, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tinycore
from apps.common import files, puzzles, recipes
from apps.common.console import Console
from apps.common.errors import BadRequest
from apps.common.puzzle_config import ArcData, MazeData, SudokuData
from apps.evaluate.grids import PuzzleModel, task_of
from apps.puzzle.scoring import score
from tests.test_evaluate_tasks import Call, call  # noqa: F401  # a fixture
from tinycore.config import dump
from tinyeval import Unavailable, evaluate

DATA = SudokuData(side=4, puzzles=20, held_out=40, slots=2)


def model_of(data: Any, seed: int = 0) -> tinycore.Decoder:
    """An untrained model of a recipe's puzzles, recursive."""
    config = {
        "vocab_size": data.vocabulary,
        "dim": 16,
        "max_seq_len": data.positions,
        "embed": {"tied": False, "scale": 50.0},
        "layers": [
            {"mixer": {"kind": "attention", "heads": 2, "causal": False}, "ffn": {"kind": "swiglu", "hidden": 32}}
        ],
        "norm": {"placement": "post", "affine": False},
        "depth": {"kind": "recursive", "H_cycles": 1, "L_cycles": 2, "supervision": 2},
        "heads": {"lm": {"probabilities": "stablemax"}, "halt": {}},
    }
    torch.manual_seed(seed)
    return tinycore.build(tinycore.ModelConfig.from_dict(config)).eval()


def test_as_right_as_apps_puzzle_says(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(DATA)
    boards = puzzles.boards(DATA, "test", Console(json=True))
    # an untrained model solves none: one that knows every second board shows whether the two agree
    answers = {boards.row(index)[0].tobytes(): boards.row(index)[1] for index in range(0, 40, 2)}
    real = model.forward

    def knowing(tokens: torch.Tensor, **given: Any) -> Any:
        out = real(tokens, **given)
        for row, inputs in enumerate(tokens.numpy()):
            if (known := answers.get(np.ascontiguousarray(inputs).tobytes())) is not None:
                out.logits[row] = torch.nn.functional.one_hot(
                    torch.tensor(known).clamp(min=0), model.config.vocab_size
                ).float()
        return out

    monkeypatch.setattr(model, "forward", knowing)
    theirs = score(model, boards, 40)
    puzzle = PuzzleModel(model, DATA)
    task = task_of(DATA)
    found = evaluate(
        puzzle, task, limit=40, generators={"sudoku": lambda seed, items: puzzle.items(seed=seed, items=40)}
    )
    result = found[task.name]
    assert result.n == 40
    assert result.scores["exact"].mean == theirs.exact[-1].value == 0.5
    assert result.scores["cells"].mean == pytest.approx(theirs.cells[-1].value)


def test_votes_restore_copies_before_they_count() -> None:
    model = model_of(DATA)
    alone = PuzzleModel(model, DATA)
    items = list(alone.items(seed=0, items=6))
    assert [item.id for item in items] == [f"sudoku-0-{n}" for n in range(6)]
    assert all(len(item.answer.split()) == 16 for item in items)
    voting = PuzzleModel(model, DATA, votes=3)
    again = list(voting.items(seed=0, items=6))
    assert [item.answer for item in again] == [item.answer for item in items]
    assert [len(attempts) for attempts in voting.solve(again)] == [1] * 6
    assert [len(attempts) for attempts in alone.solve(items)] == [1] * 6
    other = list(alone.items(seed=1, items=6))
    assert {item.prompt for item in other} != {item.prompt for item in items}


def test_mazes_and_arc() -> None:
    data = MazeData(side=7, puzzles=4, held_out=4, slots=2)
    puzzle = PuzzleModel(model_of(data), data)
    found = evaluate(
        puzzle, task_of(data), limit=3, generators={"maze": lambda seed, items: puzzle.items(seed=seed, items=4)}
    )
    assert found["maze"].n == 3


def test_arc_tests_from_the_recipes_file_or_a_named_one(tmp_path: Path) -> None:
    grid = [[1, 2], [3, 4]]
    pair = {"input": grid, "output": [row[::-1] for row in grid]}
    file = tmp_path / "tasks.json"
    file.write_text(json.dumps({name: {"train": [pair], "test": [pair, pair]} for name in ("a", "b")}))
    data = ArcData(path=str(tmp_path / "gone.json"), side=3)
    model = model_of(data)
    with pytest.raises(Unavailable, match="--files arc_agi=PATH"):
        list(PuzzleModel(model, data).items(seed=0, items=9))
    skipped = evaluate(puzzle := PuzzleModel(model, data), "arc_agi", generators=puzzle.generators)["arc_agi"].skipped
    assert skipped is not None
    assert "is not there; name the file" in skipped
    named = PuzzleModel(model, data, votes=3, named=file)
    items = list(named.items(seed=0, items=9))
    assert len(items) == 4
    attempts = named.solve(items)
    assert all(1 <= len(tries) <= 2 for tries in attempts), "two attempts"
    assert {len(tries[0].split()) for tries in attempts} == {len(items[0].answer.split())}


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A checkpoint of a recipe of puzzles."""
    path = tmp_path / "puzzles"
    model = model_of(DATA)
    path.mkdir()
    tinycore.save(model, path)
    recipe: dict[str, Any] = dump(recipes.load("trm-sudoku-4x4"))
    recipe["model"] = model.config.to_dict()
    recipe["data"] |= {"slots": 2, "puzzles": 20, "held_out": 12}
    files.write_json(path / "trainer.json", {"recipe": recipe})
    tinycore.checkpoint.write_manifest(path)
    return path


def test_the_command_asks_puzzles_of_puzzle_models(trained: Path, call: Call) -> None:  # noqa: F811
    _, found, said = call(trained, "--tasks", "sudoku", "--limit", 5, "--votes", 2, "--json")
    (run,) = found["runs"]
    assert [(row["task"], row["n"], row["metric"]) for row in run["tasks"]] == [("sudoku", 5, "exact")]
    assert run["cost"] is None
    assert len(run["spectra"]) == 6, "two supervision steps of three calls"
    assert "sudoku" in said
    with pytest.raises(BadRequest, match=r"arithmetic: .* answers puzzles in place; the task for it is sudoku"):
        call(trained, "--tasks", "arithmetic")
    with pytest.raises(BadRequest, match="the task for it is sudoku"):
        call(trained, "--tasks", "maze")
    with pytest.raises(BadRequest, match="which lm-eval does not ask for"):
        call(trained, "--harness", "arc_easy")
    _, found, _ = call(trained, "--capabilities", "--limit", 4, "--json")
    measured = [cell for cell in found["cells"] if cell["outcome"] != "not measured"]
    assert [(cell["capability"], cell["condition"], cell["task"], cell["n"]) for cell in measured] == [
        ("abstract reasoning", "recursion", "sudoku", 4)
    ]
