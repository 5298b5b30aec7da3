"""Claim: `apps.finetune` trains the weights of a run on exercises with that run's model and tokens, goes on exactly where it
was killed, and tells in one line what it cannot do.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import tinycore
from apps.common import command_line, logs, recipes, run_record, strict_yaml
from apps.finetune import __main__ as finetune
from tinydata import Tokenizer

DRIVER = Path(__file__).parent / "drivers" / "pretrain.py"
BOTH_APPS = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("driver", sys.argv[1])
driver = importlib.util.module_from_spec(spec)
spec.loader.exec_module(driver)
import types
import apps.finetune.__main__, apps.pretrain.__main__
def run():
    app = sys.argv.pop(1)
    return (apps.pretrain if app == "pretrain" else apps.finetune).__main__.run()
driver.pretrain = types.SimpleNamespace(run=run)
driver.main()
"""
RECIPE = """
description: multiplications for a model of a few thousand parameters
data:
  kind: exercises
  kinds: [multiplication]
  forms: {calculator: 0.5, once: 0.5}
  digits: 2
  problems: 160
  validation: 0.2
  sequence_length: 128
  exact: 2
  answer_tokens: 12
optim: {kind: adamw, learning_rate: 1.0e-2, schedule: {kind: wsd, warmup: 2}}
train: {steps: 10, batch_size: 4, micro_batch: 2, precision: fp32, log_every: 1, validate_every: 4, validate_rows: 4,
        save_every: 4}
sample: {prompts: ["Question: What is 12 * 7?\\nBy calculator:\\n"], max_new_tokens: 5}
"""

Job = dict[str, Any]
Ran = Callable[..., Job]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "tiny-exercises.yaml"
    file.write_text(RECIPE)
    return file


@pytest.fixture(scope="module")
def ran() -> Iterator[Ran]:
    """Runs sessions: the app, its arguments and what hurts it -> how it ended (see drivers/pretrain.py)."""
    driver: subprocess.Popen[str] | None = None

    def run(*arguments: str, **further: Any) -> Job:
        nonlocal driver
        if driver is None:
            driver = subprocess.Popen(
                [sys.executable, "-c", BOTH_APPS, str(DRIVER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                text=True,
            )
        assert driver.stdin is not None
        assert driver.stdout is not None
        print(json.dumps({"argv": list(arguments), **further}), file=driver.stdin, flush=True)
        return json.loads(driver.stdout.readline())

    yield run
    if driver is not None:
        driver.communicate()


@pytest.fixture(scope="module")
def base(ran: Ran, tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has read a few words, with more context than its words took."""
    run = tmp_path_factory.mktemp("base") / "runs" / "base"
    sizes = ["--model.max_seq_len", "160", "--train.steps", "4"]
    done = ran("pretrain", "--recipe", str(tiny_recipe), *sizes, "--out", str(run))
    assert done["codes"] == [0], done["err"]
    return run


@pytest.fixture(scope="module")
def whole(ran: Ran, base: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ten steps that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "runs" / "whole"
    done = ran("finetune", str(base), "--recipe", str(recipe), "--out", str(run), "--json")
    assert done["codes"] == [0], done["err"]
    result = json.loads(done["out"].splitlines()[-1])
    assert (result["status"], result["steps"]) == ("done", 10)
    assert 0 <= result["val_exact"] <= 1
    return run


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(checkpoint / "model.safetensors")


def require_same(found: Path, expected: Path) -> None:
    """The same tensors in both checkpoints, bit for bit."""
    first, second = weights(found), weights(expected)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def last(run: Path) -> Path:
    return run / "checkpoints" / "step_00000010"


# --- what it does --------------------------------------------------------------------------------------------------------


def test_it_takes_the_model_and_the_tokens_of_the_run(whole: Path, base: Path) -> None:
    origin, found = run_record.checkpoint_of(base), run_record.checkpoint_of(whole)
    assert tinycore.checkpoint.load_config(found) == tinycore.checkpoint.load_config(origin)
    assert Tokenizer.load(found).hash == Tokenizer.load(origin).hash
    written = recipes.load(whole / "recipe.yaml")
    assert written.data.kind == "exercises"
    assert strict_yaml.read(whole / "recipe.yaml")["data"]["tokenizer"] == {
        "kind": "file",
        "path": str(origin / "tokenizer.json"),
    }
    assert (whole / "report.md").is_file()
    assert any(not torch.equal(tensor, weights(origin)[name]) for name, tensor in weights(last(whole)).items())


def test_it_says_where_the_weights_are_from(whole: Path, base: Path) -> None:
    origin = run_record.checkpoint_of(base)
    expected = [{"event": "init-from", "checkpoint": str(origin), "step": 4}]
    assert json.loads((last(whole) / "trainer.json").read_text())["lineage"] == expected
    assert json.loads((whole / "status.json").read_text())["lineage"] == expected


def test_it_learns_and_counts_its_answers(whole: Path) -> None:
    rows = logs.read(whole / "metrics.jsonl")
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) == 10
    assert sum(losses[-3:]) < sum(losses[:3])
    validations = [row for row in rows if "val_exact" in row]
    assert [row["step"] for row in validations][-1] == 10
    assert len(validations) >= 3
    assert "By calculator:" in (whole / "samples.md").read_text()


def test_it_begins_with_the_weights_of_the_run(ran: Ran, base: Path, recipe: Path, tmp_path: Path) -> None:
    """Steps that are too small for float32 leave them as they were; a checkpoint may be named in place of its run."""
    origin, run = run_record.checkpoint_of(base), tmp_path / "runs" / "still"
    still = ["--optim.learning_rate", "1.0e-30", "--train.steps", "2"]
    done = ran("finetune", str(origin), "--recipe", str(recipe), *still, "--out", str(run))
    assert done["codes"] == [0], done["err"]
    require_same(run / "checkpoints" / "step_00000002", origin)


@pytest.mark.parametrize(("signal", "code"), [(9, -9), (15, 3)])
def test_a_run_that_was_cut_off_goes_on_exactly(
    ran: Ran, whole: Path, base: Path, recipe: Path, tmp_path: Path, signal: int, code: int
) -> None:
    run = tmp_path / "runs" / "halves"
    hurt = {"rank": 0, "step": 7, "signal": signal}
    cut = ran("finetune", str(base), "--recipe", str(recipe), "--out", str(run), hurt=hurt)
    assert cut["codes"] == [code], cut["err"]
    assert not last(run).exists()
    saved = sorted(path.name for path in (run / "checkpoints").glob("step_*"))
    assert saved[-1] == ("step_00000004" if signal == 9 else "step_00000006"), (
        "the last save, or one made for the purpose"
    )
    resumed = ran("finetune", "--resume", str(run))
    assert resumed["codes"] == [0], resumed["err"]
    require_same(last(run), last(whole))
    assert logs.read(run / "metrics.jsonl") == logs.read(whole / "metrics.jsonl")
    lineage = json.loads((run / "status.json").read_text())["lineage"]
    assert [entry["event"] for entry in lineage] == ["init-from", "resume"]


# --- what it refuses -----------------------------------------------------------------------------------------------------


def ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: Sequence[str]
) -> tuple[object, str, str]:
    """Exit code, stdout and stderr of a session in this process."""
    monkeypatch.setattr(sys, "argv", ["finetune", *arguments])
    with pytest.raises(SystemExit) as left:
        command_line.main(finetune.run)
    captured = capsys.readouterr()
    return left.value.code, captured.out, captured.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give a trained run or checkpoint first: uv run apps/finetune runs/demo"),
        (["--recipe", "arithmetic"], "give a trained run or checkpoint first"),
        (["--out", "RUN"], "give a trained run or checkpoint first"),
        (["RUN", "--recipe", "nonsense"], "unknown recipe 'nonsense'; there are arithmetic,"),
        (["RUN", "--recipe", "demo"], "unknown recipe 'demo'"),
        (["RUN", "--recipe", "TMP/nowhere.yaml"], "unknown recipe"),
        (
            ["RUN", "--recipe", "TMP/model.yaml"],
            "names a model, and fine-tuning keeps that of the weights; leave it out",
        ),
        (["RUN", "--recipe", "TMP/odd.yaml"], "data: unknown key 'digit'"),
        (["TMP/nowhere", "--recipe", "RECIPE"], "nowhere: no such directory; give a run"),
        (["TMP", "--recipe", "RECIPE"], "neither a run nor a checkpoint"),
        (["RUN", "--recipe", "RECIPE", "--data.digits", "9"], "data.digits: 9 is not between 1 and 6"),
        (["RUN", "--recipe", "RECIPE", "--data.sequence_length", "999"], "999 is longer than model.max_seq_len"),
        (
            ["RUN", "--recipe", "RECIPE", "--data.sequence_length", "8"],
            "every problem of the train split is longer than 8",
        ),
        (["RUN", "--recipe", "RECIPE", "--model.dim", "64"], "model.dim is 32 in these weights and 64 in the recipe"),
        (["RUN", "--recipe", "RECIPE", "--nonsense"], "unknown option --nonsense"),
        (["RUN", "RUN", "--recipe", "RECIPE"], "unexpected"),
        (["--resume", "TMP/nowhere"], "nothing to resume"),
        (["RUN", "--resume", "WHOLE"], "--resume goes on with a run and --init-from starts another"),
        (["--resume", "WHOLE"], "is finished (step 10)"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    arguments: list[str],
    words: str,
    base: Path,
    whole: Path,
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mapping = strict_yaml.read(recipe)
    (tmp_path / "model.yaml").write_text(strict_yaml.dump(mapping | {"model": {"dim": 64}}))
    (tmp_path / "odd.yaml").write_text(strict_yaml.dump(mapping | {"data": mapping["data"] | {"digit": 2}}))
    monkeypatch.chdir(tmp_path)
    places = {"RUN": base, "WHOLE": whole, "RECIPE": recipe, "TMP": tmp_path}
    given = [
        "/".join([str(places.get(first, first)), *rest]) for first, *rest in (word.split("/") for word in arguments)
    ]
    before = sorted(path.name for path in whole.parent.iterdir())
    code, out, err = ended(monkeypatch, capsys, given)
    assert code == 2
    assert re.fullmatch("error: [^\n]*\n", err)
    assert words in err
    assert "{" not in out, "no result"
    assert sorted(path.name for path in whole.parent.iterdir()) == before
    assert not (tmp_path / "runs").exists(), "what was refused left nothing behind"


def test_help_and_dry_run_start_nothing(
    base: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in (["--help"], [str(base), "--help"]):
        code, out, _ = ended(monkeypatch, capsys, arguments)
        assert not code
        assert "finetune" in out
        assert "--data.digits" in out
    code, out, _ = ended(monkeypatch, capsys, [str(base), "--recipe", str(recipe), "--dry-run"])
    assert not code
    assert "28,832" in out, "the parameters of the run's model"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["arithmetic", "gsm8k"])
def test_what_comes_with_the_project_is_a_recipe_without_a_model(name: str) -> None:
    mapping = strict_yaml.read(finetune.DIRECTORY / f"{name}.yaml")
    assert "model" not in mapping
    model = recipes.read("demo")["model"] | {"max_seq_len": 512}
    assert recipes.from_dict(mapping | {"model": model}).data.kind == mapping["data"]["kind"]
