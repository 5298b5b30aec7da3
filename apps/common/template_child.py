"""Renders one chat template, in a process of its own whose time and memory are limited; see apps.common.chat_template.

Run as `python -P template_child.py`: a JSON object on standard input (template, variables, most_characters, seconds,
bytes), one on standard output, {"text": ...} or {"error": ...}. Imports nothing of ours, so that it starts at once.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import sys
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class GenerationTag(Extension):
    """`{% generation %}...{% endgeneration %}` marks the assistant's part for training; here it is its content."""

    tags = {"generation"}  # noqa: RUF012  (the base class declares it so)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def limit(seconds: int, size: int) -> None:
    """Bound this process, where the system can: processor time, and memory."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # not on Windows, where the parent's clock is the only bound

        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_AS, (size, size))


def refuse(message: str) -> None:
    """What templates call for a conversation they are not made for."""
    raise TemplateError(message)


def now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def to_json(value: Any, indent: int | None = None, **_: Any) -> str:
    """Plain JSON: Jinja's own filter escapes for HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def render(template: str, variables: dict[str, Any], most: int) -> str:
    """The text, at most `most` characters. Raises TemplateError and whatever the template provokes."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = to_json
    functions: dict[str, Any] = {"raise_exception": refuse, "strftime_now": now}
    environment.globals.update(functions)
    pieces, size = [], 0
    for piece in environment.from_string(template).generate(**variables):
        pieces.append(piece)
        size += len(piece)
        if size > most:
            raise TemplateError(f"it writes more than {most:,} characters")
    return "".join(pieces)


def main() -> None:
    """Answer the request on standard input."""
    request = json.load(sys.stdin)
    limit(request["seconds"], request["bytes"])
    try:
        answer = {"text": render(request["template"], request["variables"], request["most_characters"])}
    except MemoryError:
        answer = {"error": "it needs too much memory"}
    except Exception as error:  # a stranger's program: whatever it provokes is its own
        answer = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:200]}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
