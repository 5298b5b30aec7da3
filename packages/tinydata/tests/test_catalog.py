"""Claim: every entry of the catalog reads a row with its columns through the path that reads the hub; what a row lacks is
counted; what holds no texts says where they are. No network: rows are written by hand, with the columns of the cards.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tinydata import ChatMessage, SourceError
from tinydata.sources import Hub, catalog
from tinydata.sources.catalog import CATALOG, Rows

pytestmark = pytest.mark.usefixtures("offline")

WORKED = "She sold 48/2 = <<48/2=24>>24 clips.\n#### 24"
MESSAGES = [
    {"content": "Hi", "role": "user"},
    {"content": "Hello!\n", "role": "assistant"},
    {"content": "And <|im_end|>?", "role": "user"},
    {"content": "Bye.", "role": "assistant"},
]
WEB = {"text": "A page.", "url": "https://example.org", "token_count": 3}

# name -> a row with the columns of the dataset, and the text that it becomes
ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "gsm8k": ({"question": "How many?", "answer": WORKED}, "How many?\nShe sold 48/2 = 24 clips.\n#### 24"),
    "orca-math": ({"question": "How far?", "answer": "3 km."}, "How far?\n3 km."),
    "tinygsm": (
        {"question": "How much?", "code": "def simple_math_problem() -> int:\n    return 3"},
        "How much?\ndef simple_math_problem() -> int:\n    return 3",
    ),
    "tinystories": ({"text": "Once upon a time."}, "Once upon a time."),
    "fineweb-edu": (
        {**WEB, "id": "<urn:uuid:1>", "dump": "CC-MAIN-2024-10", "file_path": "s3://x", "score": 3.1, "int_score": 3},
        "A page.",
    ),
    "smollm-fineweb-edu": ({"text": "A page.", "id": "1", "metadata": {"url": "x", "score": 3.0}}, "A page."),
    "cosmopedia-v2": (
        {
            "prompt": "Write a story.",
            "text": "A story.",
            "token_length": 3,
            "audience": "children",
            "format": "story",
            "seed_data": "x",
        },
        "A story.",
    ),
    "finemath": ({**WEB, "char_count": 7, "metadata": "{}", "score": 3.2, "int_score": 3, "language": "en"}, "A page."),
    "finemath-4plus": ({**WEB, "char_count": 7, "metadata": "{}", "score": 4.2, "int_score": 4}, "A page."),
    "open-web-math": ({"url": "x", "text": "2 + 2", "date": "2023-01-01", "metadata": "{}"}, "2 + 2"),
    "starcoder": ({"max_stars_repo_path": "a.py", "content": "print(1)\n", "id": "7"}, "print(1)\n"),
    "stackoverflow": ({"content": "Q: why?\nA: so.", "meta": "x"}, "Q: why?\nA: so."),
    "smoltalk": (
        {"messages": MESSAGES, "source": "smol-magpie-ultra"},
        "User:\nHi\n\nAssistant:\nHello!\n\nUser:\nAnd <|im_end|>?\n\nAssistant:\nBye.",
    ),
    "mbpp": (
        {
            "task_id": 1,
            "text": "Write a function to add.",
            "code": "def add(a, b):\r\n  return a + b",
            "test_list": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"],
            "test_setup_code": "",
            "challenge_test_list": [],
        },
        "Write a function to add.\nassert add(1, 2) == 3\ndef add(a, b):\n  return a + b",
    ),
}


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with HF_HUB_OFFLINE=1, which is read at import; what `datasets` caches goes into this test's folder."""
    import datasets
    import huggingface_hub

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def written(tmp_path: Path, *rows: dict[str, Any]) -> str:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def read(rows: Rows[Any]) -> list[Any]:
    return list(rows.values())


def test_every_entry_with_texts_is_tested() -> None:
    assert set(ROWS) == {name for name, entry in CATALOG.items() if entry.texts}
    for name, entry in CATALOG.items():
        assert entry.licence, name
        assert entry.hub.count("/") == 1, name


@pytest.mark.parametrize("name", ROWS)
def test_a_row_becomes_a_text(tmp_path: Path, name: str) -> None:
    row, text = ROWS[name]
    found = catalog.source(name, data_files=written(tmp_path, row))
    (document,) = found.documents()
    assert document.text == text
    assert not document.allow_special
    assert found.skipped == {}
    assert set(CATALOG[name].columns) <= set(row)


@pytest.mark.parametrize("name", ROWS)
def test_a_row_without_its_column_is_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match="no column") as error:
        list(catalog.source(name, data_files=written(tmp_path, {"other": 1})).documents())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [name for name, entry in CATALOG.items() if entry.pair])
def test_questions_with_answers(tmp_path: Path, name: str) -> None:
    row, text = ROWS[name]
    empty = {**row, CATALOG[name].columns[1]: " "}
    rows = catalog.pairs(name, data_files=written(tmp_path, row, empty, {**row, CATALOG[name].columns[0]: None}))
    for _ in range(2):
        ((question, answer),) = read(rows)
        assert f"{question}\n{answer}" == text
        assert rows.skipped == {"empty": 1, "not text": 1}


def test_conversations_are_checked(tmp_path: Path) -> None:
    good = {"messages": MESSAGES}
    rows = [good, {"messages": MESSAGES[:1]}, {"messages": None}, {"messages": [{"role": "human", "content": "x"}]}]
    found = catalog.conversations("smoltalk", data_files=written(tmp_path, *rows))
    (conversation,) = read(found)
    assert conversation[0] == ChatMessage("user", "Hi")
    assert conversation[1] == ChatMessage("assistant", "Hello!")
    assert sum(found.skipped.values()) == 3
    assert "messages are not a list of objects" in found.skipped


def test_a_text_that_is_not_utf8_costs_its_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"question": "\xff", "answer": "x"}\n{"question": "a", "answer": "b"}\n')
    rows = catalog.pairs("orca-math", data_files=str(path))
    assert read(rows) == [("a", "b")]
    assert rows.skipped == {"not utf-8": 1}


def test_what_the_hub_is_asked_for() -> None:
    found = catalog.source("starcoder", revision="abc")
    assert isinstance(found, Hub)
    assert (found.dataset_name, found.data_dir, found.column, found.revision) == (
        "bigcode/starcoderdata",
        "python",
        "content",
        "abc",
    )
    described = json.loads(json.dumps(found.description()))
    assert described["licence"] == CATALOG["starcoder"].licence
    assert described["data_dir"] == "python"
    with pytest.raises(SourceError, match=r"cannot be loaded: .*\(gated: accept its terms") as error:
        list(found.documents())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [name for name, entry in CATALOG.items() if not entry.texts])
def test_what_holds_no_texts_says_where_they_are(name: str) -> None:
    with pytest.raises(SourceError, match=f"{name}.*Software Heritage"):
        catalog.source(name)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: catalog.source("tinystory"), "unknown dataset 'tinystory', expected one of cosmopedia-v2, "),
        (lambda: catalog.pairs("tinystories"), "has no questions with answers"),
        (lambda: catalog.conversations("gsm8k"), "has no conversations"),
    ],
)
def test_what_is_not_there_is_one_line(ask: Any, message: str) -> None:
    with pytest.raises(SourceError, match=message) as error:
        ask()
    assert "\n" not in str(error.value)


def test_nothing_usable_is_one_line(tmp_path: Path) -> None:
    rows = catalog.pairs("orca-math", data_files=written(tmp_path, {"question": "", "answer": "x"}))
    with pytest.raises(SourceError, match=r"no usable row \(empty: 1\)"):
        read(rows)
