"""Claim: local files and `datasets` give the same documents for the same content, whatever the container; what is not
a usable text is skipped and counted; a source that cannot be read as asked is one line that says what to do.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
import tracemalloc
from fractions import Fraction
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from tinydata.documents import Document, SourceError, split_of
from tinydata.sources import formats
from tinydata.sources.files import Files
from tinydata.sources.hub import Hub

TEXTS = ["one", "zwei\nlines", "τρία 🙂", "  four  "]


def texts(source: Files | Hub) -> list[str]:
    return [document.text for document in source.documents()]


def write_jsonl(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def one_line(error: pytest.ExceptionInfo[SourceError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


# --- split_of ---------------------------------------------------------------------------------------------------------


def test_split_follows_the_hash_of_the_text() -> None:
    fractions = {"validation": 0.25, "test": 0.125}
    sides = {"train": 0, "validation": 0, "test": 0}
    for number in range(4000):
        text = f"document {number} ü"
        digest = int(hashlib.sha256(text.encode()).hexdigest(), 16)
        position = Fraction(digest, 2**256)
        side = split_of(text, fractions)
        # Truncated to 53 bits the position is the same one, but for borders that no text here is near.
        expected = "test" if position < Fraction(1, 8) else "validation" if position < Fraction(3, 8) else "train"
        assert side == expected
        sides[side] += 1
    assert abs(sides["test"] / 4000 - 0.125) < 0.02
    assert abs(sides["validation"] / 4000 - 0.25) < 0.03


def test_test_documents_do_not_depend_on_the_validation_share() -> None:
    for number in range(2000):
        few, many = (split_of(str(number), {"validation": share, "test": 0.1}) for share in (0.01, 0.5))
        assert (few == "test") == (many == "test")
        assert few != "validation" or many == "validation"


@pytest.mark.parametrize(
    ("fractions", "word"),
    [
        ({"valid": 0.1}, "valid"),
        ({"validation": -0.1}, "negative"),
        ({"validation": 0.5, "test": 0.5}, "less than 1"),
        ({"test": float("nan")}, "nan"),
    ],
)
def test_impossible_fractions_are_refused(fractions: dict[str, float], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        split_of("text", fractions)


# --- files ------------------------------------------------------------------------------------------------------------


def test_every_container_gives_the_same_documents(tmp_path: Path) -> None:
    rows = [{"text": text, "id": number} for number, text in enumerate(TEXTS)]
    plain = write_jsonl(tmp_path / "a.jsonl", rows)
    packed = tmp_path / "b.JSONL.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    table = tmp_path / "c.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), table, row_group_size=3)
    coded = tmp_path / "d.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": pyarrow.array(TEXTS).dictionary_encode()}), coded)
    large = tmp_path / "e.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": pyarrow.array(TEXTS, pyarrow.large_string())}), large)
    folder = tmp_path / "f"
    folder.mkdir()
    for number, text in enumerate(TEXTS):
        (folder / f"{number}.{'txt' if number % 2 else 'md'}").write_bytes(text.encode())
    separated = tmp_path / "g.txt"
    separated.write_bytes("\n<end>\n".join(TEXTS).encode())

    for path in (plain, packed, table, coded, large, folder):
        source = Files(path)
        expected = [Document(text, str(path)) for text in TEXTS]
        assert list(source.documents()) == expected
        assert list(source.documents()) == expected
        assert source.skipped == {}
    assert [text.removesuffix("\n") for text in texts(Files(separated, separator="<end>"))] == TEXTS


def test_folder_and_glob_are_sorted_and_leave_out_what_is_hidden(tmp_path: Path) -> None:
    for name in ("b/2.txt", "a.txt", "b.md", "B.txt", ".git/x.txt", "b/.y.txt", "c.csv", "a/z/1.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    assert texts(Files(tmp_path)) == ["B.txt", "a.txt", "a/z/1.txt", "b.md", "b/2.txt"]
    assert texts(Files(f"{tmp_path}/*.*")) == ["B.txt", "a.txt", "b.md"]
    assert texts(Files(f"{tmp_path}/**/*.txt")) == ["B.txt", "a.txt", "a/z/1.txt", "b/2.txt"]


def test_unusable_documents_are_skipped_and_counted(tmp_path: Path) -> None:
    lines = [
        b'{"text": "good"}',
        b"",
        b'{"text": ""}',
        b'{"text": " \\n"}',
        b'{"text": "\xff"}',
        b'{"text": "\\ud800"}',
        b"{text}",
        b'["text"]',
        b"[" * 100_000,
        b'{"body": "x"}',
        b'{"text": null}',
        b'{"text": 3}',
        b'{"text": "last"}',
    ]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines))
    source = Files(path)
    for _ in range(2):
        assert texts(source) == ["good", "last"]
        assert source.skipped == {
            "empty": 2,
            "not utf-8": 2,
            "bad json": 3,
            "missing column": 1,
            "not text": 2,
        }


def test_bad_utf8_in_parquet_costs_one_row(tmp_path: Path) -> None:
    data = [b"good", b"\xff\xfe", None, b"last"]
    strings = pyarrow.Array.from_buffers(pyarrow.string(), len(data), pyarrow.array(data, pyarrow.binary()).buffers())
    pyarrow.parquet.write_table(pyarrow.table({"text": strings, "n": [1, 2, 3, 4]}), tmp_path / "a.parquet")
    source = Files(tmp_path)
    assert texts(source) == ["good", "last"]
    assert source.skipped == {"not utf-8": 1, "not text": 1}
    with pytest.raises(SourceError, match="not text: 4"):
        texts(Files(tmp_path, column="n"))


def test_damaged_files_give_what_is_before_the_damage(tmp_path: Path) -> None:
    rows = [{"text": hashlib.sha256(str(number).encode()).hexdigest()} for number in range(2000)]
    whole = write_jsonl(tmp_path / "whole.jsonl", rows).read_bytes()
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(whole)[:-5000])
    (tmp_path / "not.jsonl.gz").write_bytes(b"not gzip")
    (tmp_path / "not.parquet").write_bytes(b"PAR1 nonsense PAR1")
    source = Files(f"{tmp_path}/*.gz")
    found = texts(source)
    assert 0 < len(found) < 2000
    assert found == [row["text"] for row in rows[: len(found)]]
    assert source.skipped["unreadable file"] == 2
    with pytest.raises(SourceError, match="unreadable file: 1"):
        texts(Files(tmp_path / "not.parquet"))


def test_a_document_over_the_limit_is_skipped_and_the_next_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "MAX_DOCUMENT_BYTES", 100)
    (tmp_path / "a.txt").write_text("x" * 101)
    write_jsonl(tmp_path / "b.jsonl", [{"text": text} for text in ("x" * 300, "short", "y" * 300)])
    (tmp_path / "c.txt").write_text("z" * 60 + "\n" + "z" * 60 + "\n--\nkept\n--\n" + "z" * 500)
    source = Files(tmp_path, separator="--")
    assert texts(source) == ["short", "kept\n"]
    assert sum(source.skipped.values()) == 5
    with pytest.raises(SourceError, match="separator") as error:
        texts(Files(tmp_path / "a.txt"))
    one_line(error)


def test_one_long_line_takes_a_small_multiple_of_its_size(tmp_path: Path) -> None:
    size = 16 * 2**20
    path = tmp_path / "long.jsonl"
    with path.open("wb") as handle:
        handle.write(b'{"text": "' + b"word " * (size // 5) + b'"}\n{"text": "short"}\n')
    tracemalloc.start()
    try:
        lengths = [len(document.text) for document in Files(path).documents()]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert lengths == [size // 5 * 5, 5]
    assert peak < 4 * size


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("missing", {}, ["missing", "no such file"]),
        ("*.parquet", {}, ["*.parquet", "no file", ".jsonl"]),
        ("table.csv", {}, ["table.csv", ".jsonl"]),
        ("folder", {}, ["folder", ".jsonl"]),
        ("rows.jsonl", {"separator": "--"}, ["separator"]),
        ("a.txt", {"separator": "a\nb"}, ["separator"]),
        ("a.txt", {"separator": ""}, ["separator"]),
    ],
)
def test_a_source_without_files_is_one_line(
    tmp_path: Path, name: str, arguments: dict[str, str], words: list[str]
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "table.csv").write_text("a,b")
    (tmp_path / "a.txt").write_text("a")
    write_jsonl(tmp_path / "rows.jsonl", [{"text": "a"}])
    with pytest.raises(SourceError) as error:
        Files(tmp_path / name, **arguments)
    assert all(word in one_line(error) for word in words)


def test_a_source_without_documents_says_why_and_lists_the_columns(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"title": "t", "body": "b"}, {"title": "u", "body": "c"}])
    pyarrow.parquet.write_table(pyarrow.table({"body": ["b"], "title": ["t"]}), tmp_path / "b.parquet")
    for name in ("a.jsonl", "b.parquet"):
        with pytest.raises(SourceError, match=r"missing column.*'text' among body, title") as error:
            texts(Files(tmp_path / name))
        one_line(error)
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(SourceError, match="empty: 1"):
        texts(Files(tmp_path / "empty.txt"))


def test_description_notices_a_changed_file_and_is_json(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "a"}])
    before = Files(path).description()
    assert before["files"] == [
        {
            "name": "a.jsonl",
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
    ]
    assert json.loads(json.dumps(before)) == before == Files(path).description()
    write_jsonl(path, [{"text": "b"}])
    assert Files(path).description() != before
    hub_before = Hub("json", data_files=str(path)).description()
    assert json.loads(json.dumps(hub_before)) == hub_before
    write_jsonl(path, [{"text": "c"}])
    assert Hub("json", data_files={"train": [str(path)]}).description() != hub_before


# --- hub --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with HF_HUB_OFFLINE=1, which is read at import; what `datasets` caches goes into this test's folder."""
    import datasets
    import huggingface_hub

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.usefixtures("offline")
def test_hub_reads_any_column_through_datasets(tmp_path: Path, streaming: bool) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"body": text, "n": 1} for text in TEXTS])
    source = Hub("json", data_files=str(path), column="body", streaming=streaming)
    expected = [Document(text, "json") for text in TEXTS]
    assert list(source.documents()) == expected
    assert list(source.documents()) == expected
    assert source.skipped == {}


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.usefixtures("offline")
def test_hub_skips_and_counts(tmp_path: Path, streaming: bool) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "good"}\n{"text": ""}\n{"text": "\xff"}\n{"n": 1}\n{"text": "last"}\n')
    source = Hub("json", data_files={"train": [str(path)]}, streaming=streaming)
    for _ in range(2):
        assert texts(source) == ["good", "last"]
        assert source.skipped == {"empty": 1, "not utf-8": 1, "not text": 1}


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"split": "holdout"}, ["holdout", "train"]),
        ({"column": "contents"}, ["'contents'", "n, text", "column"]),
        ({"data_files": "nowhere.jsonl"}, ["nowhere.jsonl"]),
        ({"column": "n"}, ["no usable document", "not text: 1"]),
        ({"data_files": "broken.jsonl"}, ["broke off", "JSON"]),
    ],
)
def test_hub_errors_are_one_line(tmp_path: Path, arguments: dict[str, str], words: list[str]) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"text": "a", "n": 1}])
    (tmp_path / "broken.jsonl").write_text('{"text": "a"}\n{oops\n')
    chosen = {"data_files": "a.jsonl", **arguments}
    chosen["data_files"] = str(tmp_path / chosen["data_files"])
    with pytest.raises(SourceError) as error:
        texts(Hub("json", **chosen))
    assert all(word in one_line(error) for word in words)


def test_a_dataset_that_cannot_be_reached_is_one_line(tmp_path: Path) -> None:
    script = (
        "from tinydata.sources.hub import Hub\n"
        "try: list(Hub('nobody/nothing', 'subset').documents())\n"
        "except ValueError as error: print(type(error).__name__, error)\n"
    )
    # A process of its own, because the library reads the variable when it is imported.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("SourceError dataset nobody/nothing/subset: cannot be loaded: ")
    assert done.stdout.count("\n") == 1


def test_importing_sources_does_not_import_what_only_some_use() -> None:
    script = "import sys, tinydata.sources; print([m for m in ('datasets', 'pyarrow', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
