"""The tasks that a checkpoint of ours can be asked: tinyeval's, and those whose questions tinydata makes.

    word_problems              solved by hand; the model writes every calculation itself
    word_problems_calculator   the same questions, a calculator answers the model's calls         (tool tasks: they need
    word_problems_program      the same questions, the model's program is run in the sandbox       the tags as tokens)
    logic_hops                 conclusions by hand
    calculations, steps        one calculation; word problems of a few steps: at once, or in another form
    embedded_text              documents of the embedded corpus that recipes keep for tests
    sudoku, maze, arc_agi      for models that answer in place: see `apps.evaluate.grids`

Questions are of the side that no training of ours learns from: a question's side follows from its hash (`split_of`).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from apps.common import tool_use
from apps.common.data_config import EmbeddedSource, TextData
from apps.common.errors import BadRequest
from apps.common.problem_config import AnsweredData, ExerciseData
from apps.common.recipe import Recipe
from tinydata import Tokenizer, split_of
from tinydata.corpus.embedded import EmbeddedCorpus
from tinydata.problem_loader import RESULT
from tinydata.synthetic.exercise import Form
from tinydata.synthetic.exercises import exercises
from tinydata.synthetic.logic import logic
from tinyeval import Item, Task, tasks
from tinyeval.task import nearest, with_dataset
from tinyreason import CodeRunner

TOOL_TASKS = {"word_problems_calculator": ("calculator", "calc"), "word_problems_program": ("program", "code")}
SHARES = {"test": 0.1}  # as recipes of exercises set aside by default
PARTS = ("stories", "arithmetic")  # of the embedded corpus, those that do not depend on the Python version
MADE_AT_ONCE = 20  # times as many problems are made as are kept: a tenth is on the test side


def names() -> list[str]:
    """All there are."""
    return sorted([*tasks.names(), *TOOL_TASKS])


def load(name: str) -> Task:
    """The task of that name, or in that YAML file. Raises TaskError for a file that is none, BadRequest for another name."""
    if name in TOOL_TASKS:
        return replace(with_dataset(tasks.load("word_problems"), form=TOOL_TASKS[name][0]), name=name)
    if name not in names() and not name.endswith((".yaml", ".yml")):
        raise BadRequest(f"--tasks: unknown task {name!r}; {nearest(name, names())}")
    return tasks.load(name)


def require_tools(task: Task, tokenizer: Tokenizer, recipe: Recipe | None, checkpoint: Path) -> None:
    """Raises BadRequest where `task` takes tools and the model has no tokens to call them with, or its recipe says that it
    never learned to."""
    if task.name not in TOOL_TASKS:
        return
    form, tool = TOOL_TASKS[task.name]
    if recipe is not None and form not in tool_forms(recipe):
        raise BadRequest(
            f"{task.name}: {checkpoint} was not trained to use the {form}; ask word_problems instead, or teach it: "
            "uv run apps/finetune RUN --recipe arithmetic"
        )
    missing = [tag for tag in (f"<{tool}>", f"</{tool}>", *RESULT) if tag not in tokenizer.special]
    if missing:
        raise BadRequest(
            f"{task.name}: {checkpoint} has no token {missing[0]}, so it cannot use the {form}; ask word_problems instead, "
            "or teach it: uv run apps/finetune RUN --recipe arithmetic"
        )


def tool_forms(recipe: Recipe) -> frozenset[str]:
    """The forms with tools that a recipe teaches."""
    data = recipe.data
    if isinstance(data, ExerciseData):
        return frozenset(form for form, _ in TOOL_TASKS.values() if data.forms.get(form, 0) > 0)
    return frozenset({"calculator"}) if isinstance(data, AnsweredData) and data.tags else frozenset()


def unavailable(task: Task) -> str | None:
    """Why a task cannot be asked here although its data is there; None where it can."""
    if task.name == "word_problems_program" and runner() is None:
        return f"task {task.name}: runs programs, and no sandbox can run here; see packages/tinyreason/README.md"
    return None


def runner() -> CodeRunner | None:
    """Runs programs of code tasks; None where no sandbox can."""
    return tool_use.runner()


def word_problems(*, seed: int, items: int, form: str = "hand", steps: Sequence[int] = (1, 4)) -> Iterator[Item]:
    """Word problems of the test side. meta: steps, the calculations that a solution takes."""
    made = exercises(seed, items * MADE_AT_ONCE, ("words",), "english", (steps[0], steps[1]))
    unseen = (one for one in made if split_of(one.question, SHARES) == "test")
    for index, one in enumerate(itertools.islice(unseen, items)):
        yield Item(str(index), one.prompt(cast(Form, form)), answer=one.answer, meta={"steps": len(one.steps)})


def logic_problems(
    *, seed: int, items: int, hops: Sequence[int] = (1, 4), distractors: int = 4, form: str = "hand"
) -> Iterator[Item]:
    """Chains of conclusions of the test side. meta: hops and kind."""
    made = logic(seed, items * MADE_AT_ONCE, hops=(hops[0], hops[1]), distractors=distractors)
    unseen = (one for one in made if split_of(one.question, SHARES) == "test")
    for index, one in enumerate(itertools.islice(unseen, items)):
        meta = {"hops": one.hops, "kind": one.kind}
        yield Item(str(index), one.prompt(cast(Any, form)), answer=one.answer, meta=meta)


def calculations(*, seed: int, items: int, form: str = "once") -> Iterator[Item]:
    """Single calculations of the test side, every other one a product of numbers of three digits. meta: operation."""
    made = exercises(seed, items * MADE_AT_ONCE, ("expression", "multiplication"), "english", (1, 1))
    unseen = (one for one in made if split_of(one.question, SHARES) == "test")
    for index, one in enumerate(itertools.islice(unseen, items)):
        meta = {"operation": f"{one.steps[0].operator} {len(str(one.steps[0].left))} digits"}
        yield Item(str(index), one.prompt(cast(Form, form)), answer=one.answer, meta=meta)


def embedded_text(*, seed: int, items: int, characters: int) -> Iterator[Item]:
    """Beginnings of documents of the embedded corpus that its recipes keep for tests, `items` of both parts together that are
    the same on every machine; seed: another choice of them. meta: part."""
    each = -(-items // len(PARTS))
    of_part = {part: held_out(part, (seed + 1) * each)[-each:] for part in PARTS}
    for number in range(items):
        part = PARTS[number % len(PARTS)]
        if number // len(PARTS) < len(of_part[part]):
            text = of_part[part][number // len(PARTS)]
            yield Item(str(number), text[:characters], meta={"part": part})


@functools.cache
def held_out(part: str, most: int) -> tuple[str, ...]:
    """The first documents of a part of the embedded corpus that are on the test side as a recipe's defaults divide it."""
    source, data = EmbeddedSource(), TextData()
    corpus = EmbeddedCorpus((part,), synthetic_documents=source.documents, seed=source.seed)
    shares = {"validation": data.validation, "test": data.test}
    kept = (document.text for document in corpus.documents() if split_of(document.text, shares) == "test")
    return tuple(itertools.islice(kept, most))


GENERATORS = {
    "calculations": calculations,
    "embedded_text": embedded_text,
    "logic": logic_problems,
    "word_problems": word_problems,
}
