"""The tokenizer of a GGUF file as a tokenizer.json, with the same ids for every text.

A file names how text is cut into words (`tokenizer.ggml.pre`) and leaves the expression to llama.cpp. Known here:

    gpt-2       GPT-2's expression
    smollm      every digit alone, then GPT-2's expression
    llama-bpe   Llama 3's expression; a word that is a token needs no merges

`tokenizer.ggml.token_type` says which tokens are special (control) or taken whole from a text (user-defined).
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

import tinydata
from apps.common.errors import BadRequest
from apps.common.pretrained.gguf_file import GGUFFile
from tinydata import Conventions

CONTROL, USER_DEFINED = 3, 4
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def _byte_level(use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


SPLITTING: dict[str, dict[str, Any]] = {
    "gpt-2": _byte_level(True),
    "smollm": _sequence({"type": "Digits", "individual_digits": True}, _byte_level(True)),
    "llama-bpe": _sequence(
        {"type": "Split", "pattern": {"Regex": LLAMA3}, "behavior": "Isolated", "invert": False}, _byte_level(False)
    ),
}


def tokenizer(file: GGUFFile) -> tinydata.Tokenizer:
    """The file's tokenizer, chat template included. Raises BadRequest or TokenizerError with one line."""
    kind, splitting = file.metadata.get("tokenizer.ggml.model"), file.metadata.get("tokenizer.ggml.pre")
    if kind != "gpt2":
        raise BadRequest(
            f"{file.path}: its tokenizer is of the kind {_shown(kind)}; only gpt2 (byte-level BPE) can be read"
        )
    if not isinstance(splitting, str) or splitting not in SPLITTING:
        raise BadRequest(
            f"{file.path}: its tokenizer cuts words by the rule {_shown(splitting)}; known are {', '.join(SPLITTING)}"
        )
    if file.metadata.get("tokenizer.ggml.add_space_prefix", False):
        raise BadRequest(f"{file.path}: its tokenizer puts a space before every text, which is not supported")
    tokens, merges = (_texts(file, f"tokenizer.ggml.{name}") for name in ("tokens", "merges"))
    types = file.metadata.get("tokenizer.ggml.token_type")
    if not isinstance(types, np.ndarray) or types.dtype.kind not in "iu" or len(types) != len(tokens):
        raise BadRequest(
            f"{file.path}: tokenizer.ggml.token_type does not give a type for each of {len(tokens):,} tokens"
        )
    if len(set(tokens)) != len(tokens):
        raise BadRequest(f"{file.path}: tokenizer.ggml.tokens has a token twice")
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": int(index), "content": tokens[index], "special": bool(types[index] == CONTROL), **flags}
        for index in np.flatnonzero(np.isin(types, (CONTROL, USER_DEFINED)))
    ]
    document = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": SPLITTING[splitting],
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "ignore_merges": splitting == "llama-bpe",
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in merges],
        },
    }
    template = file.metadata.get("tokenizer.chat_template")
    conventions = Conventions(
        bos_token=_token(file, "bos_token_id", tokens),
        eos_token=_token(file, "eos_token_id", tokens),
        chat_template=template if isinstance(template, str) else None,
    )
    return tinydata.Tokenizer.parse(json.dumps(document), str(file.path), conventions)


def _texts(file: GGUFFile, key: str) -> list[str]:
    value = file.metadata.get(key)
    if not isinstance(value, list) or not value:
        raise BadRequest(f"{file.path}: has no {key}, so its tokenizer cannot be rebuilt")
    return value


def _token(file: GGUFFile, key: str, tokens: list[str]) -> str | None:
    value = file.metadata.get(f"tokenizer.ggml.{key}")
    if value is None:
        return None
    if not isinstance(value, int) or not 0 <= value < len(tokens):
        raise BadRequest(f"{file.path}: tokenizer.ggml.{key} {_shown(value)} is not one of {len(tokens):,} tokens")
    return tokens[value]


def _shown(value: Any) -> str:
    return repr(value)[:60]
