"""Models on disk: safetensors weights, a JSON config, and a manifest of checksums. No pickle anywhere.

    config.json         {"format_version", "model": the config's plain data[, "packed": true]}
    model.safetensors   every tensor once, under its parameter name
    manifest.json       {"format_version", "files": {name: {"bytes", "sha256"}}}, written last

A directory is trusted only as far as its manifest agrees with its files. A directory written by an older version is
migrated while it is read (`MIGRATIONS`); one written by a newer version is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tinycore.config import ConfigError
from tinycore.linears.packed_bit import PackedBit
from tinycore.model import Decoder, build
from tinycore.model_config import ModelConfig
from tinycore.surgery import make_room

FORMAT_VERSION = 1
# version n -> function from the config document of version n to that of version n + 1
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}

CONFIG, WEIGHTS, MANIFEST = "config.json", "model.safetensors", "manifest.json"
MAX_JSON_BYTES = 64 * 2**20
ALIGNMENT = 64  # bytes; where torch's allocator begins a tensor on a CPU


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message is one line with the file and what to do."""


def save(model: Decoder, directory: str | os.PathLike[str]) -> None:
    """Write `model` into `directory` (created if missing), the manifest last."""
    path = Path(directory)
    path.mkdir(parents=True, exist_ok=True)
    (path / MANIFEST).unlink(missing_ok=True)
    tensors = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, path / WEIGHTS, metadata={"format": "pt"})
    document = {"format_version": FORMAT_VERSION, "model": model.config.to_dict()}
    if any(isinstance(module, PackedBit) for module in model.modules()):
        document["packed"] = True
    (path / CONFIG).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    write_manifest(path)


def load(directory: str | os.PathLike[str], device: str | torch.device = "cpu") -> Decoder:
    """The model saved in `directory`, verified against its manifest. Raises CheckpointError with one line."""
    path = Path(directory)
    verify(path)
    config = load_config(path)
    try:
        with torch.device("meta"):
            model = build(config)
    except (RuntimeError, TypeError) as error:  # what torch raises for sizes beyond 64 bits
        raise CheckpointError(f"{path / CONFIG}: no such model can be built ({_one_line(error)})") from None
    if read_json(path / CONFIG).get("packed") and not make_room(model):
        raise CheckpointError(f"{path / CONFIG}: says that weights are packed, and its model has no ternary linear")
    try:
        tensors = load_file(path / WEIGHTS, device=str(device))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path / WEIGHTS}: not a readable safetensors file ({_one_line(error)})") from None
    _check_tensors(path / WEIGHTS, dict(model.state_dict()), tensors)
    model.load_state_dict({name: _aligned(tensors.pop(name)) for name in list(tensors)}, assign=True)
    for name, module in model.named_modules():
        if isinstance(module, PackedBit) and (reason := module.damage()):
            raise CheckpointError(f"{path / WEIGHTS}: {name}.{reason}")
    return model


def load_config(directory: str | os.PathLike[str]) -> ModelConfig:
    """The config of the model saved in `directory`, migrated to this version's format."""
    path = Path(directory) / CONFIG
    document = read_json(path)
    version = document.get("format_version")
    if not isinstance(version, int) or version < 0:
        raise CheckpointError(f"{path}: has no format_version")
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format version {version} is newer than this tinycore reads ({FORMAT_VERSION}); update tinycore"
        )
    while version < FORMAT_VERSION:
        if version not in MIGRATIONS:
            raise CheckpointError(f"{path}: format version {version} is no longer readable")
        document = MIGRATIONS[version](document)
        version += 1
    try:
        return ModelConfig.from_dict(document.get("model", {}))
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from None


def write_manifest(directory: str | os.PathLike[str]) -> None:
    """List every file of `directory` with its size and SHA-256; call it last."""
    path = Path(directory)
    names = sorted(entry.name for entry in path.iterdir() if entry.is_file() and entry.name != MANIFEST)
    files = {name: {"bytes": (path / name).stat().st_size, "sha256": _sha256(path / name)} for name in names}
    text = json.dumps({"format_version": FORMAT_VERSION, "files": files}, indent=2) + "\n"
    (path / MANIFEST).write_text(text, encoding="utf-8")


def verify(directory: str | os.PathLike[str]) -> None:
    """Hold every file of `directory` against its manifest. Raises CheckpointError naming the first that differs."""
    path = Path(directory)
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such checkpoint directory")
    if not (path / MANIFEST).is_file():
        raise CheckpointError(f"{path}: has no {MANIFEST}: not a checkpoint, or one whose writing was cut off")
    manifest = read_json(path / MANIFEST)
    version = manifest.get("format_version")
    if not isinstance(version, int):
        raise CheckpointError(f"{path / MANIFEST}: has no format_version")
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format version {version} is newer than this tinycore reads ({FORMAT_VERSION}); update tinycore"
        )
    files = manifest.get("files")
    if not isinstance(files, dict) or CONFIG not in files or WEIGHTS not in files:
        raise CheckpointError(f"{path / MANIFEST}: does not list {CONFIG} and {WEIGHTS}")
    for name, entry in files.items():
        if Path(name).name != name or not isinstance(entry, dict):
            raise CheckpointError(f"{path / MANIFEST}: bad entry {name!r}")
        file = path / name
        if not file.is_file():
            raise CheckpointError(f"{file}: missing; the manifest lists it")
        if file.stat().st_size != entry.get("bytes"):
            raise CheckpointError(f"{file}: has {file.stat().st_size} bytes, the manifest says {entry.get('bytes')}")
        if _sha256(file) != entry.get("sha256"):
            raise CheckpointError(f"{file}: damaged, its SHA-256 differs from the manifest's")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of bounded size. Raises CheckpointError."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise CheckpointError(f"{path}: larger than {MAX_JSON_BYTES >> 20} MiB")
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing") from None
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: not readable as JSON ({_one_line(error)})") from None
    if not isinstance(document, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return document


def _aligned(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor where torch would have put it: in the file it begins anywhere, and products of few rows give other bits
    for matrices that do."""
    return tensor if tensor.data_ptr() % ALIGNMENT == 0 else tensor.clone()


def _check_tensors(path: Path, expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> None:
    for name, tensor in expected.items():
        if name not in found:
            raise CheckpointError(f"{path}: tensor '{name}' is missing; the weights are of another architecture")
        if found[name].shape != tensor.shape:
            raise CheckpointError(
                f"{path}: tensor '{name}' has shape {tuple(found[name].shape)}, the config says {tuple(tensor.shape)}"
            )
        if found[name].is_floating_point() != tensor.is_floating_point() or (
            not tensor.is_floating_point() and found[name].dtype != tensor.dtype
        ):
            wanted = "floating point" if tensor.is_floating_point() else tensor.dtype
            raise CheckpointError(f"{path}: tensor '{name}' is {found[name].dtype}, expected {wanted}")
    for name in found:
        if name not in expected:
            raise CheckpointError(f"{path}: unexpected tensor '{name}'; the weights are of another architecture")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
