"""Packs documents into shards, once: encode in batches, write beside the target, rename when everything is on disk.

On disk a document is [end] text [end]. The directory appears complete or not at all: files are written to a hidden
sibling, synchronised and renamed. Packing the same documents with the same tokenizer gives the same bytes, and a
directory that already holds them is reused.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .documents import Document, Source
from .shards import (
    BLOCK_BYTES,
    FORMAT_VERSION,
    MANIFEST_NAME,
    TOKEN_BYTES_NAME,
    ShardError,
    ShardSet,
    shard_file,
    token_dtype,
)
from .tokenizer import Tokenizer

try:
    import fcntl
except ImportError:  # Windows: two processes that pack into one directory at once are not kept apart there
    fcntl = None

# One call of encode_arrays: enough to keep every core busy, little enough to forget.
BATCH_CHARACTERS = 2**20


def pack(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    directory: str | os.PathLike[str],
    shard_tokens: int = 2**26,
    sources: Sequence[Source] = (),
) -> ShardSet:
    """Encodes `documents` and writes them to `directory` as shards of about `shard_tokens` tokens.

    A shard ends with the document that fills it. `sources`, if given, have their description and the counts of what
    they skipped recorded. Empty documents and text that is not Unicode are left out and counted. Memory: one batch
    of text, about ten times the longest document, and 8 bytes a document of the current shard. An existing directory
    is reused where it holds the same documents, packed the same way with the same tokenizer. Raises ShardError where
    it holds anything else, where no document is left, and where the disk fails.
    """
    if shard_tokens < 1:
        raise ValueError(f"shard_tokens must be positive, got {shard_tokens}")
    target = Path(directory)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _exclusive(target):
        if target.exists():
            return _reuse(documents, tokenizer, target, shard_tokens)
        partial = target.parent / f".{target.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)  # left by a killed process
        try:
            partial.mkdir()
            _Packer(tokenizer, partial, shard_tokens).write(documents, sources)
            os.rename(partial, target)
            _synchronise(target.parent)
        except OSError as error:
            raise ShardError(f"{target}: packing failed: {error}") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return ShardSet.open(target, tokenizer.hash, verify="size")


class _ContentKey:
    """Hash of everything that determines the bytes of a shard set, computed from the documents alone."""

    def __init__(self, tokenizer: Tokenizer, shard_tokens: int) -> None:
        self._hash = hashlib.sha256(f"tinydata shards {FORMAT_VERSION} {tokenizer.hash} {shard_tokens}".encode())

    def add(self, document: Document, text: bytes) -> None:
        source = document.source.encode()
        self._hash.update(f" {len(source)} {len(text)} {document.allow_special:d} ".encode())
        self._hash.update(source)
        self._hash.update(text)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


class _Packer:
    """State of one packing: the open shard and the counts for the manifest."""

    def __init__(self, tokenizer: Tokenizer, directory: Path, shard_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._directory = directory
        self._shard_tokens = shard_tokens
        self._dtype = token_dtype(tokenizer.vocab_size)
        self._token_bytes = tokenizer.token_bytes()
        self._key = _ContentKey(tokenizer, shard_tokens)
        self._skipped: dict[str, int] = {}
        self._sources: dict[str, dict[str, int]] = {}
        self._runs: list[tuple[str, int]] = []  # documents in a row of one source, in their order
        self._entries: list[dict[str, Any]] = []
        self._writer: _ShardWriter | None = None

    def write(self, documents: Iterable[Document], sources: Sequence[Source]) -> None:
        for batch in _batches(documents, self._key, self._skipped):
            self._write_batch(batch)
        self._close_shard()
        if not self._entries:
            raise ShardError(
                f"{self._directory.parent}: nothing to pack: no document has text (skipped {self._skipped})"
            )
        table = self._token_bytes.astype("<i4").tobytes()
        with (self._directory / TOKEN_BYTES_NAME).open("wb") as file:
            file.write(table)
            _flush(file)
        manifest = {
            "format": "tinydata shards",
            "version": FORMAT_VERSION,
            "content_key": self._key.hexdigest(),
            "dtype": self._dtype.name,
            "tokens": sum(entry["tokens"] for entry in self._entries),
            "documents": sum(entry["documents"] for entry in self._entries),
            "bytes": sum(counts["bytes"] for counts in self._sources.values()),
            "vocab_size": self._tokenizer.vocab_size,
            "end_id": self._tokenizer.end_id,
            "tokenizer_hash": self._tokenizer.hash,
            "skipped": self._skipped,
            "sources": self._sources,
            "source_runs": self._runs,
            "source_descriptions": {
                source.name: {**source.description(), "skipped": dict(source.skipped)} for source in sources
            },
            "token_bytes": {"size": len(table), "sha256": hashlib.sha256(table).hexdigest()},
            "shards": self._entries,
        }
        with (self._directory / MANIFEST_NAME).open("wb") as file:
            file.write(json.dumps(manifest, indent=1).encode())
            _flush(file)
        _synchronise(self._directory)

    def _write_batch(self, batch: list[Document]) -> None:
        encoded: dict[int, np.ndarray] = {}
        for allow_special in (False, True):
            chosen = [index for index, document in enumerate(batch) if document.allow_special == allow_special]
            texts = [batch[index].text for index in chosen]
            encoded.update(zip(chosen, self._tokenizer.encode_arrays(texts, allow_special), strict=True))
        end = self._tokenizer.end_id
        for index, document in enumerate(batch):
            tokens = np.full(len(encoded[index]) + 2, end, dtype=self._dtype)
            tokens[1:-1] = encoded[index]
            if self._writer is None:
                self._writer = _ShardWriter(self._directory, len(self._entries))
            self._writer.add(tokens)
            name, before = (
                self._runs.pop() if self._runs and self._runs[-1][0] == document.source else (document.source, 0)
            )
            self._runs.append((name, before + 1))
            counts = self._sources.setdefault(document.source, {"documents": 0, "tokens": 0, "bytes": 0})
            counts["documents"] += 1
            counts["tokens"] += len(tokens)
            counts["bytes"] += int(self._token_bytes[tokens].sum())
            if self._writer.tokens >= self._shard_tokens:
                self._close_shard()

    def _close_shard(self) -> None:
        if self._writer is not None:
            self._entries.append(self._writer.close())
            self._writer = None


class _ShardWriter:
    """Writes one shard and hashes what it writes."""

    def __init__(self, directory: Path, index: int) -> None:
        self._directory = directory
        self._index = index
        self._file = shard_file(directory, index, "bin").open("wb")
        self._offsets = [0]
        self._whole = hashlib.sha256()
        self._blocks: list[str] = []
        self._pending = bytearray()  # less than one block

    @property
    def tokens(self) -> int:
        return self._offsets[-1]

    def add(self, tokens: np.ndarray) -> None:
        self._pending += tokens.tobytes()
        self._offsets.append(self.tokens + len(tokens))
        while len(self._pending) >= BLOCK_BYTES:
            self._write_block(BLOCK_BYTES)

    def close(self) -> dict[str, Any]:
        """Finishes both files and returns the shard's entry of the manifest."""
        if self._pending:
            self._write_block(len(self._pending))
        size = self._file.tell()
        _flush(self._file)
        self._file.close()
        offsets = np.array(self._offsets, dtype="<i8").tobytes()
        with shard_file(self._directory, self._index, "idx").open("wb") as file:
            file.write(offsets)
            _flush(file)
        return {
            "tokens": self.tokens,
            "documents": len(self._offsets) - 1,
            "bin": {"size": size, "sha256": self._whole.hexdigest()},
            "idx": {"size": len(offsets), "sha256": hashlib.sha256(offsets).hexdigest()},
            "blocks": self._blocks,
        }

    def _write_block(self, size: int) -> None:
        block = bytes(self._pending[:size])
        del self._pending[:size]
        self._file.write(block)
        self._whole.update(block)
        self._blocks.append(hashlib.sha256(block).hexdigest())


def _batches(documents: Iterable[Document], key: _ContentKey, skipped: dict[str, int]) -> Iterator[list[Document]]:
    """Groups the documents that have text, adding them to `key`; counts the others in `skipped`."""
    batch: list[Document] = []
    characters = 0
    for document in documents:
        try:
            text = document.text.encode()
        except UnicodeEncodeError:
            skipped["not utf-8"] = skipped.get("not utf-8", 0) + 1
            continue
        if not text:
            skipped["empty"] = skipped.get("empty", 0) + 1
            continue
        key.add(document, text)
        batch.append(document)
        characters += len(document.text)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _reuse(documents: Iterable[Document], tokenizer: Tokenizer, target: Path, shard_tokens: int) -> ShardSet:
    shards = ShardSet.open(target, tokenizer.hash)
    key = _ContentKey(tokenizer, shard_tokens)
    for _ in _batches(documents, key, {}):
        pass
    if key.hexdigest() != shards.content_key:
        raise ShardError(
            f"{target}: holds other documents or another shard size: delete it or pack into another folder"
        )
    return shards


@contextmanager
def _exclusive(target: Path) -> Generator[None, None, None]:
    """Lets one process at a time pack into `target`; the kernel releases the lock of a killed one."""
    if fcntl is None:
        yield
        return
    with (target.parent / f".{target.name}.lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _synchronise(directory: Path) -> None:
    """Makes the names in a directory durable; Windows has no such call and refuses to open one."""
    if os.name == "nt":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
