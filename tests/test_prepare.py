"""Claim: preparation is one command that can be killed anywhere, is told in a report that can be recounted, and shows what is
learned as it is; and a run with the same data finds it."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apps.common import command_line, data, recipes, strict_yaml, tasks
from apps.common.console import Console
from apps.prepare import __main__ as prepare
from apps.prepare import show
from tinydata import Tokenizer

DRIVER = Path(__file__).parent / "drivers" / "prepare.py"
KILL = -9
MIX = """
data:
  sources:
    - {kind: synthetic, generator: word_problems, documents: 350}
    - {kind: synthetic, generator: facts, documents: 350}
    - {kind: files, path: TEXTS, separator: "###"}
  tokenizer: {kind: train, vocab_size: 400}
  sequence_length: 64
  validation: 0.1
  test: 0.1
  stages:
    - {until: 0.5, weights: {facts: 3, TEXTS: 1}}
    - {until: 1.0, weights: {word_problems: 2, facts: 1, TEXTS: 1}}
train: {steps: 24, batch_size: 4}
"""

Jobs = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def jobs() -> Iterator[Jobs]:
    """Runs jobs (see drivers/prepare.py) one after another, each in a process of its own."""
    driver = subprocess.Popen(
        [sys.executable, str(DRIVER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        text=True,
    )

    def run(asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
        found = []
        for job in asked:
            print(json.dumps(job), file=driver.stdin, flush=True)
            found.append(json.loads(driver.stdout.readline()))  # ty: ignore[unresolved-attribute]
        return found

    yield run
    driver.communicate()


@pytest.fixture
def mix(tmp_path: Path) -> Path:
    """A recipe of three sources in two stages."""
    texts = tmp_path / "texts.txt"
    texts.write_text("\n###\n".join(f"Text {index} says {'la ' * (1 + index % 9)}{index * 7}." for index in range(300)))
    mapping = {**strict_yaml.parse(MIX.replace("TEXTS", str(texts)), "mix"), "description": "three sources, two stages"}
    model = recipes.read("brandon-226k")["model"] | {"vocab_size": None}
    recipe = tmp_path / "mix.yaml"
    recipe.write_text(strict_yaml.dump({**mapping, "model": model}))
    return recipe


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of apps/prepare with `argv`."""
    monkeypatch.setattr(sys, "argv", ["prepare", *argv])
    with pytest.raises(SystemExit) as left:
        command_line.main(prepare.run)
    shown = capsys.readouterr()
    return int(left.value.code or 0), shown.out, shown.err


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the claims of processes on the folder."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    own = str(folder).encode()  # recipe.yaml says where the data are
    return {
        name: path.read_bytes().replace(own, b"FOLDER")
        for name, path in sorted(found.items())
        if ".locks" not in path.parts
    }


def test_killed_anywhere_and_run_again_it_leaves_the_same_bytes(jobs: Jobs, mix: Path, tmp_path: Path) -> None:
    def asked(folder: Path, kill: int | None = None) -> dict[str, Any]:
        return {"argv": ["--recipe", str(mix), "--out", str(folder)], "kill": kill}

    (whole,) = jobs([asked(tmp_path / "whole")])
    assert whole["code"] == 0, whole["err"]
    reference = contents(tmp_path / "whole")
    assert {"report.md", "lengths.png", "recipe.yaml", "prepared.json"} <= reference.keys()
    assert (
        sum(name.endswith(".bin") and "/train-" in name for name in reference) == 6
    )  # tokens and sizes of three sources
    events = whole["events"]
    assert events > 40
    for number in range(7):  # in the sources, in the shards, at the renames, in the report
        folder = tmp_path / f"killed-{number}"
        at = 1 + number * (events - 2) // 6
        killed, finished = jobs([asked(folder, at), asked(folder)])
        assert (killed["code"], finished["code"]) == (KILL, 0), (at, killed["err"], finished["err"])
        assert contents(folder) == reference, at
    chain = tmp_path / "killed-again"
    results = jobs([*(asked(chain, kill) for kill in (5, 9, 30, 18)), asked(chain)])
    assert [result["code"] for result in results] == [KILL] * 4 + [0], results
    assert "that were read before" in results[-1]["out"]
    assert contents(chain) == reference
    (again,) = jobs([asked(chain)])
    assert again["code"] == 0
    assert contents(chain) == reference


def test_ones_own_folder_is_one_word_and_the_next_command_finds_it_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = tmp_path / "my texts"
    texts.mkdir()
    for index in range(300):
        (texts / f"{index}.txt").write_text(f"Text number {index}: {'la ' * (index % 7)}end.\n")
    cache = ["--data.cache", str(tmp_path / "cache"), "--data.tokenizer.vocab_size", "300"]
    code, out, err = run(monkeypatch, capsys, f"{texts}/", *cache)
    assert code == 0, err
    (made,) = (tmp_path / "cache").glob("*/manifest.json")
    assert (made.parent / "report.md").is_file()
    words = shlex.split(out.split("next: uv run ")[1])
    assert words[0] == "apps/pretrain"
    before = made.stat().st_mtime_ns
    request = command_line.parse("pretrain", words[1:])
    prepared = data.prepare(request.recipe, Console(json=True))
    assert prepared.directory == made.parent
    assert made.stat().st_mtime_ns == before
    assert (
        prepared.train.documents + prepared.validation.documents + (prepared.test.documents if prepared.test else 0)
        == 300
    )


def test_the_report_counts_what_the_shards_hold(
    mix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mix"
    code, shown, err = run(monkeypatch, capsys, "--recipe", str(mix), "--out", str(out), "--json")
    assert code == 0, err
    told = json.loads(shown.splitlines()[-1])
    recipe = recipes.load(mix, [])
    prepared = data.prepare(recipes.from_dict(_with_cache(recipe, out)), Console(json=True))
    assert told["key"] == prepared.key
    for name, shards in prepared.mixed.items():
        group = told["groups"][name]
        texts = [shards.read(index).tolist()[1:-1] for index in range(shards.documents)]
        assert group["documents"] == len(texts)
        assert group["tokens"] == sum(map(len, texts))
        assert group["bytes"] == sum(len(prepared.tokenizer.decode(text).encode()) for text in texts) - _tags(
            prepared, texts
        )
        assert group["repeated"] == len(texts) - len({tuple(text) for text in texts})
    # half of the run at 3/4, half at 1/4; and so on
    expected = {"facts": 0.5, "word_problems": 0.25, str(tmp_path / "texts.txt"): 0.25}
    assert {name: group["drawn"] for name, group in told["groups"].items()} == pytest.approx(expected, abs=1e-9)
    text = (out / "report.md").read_text()
    assert "every document of word_problems, facts; 0 were refused" in text
    assert "| facts" in text
    assert "75.0%" in text


def _with_cache(recipe: Any, out: Path) -> dict[str, Any]:
    mapping = recipes.to_dict(recipe)
    return {**mapping, "data": {**mapping["data"], "cache": str(out)}}


def _tags(prepared: Any, texts: list[list[int]]) -> int:
    """Bytes of the names of special tokens, which stand for no text."""
    names = {value: len(name.encode()) for name, value in prepared.tokenizer.special.items()}
    return sum(names.get(token, 0) for text in texts for token in text)


def test_what_does_not_belong_together_is_refused_in_one_line_and_nothing_is_written(
    mix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mix"

    def refused(*argv: str) -> str:
        before = {path: contents(path) for path in (out, tmp_path / "else") if path.is_dir()}
        code, _, err = run(monkeypatch, capsys, *argv)
        assert code == 2, (argv, err)
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert {path: contents(path) for path in before} == before
        assert not (tmp_path / "new").exists()
        return err

    start = ["--recipe", str(mix), "--out", str(out)]
    assert run(monkeypatch, capsys, *start)[0] == 0
    assert "data.tokenizer.vocab_size was 400 there and is 500 now" in refused(
        *start, "--data.tokenizer.vocab_size", "500"
    )
    with (tmp_path / "texts.txt").open("a") as file:
        file.write("\n###\nOne more.\n")
    assert "what the same sources were before they changed" in refused(*start)
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "thesis.doc").write_text("mine")
    new = ["--recipe", str(mix), "--out", str(tmp_path / "new")]
    assert "it holds thesis.doc" in refused("--recipe", str(mix), "--out", str(tmp_path / "else"))
    assert "did you mean 'word_problems'" in refused(*new, "--data.sources.0.generator", "word_problem")
    assert "weights: sum to zero" in refused(*new, "--data.stages.0.weights", "{facts: 0}")
    assert "these must grow, up to 1" in refused(*new, "--data.stages.1.until", "0.4")
    assert "unknown source 'fact'" in refused(*new, "--data.stages.1.weights", "{fact: 1, word_problems: 1}")
    assert "more than one of mixture, stages and temperature" in refused(*new, "--data.temperature", "2")
    assert "are not within 1 to 4" in refused(*new, "--data.sources.0.levels", "[1, 9]")
    few = "{kind: synthetic, generator: scratchpads, levels: [1, 1], documents: 100000}"
    assert "hardly more than" in refused(*new, "--data.sources.1", few)
    assert "unknown recipe" in refused("--recipe", "mix-sed")
    assert "one folder, file or glob" in refused("a", "b")
    assert "learns from no folder of text" in refused(str(tmp_path), "--recipe", "arithmetic")
    assert "no such" in refused(str(tmp_path / "nowhere"), "--out", str(tmp_path / "new"))


FEW = ["--data.problems", "400", "--data.tokenizer.vocab_size", "300"]


def shown_rows(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *argv: str) -> list[str]:
    code, out, err = run(monkeypatch, capsys, *argv)
    assert code == 0, err
    return re.split(r"\nrow \d+ .*\n", out.split("\nreport: ")[0])[1:]


def test_inspection_shows_that_answers_are_learned_and_results_of_tools_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--recipe", "arithmetic", "--out", str(tmp_path / "out"), *FEW, "--inspect", "12"]
    rows = shown_rows(monkeypatch, capsys, *argv)
    assert len(rows) == 12
    whole = "".join(rows)
    learned = re.findall("⟦(.*?)⟧", whole, re.DOTALL)
    given = re.sub("⟦.*?⟧", "|", whole, flags=re.DOTALL)
    assert not any("Question:" in text or "<result>" in text or "By calculator:" in text for text in learned)
    assert "Answer:" not in given
    assert "</think>" not in given
    assert given.count("Question:") == whole.count("Question:") > 20
    # behind every question one answer with its end; a result parts it
    assert sum("<|endoftext|>" in text for text in learned) == whole.count("Question:")
    assert re.search(r"⟦[^⟧]*<calc>[^⟧]*</calc>⟧<result>\d+</result>⟦", whole)


def test_inspection_of_conversations_text_and_puzzles(
    mix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chat = [
        "--recipe",
        "chat",
        "--data.conversations",
        "300",
        "--data.replay",
        "0",
        "--data.tokenizer.vocab_size",
        "300",
    ]
    whole = "".join(shown_rows(monkeypatch, capsys, *chat, "--out", str(tmp_path / "chat"), "--inspect", "8"))
    learned = re.findall("⟦(.*?)⟧", whole, re.DOTALL)
    assert any(text.endswith("<|im_end|>") for text in learned)
    assert not any("user\n" in text or "<|im_start|>" in text or "<result>" in text for text in learned)

    rows = shown_rows(monkeypatch, capsys, "--recipe", str(mix), "--out", str(tmp_path / "mix"), "--inspect", "3")
    # of running text everything is learned but the first token of a document
    assert not re.sub("⟦.*?⟧|<.endoftext.>", "", rows[0], flags=re.DOTALL).replace("\n", "")

    boards = shown_rows(
        monkeypatch, capsys, "--recipe", "trm-sudoku-4x4", "--data.puzzles", "20", "--data.held_out", "8", "--out",
        str(tmp_path / "sudoku"), "--inspect", "1",
    )  # fmt: skip
    given, solved = boards[0].strip().split("\n\n")
    assert "." in given
    assert "." not in solved


def test_inspection_of_verdicts_and_of_text_that_looks_like_markup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": f"[/bold] [red] {index} [link=x]"}) + "\n" for index in range(120)))
    small = ["--data.tokenizer.vocab_size", "300", "--data.sequence_length", "64", "--data.validation", "0.1"]
    out = ["--out", str(tmp_path / "out")]
    rows = shown_rows(monkeypatch, capsys, str(texts), *small, *out, "--inspect", "1")
    assert re.search(r"⟦\[/bold\] \[red\] \d+ \[link=x\]", rows[0])

    (tokenizer,) = (tmp_path / "out").glob("*/tokenizer.json")
    verdicts = tmp_path / "verdicts.jsonl"
    lines = []
    for index in range(60):
        told = {"prompt": f"Question {index}?\n", "answer": "1+1=2 2+2=5", "right": False, "parts": [[5, 1], [11, 0]]}
        lines.append(json.dumps(told) + "\n")
    verdicts.write_text("".join(lines))
    recipe = tmp_path / "judge.yaml"
    told = {"kind": "verdicts", "path": str(verdicts), "tokenizer": {"kind": "file", "path": str(tokenizer)}}
    recipe.write_text(strict_yaml.dump({"data": told}))
    argv = ["--recipe", str(recipe), "--out", str(tmp_path / "judged"), "--inspect", "1"]
    shown = shown_rows(monkeypatch, capsys, *argv)
    assert re.search(r"Question \d+\?\n⟦\+1\+1=2⟧⟦- 2\+2=5⟧", shown[0])
    assert "right, to train on" in (tmp_path / "judged" / "report.md").read_text()


def test_a_document_that_goes_on_in_another_row_is_shown_with_its_last_target(mix: Path, tmp_path: Path) -> None:
    recipe = recipes.from_dict(_with_cache(recipes.load(mix), tmp_path / "cache"))
    prepared = tasks.prepare(recipe, Console(json=True))
    tokenizer: Tokenizer = prepared.tokenizer  # ty: ignore[unresolved-attribute]
    end = tokenizer.end_id
    states = show.marked(np.array([end, 70, 71]), np.array([70, 71, 72]))
    assert states == [(end, show.GIVEN), (70, show.LEARNED), (71, show.LEARNED), (72, show.LEARNED)]
    states = show.marked(np.array([end, 70, 71, end]), np.array([-100, 71, end, -100]))
    assert states == [(end, show.GIVEN), (70, show.GIVEN), (71, show.LEARNED), (end, show.LEARNED)]


def test_help_names_the_app_and_its_first_example_is_ones_own_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["prepare", "--help"])
    with pytest.raises(SystemExit):
        command_line.main(prepare.run)
    out = capsys.readouterr().out
    assert "uv run apps/prepare my_texts/" in out
    assert all(f"--{option}" in out for option in prepare.OPTIONS)
