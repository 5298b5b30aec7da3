"""Learning to answer word problems: bits per byte of held-out answers, and how many are right to the number.

val_exact   share of the first `data.exact` held-out problems whose greedy answer ends in the right number
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch
from torch import nn

import tinycore
from apps.common.data_config import ProblemData
from apps.common.language_task import LanguageTask
from apps.common.problems import PreparedProblems
from apps.common.processes import World
from apps.common.recipe import Recipe
from apps.common.samples import Sampler
from apps.common.validation import Validator
from tinycore import Decoder, objectives
from tinydata import ProblemLoader, final_answer

AT_ONCE = 32  # problems that are answered in one batch


class ProblemTask(LanguageTask):
    """See `Task`."""

    def __init__(self, recipe: Recipe, prepared: PreparedProblems, world: World) -> None:
        self.world, self.recipe, self.prepared, self.tokenizer = world, recipe, prepared, prepared.tokenizer
        assert isinstance(recipe.data, ProblemData)
        self.data = recipe.data
        sizes = (prepared.tokenizer, recipe.data.positions, recipe.micro_batch(world.size), world.index, world.size)
        self.loader = ProblemLoader(prepared.train, *sizes, seed=recipe.train.seed)
        self.held_out = ProblemLoader(prepared.validation, *sizes)
        rows = recipe.train.validate_rows
        self.validator, self.seen = Validator(world, self.held_out, rows), Validator(world, self.loader, rows)
        self.sampler = Sampler(recipe.sample, self.tokenizer, recipe.train.seed)
        self.objective = objectives.of(recipe.model)

    def validate(self, model: nn.Module) -> dict[str, Any]:
        """As of text, and the exact matches."""
        found = super().validate(model)
        right, asked = self.world.total(*self._answered(model, self.data.exact))
        return found | ({"val_exact": right / asked} if asked else {})

    def seconds(self, model: Any, timed: Callable[[Callable[[], object]], float]) -> tuple[float, float]:
        """As of text, and the answers, timed on a few."""
        validation, samples = super().seconds(model, timed)
        few = min(4, self.data.exact)
        answers = timed(lambda: self._answered(model, few)) * self.data.exact / few if few else 0.0
        return validation + answers, samples

    @torch.no_grad()
    def _answered(self, model: Any, count: int) -> tuple[int, int]:
        """(right, asked) of this process's share of the first `count` held-out problems."""
        problems = self.prepared.validation[:count]
        mine = range(len(problems))[self.world.index :: self.world.size]
        right = 0
        for first in range(0, len(mine), AT_ONCE):
            chosen = mine[first : first + AT_ONCE]
            prompts = [problems[index].ids[: problems[index].prompt].tolist() for index in chosen]
            with self.world.accelerator.autocast():
                found = tinycore.generate(
                    _decoder(model),
                    prompts,
                    max_new_tokens=self.data.answer_tokens,
                    temperature=0.0,
                    stop=[self.tokenizer.end_id],
                )
            for index, (generation,) in zip(chosen, found, strict=True):
                ids = [token for token in generation.ids if token < self.tokenizer.vocab_size]
                right += same_number(
                    final_answer(self.tokenizer.decode(ids, skip_special=True)), self.prepared.answers[index]
                )
        return right, len(mine)


def same_number(found: str | None, wanted: str) -> bool:
    """Whether both are numbers, and the same."""
    return found is not None and Fraction(found) == Fraction(wanted)


def _decoder(model: Any) -> Decoder:
    """The model itself: what Accelerate prepared is the same module with another forward."""
    return model
