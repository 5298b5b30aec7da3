"""What is imported: a model and its tokenizer, read whole and checked, from a GGUF file or a model directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tinycore
from apps.common import files
from apps.common.errors import BadRequest
from apps.common.pretrained import gguf_model, gguf_tokenizer, model_directory
from apps.common.pretrained.gguf_file import GGUFFile
from tinycore import Decoder, llama
from tinycore.llama import LlamaError
from tinydata import Tokenizer


@dataclass(frozen=True)
class Imported:
    """A model in float32, its tokenizer, and what is known of where they come from."""

    model: Decoder
    tokenizer: Tokenizer
    facts: dict[str, Any]


def read(path: Path) -> Imported:
    """The model at `path`. Raises BadRequest or TokenizerError, one line naming everything that is in the way."""
    if path.is_dir():
        return _directory(path)
    if not path.is_file():
        raise BadRequest(
            f"{path}: no such file or directory; give a GGUF file, or a folder with config.json and weights"
        )
    if path.name == "config.json" or path.suffix == ".safetensors":
        raise BadRequest(f"{path}: is a part of a model; give the folder it is in, {path.parent}")
    return _gguf(path)


def _gguf(path: Path) -> Imported:
    file = GGUFFile(path)
    config = _config(gguf_model.config(file), path)
    tokenizer = gguf_tokenizer.tokenizer(file)
    mixer: Any = config.flat_layers()[0].mixer
    weights = gguf_model.Weights(file, mixer.heads, mixer.groups)
    facts = {
        key: file.metadata[f"general.{key}"]
        for key in ("name", "license")
        if isinstance(file.metadata.get(f"general.{key}"), str)
    }
    return _loaded(config, weights, tokenizer, path, {"format": "gguf", **facts})


def _directory(path: Path) -> Imported:
    if not (path / "config.json").is_file():
        found = sorted(path.glob("*.gguf"))
        hint = f"give the file: {found[0]}" if found else "a model directory has one beside its weights"
        raise BadRequest(f"{path}: has no config.json; {hint}")
    document = files.read_json(path / "config.json")
    if "format_version" in document and "model" in document:
        raise BadRequest(f"{path}: is a checkpoint of this program already; use it as it is")
    config = _config(document, path / "config.json")
    weights = model_directory.Weights(path)
    if not (path / "tokenizer.json").is_file():
        raise BadRequest(f"{path}: has no tokenizer.json; other tokenizer formats cannot be read")
    return _loaded(config, weights, Tokenizer.load(path), path, {"format": "safetensors"})


def _config(document: dict[str, Any], origin: Path) -> tinycore.ModelConfig:
    try:
        return llama.read_config(document)
    except LlamaError as error:
        raise BadRequest(f"{origin}: {error}") from None


def _loaded(
    config: tinycore.ModelConfig, weights: Any, tokenizer: Tokenizer, path: Path, facts: dict[str, Any]
) -> Imported:
    if tokenizer.vocab_size > config.vocab_size:
        raise BadRequest(
            f"{path}: the tokenizer has {tokenizer.vocab_size:,} tokens, the model rows for {config.vocab_size:,}; "
            "they do not belong together"
        )
    try:
        model = llama.load(config, weights)
    except LlamaError as error:
        raise BadRequest(f"{path}: {error}") from None
    return Imported(model.eval(), tokenizer, facts)
