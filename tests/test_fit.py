"""Claim: a budget of memory chooses the largest micro-batch whose prediction fits it, which the run then keeps; what cannot
fit is refused in one line that names something that does; too little memory is said before the start.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import tinycore
from apps.common import command_line, fit, freezing, optimization, process_memory, recipes
from apps.common.errors import BadRequest
from apps.common.fit import Budget, Place
from apps.common.overrides import read
from tinycore import ConfigError

ROOT = Path(__file__).parents[1]
GIB = 2**30
CPU = Place("cpu", "fp32", 700 * 2**20)
GPU = Place("cuda", "bf16", 600 * 2**20)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("8GB", 8 * 10**9), ("6GiB", 6 * GIB), ("500 mb", 500 * 10**6), ("1.5GB", 1_500_000_000), (".5TiB", 2**39)],
)
def test_sizes_as_people_write_them(text: str, expected: int) -> None:
    assert fit.parse(text).bytes == expected


@pytest.mark.parametrize(
    "text", ["8", "8G", "8 bytes", "-1GB", "0GB", "GB", "1e3GB", "9" * 400 + "GB", "٣GB", "8GB8GB"]
)
def test_other_sizes_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(BadRequest, match="--memory") as caught:
        command_line.parse("pretrain", ["--memory", text] if not text.startswith("-") else [f"--memory={text}"])
    assert "\n" not in str(caught.value)
    assert "8GB" in str(caught.value)


def test_a_budget_and_a_micro_batch_are_not_both_given() -> None:
    with pytest.raises(BadRequest, match=r"--memory chooses train\.micro_batch"):
        command_line.parse("pretrain", ["--memory", "8GB", "--train.micro_batch", "4"])


@pytest.mark.parametrize("name", ["demo", "brandon-226k", "brandon-10m", "brandon-110m-v2"])
@pytest.mark.parametrize("where", [CPU, GPU], ids=["cpu", "gpu"])
@pytest.mark.parametrize("gigabytes", [3, 8, 24])
def test_the_micro_batch_is_the_largest_that_fits(name: str, where: Place, gigabytes: int) -> None:
    recipe = recipes.load(name)
    budget = Budget(gigabytes * GIB, "")
    rows = recipe.train.batch_size
    fitting = [
        n for n in range(1, rows + 1) if rows % n == 0 and fit.predict(recipe, where, n)["total"] <= budget.bytes
    ]
    if not fitting:
        with pytest.raises(BadRequest, match="one sequence"):
            fit.largest(recipe, where, budget)
        return
    assert fit.largest(recipe, where, budget) == max(fitting)
    assert fit.within(recipe, where, budget).micro_batch() == max(fitting)


def test_it_divides_each_process_share() -> None:
    recipe = recipes.load("brandon-226k")  # 64 sequences a step
    assert fit.largest(recipe, GPU, Budget(2**50, ""), processes=4) == 16
    with pytest.raises(ConfigError, match="batch_size"):
        fit.largest(recipe, GPU, Budget(2**50, ""), processes=3)


def test_a_micro_batch_in_the_recipe_gives_way_to_the_budget() -> None:
    recipe = recipes.load("demo")
    recipe = replace(recipe, train=replace(recipe.train, micro_batch=1))
    assert fit.within(recipe, GPU, Budget(2**50, "")).train.micro_batch == 8


def test_a_prediction_adds_up_and_counts_gradients_of_earlier_micro_batches() -> None:
    recipe = recipes.load("brandon-10m")
    parameters = tinycore.count(recipe.model).parameters
    found = fit.predict(recipe, CPU, 4)
    assert sum(found.values()) == 2 * found["total"]
    assert (found["weights"], found["gradients"], found["optimizer"]) == (
        4 * parameters,
        4 * parameters,
        8 * parameters,
    )
    assert fit.predict(recipe, CPU, 128)["gradients"] == 0
    assert fit.predict(recipe, replace(CPU, precision="bf16"), 4)["total"] < found["total"]


def test_what_is_refused_names_a_budget_and_a_length_that_do_fit() -> None:
    recipe = recipes.load("brandon-110m-v2")
    needed = fit.predict(recipe, CPU, 1)["total"]
    with pytest.raises(BadRequest) as caught:
        fit.largest(recipe, CPU, Budget(int(0.97 * needed), "much"))
    line = str(caught.value)
    found = re.fullmatch(
        r"--memory much: one sequence of 1024 tokens needs (\S+); .* --data.sequence_length (\d+)", line
    )
    assert found is not None, line
    assert fit.largest(recipe, CPU, fit.parse(found[1])) >= 1
    shorter = replace(recipe, data=replace(recipe.data, sequence_length=int(found[2])))
    assert fit.largest(shorter, CPU, Budget(int(0.97 * needed), "")) >= 1


def test_a_budget_below_the_runtime_names_no_length() -> None:
    with pytest.raises(BadRequest, match="no sequence is short enough") as caught:
        fit.largest(recipes.load("demo"), CPU, Budget(2**20, "1MiB"))
    assert "--data.sequence_length" not in str(caught.value)


def test_too_little_memory_is_said_in_one_line() -> None:
    recipe = recipes.load("brandon-10m")
    needed = fit.predict(recipe, replace(CPU, runtime=0), 32)["total"]
    line = fit.shortage(recipe, CPU, 32, 1, needed - 1)
    assert line is not None
    assert "\n" not in line
    assert "--memory" in line
    assert fit.shortage(recipe, CPU, 32, 1, needed) is None
    assert fit.shortage(recipe, CPU, 32, 1, None) is None


def test_the_runtime_is_measured_once_and_leaves_no_trace() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    found = process_memory.runtime_bytes("fp32")
    assert torch.equal(torch.get_rng_state(), before)
    assert process_memory.runtime_bytes("fp32") == found
    assert 100 * 2**20 < found <= process_memory.peak_bytes()


HOLDING = """
import torch
from apps.common import process_memory
before = process_memory.resident_bytes()
block = torch.ones(64 * 2**20, dtype=torch.uint8)
held = process_memory.resident_bytes()
del block
print(held - before, process_memory.peak_bytes() - held, process_memory.resident_bytes() - held)
"""


def test_what_a_process_holds_and_held() -> None:
    """In a process of its own: what others have freed in this one may be used again."""
    ran = subprocess.run([sys.executable, "-c", HOLDING], cwd=ROOT, capture_output=True, text=True, check=True)
    grown, above, left = map(int, ran.stdout.split())
    assert 60 * 2**20 < grown < 80 * 2**20
    assert above > -(2**20), "the kernel counts in batches"
    assert left < 0


def test_what_is_free() -> None:
    free = process_memory.free_bytes(torch.device("cpu"))
    assert free is not None
    assert process_memory.free_bytes(torch.device("cpu"), 4) == pytest.approx(free / 4, rel=0.2)
    assert process_memory.free_bytes(torch.device("meta")) is None


def test_a_containers_limit_counts(tmp_path: Path) -> None:
    def left(limit: str, used: str) -> int:
        (tmp_path / "memory.max").write_text(limit)
        (tmp_path / "memory.current").write_text(used)
        return process_memory._left_in_group(tmp_path)

    assert left("1000\n", "300\n") == 700
    assert left("1000\n", "3000\n") == 0
    assert left("max\n", "300\n") > 2**60
    assert process_memory._left_in_group(tmp_path / "none") > 2**60


def test_a_run_keeps_the_micro_batch_of_its_budget(
    tiny_recipe: Path, tmp_path: Path, sessions: Callable[[Sequence[dict[str, Any]]], list[Any]]
) -> None:
    """Ample, then resumed under another budget; and one that nothing fits, which leaves no run behind."""
    common = ["--recipe", str(tiny_recipe), "--device", "cpu", "--json"]
    run = tmp_path / "run"
    ample, resumed, none = sessions(
        [
            {"argv": [*common, "--out", str(run), "--memory", "20GB", "--train.steps", "4"]},
            {"argv": ["--resume", str(run), "--json", "--memory", "20GiB", "--train.steps", "5", "--allow-changes"]},
            {"argv": [*common, "--out", str(tmp_path / "none"), "--memory", "9MB"]},
        ]
    )
    assert ample.codes == [0], ample.err
    # the recipe says 4; all 8 of the batch fit
    assert "micro-batch 8: predicted" in ample.err
    assert yaml.safe_load((run / "recipe.yaml").read_text())["train"]["micro_batch"] == 8
    assert resumed.codes == [0], resumed.err
    assert resumed.json["steps"] == 5
    assert none.codes == [2]
    assert none.err.count("\n") == 1
    assert "--memory 9MB: one sequence of 64 tokens needs" in none.err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("kind", ["adamw", "muon", "m3", "deep_momentum", "delta_gd"])
def test_the_optimizers_state_is_what_is_predicted(kind: str) -> None:
    recipe = recipes.load("demo", [read("optim.kind", kind), read("model.vocab_size", "1024")])
    model = tinycore.build(recipe.model)
    optimizer = optimization.optimizer(recipe.optim, model)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    states = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    states += [met.total for met in getattr(optimizer, "met", {}).values()]
    assert fit.predict(recipe, CPU, 1)["optimizer"] == sum(4 * value.numel() for value in states if value.ndim)


@pytest.mark.parametrize("kind", ["adamw", "muon", "m3", "delta_gd"])
def test_what_is_frozen_has_no_gradients_moments_or_average(kind: str) -> None:
    given = [
        ("optim.kind", kind),
        ("model.vocab_size", "1024"),
        ("train.freeze", "[embed.*, layers.0.*]"),
        ("train.ema", "0.9"),
    ]
    recipe = recipes.load("demo", [read(key, value) for key, value in given])
    model = tinycore.build(recipe.model)
    freezing.freeze(model, recipe.train.freeze)
    optimizer = optimization.optimizer(recipe.optim, model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    states = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    states += [met.total for met in getattr(optimizer, "met", {}).values()]
    found = fit.predict(recipe, CPU, 1)  # of a batch of 8: gradients of earlier micro-batches are there
    assert found["optimizer"] == sum(4 * value.numel() for value in states if value.ndim)
    assert found["gradients"] == found["average"] == 4 * sum(parameter.numel() for parameter in trained)
    assert found["weights"] == 4 * sum(parameter.numel() for parameter in model.parameters())
    assert found["total"] < fit.predict(replace(recipe, train=replace(recipe.train, freeze=())), CPU, 1)["total"]


def with_policy(recipe: recipes.Recipe, policy: str) -> recipes.Recipe:
    return replace(recipe, train=replace(recipe.train, recompute=policy))  # ty: ignore[invalid-argument-type]


@pytest.mark.parametrize(
    ("name", "expected"), [("demo", ["none", "layers"]), ("cola-10m", ["none", "low_rank", "layers"])]
)
def test_auto_recomputes_the_least_that_fits(name: str, expected: list[str]) -> None:
    """Room of exactly what a policy needs chooses it, one byte less the next one; with none that fits, the smallest."""
    recipe = with_policy(recipes.load(name), "auto")
    rows = recipe.micro_batch()
    needed = [fit.predict(with_policy(recipe, policy), GPU, rows)["total"] for policy in expected]
    assert needed == sorted(needed, reverse=True)
    assert len(set(needed)) == len(needed)
    for policy, total, following in zip(expected, needed, [*expected[1:], expected[-1]], strict=True):
        assert fit.settled(recipe, GPU, total, None).train.recompute == policy
        assert fit.settled(recipe, GPU, total - 1, None).train.recompute == following
    assert fit.settled(recipe, GPU, None, None).train.recompute == "none"
    kept = with_policy(recipe, "layers")
    assert fit.settled(kept, GPU, 2**50, None) is kept
    with pytest.raises(ValueError, match="auto is settled before"):
        fit.predict(recipe, GPU, rows)


def test_auto_takes_a_smaller_micro_batch_before_it_recomputes() -> None:
    """A budget chooses both: nothing is recomputed as long as one sequence fits."""
    recipe = with_policy(recipes.load("brandon-110m-v2"), "auto")
    needed = {policy: fit.predict(with_policy(recipe, policy), GPU, 1)["total"] for policy in ("none", "layers")}
    for bytes_there, policy in ((needed["none"], "none"), (needed["none"] - 1, "layers"), (1, "layers")):
        assert fit.settled(recipe, GPU, 2**50, Budget(bytes_there, "")).train.recompute == policy


def test_a_run_keeps_what_auto_chose(
    tiny_recipe: Path, tmp_path: Path, sessions: Callable[[Sequence[dict[str, Any]]], list[Any]]
) -> None:
    """In recipe.yaml, so that a resumed run is not asked again; weights are those of the run without."""
    common = ["--recipe", str(tiny_recipe), "--device", "cpu", "--json", "--train.steps", "4"]
    run, plain, tight = (tmp_path / name for name in ("run", "plain", "tight"))
    auto = ["--train.recompute", "auto"]
    runtime = process_memory.runtime_bytes("fp32")
    assert runtime > 0
    ample, none, dry, resumed = sessions(
        [
            {"argv": [*common, "--out", str(run), *auto]},
            {"argv": [*common, "--out", str(plain)]},
            {"argv": [*common, "--out", str(tight), *auto, "--memory", "9MB", "--dry-run"]},
            {"argv": ["--resume", str(run), "--train.steps", "5", "--allow-changes"]},
        ]
    )
    assert [ample.codes, none.codes, resumed.codes] == [[0], [0], [0]], ample.err + resumed.err
    assert dry.codes == [2]
    assert "recompute: none (auto)" in ample.err
    assert yaml.safe_load((run / "recipe.yaml").read_text())["train"]["recompute"] == "none"
    last = Path("checkpoints") / "step_00000004" / "model.safetensors"
    assert (run / last).read_bytes() == (plain / last).read_bytes()
    assert "(auto)" not in resumed.out


CARDS = {"gpu-4gb": 4, "gpu-8gb": 8, "gpu-12gb": 12, "gpu-24gb": 24, "gpu-2x24gb": 24, "gpu-t4": 16}


@pytest.mark.parametrize(("name", "gigabytes"), CARDS.items())
def test_recipes_for_cards_are_predicted_to_leave_a_sixth_of_the_memory_free(name: str, gigabytes: int) -> None:
    recipe = recipes.load(name)
    processes = 2 if name == "gpu-2x24gb" else 1
    place = fit.Place("cuda", recipe.train.precision, fit.CUDA_RUNTIME)
    micro_batch = recipe.micro_batch(processes)
    assert fit.predict(recipe, place, micro_batch, processes)["total"] < gigabytes * 1e9 * 5 / 6
    # and use it: four times the rows would not fit
    assert fit.predict(recipe, place, 4 * micro_batch, processes)["total"] > gigabytes * 1e9 * 5 / 6
