"""Prepared data is a pure function of its sources: cached, atomic, split by the text alone, and described."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apps.common import data, recipes
from apps.common.console import Console
from apps.common.data import Prepared
from apps.common.errors import BadRequest
from apps.common.recipe import Recipe
from tinycore import ConfigError
from tinydata import ShardError, SourceError, Tokenizer, split_of

TEXTS = [f"Document {i} counts: {' '.join(str(i * k) for k in range(12))}." for i in range(240)]
FRACTIONS = {"validation": 0.1, "test": 0.1}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """240 documents as JSON lines, and four records that are none."""
    file = tmp_path / "texts.jsonl"
    lines = [json.dumps({"text": text}) for text in TEXTS]
    file.write_text("\n".join([*lines, '{"text": ""}', '{"text": "  "}', "not json", '{"other": 1}']) + "\n")
    return file


def recipe_for(tmp_path: Path, sources: list[dict[str, Any]], **data_values: Any) -> Recipe:
    written = recipes.read("brandon-226k")
    written["model"] |= {"vocab_size": None}
    values = {
        "sources": sources,
        "tokenizer": {"vocab_size": 400},
        **FRACTIONS,
        "cache": str(tmp_path / "cache"),
    }
    return recipes.from_dict({**written, "data": {**written["data"], **values, **data_values}})


def prepare(recipe: Recipe) -> Prepared:
    return data.prepare(recipe, Console())


def texts_in(prepared: Prepared, split: str) -> list[str]:
    shards = getattr(prepared, split)
    decode = prepared.tokenizer.decode
    return [decode(shards.read(i).tolist()[1:-1]) for i in range(shards.documents)]


def test_each_document_is_in_the_split_of_its_text_and_nowhere_else(tmp_path: Path, corpus: Path) -> None:
    prepared = prepare(recipe_for(tmp_path, [{"kind": "files", "path": str(corpus)}]))
    for split in ("train", "validation", "test"):
        assert texts_in(prepared, split) == [text for text in TEXTS if split_of(text, FRACTIONS) == split]


def test_the_tokenizer_has_seen_the_training_split_only(tmp_path: Path) -> None:
    train = [text for text in TEXTS if split_of(text, FRACTIONS) == "train"]
    others = [f"{text} zyxwv zyxwv zyxwv" for text in TEXTS]
    held_out = [text for text in others if split_of(text, FRACTIONS) != "train"]
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*train, *held_out]))
    tokenizer = prepare(recipe_for(tmp_path, [{"kind": "files", "path": str(file)}])).tokenizer
    assert len(tokenizer.encode("zyxwv")) == 5


def test_the_manifest_says_what_the_data_is_made_of(tmp_path: Path, corpus: Path) -> None:
    prepared = prepare(recipe_for(tmp_path, [{"kind": "files", "path": str(corpus)}]))
    digest = hashlib.sha256()
    for text in TEXTS:
        digest.update(len(text).to_bytes(8, "little") + text.encode())
    part = prepared.manifest["parts"][str(corpus)]
    assert part["documents"] == len(TEXTS)
    assert part["bytes"] == sum(map(len, TEXTS))
    assert part["sha256"] == digest.hexdigest()
    assert "licence" in part
    skipped = prepared.manifest["skipped"][str(corpus)]
    assert skipped == {"empty": 2, "bad json": 1, "missing column": 1}
    for split in ("train", "validation", "test"):
        entry, shards = prepared.manifest["splits"][split], getattr(prepared, split)
        assert (entry["documents"], entry["tokens"]) == (shards.documents, shards.tokens)
    assert prepared.manifest["tokenizer"]["sha256"] == prepared.tokenizer.hash


def test_a_second_time_nothing_is_made_and_everything_is_equal(tmp_path: Path, corpus: Path) -> None:
    recipe = recipe_for(tmp_path, [{"kind": "files", "path": str(corpus)}])
    first = prepare(recipe)
    before = {path: path.stat().st_mtime_ns for path in first.directory.rglob("*") if path.is_file()}
    second = prepare(recipe)
    after = {path: path.stat().st_mtime_ns for path in second.directory.rglob("*") if path.is_file()}
    assert second.key == first.key
    assert {path: time for path, time in after.items() if path.name[0] != "."} == {
        path: time for path, time in before.items() if path.name[0] != "."
    }


def test_the_same_recipe_elsewhere_makes_the_same_bytes(tmp_path: Path, corpus: Path) -> None:
    source = [{"kind": "files", "path": str(corpus)}]
    first = prepare(recipe_for(tmp_path, source))
    second = prepare(recipe_for(tmp_path, source, cache=str(tmp_path / "elsewhere")))
    assert first.manifest == second.manifest
    assert first.directory != second.directory
    names = sorted(p.relative_to(first.directory) for p in first.directory.rglob("*") if p.is_file())
    for name in names:
        assert (first.directory / name).read_bytes() == (second.directory / name).read_bytes()


def test_what_changes_the_bytes_changes_the_key_and_nothing_else_does(tmp_path: Path, corpus: Path) -> None:
    source = {"kind": "files", "path": str(corpus)}
    key = prepare(recipe_for(tmp_path, [source])).key
    assert prepare(recipe_for(tmp_path, [source], sequence_length=64)).key == key
    assert prepare(recipe_for(tmp_path, [source], tokenizer={"vocab_size": 350})).key != key
    assert prepare(recipe_for(tmp_path, [source], validation=0.2)).key != key
    with corpus.open("a") as file:
        file.write(json.dumps({"text": "one more document"}) + "\n")
    assert prepare(recipe_for(tmp_path, [source])).key != key


def test_several_that_start_at_once_make_it_once(tmp_path: Path, corpus: Path) -> None:
    recipe = recipe_for(tmp_path, [{"kind": "files", "path": str(corpus)}])
    found: list[Prepared] = []
    threads = [threading.Thread(target=lambda: found.append(prepare(recipe))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({prepared.directory for prepared in found}) == 1
    assert len(found) == 3
    tokens = [prepared.train.read(0) for prepared in found]
    assert all(np.array_equal(tokens[0], other) for other in tokens)


def test_an_interrupted_preparation_leaves_nothing_that_counts(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_for(tmp_path, [{"kind": "files", "path": str(corpus)}])

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(data, "pack", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(recipe)
    assert not list((tmp_path / "cache").glob("*/manifest.json"))
    assert prepare(recipe).train.documents > 0


def test_a_tokenizer_file_is_used_as_it_is(tmp_path: Path, corpus: Path) -> None:
    source = [{"kind": "files", "path": str(corpus)}]
    trained = prepare(recipe_for(tmp_path, source))
    file = tmp_path / "tokenizer.json"
    trained.tokenizer.save(file)
    recipe = recipe_for(tmp_path, source, tokenizer={"kind": "file", "path": str(file)})
    assert recipe.model.vocab_size == Tokenizer.load(file).vocab_size
    again = prepare(recipe)
    assert again.tokenizer.hash == trained.tokenizer.hash
    assert again.manifest["splits"] == trained.manifest["splits"]


def test_a_model_with_too_few_rows_for_the_tokenizer_is_refused(tmp_path: Path, corpus: Path) -> None:
    source = [{"kind": "files", "path": str(corpus)}]
    file = tmp_path / "tokenizer.json"
    prepare(recipe_for(tmp_path, source)).tokenizer.save(file)
    written = recipes.to_dict(recipe_for(tmp_path, source, tokenizer={"kind": "file", "path": str(file)}))
    written["model"]["vocab_size"] = 280
    with pytest.raises(ConfigError, match=r"model\.vocab_size: 280"):
        prepare(recipes.from_dict(written))


def test_one_document_cannot_be_split_and_the_line_says_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "book.txt"
    file.write_text("Once upon a time.\n\nThe end.\n")
    with pytest.raises(BadRequest, match="separator") as caught:
        prepare(recipe_for(tmp_path, [{"kind": "files", "path": str(file)}]))
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").glob("*/manifest.json"))


def test_a_cache_that_cannot_be_is_one_line(tmp_path: Path, corpus: Path) -> None:
    source = [{"kind": "files", "path": str(corpus)}]
    with pytest.raises(BadRequest, match=r"--data\.cache") as caught:
        prepare(recipe_for(tmp_path, source, cache=str(corpus)))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_the_sources_own_line(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nowhere"):
        prepare(recipe_for(tmp_path, [{"kind": "files", "path": str(tmp_path / "nowhere.txt")}]))


def test_a_flipped_byte_in_the_cache_is_refused_before_training(tmp_path: Path, corpus: Path) -> None:
    recipe = recipe_for(tmp_path, [{"kind": "files", "path": str(corpus)}])
    shard = prepare(recipe).directory / "train" / "00000.bin"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ShardError, match=r"00000\.bin"):
        prepare(recipe)


def test_a_hub_dataset_goes_the_same_way_and_stops_at_its_limit(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    clean = tmp_path / "clean.jsonl"
    clean.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    source = {"kind": "hub", "name": "json", "data_files": str(clean), "documents": 200}
    prepared = prepare(recipe_for(tmp_path, [source]))
    expected = [text for text in TEXTS[:200] if split_of(text, FRACTIONS) == "train"]
    assert texts_in(prepared, "train") == expected


def test_a_small_text_says_that_the_tokenizer_is_smaller_than_asked(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = [{"kind": "files", "path": str(corpus)}]
    prepared = prepare(recipe_for(tmp_path, source, tokenizer={"vocab_size": 100_000}))
    assert prepared.tokenizer.vocab_size < 100_000
    assert "100,000 tokens asked for" in capsys.readouterr().err
