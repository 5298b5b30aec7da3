"""Claim: a checkpoint holds all of a run's state by name, verifies, and is refused in one line when it is damaged, newer or
of another model; old ones go only after a newer one stands."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import tinycore
from apps.common import checkpoints, files, random_state, recipes, run_directory
from apps.common.checkpoints import Progress
from apps.common.console import Console
from apps.common.data import prepare
from apps.common.errors import RunError
from apps.common.run_directory import RunDirectory
from tinycore import CheckpointError

CPU = torch.device("cpu")


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Path) -> Iterator[RunDirectory]:
    run = run_directory.create(tmp_path / "runs" / "a", recipes.load(tiny_recipe), [])
    yield run
    run.release()


def trained(recipe: recipes.Recipe, seed: int) -> tuple[tinycore.Decoder, torch.optim.Optimizer]:
    """A model after two steps of AdamW, so that the optimizer has a state."""
    torch.manual_seed(seed)
    model = tinycore.build(recipe.model)
    optimizer = tinycore.optim.adamw(model, 1e-2)
    for _ in range(2):
        tokens = torch.randint(0, 300, (2, 8))
        model(tokens, targets=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def save(run: RunDirectory, recipe: recipes.Recipe, step: int, seed: int = 0) -> tuple[Path, tinycore.Decoder]:
    model, optimizer = trained(recipe, seed)
    progress = Progress(
        step=step,
        tokens=step * 100,
        data={"position": step},
        best=None,
        latest=None,
        recipe=recipes.to_dict(recipe),
        environment={},
        dataset={"train": "", "validation": ""},
        tokenizer="",
        lineage=[],
    )
    tokenizer = prepare(recipe, Console(json=True)).tokenizer
    states = [random_state.capture(CPU)]
    path = checkpoints.save(
        run, progress, model, optimizer, states, lambda directory: tokenizer.save(directory / "tokenizer.json")
    )
    return path, model


@pytest.fixture
def recipe(tiny_recipe: Path) -> recipes.Recipe:
    return recipes.load(tiny_recipe)


def test_everything_comes_back(run: RunDirectory, recipe: recipes.Recipe) -> None:
    path, model = save(run, recipe, step=8)
    assert path.name == "step_00000008"
    assert (run.path / "latest").read_text() == "step_00000008\n"
    progress, scalars = checkpoints.read_progress(path)
    assert (progress.step, progress.tokens, progress.data) == (8, 800, {"position": 8})
    assert recipes.from_dict(progress.recipe) == recipe
    loaded = tinycore.load(path)
    for (name, one), (other_name, other) in zip(model.named_parameters(), loaded.named_parameters(), strict=True):
        assert name == other_name
        assert torch.equal(one, other)
    _, expected = trained(recipe, seed=0)
    optimizer = tinycore.optim.adamw(loaded, 0.5)
    checkpoints.load_optimizer(path, scalars, loaded, optimizer)
    states = [list(each.state_dict()["state"].values()) for each in (expected, optimizer)]
    for one, other in zip(*states, strict=True):
        assert one.keys() == other.keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert optimizer.param_groups[0]["lr"] == 0.5  # settings are the request's


def test_every_generator_comes_back() -> None:
    def draws() -> list[object]:
        return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(2).tolist()]  # noqa: NPY002

    random_state.seed(1, 2, 3)
    draws()
    content = random_state.capture(CPU)
    expected = draws()
    random_state.seed(4, 5, 6)
    assert draws() != expected
    random_state.restore(content, CPU, "here")
    assert draws() == expected
    random_state.seed(1, 0, 0)
    one = draws()
    random_state.seed(1, 1, 0)
    assert draws() != one
    for damaged in (b"", b"\0" * 100, content[:100], content[:-8]):
        with pytest.raises(RunError, match="here: not the state of random number generators"):
            random_state.restore(damaged, CPU, "here")


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.safetensors", "trainer.json", "tokenizer.json", "rng-00000.safetensors"]
)
@pytest.mark.parametrize("damage", ["flip", "missing", "cut"])
def test_a_damaged_checkpoint_is_passed_over(run: RunDirectory, recipe: recipes.Recipe, name: str, damage: str) -> None:
    older, _ = save(run, recipe, step=4)
    newer, _ = save(run, recipe, step=8)
    content = bytearray((newer / name).read_bytes())
    if damage == "missing":
        (newer / name).unlink()
    else:
        content[len(content) // 2] ^= 1
        (newer / name).write_bytes(content if damage == "flip" else content[:-1])
    found = checkpoints.newest(run.checkpoints)
    assert found is not None
    assert found.path == older
    ((path, reason),) = found.damaged
    assert path == newer
    assert str(newer / name) in reason
    aside = checkpoints.set_aside(newer)
    assert aside.name == "damaged-step_00000008"
    assert checkpoints.existing(run.checkpoints) == [older]
    save(run, recipe, step=8)
    assert checkpoints.set_aside(run.checkpoints / "step_00000008").name == "damaged-step_00000008-2"


def test_nothing_good_is_an_error_and_nothing_at_all_is_not(run: RunDirectory, recipe: recipes.Recipe) -> None:
    assert checkpoints.newest(run.checkpoints) is None
    path, _ = save(run, recipe, step=4)
    (path / "config.json").unlink()
    with pytest.raises(RunError, match="no older checkpoint can be read either"):
        checkpoints.newest(run.checkpoints)


def test_a_newer_format_or_weights_alone_are_one_line(run: RunDirectory, recipe: recipes.Recipe) -> None:
    path, _ = save(run, recipe, step=4)
    document = json.loads((path / "trainer.json").read_text())
    for change, reason in (
        ({"format_version": 2}, "newer than this program reads"),
        ({"step": -1}, "not counts"),
        ({"best": {"val_bpb": 1.0}}, "best is not what a run writes there"),
        ({"latest": {"step": 1, "val_bpb": "low"}}, "latest is not what a run writes there"),
        ({"lineage": "a king"}, "lineage is not"),
        ({"surprise": 1}, "surprise: missing or unknown"),
    ):
        files.write_json(path / "trainer.json", {**document, **change})
        with pytest.raises(RunError, match=reason):
            checkpoints.read_progress(path)
    (path / "trainer.json").unlink()
    with pytest.raises(RunError, match=f"holds weights only; start from them with --init-from {path}"):
        checkpoints.read_progress(path)


def test_state_of_another_model_is_refused(run: RunDirectory, recipe: recipes.Recipe) -> None:
    path, _ = save(run, recipe, step=4)
    _, scalars = checkpoints.read_progress(path)
    for other, reason in (
        (replace(recipe.model, dim=64), "has shape"),
        (replace(recipe.model, layers=recipe.model.layers * 2), "has nothing for"),
    ):
        model = tinycore.build(other)
        with pytest.raises(RunError, match=reason):
            checkpoints.load_optimizer(path, scalars, model, tinycore.optim.adamw(model, 1e-2))
    config = json.loads((path / "config.json").read_text())
    config["model"]["dim"] = 64
    files.write_json(path / "config.json", config)
    tinycore.checkpoint.write_manifest(path)
    with pytest.raises(CheckpointError, match="shape"):
        tinycore.load(path)


def test_old_checkpoints_go_except_the_best(run: RunDirectory, recipe: recipes.Recipe) -> None:
    for step in (2, 4, 6, 8):
        save(run, recipe, step)
    checkpoints.prune(run.checkpoints, 2, {"step_00000002"})
    assert [path.name for path in checkpoints.existing(run.checkpoints)] == [
        f"step_0000000{step}" for step in (2, 6, 8)
    ]
    checkpoints.prune(run.checkpoints, 1)
    assert [path.name for path in checkpoints.existing(run.checkpoints)] == ["step_00000008"]


def test_a_checkpoint_needs_room_before_it_is_begun(
    run: RunDirectory, recipe: recipes.Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "RESERVE", 2**60)
    with pytest.raises(RunError, match="make room and resume"):
        save(run, recipe, step=4)
    assert list(run.checkpoints.iterdir()) == []
