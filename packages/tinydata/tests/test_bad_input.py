"""Claim: whatever a source does, there is one line or a counted skip, what was there stays as it was, nothing is half-written.

What one stage alone refuses is held by its own tests: damaged shards (test_shards), weights that sum to zero (test_mixture),
conversations (test_chat), a kill in the middle of packing (test_packing).
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tinydata import (
    Document,
    MixedLoader,
    Mixture,
    MixtureError,
    ProblemLoader,
    ShardError,
    SourceError,
    encode_problems,
    pack,
    train_tokenizer,
)
from tinydata.sources import Files, Hub, catalog

TOKENIZER = train_tokenizer([Document("one two three four", "x")], 280)
OTHER = train_tokenizer([Document("zzz yyy", "x")], 272)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".lock")
    }


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


# --- sources that fail half-way ---------------------------------------------------------------------------------------


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception | None], None]:
    """A dataset of 300 rows whose stream raises after 150; None: that does not."""
    import datasets

    def set_up(error: Exception | None) -> None:
        def rows() -> Iterator[dict[str, str]]:
            for number in range(300):
                if number == 150 and error is not None:
                    raise error
                yield {"text": f"document {number}", "question": "q", "answer": f"a {number}"}

        monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.IterableDataset.from_generator(rows))

    return set_up


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("connection reset by peer\nand more"),
        PermissionError(13, "Permission denied"),
        TimeoutError("timed out"),
        ValueError("bad row"),
    ],
)
def test_a_stream_that_breaks_off_leaves_nothing(
    tmp_path: Path, breaking: Callable[[Exception | None], None], error: Exception
) -> None:
    breaking(error)
    hub = Hub("somebody/something")
    with pytest.raises(SourceError, match="dataset somebody/something: reading broke off: ") as caught:
        pack(hub.documents(), TOKENIZER, tmp_path / "shards", sources=[hub])
    one_line(caught)
    assert contents(tmp_path) == {}
    with pytest.raises(SourceError, match="reading broke off"):
        list(catalog.pairs("orca-math").values())
    breaking(None)
    assert pack(hub.documents(), TOKENIZER, tmp_path / "shards", sources=[hub]).documents == 300


def test_a_stream_that_breaks_off_leaves_what_was_there(
    tmp_path: Path, breaking: Callable[[Exception | None], None]
) -> None:
    breaking(None)
    hub = Hub("somebody/something")
    pack(hub.documents(), TOKENIZER, tmp_path / "shards")
    before = contents(tmp_path)
    breaking(ConnectionError("connection reset by peer"))
    with pytest.raises(SourceError, match="reading broke off"):
        pack(hub.documents(), TOKENIZER, tmp_path / "shards")
    assert contents(tmp_path) == before


def test_a_file_without_permission_is_counted_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(name)
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": f"{name} row"}) + "\n")
    real = Path.open

    def refusing(path: Path, *arguments: Any, **more: Any) -> Any:
        if path.name.startswith("b."):
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **more)

    monkeypatch.setattr(Path, "open", refusing)
    monkeypatch.setattr(Path, "read_bytes", lambda path: refusing(path, "rb").read())
    source = Files(tmp_path)
    assert [document.text for document in source.documents()] == ["a row", "a", "c row", "c"]
    assert source.skipped == {"unreadable file": 2}
    described = source.description()["files"]
    assert isinstance(described, list)
    assert [entry["sha256"] is None for entry in described] == [False, False, True, True, False, False]


def test_broken_rows_are_counted_in_the_manifest(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [b'{"text": "one"}', b'{"text": "tw', b'{"text": 2}', b'{"txt": "three"}', b'{"text": "four"}']
    path.write_bytes(b"\n".join(rows))
    source = Files(path)
    shards = pack(source.documents(), TOKENIZER, tmp_path / "shards", sources=[source])
    assert shards.documents == 2
    assert shards.manifest["source_descriptions"][str(path)]["skipped"] == {
        "bad json": 1,
        "not text": 1,
        "missing column": 1,
    }


# --- encodings --------------------------------------------------------------------------------------------------------


def test_files_of_other_encodings_are_counted_not_guessed(tmp_path: Path) -> None:
    text = "Ein Café, größer als zwei.\n"
    for name, encoding in {
        "a": "utf-8",
        "b": "utf-8-sig",
        "c": "latin-1",
        "d": "cp1252",
        "e": "utf-16",
        "f": "utf-16-le",
        "g": "utf-32",
        "h": "shift-jis",
    }.items():
        (tmp_path / f"{name}.txt").write_bytes((text if name != "h" else "日本語の文\n").encode(encoding))
    (tmp_path / "i.txt").write_bytes("plain ascii".encode("utf-16-le"))  # valid UTF-8 with zeros in it
    source = Files(tmp_path)
    assert [document.text for document in source.documents()] == [text, text]
    assert source.skipped == {"not utf-8": 6, "null characters": 1}


def test_lines_of_other_encodings_cost_themselves(tmp_path: Path) -> None:
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in ("größer", "plain", "Café")]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b"\n".join([lines[0].encode(), lines[0].encode("latin-1"), lines[1].encode(), lines[2].encode("cp1252")])
    )
    source = Files(path)
    assert [document.text for document in source.documents()] == ["größer", "plain"]
    assert source.skipped == {"not utf-8": 2}


# --- one long line ----------------------------------------------------------------------------------------------------

PACKS = """
    import json, resource, sys, time
    from tinydata import Tokenizer, pack
    from tinydata.sources import Files

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    source = Files(sys.argv[1])
    shards = pack(source.documents(), Tokenizer.load(sys.argv[2]), sys.argv[3], sources=[source])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([shards.documents, shards.bytes, shards.tokens, (peak - before) * 1024]))
"""


def packed_long_line(tmp_path: Path, size: int) -> tuple[int, int, int, int]:
    path = tmp_path / "long.jsonl"
    with path.open("wb") as handle:
        handle.write(b'{"text": "' + b"word " * (size // 5) + b'"}\n{"text": "short"}\n')
    TOKENIZER.save(tmp_path / "tokenizer.json")
    command = [
        sys.executable,
        "-c",
        textwrap.dedent(PACKS),
        *map(str, (path, tmp_path / "tokenizer.json", tmp_path / "shards")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return tuple(json.loads(done.stdout))


@pytest.mark.parametrize("size", [3_000_000, pytest.param(100_000_000, marks=pytest.mark.slow)])
def test_one_long_line_is_one_document_in_bounded_memory(tmp_path: Path, size: int) -> None:
    documents, text_bytes, tokens, memory = packed_long_line(tmp_path, size)
    assert (documents, text_bytes) == (2, size + 5)
    assert tokens > size // 5
    assert memory < 300 * 2**20 + 16 * size


def test_a_line_over_the_limit_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinydata.sources.formats.MAX_DOCUMENT_BYTES", 1000)
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "x" * 5000}) + "\n" + json.dumps({"text": "short"}) + "\n")
    source = Files(path)
    assert [document.text for document in source.documents()] == ["short"]
    assert sum(source.skipped.values()) == 1


# --- stages that disagree ---------------------------------------------------------------------------------------------


def test_shards_of_two_tokenizers_are_not_mixed(tmp_path: Path) -> None:
    sources = {
        name: pack([Document("one two three " * 20, name)], tokenizer, tmp_path / name)
        for name, tokenizer in {"a": TOKENIZER, "b": OTHER}.items()
    }
    with pytest.raises(MixtureError, match="b: has other tokens than a: pack both with the same tokenizer") as error:
        MixedLoader(sources, Mixture({"a": 1.0, "b": 1.0}), 10, 16, 2)
    one_line(error)
    with pytest.raises(ShardError, match="packed with another tokenizer"):
        pack([Document("one two three " * 20, "a")], OTHER, tmp_path / "a")


def test_problems_of_another_tokenizer_are_refused_where_they_can_be_told() -> None:
    problems = encode_problems([("one two three", " four")], TOKENIZER)
    assert max(int(problem.ids.max()) for problem in problems) >= OTHER.vocab_size
    with pytest.raises(ValueError, match="is not of this tokenizer's 272: encode them with it") as error:
        ProblemLoader(problems, OTHER, 64, 1)
    one_line(error)


@pytest.mark.parametrize("weights", [{"a": 0.0}, {"a": 0.0, "b": 0.0}])
def test_weights_that_sum_to_zero_are_one_line(weights: dict[str, float]) -> None:
    with pytest.raises(MixtureError, match="the weights sum to zero") as error:
        Mixture(weights)
    one_line(error)


def test_a_changed_source_under_an_existing_set_is_one_line_and_the_set_stays(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("one two")
    source = Files(path)
    pack(source.documents(), TOKENIZER, tmp_path / "shards", sources=[source])
    before = contents(tmp_path / "shards")
    path.write_text("one three")
    with pytest.raises(ShardError, match="holds other documents or another shard size: delete it or pack") as error:
        pack(source.documents(), TOKENIZER, tmp_path / "shards", sources=[source])
    one_line(error)
    assert contents(tmp_path / "shards") == before
    path.unlink()
    with pytest.raises(SourceError, match="no usable document"):
        pack(source.documents(), TOKENIZER, tmp_path / "shards", sources=[source])
    assert contents(tmp_path / "shards") == before
    path.write_text("one two")
    assert pack(source.documents(), TOKENIZER, tmp_path / "shards", sources=[source]).documents == 1
