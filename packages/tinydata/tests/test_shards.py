"""Claim: a shard set that is damaged, foreign or newer is refused with one line before anything is read from it.

uv run pytest packages/tinydata/tests/test_shards.py
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinydata import packing, shards
from tinydata.documents import Document
from tinydata.packing import pack
from tinydata.shards import ShardError, ShardSet
from tinydata.tokenizer_training import train_tokenizer

DOCUMENTS = [Document(f"{index} " * random.Random(index).randint(5, 90), "s") for index in range(40)]
TOKENIZER = train_tokenizer(DOCUMENTS, 280)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("packed") / "data"
    with pytest.MonkeyPatch.context() as patch:
        for module in (packing, shards):
            patch.setattr(module, "BLOCK_BYTES", 512)  # several blocks in a small shard
        pack(DOCUMENTS, TOKENIZER, directory, shard_tokens=4000)
    return directory


@pytest.fixture
def copy(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(shards, "BLOCK_BYTES", 512)
    return Path(shutil.copytree(packed, tmp_path / "data"))


def refused(directory: Path, message: str, **arguments: Any) -> None:
    with pytest.raises(ShardError, match=message) as caught:
        ShardSet.open(directory, **arguments)
    assert "\n" not in str(caught.value)
    assert str(directory) in str(caught.value)


def edit_manifest(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = directory / "manifest.json"
    manifest = json.loads(path.read_bytes())
    change(manifest)
    path.write_text(json.dumps(manifest))


def forge(directory: Path, suffix: str, content: np.ndarray) -> None:
    """Replaces a file of shard 0 and makes every size and hash in the manifest agree with it."""
    raw = content.tobytes()
    (directory / f"00000.{suffix}").write_bytes(raw)
    entry = {"size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    blocks = [hashlib.sha256(raw[start : start + 512]).hexdigest() for start in range(0, len(raw), 512)]
    edit_manifest(directory, lambda m: m["shards"][0].update({suffix: entry}))
    if suffix == "bin":
        edit_manifest(directory, lambda m: m["shards"][0].update(blocks=blocks))


@pytest.mark.parametrize("verify", ["auto", "full", "sample", "size"])
def test_an_intact_set_opens(copy: Path, verify: Any) -> None:
    opened = ShardSet.open(copy, TOKENIZER.hash, verify=verify)
    assert (opened.documents, opened.end_id) == (40, TOKENIZER.end_id)
    assert opened.bytes == sum(len(document.text) for document in DOCUMENTS)
    assert opened.token_bytes.tolist() == TOKENIZER.token_bytes().tolist()
    assert TOKENIZER.decode(opened.read(39)[1:-1].tolist()) == DOCUMENTS[39].text


def test_shards_are_mapped_not_read(copy: Path) -> None:
    tokens = ShardSet.open(copy).shards[0].tokens
    assert isinstance(tokens.base, np.memmap)
    assert not tokens.flags.writeable


def test_a_missing_file_is_refused(copy: Path) -> None:
    for name in ("00001.bin", "00001.idx", "token_bytes.bin", "manifest.json"):
        content = (copy / name).read_bytes()
        (copy / name).unlink()
        refused(copy, f"{name}: .*No such file", verify="size")
        (copy / name).write_bytes(content)
    refused(copy / "nowhere", "a packed data set")


def test_a_flipped_byte_anywhere_is_refused_by_full_verification(copy: Path) -> None:
    for path in sorted(copy.glob("*.bin")) + sorted(copy.glob("*.idx")):
        content = path.read_bytes()
        for position in (0, len(content) // 2 + 1, len(content) - 1):
            damaged = bytearray(content)
            damaged[position] ^= 1
            path.write_bytes(damaged)
            refused(copy, rf"{path.name}: damaged")
        path.write_bytes(content)
    ShardSet.open(copy)


def test_a_sample_checks_the_ends_and_the_middle(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "FULL_VERIFICATION_BYTES", 1)  # so that "auto" takes a sample
    content = (copy / "00000.bin").read_bytes()
    blocks = -(-len(content) // 512)
    assert blocks > 5
    for block, found in ((0, True), (1, False), ((blocks - 1) // 2, True), (blocks - 1, True)):
        damaged = bytearray(content)
        damaged[block * 512] ^= 1
        (copy / "00000.bin").write_bytes(damaged)
        for verify in ("auto", "sample"):
            if found:
                refused(copy, r"00000\.bin: damaged", verify=verify)
            else:
                ShardSet.open(copy, verify=verify)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["00000.bin", "00001.idx", "token_bytes.bin"])
@pytest.mark.parametrize("verify", ["full", "size"])
def test_a_truncated_or_grown_file_is_refused(copy: Path, name: str, verify: str) -> None:
    content = (copy / name).read_bytes()
    for other in (content[:-1], content[: len(content) // 2], b"", content + b"\0"):
        (copy / name).write_bytes(other)
        refused(copy, rf"{name}: [\d,]+ bytes, the manifest says", verify=verify)


def test_another_tokenizer_is_refused(copy: Path) -> None:
    other = TOKENIZER.add_tokens(["<x>"])
    refused(copy, f"packed with another tokenizer .*not {other.hash[:12]}", tokenizer_hash=other.hash)


def test_a_newer_format_is_refused_with_the_remedy(copy: Path) -> None:
    edit_manifest(copy, lambda manifest: manifest.update(version=2, shards="something new"))
    refused(copy, "format version 2 is newer than 1: upgrade tinydata")


@pytest.mark.parametrize("content", [b"", b"[", b"[" * 200_000, b"\xff", b"[]", b'{"format": "pickle"}'])
def test_a_manifest_that_is_none_is_refused(copy: Path, content: bytes) -> None:
    (copy / "manifest.json").write_bytes(content)
    refused(copy, "not JSON|not the manifest")


BAD_VALUES: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("'version' is not a number", lambda m: m.update(version="1")),
    ("'tokens' is missing", lambda m: m.pop("tokens")),
    ("'documents' is missing or not a count", lambda m: m.update(documents=-1)),
    ("'bytes' is missing or not a count", lambda m: m.update(bytes=1.5)),
    ("'content_key' is missing", lambda m: m.pop("content_key")),
    ("'source_runs' is not a list", lambda m: m.update(source_runs={"s": 1})),
    ("'source_runs' is not a list", lambda m: m["source_runs"].append(["s", -1])),
    ("'source_runs' is not a list", lambda m: m["source_runs"].append(["s", 1, 2])),
    ("'source_runs' are not as many", lambda m: m["source_runs"].append(["s", 1])),
    ("'dtype' is not uint16", lambda m: m.update(dtype="object")),
    ("'end_id' is not in the vocabulary", lambda m: m.update(end_id=10**6)),
    ("'token_bytes' is not a file entry", lambda m: m.update(token_bytes=None)),
    ("not one non-negative length per id", lambda m: m.update(vocab_size=m["vocab_size"] - 1)),
    ("'shards' is missing or empty", lambda m: m.update(shards=[])),
    (r"'shards\.1' is not complete", lambda m: m["shards"][1].pop("idx")),
    (r"'shards\.1' is not complete", lambda m: m["shards"].__setitem__(1, 3)),
    (r"'shards\.0\.blocks' does not match", lambda m: m["shards"][0].update(blocks=[])),
    ("tokens do not fill its size", lambda m: m["shards"][0].update(tokens=1)),
    ("documents do not fill its size", lambda m: m["shards"][0].update(documents=1)),
    ("'tokens' is not the sum", lambda m: m.update(tokens=1)),
    ("'documents' is not the sum", lambda m: m.update(documents=1)),
]


@pytest.mark.parametrize(("message", "change"), BAD_VALUES)
def test_a_bad_value_in_the_manifest_is_refused(
    copy: Path, message: str, change: Callable[[dict[str, Any]], object]
) -> None:
    edit_manifest(copy, change)
    refused(copy, message)


@pytest.mark.parametrize("wrong", ["first", "last", "decreasing", "repeated", "wrapping"])
def test_offsets_that_do_not_increase_are_refused(copy: Path, wrong: str) -> None:
    offsets = np.fromfile(copy / "00000.idx", dtype="<i8")
    if wrong == "first":
        offsets[0] = 1
    elif wrong == "last":
        offsets[-1] += 1
    elif wrong == "decreasing":
        offsets[[2, 3]] = offsets[[3, 2]]
    elif wrong == "repeated":
        offsets[3] = offsets[2]
    else:
        offsets[2:4] = 2**62 + 5, -(2**62) - 5  # their difference wraps around to a positive one
    forge(copy, "idx", offsets)
    refused(copy, r"00000\.idx: the document offsets are not increasing", verify="size")


def test_ids_and_separators_are_checked_even_where_the_hashes_agree(copy: Path) -> None:
    tokens = np.fromfile(copy / "00000.bin", dtype="<u2")
    unknown = tokens.copy()
    unknown[5] = TOKENIZER.vocab_size
    forge(copy, "bin", unknown)
    refused(copy, "a token id is not in the vocabulary")
    unseparated = tokens.copy()
    unseparated[-1] = 20
    forge(copy, "bin", unseparated)
    refused(copy, "does not begin and end with the separator")


def test_an_unknown_verification_is_refused(copy: Path) -> None:
    with pytest.raises(ValueError, match="verify='fast'"):
        ShardSet.open(copy, verify="fast")  # type: ignore[arg-type]
