"""`apps/evaluate --capabilities`, `--tasks brandon-tiny`, and tasks that only some models can be asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from apps.common import eval_tasks, recipes
from apps.common.console import Console
from apps.common.errors import BadRequest
from apps.evaluate import capabilities, stored, subject
from apps.evaluate.settings import Settings
from tests.test_evaluate_tasks import Call, asked, call, saved, tokenizer  # noqa: F401  # fixtures
from tinycore.config import dump
from tinydata import split_of
from tinyeval import TaskError
from tinyeval.capabilities import load


def learned(path: Path, forms: dict[str, float] | None) -> Path:
    """The checkpoint at `path`, as one that a recipe of exercises in these forms, or the demo's, has trained."""
    document: dict[str, Any] = dump(recipes.load("demo"))
    if forms is not None:
        document["data"] = {"kind": "exercises", "forms": forms, "sequence_length": 48}
    (path / "trainer.json").write_text(json.dumps({"recipe": document}))
    return path


def test_the_whole_table_is_said_with_what_was_not_measured(
    saved: Path,  # noqa: F811
    call: Call,  # noqa: F811
    asked: list[str],  # noqa: F811
) -> None:
    status, found, said = call(saved, "--capabilities", "--limit", 3, "--json")
    assert status == 0
    measured = [cell for cell in found["cells"] if cell["outcome"] != "not measured"]
    # never trained here: no recipe says that it has tools or writes thoughts
    assert {cell["condition"] for cell in measured} == {"standard"}
    assert len(measured) == sum(row.condition == "standard" for row in load().rows)
    assert all(cell["n"] == 3 and cell["outcome"] == "open" and cell["claim"] is None for cell in measured)
    assert all(cell["scale"] not in load().scales for cell in measured), "a model of a few thousand has its own column"
    assert sum(cell["outcome"] == "not measured" for cell in found["cells"]) == 3 * 12 + 3
    assert {one["cell"] for one in found["not_asked"]} == {
        "reasoning in 2 to 3 steps, scratchpad",
        "basic arithmetic, tools",
        "abstract reasoning, recursion",
    }
    page = (saved / "evaluation" / "capabilities.md").read_text()
    assert "said: cannot; not measured" in page
    assert "was not trained to use the calculator" in page
    assert json.loads((saved / "evaluation" / "capabilities.json").read_text()) == found
    assert "| writing code" in said
    before = len(asked)
    call(saved, "--capabilities", "--limit", 3)
    assert len(asked) == before, "what is stored is not asked again"


def test_conditions_follow_from_the_recipe(saved: Path) -> None:  # noqa: F811
    rows = {row.name: row for row in load().rows}
    tools, thoughts = rows["basic arithmetic, tools"], rows["reasoning in 2 to 3 steps, scratchpad"]
    for forms, can_call, can_think in (
        ({"calculator": 1.0}, True, False),
        ({"hand": 0.5, "once": 0.5}, False, True),
        (None, False, False),
    ):
        learned(saved, forms)
        wanted = Settings(("auto",), None, 0, True, {}, "cpu")
        loaded = subject.load(saved, stored.place(saved), wanted, Console(json=True))
        assert (capabilities.reason(tools, loaded) is None) == can_call
        assert (capabilities.reason(thoughts, loaded) is None) == can_think
        assert capabilities.reason(rows["grammar, standard"], loaded) is None
        task = capabilities.task_of(rows["reasoning in 1 step, standard"], loaded)
        assert task.name == "steps-1-1"
        assert bool(task.examples) == (forms is None), "who learned the form needs no example of it"
    assert capabilities.task_of(thoughts, loaded).dataset["form"] == "hand"


def test_tools_are_asked_of_models_that_learned_them(saved: Path, call: Call) -> None:  # noqa: F811
    learned(saved, None)
    with pytest.raises(BadRequest, match="was not trained to use the calculator; ask word_problems instead"):
        call(saved, "--tasks", "word_problems_calculator")
    learned(saved, {"calculator": 1.0})
    with pytest.raises(BadRequest, match="was not trained to use the program"):
        call(saved, "--tasks", "word_problems_program")
    _, found, _ = call(saved, "--tasks", "word_problems_calculator", "--limit", 2, "--json")
    assert found["runs"][0]["tasks"][0]["n"] == 2


def test_where_no_task_is_named_the_model_says_what_makes_sense(
    saved: Path,  # noqa: F811
    call: Call,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learned(saved, None)
    monkeypatch.setattr("apps.evaluate.auto.candidates", lambda *_: [eval_tasks.load("grammar")])
    monkeypatch.setattr("apps.evaluate.auto.seconds_each", lambda *_: 0.1)
    _, found, _ = call(saved, "--limit", 3, "--json")
    assert [(row["task"], row["n"]) for row in found["runs"][0]["tasks"]] == [("grammar", 3)]
    learned(saved, {"once": 1.0})
    _, found, _ = call(saved, "--problems", 2, "--max-tokens", 2, "--kinds", "words", "--json")
    assert [cell["form"] for cell in found["cells"]] == ["once"], "one that learned exercises is asked exercises"
    with pytest.raises(BadRequest, match="--limit belongs to tasks"):
        call(saved, "--limit", 3)


def test_a_protocol_beside_the_standard_rules(saved: Path, call: Call, tmp_path: Path) -> None:  # noqa: F811
    piqa, lambada = tmp_path / "piqa.jsonl", tmp_path / "lambada.jsonl"
    piqa.write_text(
        "".join(
            json.dumps({"goal": f"sit {n}", "sol1": "on the mat", "sol2": "in a red house", "label": 0}) + "\n"
            for n in range(6)
        )
    )
    lambada.write_text("".join(json.dumps({"text": f"the cat {n} sat on the mat"}) + "\n" for n in range(6)))
    _, found, said = call(
        saved, "--tasks", "brandon-tiny,grammar", "--limit", 4, "--files", f"piqa={piqa},lambada={lambada}", "--json"
    )
    rows = {row["task"]: row for row in found["runs"][0]["tasks"]}
    assert len(rows) == 15
    for name, metric, standard in (("piqa", "acc_token", "acc_norm"), ("lambada", "acc_first", "acc")):
        protocol, ours = rows[f"brandon-tiny.{name}"], rows[f"brandon-tiny.{name}.standard"]
        assert (protocol["n"], protocol["metric"]) == (4, metric)
        assert (ours["n"], ours["metric"]) == (4, standard)
    assert rows["grammar"]["n"] == 4
    assert rows["brandon-tiny.blimp"]["mean"] is None
    assert (
        "cannot be reached" in rows["brandon-tiny.blimp"]["skipped"] or "hub" in rows["brandon-tiny.blimp"]["skipped"]
    )
    assert "published there" in said
    page = (saved / "evaluation" / "report.md").read_text()
    (line,) = (line for line in page.splitlines() if line.startswith("| blimp "))
    assert [cell.strip() for cell in line.split("|")[1:-1]] == [
        "blimp",
        "0",
        "acc",
        "not measured",
        "acc",
        "not measured",
        "0.733",
    ]
    with pytest.raises(BadRequest, match="hellaswag is not among --tasks grammar"):
        call(saved, "--tasks", "grammar", "--files", f"hellaswag={piqa}")


def test_requests_that_make_no_sense(saved: Path, call: Call) -> None:  # noqa: F811
    for arguments, words in (
        ((saved, "--capabilities", "--tasks", "grammar"), "--tasks: --capabilities asks its own tests"),
        (("--capabilities",), "give one or more runs"),
        ((saved, "--tasks", "sudoku"), "is no model of puzzles"),
        ((saved, "--tasks", "grammar", "--votes", 3), "--votes: "),
        ((saved, "--tasks", "brandon-tini"), "unknown task 'brandon-tini'"),
    ):
        with pytest.raises((BadRequest, TaskError), match=words):
            call(*arguments)


def test_calculations_and_held_out_texts() -> None:
    made = list(eval_tasks.calculations(seed=0, items=40, form="calculator"))
    assert len(made) == 40
    for item in made:
        question = item.prompt.split("\n")[0].removeprefix("Question: ")
        assert split_of(question, {"test": 0.1}) == "test"
        assert item.prompt.endswith("By calculator:\n")
    texts = list(eval_tasks.embedded_text(seed=0, items=8, characters=50))
    assert [item.meta["part"] for item in texts] == ["stories", "arithmetic"] * 4
    assert all(0 < len(item.prompt) <= 50 for item in texts)
    whole = [text for part in eval_tasks.PARTS for text in eval_tasks.held_out(part, 4)]
    assert all(split_of(text, {"validation": 0.01, "test": 0.01}) == "test" for text in whole)
    assert {item.prompt for item in texts} == {text[:50] for text in whole}
    other = {item.prompt for item in eval_tasks.embedded_text(seed=1, items=8, characters=50)}
    assert not other & {item.prompt for item in texts}
