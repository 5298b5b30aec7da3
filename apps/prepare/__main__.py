"""`uv run apps/prepare`: what a recipe learns from, made ready, counted, reported and shown. Exit status: apps.common.errors.

uv run apps/prepare my_texts/                      one's own folder of text, as the demo recipe would learn from it
uv run apps/prepare --recipe mix-seed --out data/mix
uv run apps/prepare --recipe reasoning-demo --inspect 3

Nothing is made here that training would not make: it is the same preparation, so that a run with the same data finds it done.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from apps.common import command_help, command_line, recipes, strict_yaml, tasks
from apps.common.command_line import Grammar, Option
from apps.common.console import Console, duration, short
from apps.common.data_config import TextData
from apps.common.errors import BadRequest
from apps.common.overrides import Override
from apps.common.problem_config import ExerciseData, ProblemData
from apps.common.recipe import Recipe
from apps.common.verdict_config import VerdictData
from apps.prepare import figures, report, show, solved, taught
from apps.prepare.place import Place

FINETUNE = Path(__file__).parents[1] / "finetune"
OPTIONS = {
    "recipe": Option(
        "recipe whose data are made ready, of apps/pretrain or apps/finetune (default: demo)", "NAME|FILE"
    ),
    "out": Option("folder of its own for the data and the report (default: data/KEY)", "DIR"),
    "inspect": Option("show so many rows as a run sees them, what is learned set apart (default: 4)", "N", True),
    "solved-by": Option(
        "of exercises: measure how often this run solves each, and keep those it solves sometimes", "RUN"
    ),
    "taught-by": Option(
        "of problems: have this server (OpenAI's chat completions, up to /v1) answer them, and keep what is verified",
        "URL",
    ),
    "teacher": Option("with --taught-by: the model's name there", "NAME"),
    "keep": Option("with --solved-by: pass rates that are kept (default: 0.2-0.8)", "LOW-HIGH"),
    "samples": Option("with --solved-by and --taught-by: answers to each (default: 8, of a teacher 4)", "N"),
    "problems": Option("with --solved-by and --taught-by: how many are asked (default: 1000)", "N"),
    "device": Option(
        "with --solved-by: where to compute (default: the best there is)", "cpu|cuda|mps", False, ("cpu", "cuda", "mps")
    ),
    "json": command_line.JSON,
    "help": command_line.HELP,
}
WITH_A_RUN, WITH_EITHER = ("keep", "device"), ("samples", "problems")
EXAMPLES = (
    ("your own text: a folder, a file or a glob of .txt .md .jsonl .parquet", "uv run apps/prepare my_texts/"),
    ("a mixture, in a folder of its own", "uv run apps/prepare --recipe mix-seed --out data/mix"),
    ("look at what is learned, token by token", "uv run apps/prepare --recipe reasoning-demo --inspect 3"),
    ("conversations of your own", "uv run apps/prepare --recipe chat --data.path talks.jsonl --inspect"),
    (
        "exercises that a run solves 20 to 80 % of the time",
        "uv run apps/prepare --recipe arithmetic --solved-by runs/sums --keep 0.2-0.8",
    ),
    (
        "worked answers of a larger model, each calculation checked",
        "uv run apps/prepare --recipe gsm8k --taught-by http://localhost:8000/v1 --teacher qwen",
    ),
)
SUMMARY = "Make the data of a recipe ready for training, count it, and show what is learned of it."


@dataclass(frozen=True)
class Asked:
    """What the command line asks for: the recipe, its name, whether it is one for fine-tuning, and how it was given."""

    recipe: Recipe
    name: str
    finetunes: bool
    given: tuple[str, ...]


def run() -> int:
    """Do what the command line asks; the exit status."""
    began = time.monotonic()
    grammar = Grammar(
        OPTIONS,
        dotted=True,
        words="[TEXTS]",
        keys=lambda: [row.key for row in command_help.rows(recipes.load("demo"))],
    )
    arguments = command_line.take_apart(sys.argv[1:], grammar)
    if "help" in arguments.options:
        command_help.print_app_help("prepare", SUMMARY, "[TEXTS] [--DOTTED.KEY VALUE]...", OPTIONS, EXAMPLES)
        return 0
    asked = _asked(arguments)
    rows = arguments.whole("inspect", 4) if "inspect" in arguments.options else 0
    teacher = _teacher(arguments, asked.recipe)
    reach = _reach(arguments, asked.recipe)
    console = Console(json="json" in arguments.options)
    out = arguments.path("out")
    recipe = asked.recipe
    if out is not None and isinstance(recipe.data, TextData):
        recipe = replace(recipe, data=replace(recipe.data, cache=str(out)))
    with Place.claim(out, recipe) as place:
        prepared = tasks.prepare(recipe, console)
        home = place.home(prepared.key)
        found = figures.of(recipe, prepared)
        report.write(home, asked.name, recipe, prepared, found)
    _say(found, console)
    if rows:
        show.rows(recipe, prepared, rows, console)
    asked_of = {} if reach is None else _measured(arguments, asked, home, reach, console)
    if teacher is not None:
        url, model, problems = teacher
        count, samples = arguments.whole("problems", 1000, 1), arguments.whole("samples", 4, 1)
        asked_of |= taught.teach(home, url, model, problems, count, samples, console)
    console.say(f"report: {home / 'report.md'} ({duration(time.monotonic() - began)})")
    learn = f"uv run apps/finetune RUN --recipe chat --data.path {shlex.quote(str(home / taught.TAUGHT))}"
    console.say(f"next: {_next(asked, out) if teacher is None else learn}")
    console.result(
        {
            "recipe": asked.name,
            "key": prepared.key,
            "directory": str(home),
            "report": str(home / "report.md"),
            "groups": {group.name: group.plain() for group in found.groups},
            **asked_of,
        }
    )
    return 0


def _asked(arguments: command_line.Arguments) -> Asked:
    """The recipe with its overrides; a word is one's own text, in place of the recipe's sources."""
    if len(arguments.words) > 1:
        raise BadRequest(f"unexpected {arguments.words[1]!r}: one folder, file or glob of text, and options")
    wanted = arguments.options.get("recipe")
    name = wanted if isinstance(wanted, str) else recipes.DEFAULT
    mapping, finetunes = _read(name)
    given = ["--recipe", name] if isinstance(wanted, str) else []
    overrides = list(arguments.overrides)
    if arguments.words:
        sources = [{"kind": "files", "path": arguments.words[0]}]
        if (mapping.get("data") or {}).get("kind", "text") != "text":
            raise BadRequest(f"{arguments.words[0]}: recipe {name} learns from no folder of text; see its data.path")
        overrides.insert(0, Override(("data", "sources"), sources))
    for override in overrides:
        given += [f"--{override.dotted}", _written(override.value)]
    recipe = recipes.from_dict(recipes.merge(mapping, overrides))
    return Asked(recipe, Path(name).stem if name.endswith((".yaml", ".yml")) else name, finetunes, tuple(given))


def _written(value: Any) -> str:
    """A value as an option takes it, and reads it back."""
    if isinstance(value, str) and strict_yaml.parse(value, "option") == value:
        return value
    return json.dumps(value, ensure_ascii=False)


def _read(name: str) -> tuple[dict[str, Any], bool]:
    """The mapping of a recipe, and whether it is for fine-tuning: those have no model, so the demo's stands in."""
    file = FINETUNE / f"{name}.yaml"
    finetunes = name not in recipes.names() and file.is_file()
    mapping = strict_yaml.read(file) if finetunes else recipes.read(name)
    if "model" in mapping:
        return mapping, False
    data = mapping.get("data") or {}
    model = {**recipes.read(recipes.DEFAULT)["model"], "max_seq_len": data.get("sequence_length") or 256}
    if data.get("kind") == "verdicts":
        model["heads"] = {"lm": {}, "value": {}}
    return {**mapping, "model": model}, True


def _reach(arguments: command_line.Arguments, recipe: Recipe) -> tuple[float, float] | None:
    """The pass rates that are kept; None where nothing is measured. Raises BadRequest for options that then mean nothing."""
    if "solved-by" not in arguments.options:
        without = WITH_A_RUN if "taught-by" in arguments.options else WITH_A_RUN + WITH_EITHER
        odd = next((name for name in without if name in arguments.options), None)
        if odd is not None:
            raise BadRequest(f"--{odd}: goes with --solved-by RUN")
        return None
    if not isinstance(recipe.data, ExerciseData):
        raise BadRequest("--solved-by: measures exercises; name a recipe of kind exercises, such as arithmetic")
    return solved.bounds(arguments.text("keep", "0.2-0.8"))


def _teacher(arguments: command_line.Arguments, recipe: Recipe) -> tuple[str, str, ExerciseData | ProblemData] | None:
    """The server, its model's name, and the problems that it is asked; None where none is. Raises BadRequest."""
    if "taught-by" not in arguments.options:
        if "teacher" in arguments.options:
            raise BadRequest("--teacher: goes with --taught-by URL")
        return None
    if "solved-by" in arguments.options:
        raise BadRequest("--taught-by: does not go with --solved-by; ask one at a time")
    if "teacher" not in arguments.options:
        raise BadRequest("--taught-by: name the model that the server has with --teacher NAME")
    if not isinstance(recipe.data, ExerciseData | ProblemData):
        raise BadRequest("--taught-by: asks problems; name a recipe of kind exercises or problems, such as gsm8k")
    return arguments.text("taught-by", ""), arguments.text("teacher", ""), recipe.data


def _measured(
    arguments: command_line.Arguments, asked: Asked, home: Path, reach: tuple[float, float], console: Console
) -> dict[str, Any]:
    """Pass rates of exercises, and those of them that are within reach, as files in `home`."""
    from apps.common import processes, solver  # torch's compiler and the model are needed here only

    data = asked.recipe.data
    assert isinstance(data, ExerciseData)
    run = solver.load(Path(arguments.text("solved-by", "")), processes.device_type(arguments.text("device", "auto"), 1))
    samples, count = arguments.whole("samples", 8), arguments.whole("problems", 1000)
    of = solved.asked(data, count)
    settings = {"run": str(run.checkpoint), "samples": samples, "max_tokens": data.answer_tokens, "seed": data.seed}
    rates = solved.measure(home / solved.MEASURED, settings, of, run.generator(), samples, data.answer_tokens, console)
    kept = solved.keep(home / solved.KEPT, of, rates, *reach)
    console.say(
        f"{run.checkpoint} solves {sum(rates.values()) / max(len(rates), 1):.1%} of {len(rates):,} problems; "
        f"{kept:,} of them {reach[0]:g} to {reach[1]:g} of the time: {home / solved.KEPT}"
    )
    return {"measured": len(rates), "kept": kept, "file": str(home / solved.KEPT)}


def _say(found: figures.Figures, console: Console) -> None:
    head = ("", "documents", "tokens", "share", "median", "longest", "repeated")
    table = [
        (
            group.name,
            f"{group.documents:,}",
            short(group.tokens),
            f"{group.share:.1%}",
            f"{group.quantile(0.5):,}",
            f"{group.quantile(1.0):,}",
            f"{group.repeated:,}",
        )
        for group in found.groups
    ]
    console.columns(head, table)


def _next(asked: Asked, out: Path | None) -> str:
    data = asked.recipe.data
    if isinstance(data, VerdictData):
        return "uv run apps/verify RUN"
    app = "apps/finetune RUN" if asked.finetunes else "apps/puzzle" if data.in_place else "apps/pretrain"
    cache = ["--data.cache", str(out)] if out is not None and isinstance(data, TextData) else []
    return " ".join(["uv run", app, *map(shlex.quote, [*asked.given, *cache])])


if __name__ == "__main__":
    command_line.main(run)
