"""Reading a task's YAML, which a stranger may have written: plain data, or one clear line.

SafeLoader without what surprises: a key written twice is an error; anchors, aliases and tags are refused, so that a small
file cannot become a large value. Values are checked by type where they are used, so `no` is never taken for a word.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.nodes import MappingNode, Node

MAX_BYTES = 200_000
_PLAIN = {f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null")}


class TaskError(ValueError):
    """A task that is not what a task must be; the message is one line and begins with where."""


class _StrictLoader(yaml.SafeLoader):
    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event: Any = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ComposerError(None, None, "anchors and aliases are not allowed", event.start_mark)
        node = super().compose_node(parent, index)
        if node is not None and node.tag not in _PLAIN:
            raise ComposerError(None, None, f"the tag {node.tag} is not allowed", node.start_mark)
        if isinstance(node, MappingNode):
            keys = [key.value for key, _ in node.value]
            twice = next((key for key in keys if keys.count(key) > 1), None)
            if twice is not None:
                raise ComposerError(None, None, f"the key {twice!r} is written twice", node.start_mark)
        return node


def read(path: Path) -> dict[str, Any]:
    """The mapping in the YAML file ``path``. Raises TaskError for anything else."""
    try:
        text = path.read_bytes()[: MAX_BYTES + 1].decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from None
    return parse(text, str(path))


def parse(text: str, origin: str) -> dict[str, Any]:
    """The mapping that ``text`` is; ``origin`` begins the line of the TaskError it raises."""
    if len(text) > MAX_BYTES:
        raise TaskError(f"{origin}: larger than {MAX_BYTES:,} bytes; a task is a short file")
    try:
        value = yaml.load(text, _StrictLoader)  # it accepts less than the SafeLoader that it derives from
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" (line {mark.line + 1})" if mark else ""
        raise TaskError(f"{origin}: not readable as YAML: {error.problem or error.context}{where}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise TaskError(f"{origin}: not readable as YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(value, dict):
        raise TaskError(f"{origin}: a task is a mapping (key: value), this is a {type(value).__name__}")
    return value
