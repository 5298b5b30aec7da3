"""Learning to answer problems: bits per byte of held-out answers, and how many are right by value, tools answered.

val_exact         share of the first `data.exact` held-out problems whose greedy answer is the right one
val_exact/FORM    of those whose solution is in one form
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from apps.common import loaders, tool_use
from apps.common.generator import ModelGenerator
from apps.common.language_task import LanguageTask, objective_of
from apps.common.problem_config import AnsweredData
from apps.common.problems import PreparedProblems
from apps.common.processes import World
from apps.common.recipe import Recipe
from apps.common.samples import Sampler
from apps.common.validation import Validator
from tinycore import Decoder
from tinydata import CurriculumLoader, ProblemLoader
from tinyreason import Answers, final_answer


class ProblemTask(LanguageTask):
    """See `Task`."""

    def __init__(self, recipe: Recipe, prepared: PreparedProblems, world: World) -> None:
        self.world, self.recipe, self.prepared, self.tokenizer = world, recipe, prepared, prepared.tokenizer
        assert isinstance(recipe.data, AnsweredData)
        self.data = recipe.data
        sizes = (prepared.tokenizer, recipe.data.positions, recipe.micro_batch(world.size), world.index, world.size)
        self.loader = loaders.problems(
            recipe, prepared, recipe.micro_batch(world.size), rank=world.index, world=world.size
        )
        self.held_out = ProblemLoader(prepared.validation, *sizes)
        rows = recipe.train.validate_rows
        self.validator, self.seen = Validator(world, self.held_out, rows), Validator(world, self.loader, rows)
        self.toolbox = tool_use.toolbox(self.tokenizer) if recipe.data.tags else None
        self.sampler = Sampler(recipe.sample, self.tokenizer, recipe.train.seed, self.toolbox)
        self.objective = objective_of(recipe)
        asked = prepared.written[: recipe.data.exact]
        self.labels = sorted({problem.label for problem in asked if problem.label})

    def validate(self, model: nn.Module) -> dict[str, Any]:
        """As of text, and the exact matches."""
        found = super().validate(model)
        counts = self.world.total(*self._answered(model, self.data.exact))
        names = ["val_exact", *(f"val_exact/{label}" for label in self.labels)]
        pairs = zip(names, counts[::2], counts[1::2], strict=True)
        return found | {name: right / asked for name, right, asked in pairs if asked}

    def logged(self) -> dict[str, Any]:
        """With a curriculum the stage that the last row was of, from 1."""
        return {"curriculum/stage": self.loader.stage + 1} if isinstance(self.loader, CurriculumLoader) else {}

    def seconds(self, model: Any, timed: Callable[[Callable[[], object]], float]) -> tuple[float, float]:
        """As of text, and the answers, timed on a few."""
        validation, samples = super().seconds(model, timed)
        few = min(4, self.data.exact)
        answers = timed(lambda: self._answered(model, few)) * self.data.exact / few if few else 0.0
        return validation + answers, samples

    @torch.no_grad()
    def _answered(self, model: Any, count: int) -> list[int]:
        """right, asked; then the same of each label: this process's share of the first `count` held-out problems."""
        problems = self.prepared.written[:count][self.world.index :: self.world.size]
        generator = ModelGenerator(_decoder(model), self.tokenizer, self.toolbox)
        with self.world.accelerator.autocast():
            answers = generator.generate(
                [problem.prompt for problem in problems], n=1, max_tokens=self.data.answer_tokens, temperature=0.0
            )
        counts = {name: [0, 0] for name in ("", *self.labels)}
        for problem, (completion,) in zip(problems, answers, strict=True):
            found = final_answer(completion.text)
            right = found is not None and Answers().equal(found, problem.answer)
            for name in {"", problem.label}:
                counts[name][0] += right
                counts[name][1] += 1
        return [number for pair in counts.values() for number in pair]


def _decoder(model: Any) -> Decoder:
    """The model itself: what Accelerate prepared is the same module with another forward."""
    return model
