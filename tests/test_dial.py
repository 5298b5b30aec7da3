"""Claim: `--size` derives what its rules say, at every size from 0.2M to 1B, and any value of it can be given by name.

The table is what the rules gave when they were written down; the properties are checked against the built model (on the
meta device) and against the demo recipe, which the rules are anchored at.
"""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

import tinycore
from apps.common import command_line, dial, dial_shape, dry_run, quantity, recipes, size_page
from apps.common.console import Console
from apps.common.errors import BadRequest
from tinycore import ConfigError

# size, parameters, vocabulary, layers, width, heads, kv, hidden, length, rows, steps, rate, decay, warmup, validate, save
TABLE = """
0.2M     197232   1024   6    48   3  1   128   256  12    1285     0.01   0.062    64   200   400
0.5M     507200   1024  10    64   4  1   176   256  16    2477     0.01   0.032   124   500  1000
  1M    1003104   2048   8    96   6  2   264   256  16    4898     0.01   0.016   245   500  1000
  2M    2026112   2048  10   128   4  1   352   256  24    6596   0.0081   0.015   330  1000  1000
  5M    5014848   4096  11   192   6  2   496   512  16   12244   0.0052   0.013   612  1000  1000
 10M    9987840   8192  11   256   8  2   720   512  24   16257   0.0042   0.012   813  1000  1000
 20M   20065824   8192  20   288   9  3   768   512  32   24495   0.0028   0.012  1225  1000  1000
 30M   30080640  16384  15   384  12  3  1056  1024  16   36720   0.0023  0.0095  1836  1000  1000
 60M   59978400  16384  21   480  15  5  1296  1024  24   48811   0.0017  0.0096  2000  1000  1000
110M  110917440  32768  26   576   9  3  1536  1024  32   67699   0.0013  0.0091  2000  1000  1000
200M  198617856  32768  28   768  12  3  2048  2048  16  121227  0.00088  0.0075  2000  1000  1000
350M  351990720  32768  32   960  15  5  2624  2048  24  143226  0.00071  0.0079  2000  1000  1000
700M  703179648  32768  47  1152  18  6  3072  2048  32  214594  0.00051  0.0073  2000  1000  1000
  1B  994652736  32768  50  1344  21  7  3520  2048  32  303544   0.0004  0.0066  2000  1000  1000
"""
ROWS = [row.split() for row in TABLE.strip().splitlines()]
SIZES = [row[0] for row in ROWS]
COLUMNS = (
    "data.tokenizer.vocab_size",
    "model.layers.0.repeat",
    "model.dim",
    "model.layers.0.mixer.heads",
    "model.layers.0.mixer.kv_heads",
    "model.layers.0.ffn.hidden",
    "data.sequence_length",
    "train.batch_size",
    "train.steps",
    "optim.learning_rate",
    "optim.weight_decay",
    "optim.schedule.warmup",
    "train.validate_every",
    "train.save_every",
)


def parse(*argv: str) -> command_line.Request:
    return command_line.parse("pretrain", list(argv))


def recipe_of(size: str) -> recipes.Recipe:
    return parse("--size", size).recipe


@pytest.mark.parametrize("row", ROWS, ids=SIZES)
def test_the_table(row: list[str]) -> None:
    mapping, derived = dial.read(row[0]).turn()
    values = {entry.key: entry.value for entry in derived}
    assert [f"{values[key]:g}" if isinstance(values[key], float) else str(values[key]) for key in COLUMNS] == row[2:]
    recipe = recipes.from_dict(mapping)
    assert tinycore.count(recipe.model).parameters == int(row[1])
    assert all(dial.at(recipes.to_dict(recipe), key) == json.loads(json.dumps(value)) for key, value in values.items())


def test_the_table_names_the_sizes_of_the_page() -> None:
    assert tuple(SIZES) == size_page.SIZES


@pytest.mark.parametrize("size", SIZES)
def test_each_size_builds_is_counted_right_and_runs_on_one_and_two_processes(size: str) -> None:
    recipe = recipe_of(size)
    with torch.device("meta"):
        model = tinycore.build(recipe.model)
    tensors = {id(tensor): tensor.numel() for tensor in model.parameters()}
    target = quantity.read(size, "size", "parameters")
    assert sum(tensors.values()) == tinycore.count(recipe.model).parameters == pytest.approx(target, rel=0.02)
    for processes in (1, 2):
        rows = recipe.micro_batch(processes)
        assert rows * recipe.accumulation(processes) * processes == recipe.train.batch_size
        assert 2_048 <= 2 * rows * recipe.data.sequence_length <= 2 * 16_384
    assert recipe.train.batch_size in {factor * 2**power for factor in (1, 3) for power in range(12)}


def test_within_two_percent_and_growing_at_every_size() -> None:
    """Not only at round sizes: 4 % apart, each has more parameters, tokens and steps than the one before."""
    before, target = (0, 0, 0), 200_000.0
    while target <= 1e9:
        asked = round(target)
        shape = dial_shape.shape(asked)
        parameters = shape.parameters()
        assert parameters == pytest.approx(asked, rel=0.02)
        assert shape.heads * (shape.dim // shape.heads) == shape.dim
        assert shape.heads // shape.kv_heads in (3, 4)
        assert shape.heads % shape.kv_heads == 0
        assert 2.2 < shape.hidden / shape.dim < 3.2
        assert shape.vocab_size == 1_024 or shape.vocab_size * shape.dim <= 0.22 * asked
        mapping, _ = dial.derive(asked, "x")
        tokens = mapping["train"]["steps"] * mapping["train"]["batch_size"] * mapping["data"]["sequence_length"]
        assert tokens == pytest.approx(20 * parameters, rel=0.01)
        now = (parameters, tokens, mapping["train"]["batch_size"] * mapping["data"]["sequence_length"])
        assert all(new >= old for new, old in zip(now, before, strict=True)), asked
        before, target = now, target * 1.04


def test_the_rules_give_the_demo_at_the_demo() -> None:
    """The anchor is not a copy of numbers that could go stale: it is the recipe."""
    demo = recipes.load("demo")
    length, tokens_a_step = demo.data.sequence_length, demo.train.batch_size * demo.data.sequence_length
    counts = tinycore.count(demo.model)
    optim: Any = demo.optim
    assert dial.context(demo.model.dim) == length
    assert dial.batch_rows(tokens_a_step * demo.train.steps, length) == demo.train.batch_size
    assert dial.learning_rate(tokens_a_step, counts.parameters - counts.embedding_parameters) == optim.learning_rate
    assert dial.weight_decay(optim.learning_rate, demo.train.steps) == optim.weight_decay
    assert demo.model.embed.scale == round(math.sqrt(demo.model.dim), 1)  # ty: ignore[unresolved-attribute]
    mapping, _ = dial.derive(counts.parameters, "demo", tokens=tokens_a_step * demo.train.steps)
    for key in ("betas", "clip"):
        assert mapping["optim"][key] == json.loads(json.dumps(getattr(optim, key)))
    assert mapping["optim"]["schedule"] == {"kind": "wsd", "warmup": 50, "decay": 0.3, "final": 0.0}
    assert recipes.load("demo").optim.schedule == recipes.from_dict(mapping).optim.schedule
    assert mapping["train"]["precision"] == demo.train.precision == "fp32"


def test_what_is_given_by_name_takes_the_place_of_what_is_derived_and_nothing_else_changes() -> None:
    plain, request = (
        parse("--size", "10M"),
        parse("--size", "10M", "--model.dim", "320", "--optim.betas", "[0.9, 0.95]"),
    )
    before, after = recipes.to_dict(plain.recipe), recipes.to_dict(request.recipe)
    assert after["model"].pop("dim") == 320
    assert after["optim"].pop("betas") == [0.9, 0.95]
    before["model"].pop("dim")
    before["optim"].pop("betas")
    assert after == before
    rules = {entry.key: entry for entry in request.derived}
    assert (rules["model.dim"].value, rules["model.dim"].rule) == (320, "yours; the rule gives 256")
    assert rules["optim.betas"].rule.startswith("yours")
    assert rules["model.layers.0.repeat"] in plain.derived


def test_what_another_choice_leaves_no_place_for_is_not_listed() -> None:
    request = parse("--size", "10M", "--optim.schedule.kind", "cosine", "--optim.schedule.warmup", "7")
    rules = {entry.key: entry.value for entry in request.derived}
    assert "optim.schedule.decay" not in rules
    assert rules["optim.schedule.warmup"] == request.recipe.optim.schedule.warmup == 7


def test_the_run_is_named_after_the_size_and_its_recipe_says_where_it_is_from() -> None:
    request = parse("--size", "10m")
    assert request.recipe_name == "10M"  # the run directory is runs/10M
    assert "--size 10M" in request.recipe.description
    assert recipes.from_dict(request.recipe_mapping) == request.recipe


def test_a_dry_run_prints_every_value_with_its_rule(capsys: pytest.CaptureFixture[str]) -> None:
    request = parse("--size", "1B", "--dry-run", "--device", "cpu", "--json")
    assert dry_run.show(request, Console(json=True)) == 0
    shown = capsys.readouterr()
    plan = json.loads(shown.out)
    assert plan["parameters"] == pytest.approx(1e9, rel=0.02)
    assert [entry["key"] for entry in plan["derived"]] == [entry.key for entry in request.derived]
    for entry in request.derived:
        assert entry.key in shown.err
        assert entry.rule in shown.err
    assert {*COLUMNS} <= {entry.key for entry in request.derived}


@pytest.mark.parametrize(
    ("text", "parameters", "name"),
    [
        ("0.2M", 200_000, "0.2M"),
        ("226k", 226_000, "226k"),
        ("10m", 10_000_000, "10M"),
        ("1e7", 10_000_000, "10M"),
        ("1B", 1_000_000_000, "1B"),
        ("1b", 1_000_000_000, "1B"),
        ("200000", 200_000, "200k"),
        ("1.25M", 1_250_000, "1.25M"),
    ],
)
def test_sizes_as_people_write_them(text: str, parameters: int, name: str) -> None:
    asked = dial.read(text)
    assert (asked.target, asked.name) == (parameters, name)


@pytest.mark.parametrize(
    "text", ["ten", "", "10 M B", "10MB", "-5M", "0", "1e999", "nan", "inf", "1_0M", "0x10", "9" * 400]
)
def test_what_is_no_size_is_one_line(text: str) -> None:
    with pytest.raises(BadRequest, match=r"--size: .*10M") as caught:
        parse("--size", text) if text else dial.read(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["199k", "1.1B", "7B", "1e99", "1"])
def test_what_no_rule_covers_is_one_line(text: str) -> None:
    with pytest.raises(BadRequest, match="between 200k and 1B") as caught:
        parse("--size", text)
    assert "\n" not in str(caught.value)


def test_a_value_that_does_not_fit_the_others_is_one_line() -> None:
    with pytest.raises(ConfigError, match="heads") as caught:
        parse("--size", "10M", "--model.dim", "321")
    assert "\n" not in str(caught.value)


def test_the_page_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    size_page.main()
    shown = (recipes.DIRECTORY.parents[1] / "docs" / "size.md").read_text(encoding="utf-8")
    assert shown == capsys.readouterr().out, "run: uv run python -m apps.common.size_page > docs/size.md"
