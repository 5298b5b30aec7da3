"""The command line says what it takes, refuses in one line what it does not, and leaves with the agreed exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from apps.common import command_help, command_line, dry_run, recipes
from apps.common.command_line import Grammar, Option
from apps.common.console import Console, duration, short, size
from apps.common.errors import BadRequest, RunError, TrainingFailed
from apps.common.fit import Budget
from tinycore import CheckpointError, ConfigError
from tinydata import ShardError, SourceError, TokenizerError


def parse(*argv: str) -> command_line.Request:
    return command_line.parse("pretrain", list(argv))


def test_every_option_arrives() -> None:
    request = parse(
        *("--recipe", "brandon-226k", "--out", "runs/x", "--init-from", "runs/y", "--device", "cpu"),
        *("--processes=2", "--json", "--dry-run", "--allow-changes", "--train.steps=7", "--memory=8GB"),
    )
    assert (request.recipe_name, request.out, request.init_from) == (
        "brandon-226k",
        Path("runs/x"),
        Path("runs/y"),
    )
    assert (request.device, request.processes, request.resume) == ("cpu", 2, None)
    assert request.json
    assert request.dry_run
    assert request.memory == Budget(8 * 10**9, "8GB")
    assert request.allow_changes
    assert request.recipe.train.steps == request.recipe_mapping["train"]["steps"] == 7


def test_the_demo_is_the_default() -> None:
    request = parse()
    assert request == command_line.Request(
        recipe_mapping=recipes.read("demo"), recipe=recipes.load("demo"), recipe_name="demo"
    )


def test_negative_values_and_values_with_equals_signs_are_values() -> None:
    arguments = command_line.take_apart(
        ["--a.b", "-1", "--c.d=x=y", "--text", "-5"], Grammar({"text": Option("", "T")}, dotted=True)
    )
    assert [override.value for override in arguments.overrides] == [-1, "x=y"]
    assert arguments.options == {"text": "-5"}


def test_a_resumed_run_brings_its_own_recipe(tmp_path: Path) -> None:
    run = tmp_path / "mine"
    (run / "checkpoints" / "step_00000001").mkdir(parents=True)
    saved = recipes.load("demo", [command_line.overrides.read("train.steps", "41")])
    (run / "recipe.yaml").write_text(recipes.to_yaml(saved))
    request = parse("--resume", str(run), "--train.keep", "5")
    assert (request.resume, request.recipe_name, request.recipe.train.steps) == (run, "mine", 41)
    assert request.recipe.train.keep == 5
    assert parse("--out", str(run), "--resume").resume is True
    assert parse("--out", str(run), "--resume").recipe.train.steps == 41
    assert parse("--resume", str(run / "checkpoints" / "step_00000001")).recipe.train.steps == 41
    with pytest.raises(BadRequest, match="nothing to resume"):
        parse("--resume", str(tmp_path / "other"))


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["demo"], ["'demo'", "--recipe demo"]),
        (["word"], ["'word'", "--help"]),
        (["-x"], ["'-x'"]),
        (["--steps", "3"], ["--steps", "--train.steps"]),
        (["--dry_run"], ["--dry_run", "--dry-run"]),
        (["--recpie", "demo"], ["--recpie", "--recipe"]),
        (["--out"], ["--out", "DIR"]),
        (["--out", "--json"], ["--out", "DIR"]),
        (["--json=yes"], ["--json", "no value"]),
        (["--device", "tpu"], ["tpu", "cuda"]),
        (["--processes", "two"], ["--processes", "two"]),
        (["--processes", "0"], ["--processes", "0"]),
        (["--train..steps", "3"], ["train..steps"]),
        (["--train.steps"], ["--train.steps", "VALUE"]),
        (["--resume", "runs/a", "--init-from", "runs/b"], ["--resume", "--init-from"]),
    ],
)
def test_what_is_not_understood_is_one_line_with_the_remedy(
    argv: list[str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "recipe.yaml").write_text(recipes.to_yaml(recipes.load("demo")))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadRequest) as caught:
        parse(*argv)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_key_in_the_wrong_place_is_shown_its_place() -> None:
    with pytest.raises(ConfigError, match=r"train: unknown key 'learning_rate'.*there is --optim\.learning_rate$"):
        parse("--train.learning_rate", "1e-3")


def raising(error: BaseException) -> Callable[[], int]:
    def run() -> int:
        raise error

    return run


def their_value_error() -> int:
    return int("word")  # the standard library refuses, not we


@pytest.mark.parametrize(
    ("run", "code", "lines"),
    [
        (lambda: 0, 0, 0),
        (lambda: 3, 3, 0),
        (raising(BadRequest("no\nsuch thing")), 2, 1),
        (raising(RunError("no")), 2, 1),
        (raising(ConfigError("no")), 2, 1),
        (raising(CheckpointError("no")), 2, 1),
        (raising(SourceError("no")), 2, 1),
        (raising(ShardError("no")), 2, 1),
        (raising(TokenizerError("no")), 2, 1),
        (lambda: recipes.load("demo").micro_batch(7), 2, 1),
        (raising(TrainingFailed("loss is not finite")), 1, 1),
        (raising(KeyboardInterrupt()), 1, 1),
    ],
)
def test_exit_codes(run: Callable[[], int], code: int, lines: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        command_line.main(run)
    shown = capsys.readouterr().err
    assert (left.value.code, shown.count("\n")) == (code, lines)
    assert "Traceback" not in shown
    assert shown == "" or shown.startswith("error: ")


@pytest.mark.parametrize("run", [their_value_error, raising(RuntimeError("defect"))])
def test_a_defect_keeps_its_traceback(run: Callable[[], int], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        command_line.main(run)
    assert left.value.code == 1
    assert "Traceback" in capsys.readouterr().err


def test_another_process_says_which_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit):
        command_line.main(raising(BadRequest("no")))
    assert capsys.readouterr().err == "error: process 1: no\n"


def test_help_lists_every_key_with_type_value_and_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse("--train.steps", "123", "--help")
    shown = capsys.readouterr().out
    assert left.value.code == 0
    assert "--train.steps 123" in shown
    assert "int: optimizer steps" in shown
    for option in command_line.PRETRAIN_OPTIONS:
        assert f"--{option}" in shown
    flat = {key for key in flatten(recipes.to_dict(recipes.load("demo"))) if key != "description"}
    missing = {key for key in flat if f"--{key} " not in shown and f"--{key}\n" not in shown}
    assert not missing


def flatten(value: Any, path: str = "") -> list[str]:
    if isinstance(value, dict) and value:
        return [key for name, item in value.items() for key in flatten(item, f"{path}.{name}" if path else name)]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [key for index, item in enumerate(value) for key in flatten(item, f"{path}.{index}")]
    return [path]


def test_every_key_of_the_apps_has_a_meaning() -> None:
    ours = [row for row in command_help.rows(recipes.load("demo")) if not row.key.startswith("model.")]
    assert not [row.key for row in ours if not row.help]


def test_recipes_are_listed_with_what_they_are_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse("--list-recipes")
    shown = capsys.readouterr().out
    assert left.value.code == 0
    assert all(name in shown for name in recipes.names())


def test_a_dry_run_derives_everything_and_json_is_the_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    request = parse("--recipe", "brandon-10m", "--processes", "2", "--device", "cpu", "--dry-run", "--json")
    assert dry_run.show(request, Console(json=True)) == 0
    shown = capsys.readouterr()
    assert "10,705,152" in shown.err
    assert shown.out.count("\n") == 1
    plan = json.loads(shown.out)
    assert plan["parameters"] == 10_705_152
    assert plan["micro_batch"] * plan["accumulation"] * plan["processes"] == 128
    assert plan["tokens"] == 128 * 512 * 15_000
    # weights, gradients and two moments of four bytes each
    assert plan["memory"]["weights"] + plan["memory"]["gradients"] + plan["memory"]["optimizer"] == 16 * 10_705_152
    assert sum(plan["memory"].values()) == 2 * plan["memory"]["total"]
    assert plan["total_flops"] == pytest.approx(sum(plan["flops"].values()) * plan["tokens"])


def test_plain_progress_shows_the_last_step_and_validations(capsys: pytest.CaptureFixture[str]) -> None:
    with Console().progress(4) as steps:
        steps.update(1, {"loss": 5.0})
        steps.update(2, {})
        steps.update(3, {"val_bpb": 2.5})
        steps.update(4, {"loss": 4.0})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["1/4", "3/4", "4/4"]
    assert "val_bpb 2.500" in lines[1]
    assert "loss 4.000" in lines[2]


def test_only_the_main_process_speaks(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(json=True, main_process=False)
    console.say("a")
    console.warn("b")
    console.result({"c": 1})
    with console.progress(1) as steps:
        steps.update(1, {"loss": 1.0})
    assert capsys.readouterr() == ("", "")
    assert not Console().ask("anyone there?")


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (short(950), "950"),
        (short(12_345), "12.3k"),
        (short(999_960), "1.00M"),
        (short(4_560_000), "4.56M"),
        (short(1.5e17), "150P"),
        (size(900), "900 B"),
        (size(1536), "1.5 KiB"),
        (size(5 * 2**40), "5120.0 GiB"),
        (duration(3.21), "3.2 s"),
        (duration(59.7), "1 min 0 s"),
        (duration(3599), "59 min 59 s"),
        (duration(7500), "2 h 5 min"),
    ],
)
def test_numbers_for_people(shown: str, expected: str) -> None:
    assert shown == expected


def test_as_a_program_it_refuses_in_one_line() -> None:
    """The entry point itself: a directory that is run, one stderr line, exit 2, nothing on stdout."""
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "apps/pretrain", "--recipe", "dmeo"],
        cwd=root,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: unknown recipe 'dmeo'; did you mean 'demo'?\n"
