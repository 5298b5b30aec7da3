"""`uv run apps/evaluate RUN`: the tasks that make sense for a model, or those of --tasks (see `scored`); of a model that
learned exercises, how many unseen ones it solves, by kind of problem and form of solution; and --compare, --capabilities,
--harness."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from apps.common import command_help, command_line, files, processes, solver
from apps.common.command_line import Arguments, Grammar, Option
from apps.common.console import Console
from apps.common.errors import BadRequest
from apps.common.markdown import table
from apps.common.problem_config import ExerciseData
from apps.common.problems import generated
from apps.common.solver import Solver
from apps.common.value_scorer import ValueScorer
from apps.evaluate import capabilities, grids, lm_harness, refinement, scored, stored
from apps.evaluate.refinement import Round
from apps.evaluate.settings import ELSEWHERE
from tinydata.synthetic.exercise import FORMS, Exercise, Form
from tinydata.synthetic.exercises import KINDS
from tinyreason import Answers, Completion, ExecutionVerifier, final_answer

OF_TASKS = ("limit", "files", "metric", "votes")
SEED = 1_000_003  # of problems that no training asks for: their side is the test side in any case
OPTIONS = {
    "tasks": Option(
        "ask these tasks or protocols (brandon-tiny); auto, the default: those that make sense, within 3 minutes",
        "NAME,NAME|auto",
    ),
    "limit": Option("with --tasks: at most so many items of each (default: all; auto: what the time allows)", "N"),
    "files": Option("with --tasks: files with the data of tasks", "NAME=PATH,NAME=PATH"),
    "compare": Option("compare several runs on the same items of the same tasks with the first"),
    "metric": Option("with --compare: another metric than the tasks' own", "NAME"),
    "votes": Option("with puzzles: answer so many random copies of each and let them vote (default: 1, none)", "N"),
    "capabilities": Option("fill the table of what models of a size are said to be able to do; takes several runs"),
    "harness": Option(
        "ask tasks of lm-eval by its own evaluator; NAME.yaml: one of a file, which may run code", "NAME,NAME"
    ),
    "problems": Option("exercises: unseen problems of each kind (default: 500)", "N"),
    "kinds": Option(f"which kinds: {', '.join(KINDS)} (default: those of the run's recipe)", "NAME,NAME"),
    "forms": Option(f"which forms: {', '.join(FORMS)} (default: those of the run's recipe)", "NAME,NAME"),
    "steps": Option("fewest and most calculations of a word problem (default: the recipe's)", "N-N"),
    "rounds": Option("let it improve each answer so many times, and count again (default: 0)", "N"),
    "verifier": Option("with --rounds: a run with a value head that decides whether a new answer is taken", "RUN"),
    "no-tools": Option("leave calls of tools unanswered"),
    "max-tokens": Option("longest answer (default: the recipe's)", "N"),
    "seed": Option(f"of the problems (default: {SEED}; of tasks: 0)", "N"),
    "out": Option("write the results there as JSON", "FILE"),
    "device": command_line.DEVICE,
    "json": command_line.JSON,
    "help": command_line.HELP,
}
EXAMPLES = (
    ("the tasks that make sense for it, in under 3 minutes", "uv run apps/evaluate runs/demo"),
    ("everything it learned, 500 problems of each kind", "uv run apps/evaluate runs/arithmetic"),
    (
        "multiplications alone, with the calculator and without",
        "uv run apps/evaluate runs/arithmetic --kinds multiplication --forms calculator,hand,once",
    ),
    (
        "refinement, by a model that was taught it",
        "uv run apps/evaluate runs/refine --kinds words --forms calculator --rounds 3",
    ),
    (
        "a protocol of published numbers",
        "uv run apps/evaluate runs/demo --tasks brandon-tiny --files lambada=lambada.jsonl",
    ),
    ("what it is said to be able to do at its size", "uv run apps/evaluate runs/demo --capabilities"),
    ("two runs on the same items", "uv run apps/evaluate runs/a runs/b --compare --tasks arithmetic,needle"),
    ("what the calculator is worth", "uv run apps/evaluate runs/arithmetic --forms calculator --no-tools"),
)


@dataclass(frozen=True)
class Cell:
    """Problems of one kind in one form: how many, of how many the answer was right, of how many the program printed it (None:
    no programs), and what they cost."""

    kind: str
    form: Form
    problems: int
    right: int
    executed: int | None
    tokens: int
    calls: int
    failed_calls: int
    seconds: float
    refined: tuple[Round, ...] = ()

    @property
    def exact(self) -> float:
        return self.right / self.problems

    @property
    def error(self) -> float:
        """Standard error of `exact`."""
        return math.sqrt(self.exact * (1 - self.exact) / self.problems)

    def row(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "kind": self.kind,
            "form": self.form,
            "problems": self.problems,
            "exact": self.exact,
            "standard_error": self.error,
            "executed": None if self.executed is None else self.executed / self.problems,
            "tokens_per_answer": self.tokens / self.problems,
            "calls_per_answer": self.calls / self.problems,
            "failed_calls": self.failed_calls,
            "seconds": self.seconds,
            "rounds": [one._asdict() for one in self.refined],
        }


def run() -> int:
    """Do what the command line asks; the exit status."""
    arguments = command_line.take_apart(sys.argv[1:], Grammar(OPTIONS, words="RUN"))
    if "help" in arguments.options:
        summary = "Score a model on tasks, or on exercises that it has never seen, by kind and form, tools answered."
        command_help.print_app_help("evaluate", summary, "RUN|CHECKPOINT...", OPTIONS, EXAMPLES)
        return 0
    console = Console(json="json" in arguments.options)
    if "harness" in arguments.options:
        return lm_harness.run(arguments, console)
    if "capabilities" in arguments.options:
        return capabilities.run(arguments, console)
    if "tasks" in arguments.options or "compare" in arguments.options or not _asks_exercises(arguments):
        return scored.run(arguments, console)
    if (odd := next((name for name in OF_TASKS if name in arguments.options), None)) is not None:
        raise BadRequest(f"--{odd} belongs to tasks; add --tasks auto, or the names of tasks")
    if len(arguments.words) != 1:
        raise BadRequest("give one run or checkpoint, such as runs/arithmetic")
    model = solver.load(Path(arguments.words[0]), processes.device_type(arguments.text("device", "auto"), 1))
    if not model.learned:
        console.warn(
            f"{model.checkpoint}: did not learn exercises; uv run apps/finetune {arguments.words[0]} teaches them"
        )
    kinds = _named(arguments, "kinds", KINDS, model.data.kinds)
    forms = _named(arguments, "forms", FORMS, [form for form in FORMS if model.data.forms.get(form, 0) > 0])
    count = arguments.whole("problems", 500)
    model = replace(model, data=replace(model.data, steps=solver.steps(arguments, model.data)))
    cells = []
    judge = _judge(model, arguments)
    with console.counting(f"solving {count:,} problems of each kind and form", len(kinds) * len(forms)) as counting:
        for kind in kinds:
            problems = unseen(model, kind, count, arguments.whole("seed", SEED, least=0))
            for form in forms:
                cells.append(_solve(model, kind, cast(Form, form), problems, arguments, judge))
                counting.advance()
    console.say(shown(cells))
    found = {
        "checkpoint": str(model.checkpoint),
        "tools": "no-tools" not in arguments.options,
        "cells": [cell.row() for cell in cells],
    }
    if (out := arguments.path("out")) is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(out, found)
        console.say(f"results: {out}")
    console.result(found)
    return 0


def _asks_exercises(arguments: Arguments) -> bool:
    """Whether exercises are meant where no task is named: by their options, or because the one run learned them."""
    if any(name in arguments.options for name in ELSEWHERE) or len(arguments.words) != 1:
        return True
    recipe = grids.recipe_of(stored.place(Path(arguments.words[0])).checkpoint)
    return recipe is not None and isinstance(recipe.data, ExerciseData)


def unseen(model: Solver, kind: str, count: int, seed: int = SEED) -> list[Exercise]:
    """`count` problems of one kind that the model was neither trained nor scored on in training: of the test side."""
    data = replace(solver.with_problems(model.data, count), kinds=(kind,), seed=seed)
    found = []
    for exercise in generated(data, "test"):
        found.append(exercise)
        if len(found) == count:
            return found
    raise BadRequest(
        f"--problems: only {len(found)} problems of kind {kind} were found on the test side; ask for fewer"
    )


def _judge(model: Solver, arguments: Arguments) -> ValueScorer | None:
    path = arguments.path("verifier")
    if path is None:
        return None
    verifier = solver.load(path, next(model.model.parameters()).device.type)
    solver.same_tokens(model, verifier)
    return verifier.scorer()


def _solve(
    model: Solver,
    kind: str,
    form: Form,
    problems: list[Exercise],
    arguments: Arguments,
    judge: ValueScorer | None,
) -> Cell:
    began = time.perf_counter()
    generator = model.generator("no-tools" not in arguments.options)
    answers = generator.generate(
        [problem.prompt(form) for problem in problems],
        n=1,
        max_tokens=arguments.whole("max-tokens", model.data.answer_tokens),
        temperature=0.0,
    )
    completions = [row[0] for row in answers]
    executed = sum(map(_printed, completions, problems)) if form == "program" else None
    calls = [call for completion in completions for call in completion.calls]
    count, longest = arguments.whole("rounds", 0, least=0), arguments.whole("max-tokens", model.data.answer_tokens)
    refined = refinement.rounds(generator, problems, form, count, longest, judge) if count else []
    return Cell(
        kind,
        form,
        len(problems),
        sum(map(_right, completions, problems)),
        executed,
        sum(completion.tokens for completion in completions),
        len(calls),
        sum(call.failed for call in calls),
        time.perf_counter() - began,
        tuple(refined),
    )


def _right(completion: Completion, problem: Exercise) -> bool:
    """Whether the text's answer is the problem's."""
    answer = final_answer(completion.text)
    return answer is not None and Answers().equal(answer, problem.answer)


def _printed(completion: Completion, problem: Exercise) -> bool:
    """Whether the last program that the text ran printed the problem's answer, whatever the text then says."""
    programs = [step for step in ExecutionVerifier().steps(completion.text) if step.kind == "code"]
    return bool(programs) and Answers().equal(programs[-1].claimed, problem.answer)


def _named(arguments: Arguments, option: str, known: tuple[str, ...], default: Any) -> list[str]:
    text = arguments.text(option, "")
    names = [name.strip() for name in text.split(",") if name.strip()] or list(default)
    for name in names:
        if name not in known:
            raise BadRequest(f"--{option}: {name!r} is none of {', '.join(known)}")
    return names


def shown(cells: list[Cell]) -> str:
    """The table."""
    head = ["problems", "solved", "n", "right", "program printed it", "tokens an answer", "calls an answer", "s"]
    rows = [
        [
            cell.kind,
            cell.form,
            str(cell.problems),
            f"{cell.exact:.1%} +- {cell.error:.1%}",
            "" if cell.executed is None else f"{cell.executed / cell.problems:.1%}",
            f"{cell.tokens / cell.problems:.0f}",
            f"{cell.calls / cell.problems:.1f}",
            f"{cell.seconds:.0f}",
        ]
        for cell in cells
    ]
    text = table(head, rows)
    if any(cell.refined for cell in cells):
        refined = [
            [
                cell.kind,
                cell.form,
                str(number),
                f"{one.right / cell.problems:.1%}",
                f"{one.mended}" if number else "",
                f"{one.spoilt}" if number else "",
            ]
            for cell in cells
            for number, one in enumerate(cell.refined)
        ]
        text += "\n\n" + table(["problems", "solved", "rounds", "right", "mended", "spoilt"], refined)
    return text


if __name__ == "__main__":
    command_line.main(run)
