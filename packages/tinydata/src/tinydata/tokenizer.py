"""Byte-level BPE tokenizer: every text encodes without an unknown token and decodes back to itself.

text -> UTF-8 bytes -> words (digits alone, GPT-2's regular expression) -> merges by rank -> ids. Byte-level BPE is
GPT-2's (Radford et al. 2019), BPE for text is arXiv 1508.07909; splitting digits singly follows Llama (2302.13971).

Special tokens never come from document text: "<calc>" in a stranger's file is five ordinary characters, and only a
caller that built the text itself says `allow_special=True`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from .conventions import NO_CONVENTIONS, Conventions, read_conventions, write_conventions
from .special_tokens import DOCUMENT_SEPARATORS
from .tokenizer_file import (
    BYTE_ALPHABET,
    TokenizerError,
    build_tokenizer,
    content_hash,
    parse_tokenizer,
    read_tokenizer_file,
)

FILE_NAME = "tokenizer.json"

# The library needs about 100 bytes of working memory per character, so it is given so many at a time; a long text is
# cut into pieces, which are encoded in parallel as well.
GROUP_CHARACTERS = 2**20
PIECE_CHARACTERS = 2**16


class Tokenizer:
    """A trained byte-level BPE tokenizer; made by `load`, `from_hub` or `train_tokenizer`, immutable."""

    def __init__(
        self,
        data: dict[str, Any],
        origin: str,
        end_token: str | None = None,
        conventions: Conventions = NO_CONVENTIONS,
    ) -> None:
        """`data` is the content of a tokenizer.json that `parse_tokenizer` has checked, `origin` is for errors.

        The document separator is `end_token`, or the one of the conventions, or a known name, or their `eos_token`.
        """
        self._data = data
        self._origin = origin
        self._plain = build_tokenizer(data, origin)
        names = sorted((token["id"], token["content"]) for token in data["added_tokens"] if token["special"])
        self.special: dict[str, int] = {name: value for value, name in names}
        self.conventions = conventions
        self.end_token: str = _find_end_token(self.special, end_token, conventions, origin)
        self.end_id: int = self.special[self.end_token]
        ids = [*data["model"]["vocab"].values(), *(token["id"] for token in data["added_tokens"])]
        self.vocab_size: int = max(ids) + 1

    @classmethod
    def load(cls, path: str | os.PathLike[str], end_token: str | None = None) -> Tokenizer:
        """Reads a tokenizer.json or the directory that holds one, and the conventions beside it; TokenizerError."""
        file = Path(path)
        if file.is_dir():
            file = file / FILE_NAME
        return cls(read_tokenizer_file(file), str(file), end_token, read_conventions(file.parent))

    @classmethod
    def parse(cls, content: bytes | str, origin: str, conventions: Conventions = NO_CONVENTIONS) -> Tokenizer:
        """From the content of a tokenizer.json; `origin` is named in every error. Raises TokenizerError."""
        return cls(parse_tokenizer(content, origin), origin, None, conventions)

    @classmethod
    def from_hub(cls, name: str, end_token: str | None = None) -> Tokenizer:
        """Downloads the tokenizer.json of a Hugging Face model, or takes it from the local cache; TokenizerError."""
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
            raise TokenizerError(f"tokenizer {name!r}: a hub name looks like 'owner/name'")
        try:
            content = tokenizers.Tokenizer.from_pretrained(name).to_str()
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise TokenizerError(f"tokenizer {name!r} cannot be had from the hub: {reason}") from None
        return cls(parse_tokenizer(content, name), name, end_token)

    def with_conventions(self, conventions: Conventions) -> Tokenizer:
        """The same tokens with other conventions; what separates documents stays."""
        return Tokenizer(self._data, self._origin, self.end_token, conventions)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes tokenizer.json to `path`, or into it where it is a directory; `load` gives an equal tokenizer.

        What the names of the special tokens do not tell stands beside it: see `Conventions`.
        """
        file = Path(path)
        if file.is_dir():
            file = file / FILE_NAME
        file.write_text(self._plain.to_str(pretty=True), encoding="utf-8")
        told = _known_separator(self.special) == self.end_token
        write_conventions(file.parent, replace(self.conventions, separator=None if told else self.end_token))

    @cached_property
    def hash(self) -> str:
        """sha256 in hex of everything that determines the ids of a text, however the file was formatted."""
        return content_hash(self._plain, self.end_token)

    @cached_property
    def _with_special(self) -> tokenizers.Tokenizer:
        # A second instance, not a switch set per call: encoding from two threads must not race on it.
        tokenizer = tokenizers.Tokenizer.from_str(self._plain.to_str())
        tokenizer.encode_special_tokens = False
        return tokenizer

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """The ids of `text`, with no separator around them; raises TokenizerError for text that is not Unicode.

        Names of special tokens in the text are ordinary characters unless `allow_special`.
        """
        return self.encode_batch([text], allow_special)[0]

    def encode_batch(self, texts: Sequence[str], allow_special: bool = False) -> list[list[int]]:
        """The ids of each text; the library encodes the texts in parallel."""
        return [ids.tolist() for ids in self.encode_arrays(texts, allow_special)]

    def encode_arrays(self, texts: Sequence[str], allow_special: bool = False) -> list[np.ndarray]:
        """The ids of each text, (N,) uint32: 4 bytes a token where a list takes 36, for texts of any length."""
        library = self._with_special if allow_special else self._plain
        parts: list[list[np.ndarray]] = [[] for _ in texts]
        for group in _groups(texts):
            encodings = _encode(library, [piece for _, piece in group])
            for (index, _), encoding in zip(group, encodings, strict=True):
                parts[index].append(np.array(encoding.ids, dtype=np.uint32))
        return [part[0] if len(part) == 1 else np.concatenate(part) for part in parts]

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """The text of `ids`; bytes that do not form UTF-8 become U+FFFD. Raises TokenizerError for an unknown id."""
        ids = [int(value) for value in ids]
        if ids and not 0 <= min(ids) <= max(ids) < self.vocab_size:
            wrong = next(value for value in ids if not 0 <= value < self.vocab_size)
            raise TokenizerError(f"cannot decode id {wrong}: the vocabulary has {self.vocab_size} ids")
        return self._plain.decode(ids, skip_special_tokens=skip_special)

    def token_bytes(self) -> np.ndarray:
        """(V,) int32: the UTF-8 bytes each id stands for, 0 for special tokens; their sum over a text is its size."""
        lengths = np.zeros(self.vocab_size, dtype=np.int32)
        for token, value in self._data["model"]["vocab"].items():
            # One character of the byte alphabet is one byte; a token outside it is taken literally by the decoder.
            lengths[value] = len(token) if BYTE_ALPHABET.issuperset(token) else len(token.encode())
        for token in self._data["added_tokens"]:
            lengths[token["id"]] = 0 if token["special"] else len(token["content"].encode())
        return lengths

    def add_tokens(self, names: Sequence[str]) -> Tokenizer:
        """A tokenizer with each new name as one special token, ids appended in order; names it has are kept.

        Raises TokenizerError for a name that ordinary text could spell. The model's embedding grows elsewhere.
        """
        data = json.loads(self._plain.to_str())
        for name in names:
            if not name or (name in data["model"]["vocab"] and name not in self.special):
                raise TokenizerError(
                    f"cannot add {name!r} as a special token: it is an ordinary token of the vocabulary"
                )
        new = [name for name in dict.fromkeys(names) if name not in self.special]
        for offset, name in enumerate(new):
            flags = {
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            data["added_tokens"].append({"id": self.vocab_size + offset, "content": name, **flags})
        return Tokenizer(
            parse_tokenizer(json.dumps(data), self._origin), self._origin, self.end_token, self.conventions
        )


def cut_text(text: str, limit: int) -> Iterator[str]:
    """Cuts `text` into pieces of at most `limit` characters, where possible so that it encodes as if uncut.

    A single newline between two characters that are not white space is a place where the splitting expressions of
    GPT-2, GPT-4 and their descendants always end a word. Without one: before a space, else anywhere.
    """
    start = 0
    while len(text) - start > limit:
        end = 0
        newline = text.rfind("\n", start + 1, start + limit)
        while newline > start and (text[newline - 1].isspace() or text[newline + 1].isspace()):
            newline = text.rfind("\n", start + 1, newline)
        if newline > start:
            end = newline + 1
        else:
            space = text.rfind(" ", start + 1, start + limit)
            end = space if space > start else start + limit
        yield text[start:end]
        start = end
    if start < len(text) or not text:
        yield text[start:]


def _groups(texts: Sequence[str]) -> Iterator[list[tuple[int, str]]]:
    """(index of the text, piece of it) in order, in groups of about GROUP_CHARACTERS."""
    group: list[tuple[int, str]] = []
    characters = 0
    for index, text in enumerate(texts):
        for piece in cut_text(text, PIECE_CHARACTERS):
            group.append((index, piece))
            characters += len(piece)
            if characters >= GROUP_CHARACTERS:
                yield group
                group, characters = [], 0
    if group:
        yield group


def _encode(library: tokenizers.Tokenizer, texts: Sequence[str]) -> list[tokenizers.Encoding]:
    try:
        return library.encode_batch_fast(texts, add_special_tokens=False)
    except TypeError:
        for text in texts:
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise TokenizerError(f"text is not Unicode: lone surrogate at character {error.start}") from None
        raise


def _known_separator(special: Iterable[str]) -> str | None:
    return next((name for name in DOCUMENT_SEPARATORS if name in special), None)


def _find_end_token(special: dict[str, int], wanted: str | None, conventions: Conventions, origin: str) -> str:
    wanted = wanted or conventions.separator
    if wanted is not None:
        if wanted not in special:
            raise TokenizerError(f"{origin}: end_token={wanted!r} is not a special token of this tokenizer")
        return wanted
    found = _known_separator(special) or conventions.eos_token
    if found not in special:
        raise TokenizerError(
            f"{origin}: which special token ends a document? Pass end_token= one of {list(special)[:8]}"
        )
    return found
