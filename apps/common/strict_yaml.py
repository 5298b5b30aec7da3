"""Reading YAML that a stranger may have written: plain data or one clear line, nothing in between.

The subset is YAML 1.2's core schema without its traps: mappings, lists, strings, integers, floats, `true`/`false`
and `null`. `1e-3` is a number and `no` is a word (in YAML 1.1 it is the other way round), a key written twice is an
error, and anchors, aliases, tags and several documents are refused, so that a small file cannot become a large value.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.nodes import MappingNode, Node, ScalarNode

from apps.common.errors import BadRequest

MAX_BYTES = 1_000_000
MAX_DEPTH = 64

_CORE = "tag:yaml.org,2002:"
_PLAIN_TAGS = {f"{_CORE}{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null")}


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader with the core schema's scalars, unique keys, bounded depth and no aliases or tags."""

    depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event: Any = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ComposerError(None, None, "anchors and aliases are not allowed", event.start_mark)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ComposerError(None, None, f"nested deeper than {MAX_DEPTH}", event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if node is not None and node.tag not in _PLAIN_TAGS:
            raise ComposerError(None, None, f"the tag {node.tag} is not allowed", node.start_mark)
        if isinstance(node, MappingNode):
            _require_plain_unique_keys(node)
        return node


def _require_plain_unique_keys(node: MappingNode) -> None:
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, ScalarNode):
            raise ComposerError(None, None, "a key must be a plain word", key.start_mark)
        if key.value in seen:
            raise ComposerError(None, None, f"the key {key.value!r} is written twice", key.start_mark)
        seen.add(key.value)


def _construct_text_key_mapping(loader: _StrictLoader, node: MappingNode) -> dict[str, Any]:
    return {key.value: loader.construct_object(value, deep=True) for key, value in node.value}


def _construct_number(loader: _StrictLoader, node: ScalarNode) -> int | float:
    # YAML 1.1's constructors read 010 as octal and 1:30 as ninety; Python's own readers do neither
    return (
        int(node.value)
        if node.tag.endswith("int")
        else float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))
    )


_StrictLoader.yaml_implicit_resolvers = {}  # not those of YAML 1.1, which SafeLoader brings
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
):
    _StrictLoader.add_implicit_resolver(f"{_CORE}{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first))
_StrictLoader.add_constructor(f"{_CORE}int", _construct_number)
_StrictLoader.add_constructor(f"{_CORE}float", _construct_number)
_StrictLoader.add_constructor(f"{_CORE}map", _construct_text_key_mapping)


def parse(text: str, origin: str) -> Any:
    """The value `text` stands for; `origin` (a file, an option) begins the line of the `BadRequest` it raises."""
    if len(text) > MAX_BYTES:
        raise BadRequest(f"{origin}: longer than {MAX_BYTES:,} characters; a recipe is a short file")
    try:
        # the loader derives from SafeLoader and accepts less than it does
        return yaml.load(text, _StrictLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise BadRequest(f"{origin}: not readable as YAML: {error.problem or error.context}{where}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise BadRequest(f"{origin}: not readable as YAML: {' '.join(str(error).split())}") from None


def read(path: Path) -> dict[str, Any]:
    """The mapping in the YAML file `path`; `BadRequest` for a file that is missing, too large or not a mapping."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadRequest(f"{path}: cannot be read: {error.strerror or error}") from None
    if len(data) > MAX_BYTES:
        raise BadRequest(f"{path}: larger than {MAX_BYTES:,} bytes; a recipe is a short file")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(f"{path}: not UTF-8 text (byte {error.start})") from None
    value = parse(text, str(path))
    if not isinstance(value, dict):
        raise BadRequest(f"{path}: a recipe is a mapping (key: value), this is a {type(value).__name__}")
    return value


def dump(value: Any) -> str:
    """`value` (plain JSON types) as YAML that `parse` reads back equal: keys in order, leaves on one line."""
    return yaml.safe_dump(value, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)
