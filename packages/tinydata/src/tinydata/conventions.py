"""What a tokenizer.json does not say: which tokens frame a document or a turn, and how a conversation is written.

    tokenizer_config.json    bos_token, eos_token as transformers keeps them; document_separator is our own key
    chat_template.jinja      a Jinja template as text; older directories have it in tokenizer_config.json instead

A model that was taught to chat ends its turns with `eos_token`, while what separates documents in its training data is
another token: both are kept. Templates are somebody else's programs: they are carried here, never run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .tokenizer_file import TokenizerError

CONFIG_NAME = "tokenizer_config.json"
TEMPLATE_NAME = "chat_template.jinja"
SEPARATOR_KEY = "document_separator"
MAX_CONFIG_BYTES = 16 * 2**20
MAX_TEMPLATE_BYTES = 256 * 2**10  # the longest published ones, with tools and all, have about 20 kB


@dataclass(frozen=True)
class Conventions:
    """Names of tokens and the text of a chat template; None where nothing is known.

    separator: ends a document, where its name does not tell; bos_token, eos_token: begin a text and end a turn.
    """

    separator: str | None = None
    bos_token: str | None = None
    eos_token: str | None = None
    chat_template: str | None = None


NO_CONVENTIONS = Conventions()


def read_conventions(folder: Path) -> Conventions:
    """What stands in `folder` beside a tokenizer.json. Raises TokenizerError for files that are not what they seem."""
    config = _config(folder / CONFIG_NAME)
    template = _read(folder / TEMPLATE_NAME, MAX_TEMPLATE_BYTES)
    separator = config.get(SEPARATOR_KEY)
    return Conventions(
        separator=separator if isinstance(separator, str) else None,
        bos_token=_name(config.get("bos_token")),
        eos_token=_name(config.get("eos_token")),
        chat_template=_checked(template if template is not None else _inline(config), folder),
    )


def write_conventions(folder: Path, conventions: Conventions) -> None:
    """Put `conventions` into `folder`; a file that would say nothing is not written."""
    names = {
        SEPARATOR_KEY: conventions.separator,
        "bos_token": conventions.bos_token,
        "eos_token": conventions.eos_token or conventions.separator,
    }
    known = {key: name for key, name in names.items() if name is not None}
    if known:
        (folder / CONFIG_NAME).write_text(json.dumps(known, indent=1), encoding="utf-8")
    if conventions.chat_template is not None:
        (folder / TEMPLATE_NAME).write_text(conventions.chat_template, encoding="utf-8", newline="")


def _config(file: Path) -> dict[str, Any]:
    content = _read(file, MAX_CONFIG_BYTES)
    if content is None:
        return {}
    try:
        config = json.loads(content)
    except (ValueError, RecursionError):
        raise TokenizerError(f"{file}: not JSON") from None
    if not isinstance(config, dict):
        raise TokenizerError(f"{file}: not a JSON object")
    return config


def _inline(config: dict[str, Any]) -> str | None:
    """The template in tokenizer_config.json: a text, or a list of named ones, of which `default` is for plain chat."""
    value = config.get("chat_template")
    if isinstance(value, list):
        named = [entry for entry in value if isinstance(entry, dict) and entry.get("name") == "default"]
        value = named[0].get("template") if named else None
    return value if isinstance(value, str) else None


def _checked(template: str | None, folder: Path) -> str | None:
    if template is None:
        return None
    try:
        size = len(template.encode())
    except UnicodeEncodeError:
        raise TokenizerError(f"{folder}: the chat template is not Unicode (it has a lone surrogate)") from None
    if size > MAX_TEMPLATE_BYTES:
        raise TokenizerError(f"{folder}: a chat template of more than {MAX_TEMPLATE_BYTES >> 10} KiB")
    return template


def _name(value: Any) -> str | None:
    """transformers writes a token as its text, or as a mapping with its flags."""
    name = value.get("content") if isinstance(value, dict) else value
    return name if isinstance(name, str) and name else None


def _read(file: Path, limit: int) -> str | None:
    try:
        with file.open("rb") as stream:
            content = stream.read(limit + 1)
    except OSError:
        return None
    if len(content) > limit:
        raise TokenizerError(f"{file}: larger than {limit >> 10} KiB")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise TokenizerError(f"{file}: not UTF-8 text") from None
