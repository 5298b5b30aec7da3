"""A GGUF file (version 2 or 3, little-endian) that a stranger may have written: metadata, and tensors as float32.

    "GGUF" version n_tensors n_pairs | pairs: key type value | tensors: name dims type offset | padding | data

Integers are 32 or 64 bits, a string is its length and UTF-8 bytes, an array its item type, length and items. The gguf
package dequantises; its own reader is not used, since it believes every count in the file (an array that claims 2^60
entries makes it append for ever). Here each count is held against the bytes that are left before anything is made of
it, tensors must lie inside of the file without overlapping, and data is read one tensor at a time.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from apps.common.errors import BadRequest

HEADER_BYTES = 64 * 2**20  # vocabulary, merges and tensor names of the largest published models take a fifth of it
ENTRIES = 2**16  # pairs, and tensors, that a file may have
MOST = 3  # names that one line gives
DIMENSIONS = 4
STRING, ARRAY = int(gguf.GGUFValueType.STRING), int(gguf.GGUFValueType.ARRAY)
SCALARS: dict[int, str] = {
    int(gguf.GGUFValueType.UINT8): "u1",
    int(gguf.GGUFValueType.INT8): "i1",
    int(gguf.GGUFValueType.UINT16): "u2",
    int(gguf.GGUFValueType.INT16): "i2",
    int(gguf.GGUFValueType.UINT32): "u4",
    int(gguf.GGUFValueType.INT32): "i4",
    int(gguf.GGUFValueType.FLOAT32): "f4",
    int(gguf.GGUFValueType.BOOL): "?",
    int(gguf.GGUFValueType.UINT64): "u8",
    int(gguf.GGUFValueType.INT64): "i8",
    int(gguf.GGUFValueType.FLOAT64): "f8",
}


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies: `shape` outermost dimension first, `kind` its ggml type, bytes `start` to `end`."""

    name: str
    shape: tuple[int, ...]
    kind: int
    start: int
    end: int


class GGUFFile:
    """Metadata and tensors of the file at `path`; raises BadRequest with one line for anything it does not hold.

    metadata: strings, numbers, booleans; lists of strings; NumPy arrays of numbers.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self.size = file.seek(0, 2)
                file.seek(0)
                header = _Header(path, file.read(HEADER_BYTES), self.size)
        except OSError as error:
            raise BadRequest(f"{path}: cannot be read ({error.strerror})") from None
        magic, version = header.take(4), header.number("u4")
        if bytes(magic) != b"GGUF":
            raise BadRequest(f"{path}: not a GGUF file (it does not begin with GGUF)")
        if version not in (2, 3):
            raise BadRequest(f"{path}: GGUF version {version}, only 2 and 3 (little-endian) can be read")
        tensors, pairs = header.count(24), header.count(13)  # the bytes that one takes at least
        if max(tensors, pairs) > ENTRIES:
            raise BadRequest(f"{path}: has {tensors:,} tensors and {pairs:,} pairs, more than {ENTRIES:,}")
        self.metadata: dict[str, Any] = {}
        for _ in range(pairs):
            key = header.text()
            if key in self.metadata:
                raise BadRequest(f"{path}: has {key[:100]!r} twice")
            self.metadata[key] = header.value(header.number("u4"))
        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 1 <= alignment <= 2**20 or alignment & (alignment - 1):
            raise BadRequest(f"{path}: general.alignment {alignment!r} is not a power of two")
        entries = [header.tensor() for _ in range(tensors)]
        start = -(-header.at // alignment) * alignment
        self.tensors = _placed(path, entries, start, alignment, self.size)

    def require_readable(self, names: Iterable[str]) -> None:
        """Raises BadRequest naming those of the tensors whose type cannot be dequantised, by type."""
        odd: dict[str, list[str]] = {}
        for name in names:
            tensor = self.tensors[name]
            if not _dequantises(tensor.kind):
                odd.setdefault(_type_name(tensor.kind), []).append(name)
        if odd:
            listed = "; ".join(f"{kind}: {_some(found)}" for kind, found in odd.items())
            raise BadRequest(f"{self.path}: has tensors of types that cannot be read ({listed})")

    def read(self, name: str) -> np.ndarray:
        """The tensor `name` as float32 in its shape. Its type must be readable."""
        tensor = self.tensors[name]
        kind = gguf.GGMLQuantizationType(tensor.kind)
        try:
            data = np.fromfile(self.path, dtype=np.uint8, count=tensor.end - tensor.start, offset=tensor.start)
        except OSError as error:
            raise BadRequest(f"{self.path}: cannot be read ({error.strerror})") from None
        if len(data) != tensor.end - tensor.start:
            raise BadRequest(f"{self.path}: became shorter while it was read")
        rows = data.reshape(math.prod(tensor.shape[:-1]), -1)
        with np.errstate(all="ignore"):  # scales that are not finite are found when the values are checked
            return np.asarray(gguf.quants.dequantize(rows, kind), dtype=np.float32).reshape(tensor.shape)


class _Header:
    """The bytes before the tensors' data, taken from the front; every length is held against what is left."""

    def __init__(self, path: Path, data: bytes, size: int) -> None:
        self.path, self.data, self.size, self.at = path, memoryview(data), size, 0

    def take(self, count: int) -> memoryview:
        if count > len(self.data) - self.at:
            if len(self.data) < self.size:
                raise BadRequest(f"{self.path}: its header takes more than {HEADER_BYTES >> 20} MiB")
            raise BadRequest(f"{self.path}: ends in the middle of its header ({self.size:,} bytes); it was cut off")
        part = self.data[self.at : self.at + count]
        self.at += count
        return part

    def array(self, kind: str, count: int) -> np.ndarray:
        """`count` numbers, copied."""
        return np.frombuffer(self.take(np.dtype(kind).itemsize * count), dtype=f"<{kind}").copy()

    def number(self, kind: str) -> Any:
        return self.array(kind, 1)[0].item()

    def count(self, least: int) -> int:
        """A number of things that take at least `least` bytes each."""
        count = self.number("u8")
        if count * least > len(self.data) - self.at:
            raise BadRequest(f"{self.path}: claims {count:,} entries, more than the file has bytes for; it is damaged")
        return count

    def text(self) -> str:
        content = self.take(self.count(1))
        try:
            return str(content, "utf-8")
        except UnicodeDecodeError:
            raise BadRequest(f"{self.path}: has a text that is not UTF-8; it is damaged") from None

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.text()
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind != ARRAY:
            raise BadRequest(f"{self.path}: has a value of the unknown type {kind}")
        item = self.number("u4")
        if item == STRING:
            return [self.text() for _ in range(self.count(8))]
        if item not in SCALARS:
            raise BadRequest(f"{self.path}: has an array of type {item}, which nothing known uses")
        return self.array(SCALARS[item], self.count(np.dtype(SCALARS[item]).itemsize))

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name, rank = self.text(), self.number("u4")
        if not 1 <= rank <= DIMENSIONS:
            raise BadRequest(f"{self.path}: {_quoted(name)} has {rank} dimensions")
        shape = tuple(int(size) for size in reversed(self.array("u8", rank)))
        kind, offset = struct.unpack("<IQ", self.take(12))
        return name, shape, kind, offset


def _placed(
    path: Path, entries: list[tuple[str, tuple[int, ...], int, int]], start: int, alignment: int, size: int
) -> dict[str, StoredTensor]:
    """The tensors by name, each inside of the file and apart from the others."""
    tensors: dict[str, StoredTensor] = {}
    for name, shape, kind, offset in entries:
        if name in tensors:
            raise BadRequest(f"{path}: has the tensor {_quoted(name)} twice")
        if offset % alignment or 0 in shape:
            raise BadRequest(f"{path}: {_quoted(name)} lies at {offset} with the shape {shape}; the file is damaged")
        length = _bytes_of(path, name, shape, kind)
        if start + offset + length > size:
            raise BadRequest(
                f"{path}: {_quoted(name)} ends at byte {start + offset + length:,}, the file at {size:,}; it was cut off"
            )
        tensors[name] = StoredTensor(name, shape, kind, start + offset, start + offset + length)
    ordered = sorted(tensors.values(), key=lambda tensor: tensor.start)
    for before, after in itertools.pairwise(ordered):
        if after.start < before.end:
            raise BadRequest(f"{path}: {_quoted(before.name)} and {_quoted(after.name)} overlap; the file is damaged")
    return tensors


def _bytes_of(path: Path, name: str, shape: tuple[int, ...], kind: int) -> int:
    try:
        block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)]
    except (ValueError, KeyError):
        raise BadRequest(f"{path}: {_quoted(name)} is of the unknown tensor type {kind}") from None
    if shape[-1] % block:
        raise BadRequest(
            f"{path}: {_quoted(name)} has rows of {shape[-1]} values, {_type_name(kind)} packs {block} at a time"
        )
    return math.prod(shape) // block * size


def _dequantises(kind: int) -> bool:
    """Whether the library can; it has no list, so it is asked with one block of zeros."""
    known = gguf.GGMLQuantizationType(kind)
    try:
        gguf.quants.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[known][1]), dtype=np.uint8), known)
    except NotImplementedError:
        return False
    return True


def _type_name(kind: int) -> str:
    return gguf.GGMLQuantizationType(kind).name


def _quoted(name: str) -> str:
    return repr(name[:100])


def _some(names: list[str]) -> str:
    shown = ", ".join(_quoted(name) for name in names[:MOST])
    return shown if len(names) <= MOST else f"{shown} and {len(names) - MOST} more"
