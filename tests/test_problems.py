"""Claim: word problems are trained with their answers alone, counted exactly, and a run may end before its steps do."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import tinycore
from apps.chat import __main__ as chat
from apps.common import (
    checkpoints,
    command_line,
    logs,
    optimization,
    problems,
    processes,
    recipes,
    recursion,
    run_directory,
    tasks,
)
from apps.common.console import Console
from apps.common.errors import BadRequest
from apps.common.overrides import Override
from apps.common.problem_config import ProblemData
from apps.common.problem_task import ProblemTask
from apps.common.signals import StopRequest
from apps.common.trainer import Trainer
from apps.pretrain import session
from apps.pretrain.start import no_progress
from tinycore import testing

RECIPE = """
description: a recursive language model of a few thousand parameters
model:
  vocab_size: null
  dim: 16
  max_seq_len: 96
  embed: {{scale: 50.0}}
  layers: [{{repeat: 1, mixer: {{kind: attention, heads: 2}}, ffn: {{kind: swiglu, hidden: 32}}}}]
  norm: {{placement: post, affine: false}}
  depth: {{kind: recursive, H_cycles: 1, L_cycles: 2, supervision: 2}}
data:
  {{kind: problems, path: {path}, sequence_length: 64, packed: false, validation: 0.2, exact: 5, answer_tokens: 12,
    tokenizer: {{vocab_size: 300}}}}
optim: {{kind: adam_atan2, learning_rate: 0.01, schedule: {{kind: constant, warmup: 2}}}}
train: {{steps: 6, batch_size: 8, precision: fp32, log_every: 1, validate_every: 2, validate_rows: 8, save_every: 2, keep: 10}}
sample: {{prompts: ["What is 3 plus 4?\\n"], max_new_tokens: 5}}
"""


@pytest.fixture(scope="module")
def problem_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("problems") / "sums.jsonl"
    rows = [(a, b) for a in range(9) for b in range(9)]
    lines = [
        json.dumps(
            {"question": f"What is {a} plus {b}?", "answer": f"{a} + {b} = <<{a}+{b}={a + b}>>{a + b}\n#### {a + b}"}
        )
        for a, b in rows
    ]
    file.write_text(
        "\n".join([*lines, "not json", json.dumps({"question": "x " * 90, "answer": "long\n#### 1"})]) + "\n"
    )
    return file


@pytest.fixture
def mapping(problem_file: Path, tmp_path: Path) -> dict[str, Any]:
    file = tmp_path / "sums.yaml"
    file.write_text(RECIPE.format(path=problem_file))
    return recipes.read(file)


def trainer(recipe: recipes.Recipe, path: Path) -> Trainer:
    torch.manual_seed(0)
    world = processes.start("cpu", "fp32", 1, ())
    prepared = tasks.prepare(recipe, Console(json=True))
    model = tinycore.build(recipe.model)
    return Trainer(
        recipe=recipe,
        world=world,
        run=run_directory.create(path, recipe, []),
        console=Console(json=True),
        model=model,
        optimizer=optimization.optimizer(recipe.optim, model),
        factors=optimization.factors(recipe.optim, recipe.train.steps),
        task=tasks.task(recipe, prepared, world),
        progress=no_progress(recipe, prepared, world, []),
    )


def run(recipe: recipes.Recipe, path: Path) -> Trainer:
    found = trainer(recipe, path)
    with StopRequest() as stop:
        assert found.run(stop).status == "done"
    return found


def changed(mapping: dict[str, Any], **train: Any) -> recipes.Recipe:
    return recipes.from_dict(mapping | {"train": mapping["train"] | train})


def test_problems_are_split_and_what_is_too_long_is_counted(
    problem_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ProblemData(path=str(problem_file), sequence_length=64, validation=0.2)
    prepared = problems.prepare(data, 1024, Console(json=True))
    assert len(prepared.train) + len(prepared.validation) == 81
    assert 8 <= len(prepared.validation) <= 24
    assert len(prepared.written) == len(prepared.validation)
    texts = [prepared.tokenizer.decode(problem.ids.tolist()) for problem in prepared.train]
    assert not any("<<" in text for text in texts)
    said = capsys.readouterr().err
    assert "left out 1 bad json" in said
    assert "left out 1 problems of more than 64 tokens" in said


def test_long_problems_are_cut_on_request_and_learned_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "long.jsonl"
    rows = [
        {"question": f"Count to {n} from {n % 5}.", "answer": f"{' '.join(map(str, range(n)))}\n#### {n}"}
        for n in range(10, 80)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def learned(**settings: Any) -> list[int]:
        prepared = problems.prepare(ProblemData(path=str(file), **settings), 1024, Console(json=True))
        assert max(len(problem.ids) for problem in prepared.train) <= settings["sequence_length"]
        return [
            token
            for problem in prepared.train
            for place, token in enumerate(problem.ids.tolist())
            if place >= problem.prompt and not problem.given[place]
        ]

    assert sorted(learned(sequence_length=64, overlap=16)) == sorted(learned(sequence_length=4096))
    said = capsys.readouterr().err
    assert re.search(r"cut [1-9]\d* problems of more than 64 tokens into pieces", said)
    with pytest.raises(tinycore.ConfigError, match="overlap: 64 is not between 1 and sequence_length less one"):
        ProblemData(path=str(file), sequence_length=64, overlap=64)


def test_annotations_may_become_calls(problem_file: Path) -> None:
    data = ProblemData(path=str(problem_file), sequence_length=64, validation=0.2, annotations="calls")
    prepared = problems.prepare(data, 1024, Console(json=True))
    call = prepared.tokenizer.special["<calc>"]
    assert all(problem.ids[problem.prompt :].tolist().count(call) == 1 for problem in prepared.train), "as one token"
    assert not any(call in problem.ids[: problem.prompt] for problem in prepared.train)
    assert all("<calc>" in prepared.tokenizer.decode(problem.ids.tolist()) for problem in prepared.train)
    with pytest.raises(BadRequest, match="has no row for every one of the tokenizer's"):
        problems.prepare(data, 256, Console(json=True))


def test_exact_matches_are_counted_by_value(
    mapping: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = changed(mapping)
    found = trainer(recipe, tmp_path / "a")
    task = found.task
    assert isinstance(task, ProblemTask)
    prepared = task.prepared
    answers = {
        tuple(problem.ids[: problem.prompt].tolist()): problem.ids[problem.prompt :].tolist()
        for problem in prepared.validation
    }
    said: list[dict[str, Any]] = []

    def generate(model: Any, prompts: list[list[int]], **settings: Any) -> Any:
        said.append(settings)
        given = [answers[tuple(prompt)] for prompt in prompts]
        given[0] = given[0][:-2]  # without its number
        return [[tinycore.Generation(ids, [], "stop")] for ids in given]

    monkeypatch.setattr(tinycore, "generate", generate)
    assert task._answered(found.model, 5) == [4, 5]
    assert said[0]["temperature"] == 0.0


def test_a_band_of_the_training_loss_ends_the_run_where_it_is_entered(mapping: dict[str, Any], tmp_path: Path) -> None:
    whole = run(changed(mapping, steps=12), tmp_path / "whole")
    assert whole.run_directory is not None
    losses = {r["step"]: r["loss"] for r in logs.read(whole.run_directory.metrics.path) if "loss" in r}
    assert len(losses) == 12
    at = next(step for step, loss in losses.items() if loss < losses[1] - 0.2)
    band = (losses[at] - 0.01, losses[at] + 0.01)
    first = min(step for step, loss in losses.items() if band[0] <= loss <= band[1])
    stopped = run(changed(mapping, steps=12, stop={"loss_band": band}), tmp_path / "band")
    assert stopped.progress.step == first
    assert stopped.run_directory is not None
    assert (stopped.run_directory.checkpoints / checkpoints.directory_of(first)).is_dir()


def test_patience_ends_the_run_after_so_many_validations_without_a_better_one(
    mapping: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.0, 0.2, 0.1, 0.2, 0.9, 0.9, 0.9])
    monkeypatch.setattr(
        ProblemTask,
        "validate",
        lambda task, model: {"val_loss": 1.0, "val_bpb": 1.0, "val_exact": next(scores)},
    )
    stopped = run(changed(mapping, steps=20, validate_every=1, save_every=0, stop={"patience": 2}), tmp_path / "a")
    assert stopped.progress.step == 4, "0.0, then 0.2 is better, 0.1 and again 0.2 are not"
    assert stopped.progress.latest is not None
    assert (stopped.progress.latest["patience_val_exact"], stopped.progress.latest["patience_waited"]) == (0.2, 2)


def test_patience_without_exact_answers_looks_at_the_loss(
    mapping: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([3.0, 2.0, 2.5, 2.5, 2.5])
    monkeypatch.setattr(ProblemTask, "validate", lambda task, model: {"val_loss": 1.0, "val_bpb": next(losses)})
    stopped = run(changed(mapping, steps=20, validate_every=1, save_every=0, stop={"patience": 3}), tmp_path / "a")
    assert stopped.progress.step == 5


@pytest.mark.parametrize(("band", "steps"), [(0.0, 9), (0.03, 4), (0.05, 4), (0.2, 3)])
def test_patience_overlooks_improvements_inside_the_band(
    mapping: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, band: float, steps: int
) -> None:
    """What is better is better than the last that counted: small steps add up."""
    bits = iter([2.0, 1.9, 1.89, 1.88, 1.86, 1.86, 1.855, 1.86, 1.86])
    monkeypatch.setattr(ProblemTask, "validate", lambda task, model: {"val_loss": 1.0, "val_bpb": next(bits)})
    stop = {"patience": 2, "band": band}
    stopped = run(changed(mapping, steps=9, validate_every=1, save_every=0, stop=stop), tmp_path / "a")
    assert stopped.progress.step == steps
    counted = {0.0: 1.855, 0.03: 1.9, 0.05: 1.9, 0.2: 2.0}[band]
    assert stopped.progress.latest is not None
    assert stopped.progress.latest["patience_val_bpb"] == -counted


def test_epochs_give_the_steps_and_a_whole_session_runs(
    mapping: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = changed(mapping, epochs=0.5, steps=999)
    request = command_line.Request(recipes.to_dict(recipe), recipe, "sums", out=tmp_path / "run", json=True)
    assert session.pretrain(request, Console(json=True)) == 0
    result = json.loads(capsys.readouterr().out)
    prepared = tasks.prepare(recipe, Console(json=True))
    assert isinstance(prepared, problems.PreparedProblems)
    assert result["steps"] == -(-len(prepared.train) // 16)
    assert 0 <= result["val_exact"] <= 1

    for arguments in ([], ["--model.depth.L_cycles", "4"]):
        monkeypatch.setattr(sys, "argv", ["chat", str(tmp_path / "run"), "--prompt", "What is 3 plus 4?", *arguments])
        with pytest.raises(SystemExit) as left:
            command_line.main(chat.run)
        assert not left.value.code


def test_another_recursion_is_other_logits_of_the_same_weights(mapping: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = tinycore.build(recipes.from_dict(mapping).model)
    tokens = torch.arange(12)[None]
    other = recursion.at(model, [Override(("model", "depth", "L_cycles"), 5)])
    same = recursion.at(model, [Override(("model", "depth", "L_cycles"), 2)])
    assert other.config.depth.L_cycles == 5
    assert torch.equal(same(tokens).logits, model(tokens).logits)
    assert not torch.allclose(other(tokens).logits, model(tokens).logits)
    with pytest.raises(BadRequest, match=r"only model\.depth\.H_cycles"):
        recursion.at(model, [Override(("model", "dim"), 8)])
    with pytest.raises(tinycore.ConfigError, match=r"model\.depth\.L_cycles: 0 is not positive"):
        recursion.at(model, [Override(("model", "depth", "L_cycles"), 0)])
    plain = tinycore.build(testing.stack(depth={"kind": "shared"}))
    with pytest.raises(BadRequest, match="depth is shared, of which nothing can change"):
        recursion.at(plain, [Override(("model", "depth", "L_cycles"), 5)])


def test_what_cannot_be_is_one_line(mapping: dict[str, Any], tmp_path: Path) -> None:
    for data, reason in (
        ({"validation": 0.9}, r"data\.validation: 0.9 is not above 0"),
        ({"sequence_length": 0}, r"data\.sequence_length: 0 is not positive"),
        ({"sequence_length": 640}, r"data\.sequence_length: 640 is longer than model\.max_seq_len"),
    ):
        with pytest.raises(tinycore.ConfigError, match=reason):
            recipes.from_dict(mapping | {"data": mapping["data"] | data})
    with pytest.raises(
        tinycore.ConfigError, match=r"train\.stop\.loss_band: \[1.5, 1.2\] is not from a loss to a larger one"
    ):
        changed(mapping, stop={"loss_band": [1.5, 1.2]})
    with pytest.raises(BadRequest, match="every problem of the train split is longer than 8"):
        problems.prepare(ProblemData(path=mapping["data"]["path"], sequence_length=8), 1024, Console(json=True))
