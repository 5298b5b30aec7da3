"""Reads a `tokenizer.json` (Hugging Face `tokenizers` layout) that a stranger may have written.

The file is parsed and checked here before the Rust library sees it, because there a bad id or token can abort with a
panic instead of an error, and because four settings a file may carry would silently change what we train on:
truncation and padding (documents cut or padded), BPE dropout (random encodings), tags added as ordinary tokens
(document text could produce control ids). The first three are switched off, the last are marked special.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import tokenizers

# The largest published byte-level vocabularies have about 260,000 tokens in files of about 35 MB.
MAX_FILE_BYTES = 128 * 2**20
MAX_VOCABULARY = 2**20

# <think>, <|im_end|>, [INST]: what chat models use as control tokens, flagged special or not.
_TAG = re.compile(r"<\S+>|\[\S+\]")


class TokenizerError(ValueError):
    """A tokenizer cannot be read, trained or used as asked; one line naming the file or token and the remedy."""


def read_tokenizer_file(path: Path) -> dict[str, Any]:
    """The checked content of the tokenizer file at `path`; raises TokenizerError."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise TokenizerError(f"{path}: {size:,} bytes is more than a tokenizer file may have ({MAX_FILE_BYTES:,})")
        return parse_tokenizer(path.read_bytes(), str(path))
    except OSError as error:
        raise TokenizerError(f"{path}: cannot read the tokenizer: {error.strerror or error}") from None


def parse_tokenizer(content: bytes | str, origin: str) -> dict[str, Any]:
    """Checks the JSON of a byte-level BPE tokenizer and returns it with the settings above made safe.

    `origin` is named in every error. Raises TokenizerError for anything but byte-level BPE whose ids are below 2^20,
    and where a merge or a byte could spell a special token.
    """
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        raise TokenizerError(f"{origin}: not a tokenizer.json (it is not JSON)") from None
    model = data.get("model") if isinstance(data, dict) else None
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        raise TokenizerError(f"{origin}: not a BPE tokenizer.json ('model.type' must be 'BPE')")
    model["type"] = "BPE"  # older files leave it out, and the library's errors then say nothing
    vocabulary = _checked_vocabulary(model, origin)
    _check_byte_level(data, origin)

    added = data.setdefault("added_tokens", [])
    if not isinstance(added, list):
        raise TokenizerError(f"{origin}: 'added_tokens' is not a list")
    for token in added:
        if not isinstance(token, dict) or not isinstance(token.get("content"), str) or not token["content"]:
            raise TokenizerError(f"{origin}: an entry of 'added_tokens' has no 'content'")
        _check_id(token.get("id"), token["content"], origin)
        if vocabulary.get(token["content"], token["id"]) != token["id"]:
            raise TokenizerError(f"{origin}: added token {token['content']!r} has another id in the vocabulary")
        if _TAG.fullmatch(token["content"]):
            token["special"] = True
        for flag in ("single_word", "lstrip", "rstrip", "normalized", "special"):
            token.setdefault(flag, False)
    added.sort(key=lambda token: token["id"])  # the library numbers them in the order of the list
    special = {token["content"] for token in added if token["special"]}

    merges = model.get("merges")
    if not isinstance(merges, list):
        raise TokenizerError(f"{origin}: 'model.merges' is not a list")
    model["merges"] = [_checked_merge(merge, origin) for merge in merges]
    reachable = special.intersection(left + right for left, right in model["merges"])
    reachable |= special.intersection(BYTE_ALPHABET)
    if reachable:
        raise TokenizerError(
            f"{origin}: ordinary text can spell the special token {min(reachable)!r}; give it a name such as '<|name|>'"
        )
    data["truncation"] = data["padding"] = model["dropout"] = None
    # Some files leave the decoder out; without it decode() would return the byte alphabet instead of text.
    data["decoder"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    return data


def build_tokenizer(data: dict[str, Any], origin: str) -> tokenizers.Tokenizer:
    """The library's tokenizer for checked content; special tokens in a text are ordinary characters to it."""
    try:
        tokenizer = tokenizers.Tokenizer.from_str(json.dumps(data))
    except BaseException as error:
        # A Rust panic reaches Python as PanicException, which is not an Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())[:200]
        raise TokenizerError(f"{origin}: not a tokenizer.json: {reason}") from None
    for token in data["added_tokens"]:
        if tokenizer.token_to_id(token["content"]) != token["id"]:
            # The library numbers added tokens itself and ignores the file where the ids have a gap.
            raise TokenizerError(
                f"{origin}: the id {token['id']} of {token['content']!r} leaves a gap in the vocabulary"
            )
    tokenizer.encode_special_tokens = True
    special = {token["id"]: token["content"] for token in data["added_tokens"] if token["special"]}
    # `ignore_merges` lets a whole word be looked up in the vocabulary, so the merges alone do not settle this.
    for name in special.values():
        for spelled in tokenizer.encode(name, add_special_tokens=False).ids:
            if spelled in special:
                raise TokenizerError(f"{origin}: ordinary text can spell the special token {special[spelled]!r}")
    return tokenizer


def content_hash(tokenizer: tokenizers.Tokenizer, end_token: str) -> str:
    """sha256 (hex) over what determines the ids of a text: vocabulary, merges, added tokens, normalizer, splitting.

    Taken from the library's own rendering, so that spacing, key order and omitted defaults of the file do not count.
    """
    data = json.loads(tokenizer.to_str())
    added = sorted(data["added_tokens"], key=lambda token: token["id"])
    content = {
        "model": data["model"],
        "added_tokens": added,
        "normalizer": data["normalizer"],
        "pre_tokenizer": data["pre_tokenizer"],
        "end_token": end_token,
    }
    rendered = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(rendered.encode("ascii")).hexdigest()


BYTE_ALPHABET: frozenset[str] = frozenset(tokenizers.pre_tokenizers.ByteLevel.alphabet())


def _check_id(value: object, token: str, origin: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < MAX_VOCABULARY:
        raise TokenizerError(f"{origin}: token {token[:40]!r} has no id in 0..{MAX_VOCABULARY - 1}")


def _checked_vocabulary(model: dict[str, Any], origin: str) -> dict[str, int]:
    vocabulary = model.get("vocab")
    if not isinstance(vocabulary, dict) or not vocabulary:
        raise TokenizerError(f"{origin}: 'model.vocab' is missing or empty")
    for token, value in vocabulary.items():
        _check_id(value, token, origin)
    if len(set(vocabulary.values())) != len(vocabulary):
        raise TokenizerError(f"{origin}: two tokens of 'model.vocab' share an id")
    return vocabulary


def _checked_merge(merge: object, origin: str) -> list[str]:
    # Older files write "a b", newer ones ["a", "b"].
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):
        raise TokenizerError(f"{origin}: 'model.merges' has an entry that is not a pair of tokens")
    return parts


def _check_byte_level(data: dict[str, Any], origin: str) -> None:
    pre_tokenizer = data.get("pre_tokenizer")
    steps = [pre_tokenizer]
    if isinstance(pre_tokenizer, dict) and pre_tokenizer.get("type") == "Sequence":
        steps = pre_tokenizer.get("pretokenizers", [])
    byte_level = [
        step
        for step in (steps if isinstance(steps, list) else [])
        if isinstance(step, dict) and step.get("type") == "ByteLevel"
    ]
    if not byte_level:
        raise TokenizerError(f"{origin}: not a byte-level tokenizer (no 'ByteLevel' step in 'pre_tokenizer')")
    # The library's own default is true where the key is missing.
    if any(step.get("add_prefix_space", True) for step in byte_level):
        raise TokenizerError(f"{origin}: it adds a space before every text; set 'add_prefix_space' to false")
