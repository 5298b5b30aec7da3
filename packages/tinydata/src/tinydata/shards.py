"""Tokenized documents on disk: memory-mapped shards and the manifest that vouches for them.

    00000.bin        the documents' tokens one after another, little-endian uint16 (vocabulary <= 65,536) or uint32
    00000.idx        little-endian int64 (documents + 1): document i of the shard is tokens[idx[i] : idx[i + 1]]
    token_bytes.bin  little-endian int32 (V): UTF-8 bytes each id stands for
    manifest.json    format version, dtype, counts, sha256 of every file, tokenizer hash, sources and their order

A document is [end] text [end]. Files are checked when they are opened, so that a training run never starts on a shard
with a flipped byte; nothing is unpickled, and no file name is taken from the manifest.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
TOKEN_BYTES_NAME = "token_bytes.bin"
BLOCK_BYTES = 4 * 2**20  # each block of a .bin has its own sha256, so that a sample of a large set can be verified
FULL_VERIFICATION_BYTES = 2**30  # "auto" reads everything below this size

_REMEDY = "delete the folder and pack the documents again"

Verify = Literal["auto", "full", "sample", "size"]


class ShardError(ValueError):
    """A shard set cannot be used: damaged, from another tokenizer, or written by a newer version. One line."""


@dataclass(frozen=True, slots=True, eq=False)
class Shard:
    """One pair of files: `tokens` (N,) uint16 or uint32 and `offsets` (documents + 1,) int64, both memory-mapped."""

    tokens: np.ndarray
    offsets: np.ndarray


class ShardSet:
    """An opened directory of shards; `open` is the way to get one.

    tokens, documents, bytes: totals, separators included in `tokens`, `bytes` being the UTF-8 bytes of the text.
    """

    def __init__(self, directory: Path, manifest: dict[str, Any], shards: list[Shard], token_bytes: np.ndarray) -> None:
        self.directory = directory
        self.manifest = manifest
        self.shards = shards
        self.token_bytes = token_bytes  # (V,) int32
        self.tokens: int = manifest["tokens"]
        self.documents: int = manifest["documents"]
        self.bytes: int = manifest["bytes"]
        self.end_id: int = manifest["end_id"]
        self.vocab_size: int = manifest["vocab_size"]
        self._first_document = np.cumsum([0, *(len(shard.offsets) - 1 for shard in shards)])

    @classmethod
    def open(
        cls, directory: str | os.PathLike[str], tokenizer_hash: str | None = None, verify: Verify = "auto"
    ) -> ShardSet:
        """Opens and verifies a shard set; raises ShardError.

        `tokenizer_hash`: the tokenizer the shards must have been made with. `verify`: "size" checks every size and the
        small files, "sample" also the first, middle and last 4 MiB of every shard, "full" every byte and every id;
        "auto" is "full" below 1 GiB and "sample" above.
        """
        if verify not in ("auto", "full", "sample", "size"):
            raise ValueError(f"verify={verify!r}: expected 'auto', 'full', 'sample' or 'size'")
        path = Path(directory)
        manifest = _read_manifest(path)
        if tokenizer_hash is not None and manifest["tokenizer_hash"] != tokenizer_hash:
            found, wanted = manifest["tokenizer_hash"][:12], tokenizer_hash[:12]
            raise ShardError(f"{path}: packed with another tokenizer ({found}, not {wanted}): {_REMEDY}")
        if verify == "auto":
            total = sum(entry["bin"]["size"] for entry in manifest["shards"])
            verify = "full" if total < FULL_VERIFICATION_BYTES else "sample"
        table = np.frombuffer(_verified_bytes(path / TOKEN_BYTES_NAME, manifest["token_bytes"]), dtype="<i4")
        if len(table) != manifest["vocab_size"] or (len(table) and table.min() < 0):
            raise ShardError(f"{path / TOKEN_BYTES_NAME}: not one non-negative length per id of the vocabulary")
        shards = [_open_shard(path, index, entry, manifest, verify) for index, entry in enumerate(manifest["shards"])]
        for name in ("tokens", "documents"):
            if manifest[name] != sum(entry[name] for entry in manifest["shards"]):
                raise ShardError(f"{path / MANIFEST_NAME}: '{name}' is not the sum over the shards: {_REMEDY}")
        if (
            sum(count for _, count in manifest.get("source_runs", [["", manifest["documents"]]]))
            != manifest["documents"]
        ):
            raise ShardError(f"{path / MANIFEST_NAME}: 'source_runs' are not as many documents as there are: {_REMEDY}")
        return cls(path, manifest, shards, table.astype(np.int32))

    def read(self, document: int) -> np.ndarray:
        """The tokens of a document, separators at both ends, (N,) uint16 or uint32; IndexError out of range."""
        if not 0 <= document < self.documents:
            raise IndexError(f"document {document} of {self.documents}")
        index = int(np.searchsorted(self._first_document, document, side="right")) - 1
        shard = self.shards[index]
        start, stop = shard.offsets[document - self._first_document[index] :][:2]
        return np.array(shard.tokens[start:stop])

    def labels(self, by_source: Mapping[str, int], other: int = -1) -> list[np.ndarray]:
        """What `by_source` says of every document's source, for each shard (documents,) int64; `other` of the rest.

        Raises ShardError for a set that does not know the order of its sources.
        """
        runs = self.manifest.get("source_runs")
        if runs is None:
            raise ShardError(f"{self.directory}: packed before the order of sources was kept: {_REMEDY}")
        labels = np.repeat([by_source.get(name, other) for name, _ in runs], [count for _, count in runs])
        return np.split(labels.astype(np.int64), self._first_document[1:-1])

    @property
    def content_key(self) -> str:
        """sha256 in hex of the documents, the tokenizer and the layout; two sets with one key hold the same bytes."""
        return self.manifest["content_key"]


def shard_file(directory: Path, index: int, suffix: Literal["bin", "idx"]) -> Path:
    """The path of a shard's token or offset file."""
    return directory / f"{index:05d}.{suffix}"


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest of the two dtypes on disk that holds every id."""
    return np.dtype("<u2") if vocab_size <= 2**16 else np.dtype("<u4")


def _read_manifest(directory: Path) -> dict[str, Any]:
    path = directory / MANIFEST_NAME
    try:
        manifest = json.loads(path.read_bytes())
    except OSError as error:
        raise ShardError(f"{path}: cannot read it ({error.strerror}): is {directory} a packed data set?") from None
    except (ValueError, RecursionError):
        raise ShardError(f"{path}: not JSON: {_REMEDY}") from None
    if not isinstance(manifest, dict) or manifest.get("format") != "tinydata shards":
        raise ShardError(f"{path}: not the manifest of a packed data set")
    version = manifest.get("version")
    if not _is_count(version):
        raise ShardError(f"{path}: 'version' is not a number")
    if version > FORMAT_VERSION:
        raise ShardError(f"{path}: format version {version} is newer than {FORMAT_VERSION}: upgrade tinydata")
    problem = _manifest_problem(manifest)
    if problem:
        raise ShardError(f"{path}: {problem}: {_REMEDY}")
    return manifest


def _manifest_problem(manifest: dict[str, Any]) -> str | None:
    for name in ("tokens", "documents", "bytes", "end_id", "vocab_size"):
        if not _is_count(manifest.get(name)):
            return f"'{name}' is missing or not a count"
    for name in ("tokenizer_hash", "content_key"):
        if not isinstance(manifest.get(name), str):
            return f"'{name}' is missing"
    if manifest.get("dtype") != token_dtype(manifest["vocab_size"]).name:
        return f"'dtype' is not {token_dtype(manifest['vocab_size']).name}"
    if manifest["end_id"] >= manifest["vocab_size"]:
        return "'end_id' is not in the vocabulary"
    if not _is_file_entry(manifest.get("token_bytes")):
        return "'token_bytes' is not a file entry"
    shards = manifest.get("shards")
    if not isinstance(shards, list) or not shards:
        return "'shards' is missing or empty"
    for index, entry in enumerate(shards):
        good = isinstance(entry, dict) and _is_count(entry.get("tokens")) and _is_count(entry.get("documents"))
        if not good or not _is_file_entry(entry.get("bin")) or not _is_file_entry(entry.get("idx")):
            return f"'shards.{index}' is not complete"
        blocks = entry.get("blocks")
        if not isinstance(blocks, list) or len(blocks) != -(-entry["bin"]["size"] // BLOCK_BYTES):
            return f"'shards.{index}.blocks' does not match the size"
    runs = manifest.get("source_runs", [])
    if not isinstance(runs, list) or not all(map(_is_run, runs)):
        return "'source_runs' is not a list of sources and counts"
    return None


def _is_run(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and _is_count(value[1])


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_file_entry(value: object) -> bool:
    return isinstance(value, dict) and _is_count(value.get("size")) and isinstance(value.get("sha256"), str)


def _check_size(path: Path, size: int) -> None:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise ShardError(f"{path}: {error.strerror}: {_REMEDY}") from None
    if found != size:
        raise ShardError(f"{path}: {found:,} bytes, the manifest says {size:,}: {_REMEDY}")


def _damaged(path: Path) -> ShardError:
    return ShardError(f"{path}: damaged (its sha256 is not the manifest's): {_REMEDY}")


def _verified_bytes(path: Path, entry: dict[str, Any]) -> bytes:
    _check_size(path, entry["size"])
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise _damaged(path)
    return content


def _blocks(path: Path, indices: list[int]) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        for index in indices:
            file.seek(index * BLOCK_BYTES)
            yield index, file.read(BLOCK_BYTES)


def _open_shard(directory: Path, index: int, entry: dict[str, Any], manifest: dict[str, Any], verify: str) -> Shard:
    bin_path, idx_path = shard_file(directory, index, "bin"), shard_file(directory, index, "idx")
    dtype = token_dtype(manifest["vocab_size"])
    _check_size(bin_path, entry["bin"]["size"])
    if entry["bin"]["size"] != entry["tokens"] * dtype.itemsize or not entry["tokens"]:
        raise ShardError(f"{bin_path}: {entry['tokens']} tokens do not fill its size: {_REMEDY}")
    if entry["idx"]["size"] != (entry["documents"] + 1) * 8:
        raise ShardError(f"{idx_path}: {entry['documents']} documents do not fill its size: {_REMEDY}")
    _check_size(idx_path, entry["idx"]["size"])

    last = len(entry["blocks"]) - 1
    chosen = {"size": [], "sample": sorted({0, last // 2, last}), "full": list(range(last + 1))}[verify]
    whole = hashlib.sha256()
    for block, content in _blocks(bin_path, chosen):
        if verify == "full":
            whole.update(content)
        elif hashlib.sha256(content).hexdigest() != entry["blocks"][block]:
            raise _damaged(bin_path)
        if np.frombuffer(content, dtype).max() >= manifest["vocab_size"]:
            # Checked after this block's hash or before the file's: either way one clear line, never a bad index later.
            raise ShardError(f"{bin_path}: a token id is not in the vocabulary: {_REMEDY}")
    if verify == "full" and whole.hexdigest() != entry["bin"]["sha256"]:
        raise _damaged(bin_path)
    # The offsets are 1 % of the data and a wrong one reads across documents, so they are always verified.
    offsets = np.frombuffer(_verified_bytes(idx_path, entry["idx"]), dtype="<i8")
    # Within bounds first: differences of arbitrary int64 could wrap around to something that looks increasing.
    bounded = offsets[0] == 0 and offsets[-1] == entry["tokens"] and 0 <= offsets.min() <= offsets.max() <= offsets[-1]
    if not bounded or (np.diff(offsets) < 2).any():
        raise ShardError(f"{idx_path}: the document offsets are not increasing from 0 to {entry['tokens']}: {_REMEDY}")
    tokens = np.asarray(np.memmap(bin_path, dtype=dtype, mode="r"))
    if verify == "full":
        edges = tokens[offsets[:-1]], tokens[offsets[1:] - 1]
        if any((edge != manifest["end_id"]).any() for edge in edges):
            raise ShardError(f"{bin_path}: a document does not begin and end with the separator: {_REMEDY}")
    return Shard(tokens=tokens, offsets=np.asarray(np.memmap(idx_path, dtype="<i8", mode="r")))
