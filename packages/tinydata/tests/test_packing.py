"""Claim: what was packed is read back exactly, the same input gives the same files, a crash leaves nothing
half-written, and rows are filled as best-fit decreasing fills them.

    uv run pytest packages/tinydata/tests/test_packing.py
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinydata import packing
from tinydata.documents import Document
from tinydata.packing import pack
from tinydata.row_plan import best_fit_decreasing, plan_rows
from tinydata.shards import ShardError, ShardSet, token_dtype
from tinydata.tokenizer_training import train_tokenizer

WORDS = ("ba", "be", "bi", "bo", "bu", "<calc>", "12", "é\n")


def texts(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 60))) for _ in range(count)]


def documents(count: int = 50, seed: int = 0) -> list[Document]:
    return [Document(text, "ab"[index % 2], index % 5 == 0) for index, text in enumerate(texts(count, seed))]


TOKENIZER = train_tokenizer(documents(), 300)


class CodePoints:
    """Stands in for a tokenizer with a large vocabulary: one id for each character."""

    vocab_size = 2**16 + 5
    end_id = 0
    hash = "c" * 64

    def encode_arrays(self, texts: list[str], allow_special: bool) -> list[np.ndarray]:
        return [np.array([ord(character) for character in text], dtype=np.uint32) for text in texts]

    def token_bytes(self) -> np.ndarray:
        return np.ones(self.vocab_size, dtype=np.int32)


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(directory.iterdir())}


# --- documents on disk --------------------------------------------------------------------------------------------


def test_documents_are_read_back_with_separators_around_them(tmp_path: Path) -> None:
    shards = pack(documents(), TOKENIZER, tmp_path / "data", shard_tokens=300)
    assert shards.documents == 50
    assert len(shards.shards) > 3
    total = 0
    for index, document in enumerate(documents()):
        tokens = shards.read(index)
        assert tokens.tolist() == [0, *TOKENIZER.encode(document.text, document.allow_special), 0]
        total += len(tokens)
    assert shards.tokens == total
    for out in (-1, 50):
        with pytest.raises(IndexError):
            shards.read(out)


def test_manifest_agrees_with_the_files(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    given = documents()
    shards = pack(given, TOKENIZER, directory, shard_tokens=300)
    manifest = json.loads((directory / "manifest.json").read_bytes())
    assert (manifest["format"], manifest["version"], manifest["dtype"]) == ("tinydata shards", 1, "uint16")
    assert (manifest["tokenizer_hash"], manifest["vocab_size"]) == (TOKENIZER.hash, TOKENIZER.vocab_size)
    assert manifest["end_id"] == 0
    for index, entry in enumerate(manifest["shards"]):
        raw = np.fromfile(directory / f"{index:05d}.bin", dtype="<u2")
        offsets = np.fromfile(directory / f"{index:05d}.idx", dtype="<i8")
        assert (len(raw), len(offsets) - 1) == (entry["tokens"], entry["documents"])
        assert (raw[offsets[:-1]] == 0).all()
        assert (raw[offsets[1:] - 1] == 0).all()
        assert hashlib.sha256(raw.tobytes()).hexdigest() == entry["bin"]["sha256"]
        assert hashlib.sha256(offsets.tobytes()).hexdigest() == entry["idx"]["sha256"]
        # A shard ends with the document that fills it.
        assert offsets[-2] < 300
    for name in "ab":
        counts = manifest["sources"][name]
        own = [document for document in given if document.source == name]
        # Tags that became special tokens are no text.
        bare = [d.text.replace("<calc>", "") if d.allow_special else d.text for d in own]
        assert counts["documents"] == len(own)
        assert counts["bytes"] == sum(len(text.encode()) for text in bare)
    assert shards.bytes == sum(counts["bytes"] for counts in manifest["sources"].values())
    assert shards.tokens == sum(counts["tokens"] for counts in manifest["sources"].values())


def test_the_same_input_gives_the_same_files_whatever_the_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(documents(), TOKENIZER, tmp_path / "one", shard_tokens=300)
    monkeypatch.setattr(packing, "BATCH_CHARACTERS", 100)
    pack(iter(documents()), TOKENIZER, tmp_path / "two", shard_tokens=300)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_large_vocabulary_is_stored_in_four_bytes(tmp_path: Path) -> None:
    assert (token_dtype(2**16), token_dtype(2**16 + 1)) == (np.dtype("<u2"), np.dtype("<u4"))
    shards = pack([Document("a\U00010000", "s")], CodePoints(), tmp_path / "data")  # type: ignore[arg-type]
    assert shards.read(0).tolist() == [0, 97, 2**16, 0]
    assert (tmp_path / "data" / "00000.bin").stat().st_size == 16


def test_unusable_documents_are_skipped_and_counted(tmp_path: Path) -> None:
    class Listed:
        def __init__(self) -> None:
            self.name = "listed"
            self.skipped = {"bad json": 3}

        def documents(self) -> Iterator[Document]:
            yield from (Document(text, self.name) for text in ("", "kept", "\ud800", ""))

        def description(self) -> dict[str, object]:
            return {"kind": "list", "licence": "none"}

    source = Listed()
    shards = pack(source.documents(), TOKENIZER, tmp_path / "data", sources=[source])
    assert shards.documents == 1
    assert shards.manifest["skipped"] == {"empty": 2, "not utf-8": 1}
    described = {"kind": "list", "licence": "none", "skipped": {"bad json": 3}}
    assert shards.manifest["source_descriptions"] == {"listed": described}


# --- all or nothing -----------------------------------------------------------------------------------------------


def test_nothing_to_pack_is_a_one_line_error_and_leaves_nothing(tmp_path: Path) -> None:
    for none in ([], [Document("", "s")]):
        with pytest.raises(ShardError, match="nothing to pack"):
            pack(none, TOKENIZER, tmp_path / "data")
    with pytest.raises(ValueError, match="shard_tokens must be positive"):
        pack(documents(), TOKENIZER, tmp_path / "data", shard_tokens=0)
    assert [path.name for path in tmp_path.iterdir()] == [".data.lock"]


def test_an_existing_set_is_reused_only_for_the_same_content(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    pack(documents(), TOKENIZER, directory)
    before = {file.name: file.stat().st_mtime_ns for file in directory.iterdir()}
    assert pack(iter(documents()), TOKENIZER, directory).documents == 50
    assert before == {file.name: file.stat().st_mtime_ns for file in directory.iterdir()}

    changed = [*documents()[:-1], Document("other", "a")]
    relabelled = [*documents()[:-1], Document(documents()[-1].text, "c")]
    for other in (changed, relabelled, documents(49)):
        with pytest.raises(ShardError, match="holds other documents or another shard size"):
            pack(other, TOKENIZER, directory)
    with pytest.raises(ShardError, match="another shard size"):
        pack(documents(), TOKENIZER, directory, shard_tokens=7)
    with pytest.raises(ShardError, match="packed with another tokenizer"):
        pack(documents(), TOKENIZER.add_tokens(["<x>"]), directory)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(ShardError, match="a packed data set"):
        pack(documents(), TOKENIZER, tmp_path / "full")
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"


def test_an_error_while_packing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Iterator[Document]:
        yield from documents()
        raise RuntimeError("source")

    with pytest.raises(RuntimeError, match="source"):
        pack(broken(), TOKENIZER, tmp_path / "data")

    def full_disk(file: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(packing, "_flush", full_disk)
        with pytest.raises(ShardError, match=r"packing failed: .*No space left"):
            pack(documents(), TOKENIZER, tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == [".data.lock"]
    assert pack(documents(), TOKENIZER, tmp_path / "data").documents == 50


PROGRAM = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    from tinydata.documents import Document
    from tinydata.packing import pack
    from tinydata.tokenizer import Tokenizer

    def documents(dies):
        for index in range(400):
            if dies and index == 300:
                os.kill(os.getpid(), signal.SIGKILL)
            yield Document(f"document {index} " * 40, "s")

    import tinydata.packing
    tinydata.packing.BATCH_CHARACTERS = 1000
    folder = Path(sys.argv[1])
    tokenizer = Tokenizer.load(folder)
    print(pack(documents(sys.argv[2] == "dies"), tokenizer, folder / "data", shard_tokens=1000).documents)
    """
)


def packer(folder: Path, mode: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(folder), mode]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_a_killed_packer_leaves_no_set_and_the_next_ones_share_the_work(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path)
    killed = packer(tmp_path, "dies")
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "data").exists()
    assert (tmp_path / ".data.partial").exists()

    both = [packer(tmp_path, "lives") for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out.strip()) == (0, "400"), err
    assert not (tmp_path / ".data.partial").exists()
    assert ShardSet.open(tmp_path / "data", TOKENIZER.hash, verify="full").documents == 400


# --- rows ---------------------------------------------------------------------------------------------------------


def slow_best_fit(lengths: list[int], capacity: int) -> list[int]:
    """Free space of each bin after best-fit decreasing, one item and one bin at a time; sorted."""
    free: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [index for index, space in enumerate(free) if space >= length]
        if fitting:
            free[min(fitting, key=lambda index: free[index])] -= length
        else:
            free.append(capacity - length)
    return sorted(free)


@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(1, 40), st.data())
def test_rows_are_those_of_best_fit_decreasing(capacity: int, data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, capacity), max_size=120))
    order, start = best_fit_decreasing(np.array(lengths, dtype=np.int32), capacity)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    used = [sum(lengths[item] for item in order[a:b]) for a, b in itertools.pairwise(start.tolist())]
    assert sorted(capacity - space for space in used) == slow_best_fit(lengths, capacity)


def fewest_rows(lengths: np.ndarray, capacity: int) -> int:
    """Martello and Toth's bound L2: no packing of whole items, however clever, needs fewer bins."""
    best = 0
    for small in range(capacity // 2 + 1):
        alone = lengths > capacity - small
        large = (lengths > capacity // 2) & ~alone
        others = lengths[(lengths >= small) & (lengths <= capacity // 2)].sum()
        free = large.sum() * capacity - lengths[large].sum()
        best = max(best, alone.sum() + large.sum() + max(0, -(-(others - free) // capacity)))
    return int(best)


LENGTHS = {
    "web pages": lambda draw: draw.lognormal(6.3, 1.1, 20_000),
    "code files": lambda draw: draw.lognormal(7.5, 1.4, 5_000),
    "many short": lambda draw: draw.geometric(1 / 25, 20_000),
    "one size": lambda draw: draw.normal(220, 60, 20_000),
}


@pytest.mark.parametrize("sequence_length", [256, 512, 2048])
@pytest.mark.parametrize("shape", LENGTHS)
def test_whole_pieces_are_packed_within_2_percent_of_the_best(shape: str, sequence_length: int) -> None:
    lengths = np.clip(LENGTHS[shape](np.random.default_rng(0)), 3, 10**6).astype(np.int64)
    # As the plan cuts a document: whole rows and a remainder, unless that has no target.
    whole, rest = np.divmod(lengths, sequence_length)
    pieces = np.concatenate([np.full(whole.sum(), sequence_length), rest[rest > 1]])
    order, start = best_fit_decreasing(pieces, sequence_length)
    assert len(order) == len(pieces)
    assert len(start) - 1 <= 1.02 * fewest_rows(pieces, sequence_length)


@pytest.mark.parametrize("sequence_length", [256, 512, 2048])
@pytest.mark.parametrize("shape", LENGTHS)
def test_at_least_99_percent_of_the_slots_are_filled(tmp_path: Path, shape: str, sequence_length: int) -> None:
    lengths = np.clip(LENGTHS[shape](np.random.default_rng(0))[:2000], 3, 20_000).astype(np.int64)
    stored = pack((Document("a " * (size // 2) + "a", "s") for size in lengths.tolist()), TOKENIZER, tmp_path / "d")
    plan = plan_rows(stored, sequence_length)
    # fewer rows there cannot be: a set this small may have one that is not full
    assert plan.filled >= 0.99 or plan.rows == -(-int(plan.length.sum()) // sequence_length)
    # every slot of a document but a last one that has no target is covered once, and no row is overfilled
    seen = np.zeros(stored.tokens + 1, dtype=np.int64)
    np.add.at(seen, plan.start, 1)
    np.add.at(seen, plan.start + plan.length, -1)
    covered = np.cumsum(seen)[:-1]
    ends = np.asarray(stored.shards[0].offsets[1:]) - 1
    assert covered.max() == 1
    assert set(np.flatnonzero(covered == 0).tolist()) <= set(ends.tolist())
    row = np.repeat(np.arange(plan.rows), np.diff(plan.row_start))
    assert np.bincount(row, weights=plan.length).max() <= sequence_length
    assert (plan.last == np.isin(plan.start + plan.length - 1, ends)).all()


def test_items_that_cannot_fit_are_refused() -> None:
    for lengths in ([0, 3], [9]):
        with pytest.raises(ValueError, match=r"lengths 1\.\.8"):
            best_fit_decreasing(np.array(lengths), 8)
