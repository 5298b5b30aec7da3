"""Claim: batches and rows grow over a run as the recipe says and as phases made by hand would have them: gradients, tokens and
order are the same to rounding, resuming is exact, horizons count what is read, and a compiler meets a new shape only where
one begins."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import tinycore
import tinydata
from apps.common import dry_run, fit, horizon, logs, optimization, phases, processes, recipes, run_directory
from apps.common.console import Console
from apps.common.data import Prepared, prepare
from apps.common.horizon import Pace
from apps.common.language_task import LanguageTask
from apps.common.optimization import Factors
from apps.common.overrides import read
from apps.common.signals import StopRequest
from apps.common.trainer import Trainer
from apps.pretrain.start import no_progress
from tinycore import ConfigError

BATCHES = "[{until: 0.25, batch: 2}, {until: 0.5, batch: 6}]"
LENGTHS = "[{until: 0.34, length: 16}, {until: 0.75, length: 32}]"
SCHEDULES = ["--train.batch_schedule", BATCHES, "--train.length_schedule", LENGTHS]
# (first step, behind the last, rows a step, tokens of a row) of 12 steps, by hand
BY_HAND = [(0, 3, 2, 16), (3, 4, 6, 16), (4, 6, 6, 32), (6, 9, 8, 32), (9, 12, 8, 64)]


@pytest.fixture(scope="module")
def recipe(tiny_recipe: Path) -> recipes.Recipe:
    given = [
        read("train.batch_schedule", BATCHES),
        read("train.length_schedule", LENGTHS),
        read("train.micro_batch", "2"),
    ]
    return recipes.load(tiny_recipe, given)


@pytest.fixture(scope="module")
def prepared(recipe: recipes.Recipe) -> Prepared:
    return prepare(recipe, Console(json=True))


def trainer_of(recipe: recipes.Recipe, prepared: Prepared, folder: Path, **given: Any) -> Trainer:
    world = processes.start("cpu", "fp32", 1, ())
    torch.manual_seed(0)
    model = given.pop("model", None) or tinycore.build(recipe.model)
    arguments = {
        "optimizer": optimization.optimizer(recipe.optim, model),
        "factors": optimization.factors(recipe.optim, recipe.train.steps),
        **given,
    }
    return Trainer(
        recipe=recipe,
        world=world,
        run=run_directory.create(folder, recipe, []),
        console=Console(json=True),
        model=model,
        task=LanguageTask(recipe, prepared, world),
        progress=no_progress(recipe, prepared, world, []),
        **arguments,
    )


def test_phases_are_those_made_by_hand(recipe: recipes.Recipe) -> None:
    found = phases.of(recipe)
    assert [(each.first, each.stop, each.batch, each.length) for each in found] == BY_HAND
    rows = [batch for first, stop, batch, _ in BY_HAND for _ in range(first, stop)]
    assert phases.sequences(recipe) == sum(rows)
    for first, stop in ((0, 12), (2, 5), (3, 3), (11, 12), (5, 10)):
        assert phases.between(recipe, first, stop) == sum(rows[first:stop])
    for step in range(12):
        phase = phases.at(found, step)
        assert phase.first <= step < phase.stop
    plain = replace(recipe, train=replace(recipe.train, batch_schedule=(), length_schedule=()))
    assert [(each.first, each.stop, each.batch, each.length) for each in phases.of(plain)] == [(0, 12, 8, 64)]


def test_the_steps_of_a_horizon_are_the_fewest_that_read_so_much(recipe: recipes.Recipe) -> None:
    """Tokens, epochs and time count the rows of every phase; one step fewer would not do."""
    for rows in (1, 2, 3, 50, 333, 1000):
        steps = phases.steps_for(recipe, rows)
        assert phases.sequences(recipe, steps) >= rows
        assert steps == 1 or phases.sequences(recipe, steps - 1) < rows
    sizes = [phases.sequences(recipe, steps) for steps in range(1, 200)]
    assert sizes == sorted(set(sizes)), "a longer run reads more"
    tokens, derived = horizon.with_tokens(recipe, 64 * 500)
    assert phases.sequences(tokens) >= 500 > phases.sequences(tokens, tokens.train.steps - 1)
    assert "2 to 8 rows x 64 tokens" in derived[0].rule
    epochs = replace(recipe, train=replace(recipe.train, epochs=2.0))
    counted, _ = horizon.with_epochs(epochs, 300)
    assert phases.sequences(counted) >= 600 > phases.sequences(counted, counted.train.steps - 1)
    pace = Pace(micro_batch=1.0, start=0.0, validation=0.0, samples=0.0)
    train = replace(recipe.train, validate_every=0, save_every=0, sample_every=0)
    timed = replace(recipe, train=train)
    spent = [horizon.expected_seconds(timed, 1, 0, pace, steps) for steps in (12, 120)]
    assert spent[1] - spent[0] == pytest.approx((sizes[119] - sizes[11]) / 2), (
        "a second for each micro-batch of two rows"
    )
    rehearsed = horizon.rehearsed(recipe, 1)
    assert [(each.batch, each.length) for each in phases.of(rehearsed)] == [(2, 64)]


def test_a_dry_run_counts_every_phase(recipe: recipes.Recipe) -> None:
    plan = dry_run.plan(recipe, fit.Place("cpu", "fp32", 0))
    rows = [(batch, length) for first, stop, batch, length in BY_HAND for _ in range(first, stop)]
    assert plan.tokens == 64 * sum(batch for batch, _ in rows)
    counts = tinycore.count(recipe.model)
    flops = sum(64 * batch * counts.flops_per_token(length) for batch, length in rows)
    assert plan.total_flops == pytest.approx(flops, rel=1e-12)
    assert phases.said(recipe) == (
        "2 sequences a step up to 25%, 6 sequences a step up to 50%, rows cut into 16 up to 34%, rows cut into 32 up to 75%"
    )


def rows_by_hand(prepared: Prepared, recipe: recipes.Recipe) -> list[list[tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """Of each step the pieces (tokens, targets, documents) that it learns from."""
    loader = tinydata.Loader(prepared.train, 64, batch_size=1, seed=recipe.train.seed, prefetch=0)
    rows = iter(loader)
    found = []
    for first, stop, batch, length in BY_HAND:
        for _ in range(first, stop):
            pieces = []
            for _ in range(batch):
                row = next(rows)
                for start in range(0, 64, length):
                    part = slice(start, start + length)
                    pieces.append((row.tokens[0, part], row.targets[0, part], row.documents[0, part]))
            found.append(pieces)
    return found


def test_a_run_learns_what_phases_made_by_hand_learn(
    recipe: recipes.Recipe, prepared: Prepared, tmp_path: Path
) -> None:
    """Weights after every phase, in float64, beside a loop over documents cut by hand, each scored alone."""
    torch.manual_seed(0)
    model, reference = tinycore.build(recipe.model).double(), tinycore.build(recipe.model).double()
    reference.load_state_dict(model.state_dict())
    rate, tokens = 0.5, []
    for pieces in rows_by_hand(prepared, recipe):
        total, count = torch.zeros((), dtype=torch.float64), 0
        for piece, wanted, documents in pieces:
            for document in sorted(set(documents.tolist()) - {-1}):
                inside = documents == document
                logits = reference(torch.from_numpy(piece[inside])[None]).logits[0]
                right = torch.from_numpy(wanted[inside])
                total = total + F.cross_entropy(logits, right, ignore_index=-100, reduction="sum")
                count += int((right >= 0).sum())
        gradients = torch.autograd.grad(total / count, list(reference.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(reference.parameters(), gradients, strict=True):
                parameter.sub_(gradient, alpha=rate)
        tokens.append(count)
    unclipped = replace(recipe, optim=replace(recipe.optim, clip=1e9))
    trainer = trainer_of(
        unclipped,
        prepared,
        tmp_path / "run",
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=rate),
        factors=lambda step: Factors(1.0, 1.0),
    )
    assert trainer.accumulation == 1
    outcome = trainer.run(StopRequest())
    for (name, mine), theirs in zip(model.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11, msg=name)
    learned = [row["tokens"] for row in logs.read(tmp_path / "run" / "metrics.jsonl") if "loss" in row]
    assert learned == np.cumsum(tokens).tolist()
    assert outcome.progress.tokens == sum(tokens)
    assert outcome.progress.data["position"] == phases.sequences(recipe)


@pytest.mark.parametrize("world", [1, 2])
def test_resuming_is_exact_in_every_phase(
    sessions: Callable[[Sequence[dict[str, Any]]], Any], tiny_recipe: Path, tmp_path: Path, world: int
) -> None:
    """Stopped and killed between the edges of both schedules: weights, moments and logs are an uninterrupted run's."""
    whole, parts = (tmp_path / "runs" / name for name in ("whole", "parts"))
    micro = ["--train.micro_batch", "1", "--train.save_every", "5"]
    argv = ["--recipe", str(tiny_recipe), *SCHEDULES, *micro, "--out"]
    results = sessions(
        [
            {"argv": [*argv, str(whole)], "world": world},
            {"argv": [*argv, str(parts)], "world": world, "hurt": {"rank": 0, "step": 4, "signal": 15}},
            {"argv": ["--resume", str(parts)], "world": world, "hurt": {"rank": 0, "step": 8, "signal": 9}},
            {"argv": ["--resume", str(parts)], "world": world},
        ]
    )
    assert [result.codes[0] for result in results] == [0, 3, -9, 0], [result.err for result in results]
    assert (parts / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    last = Path("checkpoints") / "step_00000012"
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (parts / last / name).read_bytes() == (whole / last / name).read_bytes()
    position = json.loads((parts / last / "trainer.json").read_text())["data"]["position"]
    assert position == sum((stop - first) * batch for first, stop, batch, _ in BY_HAND)
    assert "at first 2 sequences a step up to 25%" in (whole / "report.md").read_text()


def test_a_compiler_meets_new_shapes_where_lengths_begin(
    recipe: recipes.Recipe, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Graphs are made in the first step of each length, and in no other: batches change none."""
    made: list[int] = []

    def backend(graph: Any, inputs: Any) -> Any:
        made.append(1)
        return graph.forward

    really = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, dynamic: really(self, dynamic=dynamic, backend=backend)
    )
    quiet = {"validate_every": 0, "save_every": 0, "sample_every": 0, "validate_rows": 1}
    compiled = replace(recipe, train=replace(recipe.train, compile=True, **quiet))
    torch.compiler.reset()
    after: list[int] = []
    trainer = trainer_of(compiled, prepared, tmp_path / "run")
    trainer.optimizer.register_step_post_hook(lambda *_: after.append(len(made)))
    trainer.run(StopRequest())
    torch.compiler.reset()
    new = [step for step, (before, now) in enumerate(zip([0, *after], after, strict=False)) if now > before]
    assert new == [0, 4, 9], after


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("batch_schedule", "[{until: 0.5, batch: 8}]", "batch_schedule: [8] does not grow to batch_size, 8"),
        ("batch_schedule", "[{until: 0.5, batch: 4}, {until: 0.7, batch: 2}]", "does not grow"),
        ("batch_schedule", "[{until: 0.0, batch: 4}]", "the shares [0.0] do not grow"),
        ("batch_schedule", "[{until: 1.0, batch: 4}]", "the shares [1.0] do not grow"),
        ("batch_schedule", "[{until: 0.5, batch: 0}]", "train.batch_schedule.0.batch: 0 is not positive"),
        ("batch_schedule", "[{until: 0.5}]", "train.batch_schedule.0.batch: missing"),
        ("length_schedule", "[{until: 0.5, length: 48}]", "train.length_schedule: 48 does not divide"),
        ("length_schedule", "[{until: 0.5, length: 64}]", "does not grow to data.sequence_length, 64"),
    ],
)
def test_schedules_that_make_no_sense_are_one_line(tiny_recipe: Path, key: str, value: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        recipes.load(tiny_recipe, [read(f"train.{key}", value)])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_micro_batch_divides_every_batch(recipe: recipes.Recipe) -> None:
    free = replace(recipe, train=replace(recipe.train, micro_batch=None))
    assert free.micro_batch() == free.share_of_batches() == 2
    assert free.micro_batch(2) == 1
    with pytest.raises(ConfigError, match=r"train\.batch_schedule: 2 sequences do not divide over 4 processes"):
        free.micro_batch(4)
    with pytest.raises(ConfigError, match=r"train\.micro_batch: 4 does not divide the 2 sequences .* batch_schedule"):
        replace(recipe, train=replace(recipe.train, micro_batch=4)).micro_batch()


def test_only_running_text_is_cut() -> None:
    given = [read("train.length_schedule", "[{until: 0.5, length: 2}]")]
    with pytest.raises(ConfigError, match=r"train\.length_schedule: cuts rows of running text"):
        recipes.load("trm-sudoku-4x4", given)
