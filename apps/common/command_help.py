"""What `--help` and `--list-recipes` print: rows drawn from the config types, with the recipe's values."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console as RichConsole
from rich.markup import escape

from apps.common import recipes, strict_yaml
from apps.common.command_line import PRETRAIN_OPTIONS, Option
from tinycore.config import Family, field_types, type_name

EXAMPLES = {
    "pretrain": (
        ("the default recipe, a few minutes on a laptop", "uv run apps/pretrain"),
        (
            "your own text",
            "uv run apps/pretrain --data.sources '[{kind: files, path: my_texts}]' --out runs/mine",
        ),
        ("a model of your size, and half an hour", "uv run apps/pretrain --size 2M --minutes 30"),
        ("another model", "uv run apps/pretrain --recipe brandon-10m --train.micro_batch 8"),
        (
            "another member of a family",
            "uv run apps/pretrain --optim.schedule.kind cosine --optim.schedule.final 0.1",
        ),
        ("go on after a stop", "uv run apps/pretrain --resume runs/demo"),
        ("look before you leap", "uv run apps/pretrain --recipe brandon-110m-v2 --dry-run"),
    ),
    "finetune": (
        ("a trained run learns arithmetic, with tools", "uv run apps/finetune runs/demo --out runs/arithmetic"),
        (
            "problems of your own, in the form of GSM8K",
            "uv run apps/finetune runs/mine --recipe gsm8k --data.path my.jsonl",
        ),
        ("go on after a stop", "uv run apps/finetune --resume runs/arithmetic"),
        ("look before you leap", "uv run apps/finetune runs/demo --dry-run"),
    ),
    "puzzle": (
        ("the default recipe: Sudoku 4x4, a few minutes on a laptop", "uv run apps/puzzle"),
        ("harder ones", "uv run apps/puzzle --recipe trm-sudoku-6x6 --out runs/six"),
        ("go on after a stop", "uv run apps/puzzle --resume runs/six"),
        ("score it on puzzles that it has never seen", "uv run apps/puzzle evaluate runs/six"),
        ("watch it solve one", "uv run apps/puzzle show runs/six"),
        ("solve yours", "uv run apps/puzzle show runs/trm-sudoku-4x4 --board '1...|..3.|.4..|...2'"),
    ),
}
SUMMARY = {
    "pretrain": "Train a language model from raw text: tokenizer, data, training, checkpoints, samples, report.",
    "finetune": "Train a model that is trained already to answer problems, with tools where its tokenizer has their tags.",
    "puzzle": "Train a model that answers puzzles in place; `evaluate RUN` and `show RUN` use it.",
}
WORDS = {"finetune": "RUN "}  # what stands before the options


@dataclass(frozen=True)
class Row:
    """One key of a recipe: dotted name, type, the value it has now, and what it means."""

    key: str
    type: str
    value: Any
    help: str


def rows(recipe: recipes.Recipe) -> list[Row]:
    """Every key that can be set, in the order of the recipe's file."""
    return list(_walk(recipe, ""))


def _walk(value: Any, path: str) -> Iterator[Row]:
    annotations = field_types(type(value))
    if isinstance(value, Family) and not type(value).keyed:
        yield Row(f"{path}.{value.tag}", " | ".join(sorted(value.members)), value.kind, _kind_help(type(value)))
    for entry in dataclasses.fields(value):
        if not entry.init:
            continue
        key = f"{path}.{entry.name}" if path else entry.name
        inner = getattr(value, entry.name)
        if dataclasses.is_dataclass(inner):
            yield from _walk(inner, key)
        elif _holds_configs(inner):
            items = inner.items() if isinstance(inner, Mapping) else enumerate(inner)
            for name, item in items:
                yield from _walk(item, f"{key}.{name}")
        else:
            yield Row(key, type_name(annotations[entry.name]), inner, entry.metadata.get("help", ""))


def _holds_configs(value: Any) -> bool:
    items = list(value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple) else ())
    return bool(items) and all(dataclasses.is_dataclass(item) for item in items)


def _kind_help(member: type[Family]) -> str:
    """What the chosen member is, and what keys the others would take."""
    first = (member.__doc__ or "").strip().split("\n")[0].removesuffix(".")
    described = "" if first.startswith(f"{member.__name__}(") else first  # the signature that dataclass writes
    others = [
        f"{kind} takes {', '.join(field_types(other)) or 'no key'}"
        for kind, other in sorted(member.members.items())
        if other is not member
    ]
    return "; ".join(part for part in (described, *others) if part)


def print_help(app: str, recipe_name: str, mapping: Mapping[str, Any]) -> None:
    """Usage, options, every key of the recipe with its type, value and meaning, and examples, on stdout."""
    recipe = recipes.from_dict(mapping)
    out = _Printer()
    out.line(SUMMARY[app])
    out.line()
    usage = escape(f"{WORDS.get(app, '')}[OPTIONS] [--DOTTED.KEY VALUE]...")
    out.line(f"[bold green]Usage:[/] [bold cyan]uv run apps/{app}[/] [cyan]{usage}[/]")
    out.options(PRETRAIN_OPTIONS)
    out.head("Keys", f"with the value they have now (recipe {recipe_name}); type and meaning beside")
    for row in rows(recipe):
        if row.key == "description":
            continue
        out.row(f"--{row.key}", _shown(row.value), f"{row.type}: {row.help}".removesuffix(": "))
    out.examples(EXAMPLES[app])


def print_app_help(
    app: str,
    summary: str,
    words: str,
    options: Mapping[str, Option],
    examples: Sequence[tuple[str, str]],
) -> None:
    """Usage, options and examples of an app without a recipe, on stdout."""
    out = _Printer()
    out.line(summary)
    out.line()
    usage = escape(f"{words} [OPTIONS]".strip())
    out.line(f"[bold green]Usage:[/] [bold cyan]uv run apps/{app}[/] [cyan]{usage}[/]")
    out.options(options)
    out.examples(examples)


def print_recipes() -> None:
    """The recipes that come with the project, with what each is for, on stdout."""
    out = _Printer()
    out.head("Recipes", "uv run apps/pretrain --recipe NAME")
    for name in recipes.names():
        out.row(name, "", str(recipes.read(name).get("description", "")))
    out.line(
        f"  [dim]A recipe is a YAML file: yours works the same, --recipe my.yaml ({escape(str(recipes.DIRECTORY))})[/]"
    )


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple, Mapping)):
        return strict_yaml.dump(json.loads(json.dumps(value))).strip()
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


class _Printer:
    """Two columns, the meaning wrapped beside or below the name; coloured on a terminal only."""

    def __init__(self) -> None:
        self.width = max(60, min(shutil.get_terminal_size((100, 24)).columns, 120)) if sys.stdout.isatty() else 110
        self.console = RichConsole(highlight=False, soft_wrap=True)

    def line(self, markup: str = "") -> None:
        self.console.print(markup)

    def options(self, options: Mapping[str, Option]) -> None:
        self.head("Options")
        for name, option in options.items():
            value = f"[{option.value}]" if option.may_stand_alone else option.value or ""
            self.row(f"--{name}", value, option.help)

    def examples(self, examples: Sequence[tuple[str, str]]) -> None:
        self.head("Examples")
        for meaning, command in examples:
            self.line(f"  [dim]# {escape(meaning)}[/]")
            self.line(f"  [cyan]{escape(command)}[/]")

    def head(self, title: str, note: str = "") -> None:
        self.line()
        self.line(f"[bold green]{title}:[/]" + (f" [dim]{escape(note)}[/]" if note else ""))

    def row(self, name: str, value: str, meaning: str) -> None:
        left = f"  [bold cyan]{escape(name)}[/]" + (f" [cyan]{escape(value)}[/]" if value else "")
        used = 2 + len(name) + (1 + len(value) if value else 0)
        column = 44
        wrapped = textwrap.wrap(meaning, self.width - column) or [""]
        if used < column:
            self.line(left + " " * (column - used) + escape(wrapped.pop(0)))
        else:
            self.line(left)
        for text in wrapped:
            self.line(" " * column + escape(text))
