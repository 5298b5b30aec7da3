"""Claim: the loop weighs every target of a step the same, follows any objective, and logs what an independent computation
of the same quantities gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import tinycore
import tinydata
from apps.common import checkpoints, compare, logs, optimization, processes, recipes, run_directory
from apps.common.checkpoints import Progress
from apps.common.console import Console
from apps.common.data import Prepared, prepare
from apps.common.errors import TrainingFailed
from apps.common.language_task import LanguageTask
from apps.common.optimization import Factors
from apps.common.recipe import M3, AdamW
from apps.common.signals import StopRequest
from apps.common.trainer import Trainer
from tinycore.objectives import next_token
from tinycore.optim import WeightAverage

Make = Callable[..., tuple[Trainer, tinycore.Decoder]]


@pytest.fixture(scope="module")
def recipe(tiny_recipe: Path) -> recipes.Recipe:
    return recipes.load(tiny_recipe)


@pytest.fixture(scope="module")
def prepared(recipe: recipes.Recipe) -> Prepared:
    return prepare(recipe, Console(json=True))


@pytest.fixture
def make(tmp_path: Path, recipe: recipes.Recipe, prepared: Prepared) -> Make:
    """A trainer of a fresh model on this process; keywords replace its arguments or fields of recipe.train."""

    def build(**given: Any) -> tuple[Trainer, tinycore.Decoder]:
        chosen = given.pop("recipe", recipe)
        settings = {key: given.pop(key) for key in list(given) if hasattr(chosen.train, key)}
        chosen = replace(chosen, train=replace(chosen.train, **settings))
        world = processes.start("cpu", "fp32", 1, ())
        torch.manual_seed(0)
        model = given.pop("model", None) or tinycore.build(chosen.model)
        progress = Progress(
            step=0,
            tokens=0,
            data={},
            best=None,
            latest=None,
            recipe=recipes.to_dict(chosen),
            environment=compare.environment(world.device, 1),
            dataset=prepared.dataset,
            tokenizer=prepared.tokenizer.hash,
            lineage=[],
        )
        task = LanguageTask(chosen, prepared, world)
        if "objective" in given:
            task.objective = given.pop("objective")
        arguments = {
            "recipe": chosen,
            "world": world,
            "run": run_directory.create(tmp_path / "runs" / "a", chosen, []),
            "console": Console(json=True),
            "model": model,
            "optimizer": optimization.optimizer(chosen.optim, model),
            "factors": optimization.factors(chosen.optim, chosen.train.steps),
            "task": task,
            "progress": progress,
            **given,
        }
        return Trainer(**arguments), model

    return build


def metrics(trainer: Trainer) -> list[dict[str, Any]]:
    assert trainer.run_directory is not None
    return logs.read(trainer.run_directory.metrics.path)


def window_of(prepared: Prepared, recipe: recipes.Recipe) -> tinydata.Batch:
    """The rows of the first step, all in one batch."""
    loader = tinydata.Loader(
        prepared.train, recipe.data.sequence_length, recipe.train.batch_size, seed=recipe.train.seed, prefetch=0
    )
    return next(iter(loader))


@pytest.mark.parametrize("micro_batch", [1, 2, 8])
def test_every_target_of_a_window_weighs_the_same(
    make: Make, recipe: recipes.Recipe, prepared: Prepared, micro_batch: int
) -> None:
    """Gradient of a step == gradient of the mean cross-entropy over all its targets, in float64, however it is cut."""
    torch.manual_seed(0)
    model, reference = tinycore.build(recipe.model).double(), tinycore.build(recipe.model).double()
    reference.load_state_dict(model.state_dict())
    batch = window_of(prepared, recipe)
    logits = reference(torch.from_numpy(batch.tokens), doc_ids=torch.from_numpy(batch.documents)).logits
    targets = torch.from_numpy(batch.targets)
    chosen = targets >= 0
    assert len(set(chosen.sum(1).tolist())) > 1, "rows with equally many targets would not tell means apart"
    expected = F.cross_entropy(logits[chosen], targets[chosen])
    expected.backward()

    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    unclipped = replace(recipe, optim=replace(recipe.optim, clip=1e9))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trainer, _ = make(
        recipe=unclipped,
        model=model,
        optimizer=sgd,
        factors=lambda step: Factors(1.0, 1.0),
        steps=1,
        micro_batch=micro_batch,
    )
    assert trainer.accumulation == 8 // micro_batch
    trainer.run(StopRequest())
    for name, parameter in reference.named_parameters():
        moved = before[name] - dict(model.named_parameters())[name].detach()
        torch.testing.assert_close(moved, parameter.grad, rtol=1e-9, atol=1e-12)
    row = metrics(trainer)[0]
    assert row["loss"] == pytest.approx(expected.item(), rel=1e-6)
    assert row["tokens"] == int(chosen.sum())
    norm = math.sqrt(sum(parameter.grad.square().sum().item() for parameter in reference.parameters()))
    assert row["grad_norm"] == pytest.approx(norm, rel=1e-6)
    assert row["accuracy"] == pytest.approx((logits.argmax(-1) == targets)[chosen].double().mean().item())


def test_gradients_are_clipped_to_the_norm(make: Make, recipe: recipes.Recipe) -> None:
    clipped = replace(recipe, optim=replace(recipe.optim, clip=0.01))
    torch.manual_seed(0)
    model = tinycore.build(recipe.model)
    before = torch.cat([parameter.detach().flatten().clone() for parameter in model.parameters()])
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    trainer, _ = make(recipe=clipped, model=model, optimizer=sgd, factors=lambda step: Factors(1.0, 1.0), steps=1)
    trainer.run(StopRequest())
    after = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    assert (after - before).norm().item() == pytest.approx(0.01, rel=1e-3)
    assert metrics(trainer)[0]["grad_norm"] > 0.1


def test_weights_decay_until_their_share_of_the_steps(make: Make, recipe: recipes.Recipe) -> None:
    chosen = replace(recipe, optim=AdamW(weight_decay=0.2, weight_decay_until=0.5))
    trainer, _ = make(recipe=chosen, steps=5)
    seen = []
    trainer.optimizer.register_step_pre_hook(
        lambda optimizer, *_: seen.append([group["weight_decay"] for group in optimizer.param_groups])
    )
    trainer.run(StopRequest())
    assert seen == [[0.2, 0.0]] * 3 + [[0.0, 0.0]] * 2


def test_an_objective_decides_when_to_step(make: Make, recipe: recipes.Recipe) -> None:
    """Two backward passes before the first optimizer step, one before the second, for every micro-batch of a window."""
    events: list[str] = []

    class Counting(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            events.append("step")

    def twice(model: torch.nn.Module, tokens: Any, targets: Any, documents: Any) -> Iterator[Any]:
        for step in (False, True, True):
            events.append("pass")
            ((losses, _),) = next_token(model, tokens, targets, documents)
            yield losses, step

    model = tinycore.build(recipe.model)
    counting = Counting(model.parameters(), lr=1.0)
    trainer, _ = make(objective=twice, model=model, optimizer=counting, steps=1, micro_batch=4)
    trainer.run(StopRequest())
    assert events == ["pass"] * 4 + ["step"] + ["pass"] * 2 + ["step"]


def test_the_learning_rate_is_a_function_of_the_step(make: Make, recipe: recipes.Recipe) -> None:
    trainer, _ = make(steps=10)
    trainer.run(StopRequest())
    rates = [row["learning_rate"] for row in metrics(trainer) if "learning_rate" in row]
    # warmup of 2, then the peak, then 2 steps down to zero
    peak = recipe.optim.learning_rate
    assert rates == pytest.approx([peak / 3, peak * 2 / 3, *[peak] * 7, 0.0])


@pytest.mark.parametrize("ffn", [{"kind": "swiglu"}, {"kind": "experts", "balance": 3.0}], ids=["plain", "two losses"])
def test_validation_equals_a_loop_over_the_pieces(
    make: Make, recipe: recipes.Recipe, prepared: Prepared, ffn: dict[str, Any]
) -> None:
    """Loss and accuracy == each piece of a document alone, by hand; targets and bytes are those of the documents.

    With several losses as well: the score is of the next token and nothing else.
    """
    recipe = with_ffn(recipe, hidden=16, **ffn)
    trainer, model = make(recipe=recipe, steps=1, validate_rows=10_000)
    trainer.run(StopRequest())
    row = metrics(trainer)[-1]
    shards, tokenizer = prepared.validation, prepared.tokenizer
    nll = right = 0
    for batch in tinydata.Loader(shards, recipe.data.sequence_length, batch_size=1, prefetch=0).epoch_batches():
        tokens, targets, documents = (
            torch.from_numpy(array) for array in (batch.tokens, batch.targets, batch.documents)
        )
        for piece in range(int(documents.max()) + 1):
            inside = documents[0] == piece
            logits = model(tokens[:, inside]).logits[0].double()
            wanted = targets[0, inside]
            nll += F.cross_entropy(logits, wanted, reduction="sum", ignore_index=-100).item()
            right += (logits.argmax(-1) == wanted).sum().item()
    documents = [shards.read(number) for number in range(shards.documents)]
    count = sum(len(document) - 1 for document in documents)  # all but the first separator
    size = sum(len(tokenizer.decode(document[1:-1].tolist()).encode()) for document in documents)
    assert size == shards.bytes
    assert row["val_loss"] == pytest.approx(nll / count, rel=1e-5)
    assert row["val_bpb"] == pytest.approx(nll / math.log(2) / size, rel=1e-5)
    assert row["val_accuracy"] == pytest.approx(right / count, abs=2 / count)
    assert row["gap"] == pytest.approx(row["val_loss"] - row["train_loss"])


def test_the_same_recipe_gives_the_same_bytes(make: Make) -> None:
    logs_of_runs = []
    for _ in range(2):
        trainer, _ = make(steps=4)
        trainer.run(StopRequest())
        assert trainer.run_directory is not None
        trainer.run_directory.write_status("done", 4, [])
        logs_of_runs.append(trainer.run_directory.metrics.path.read_bytes())
    assert logs_of_runs[0] == logs_of_runs[1]


def test_what_is_due_when(make: Make) -> None:
    trainer, _ = make(steps=7, log_every=2, validate_every=3, save_every=5, sample_every=4, keep=9)
    outcome = trainer.run(StopRequest())
    rows, run = metrics(trainer), trainer.run_directory
    assert run is not None
    assert [row["step"] for row in rows if "loss" in row] == [2, 4, 6, 7]
    # a checkpoint is always scored: otherwise it could not be the best
    assert [row["step"] for row in rows if "val_loss" in row] == [3, 5, 6, 7]
    assert [path.name for path in sorted(run.checkpoints.iterdir())] == ["step_00000005", "step_00000007"]
    assert [line for line in (run.path / "samples.md").read_text().splitlines() if line.startswith("#")] == [
        "## Step 4",
        "## Step 7",
    ]
    best = min((row for row in rows if row["step"] in (5, 7) and "val_bpb" in row), key=lambda row: row["val_bpb"])
    assert (run.path / "best").read_text() == f"step_{best['step']:08d}\n"
    assert (run.path / "latest").read_text() == "step_00000007\n"
    assert (outcome.status, outcome.checkpoint, outcome.progress.step) == ("done", "step_00000007", 7)
    timing = logs.read(run.timing.path)
    assert [row["step"] for row in timing] == [2, 4, 6, 7]
    assert timing[0].keys() >= {"clock", "seconds", "tokens_per_second", "memory_bytes", "mfu", "loader_wait"}
    assert all(row["tokens_per_second"] > 0 and row["mfu"] > 0 for row in timing)


def test_a_step_whose_loss_is_not_finite_does_not_take_place(make: Make) -> None:
    """Weights, moments and what was learned are those of the step before; the next step is an ordinary one."""

    def breaks(model: torch.nn.Module, *batch: Any) -> Iterator[Any]:
        for losses, step in next_token(model, *batch):
            calls.append(1)
            factor = float("inf") if len(calls) == 3 else 1.0
            yield {name: (total * factor, count) for name, (total, count) in losses.items()}, step

    calls: list[int] = []
    taken: list[int] = []
    trainer, _ = make(objective=breaks, steps=4, micro_batch=8, save_every=1, keep=4)
    trainer.optimizer.register_step_pre_hook(lambda *_: taken.append(len(calls)))
    trainer.run(StopRequest())
    assert taken == [1, 2, 4]
    rows = {row["step"]: row for row in metrics(trainer) if "learning_rate" in row}
    assert (rows[3]["loss"], rows[3]["tokens"]) == (None, rows[2]["tokens"])
    assert rows[4]["loss"] < rows[1]["loss"]
    assert [row["step"] for row in metrics(trainer) if "skipped" in row] == [3]
    assert trainer.run_directory is not None
    saved = sorted(path.name for path in trainer.run_directory.checkpoints.iterdir())
    assert saved == [f"step_{step:08d}" for step in (1, 2, 4)]  # nothing is saved amid such steps


def test_weights_that_score_no_number_are_not_saved(make: Make) -> None:
    """The run goes back at once, before three steps come to nothing, and on from there."""
    trainer, _ = make(steps=6, micro_batch=8, save_every=2, validate_every=2, log_every=1)
    really, scored = trainer.task.validate, []

    def validate(model: Any) -> dict[str, Any]:
        found = really(model)
        scored.append(trainer.progress.step)
        return {**found, "val_loss": math.nan, "val_bpb": math.nan} if len(scored) == 2 else found

    trainer.task.validate = validate
    trainer.run(StopRequest())
    assert scored == [2, 4, 4, 6]
    (event,) = trainer.progress.lineage
    assert (event["event"], event["step"], event["failed"], event["skipped_rows"]) == ("rollback", 2, 4, 16)
    assert [row["step"] for row in metrics(trainer) if "loss" in row] == [1, 2, 3, 4, 5, 6]


def test_going_back_restores_every_kind_of_state(make: Make, recipe: recipes.Recipe) -> None:
    """Weights, slow momenta, waiting gradients, averages and draws are what the checkpoint holds, to the bit."""
    chosen = with_ffn(recipe, kind="cms", hidden=16, periods=[1, 3])
    chosen = replace(chosen, optim=M3(learning_rate=1e-2, slow_period=3))
    torch.manual_seed(0)
    model = tinycore.build(chosen.model)
    average = WeightAverage(model, 0.9)
    poisoned: list[int] = []

    def breaks(model: torch.nn.Module, *batch: Any) -> Iterator[Any]:
        poisoned.append(1)
        factor = float("nan") if len(poisoned) in (6, 7) else 1.0
        for losses, step in next_token(model, *batch):
            yield {name: (total * factor, count) for name, (total, count) in losses.items()}, step

    trainer, _ = make(
        recipe=chosen,
        model=model,
        average=average,
        objective=breaks,
        steps=7,
        micro_batch=8,
        save_every=4,
        rollback_after=2,
    )
    assert trainer.run_directory is not None
    held = []
    really = trainer._go_back

    def go_back() -> str:
        name = really()
        checkpoint = trainer.run_directory.checkpoints / name  # ty: ignore[unresolved-attribute]
        tensors, scalars = checkpoints.optimizer_tensors(model, trainer.optimizer)
        saved, told = checkpoints.read_progress(checkpoint)
        assert scalars == told
        for file, now in (
            ("model.safetensors", model.state_dict()),
            ("optimizer.safetensors", tensors),
            (checkpoints.AVERAGE, average.tensors),
            ("rng-00000.safetensors", {"torch": torch.get_rng_state()}),
        ):
            kept = load_file(checkpoint / file)
            assert all(torch.equal(now[key], kept[key]) for key in now), file
        held.append((saved.step, trainer.progress.data["position"]))
        return name

    trainer._go_back = go_back
    trainer.run(StopRequest())
    assert held == [(4, 7 * 8)]


def test_without_a_checkpoint_there_is_nothing_to_go_back_to(make: Make) -> None:
    def breaks(model: torch.nn.Module, *batch: Any) -> Iterator[Any]:
        for losses, step in next_token(model, *batch):
            calls.append(1)
            factor = float("nan") if len(calls) >= 6 else 1.0
            yield {name: (total * factor, count) for name, (total, count) in losses.items()}, step

    calls: list[int] = []
    trainer, _ = make(objective=breaks, steps=8, micro_batch=8, save_every=0, log_every=100, rollback_after=2)
    with pytest.raises(TrainingFailed) as caught:
        trainer.run(StopRequest())
    assert str(caught.value).startswith("loss or gradient not finite at step 6; there is no checkpoint yet")
    assert len(calls) == 7
    assert trainer.run_directory is not None
    assert not list(trainer.run_directory.checkpoints.glob("step_*"))


def with_ffn(recipe: recipes.Recipe, **ffn: Any) -> recipes.Recipe:
    """The recipe with another feed-forward in every layer."""
    plain = recipes.to_dict(recipe)
    plain["model"]["layers"][0]["ffn"] = ffn
    return recipes.from_dict(plain)


def test_losses_and_statistics_are_logged_under_their_names(
    make: Make, recipe: recipes.Recipe, prepared: Prepared
) -> None:
    """A mixture of experts: each loss by itself, the usage of its experts, and a validation that knows only the tokens."""
    chosen = with_ffn(recipe, kind="moe", experts=3, active=1, hidden=16, balance=0.5)
    torch.manual_seed(0)
    model = tinycore.build(chosen.model)
    batch = window_of(prepared, chosen)
    out = model(torch.from_numpy(batch.tokens), torch.from_numpy(batch.targets), torch.from_numpy(batch.documents))
    expected = {name: float(total / count) for name, (total, count) in {**out.losses, **out.stats}.items()}
    trainer, _ = make(recipe=chosen, model=model, steps=1, micro_batch=8, factors=lambda step: Factors(0.0, 0.0))
    trainer.run(StopRequest())
    row, scores = metrics(trainer)
    usage = [f"experts/usage/{name}" for name in (0, 1, 2, "largest")]
    extra = ["experts/entropy", *usage, "loss/balance", "loss/lm"]
    assert list(row) == ["step", "tokens", "loss", "learning_rate", "grad_norm", "accuracy", *extra]
    for name in extra:
        assert row[name] == pytest.approx(expected[name.removeprefix("loss/")], rel=1e-6), name
    assert row["accuracy"] == pytest.approx(expected["correct"])
    assert row["loss"] == pytest.approx(row["loss/lm"] + row["loss/balance"])
    assert sum(row[name] for name in usage[:3]) == pytest.approx(1)
    # the weights did not move: what the rows of this step score is their next-token loss alone
    assert scores["train_loss"] == pytest.approx(row["loss/lm"], rel=1e-5)
    assert scores["train_loss"] < row["loss"] - 0.4


def test_means_are_over_everything_since_the_last_line(make: Make, recipe: recipes.Recipe) -> None:
    """A line every third step is the mean of the lines of each, weighted by what they counted; windows may be cut."""
    chosen = with_ffn(recipe, kind="experts", hidden=16)
    rows = []
    for settings in ({"log_every": 1, "micro_batch": 8}, {"log_every": 3, "micro_batch": 8}):
        torch.manual_seed(0)
        model = tinycore.build(chosen.model)
        sgd = torch.optim.SGD(model.parameters(), lr=0.0)
        trainer, _ = make(recipe=chosen, model=model, optimizer=sgd, steps=3, **settings)
        trainer.run(StopRequest())
        rows.append([row for row in metrics(trainer) if "loss" in row])
        assert trainer.run_directory is not None
        trainer.run_directory.write_status("done", 3, [])
    each, (whole,) = rows
    weights = [after["tokens"] - before for after, before in zip(each, [0, *(r["tokens"] for r in each)], strict=False)]
    mean = sum(row["loss/lm"] * weight for row, weight in zip(each, weights, strict=True)) / sum(weights)
    assert whole["loss/lm"] == pytest.approx(mean, rel=1e-6)
    usage = [row["experts/usage/logic"] for row in each]
    assert min(usage) <= whole["experts/usage/logic"] <= max(usage)
