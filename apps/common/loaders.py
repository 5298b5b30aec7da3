"""From prepared data to the rows that a run learns from: one place, so that what is looked at is what is trained on."""

from __future__ import annotations

import itertools

from apps.common import phases
from apps.common.data import Prepared
from apps.common.data_config import TextData
from apps.common.errors import BadRequest
from apps.common.problem_config import AnsweredData, ExerciseData
from apps.common.problems import PreparedProblems
from apps.common.recipe import Recipe
from tinydata import Curriculum, CurriculumLoader, Loader, MixedLoader, ProblemLoader, Stage


def text(recipe: Recipe, prepared: Prepared, micro_batch: int, rank: int = 0, world: int = 1) -> Loader | MixedLoader:
    """Packed documents; of several sources, in the shares that the recipe gives them over the run."""
    if not prepared.mixed:
        return Loader(
            prepared.train,
            sequence_length=recipe.data.positions,
            batch_size=micro_batch,
            rank=rank,
            world=world,
            seed=recipe.train.seed,
            labels=recipe.expert_labels(),
        )
    assert isinstance(recipe.data, TextData)
    return MixedLoader(
        prepared.mixed,
        recipe.data.shares({name: shards.tokens for name, shards in prepared.mixed.items()}),
        phases.sequences(recipe),
        recipe.data.positions,
        micro_batch,
        rank=rank,
        world=world,
        seed=recipe.train.seed,
        max_epochs=recipe.data.max_epochs,
    )


def problems(
    recipe: Recipe, prepared: PreparedProblems, micro_batch: int, rank: int = 0, world: int = 1
) -> ProblemLoader:
    """Problems with their answers, as many a row as fit where the recipe says so; with a curriculum in its order."""
    assert isinstance(recipe.data, AnsweredData)
    sizes = (prepared.tokenizer, recipe.data.positions, micro_batch, rank, world)
    if prepared.stages:
        assert isinstance(recipe.data, ExerciseData)
        assert recipe.data.curriculum is not None
        ends = itertools.accumulate(prepared.stages)
        levels = [prepared.train[end - count : end] for end, count in zip(ends, prepared.stages, strict=True)]
        stages = [Stage(stage.until, (str(number),)) for number, stage in enumerate(recipe.data.curriculum.stages)]
        try:
            curriculum = Curriculum(
                stages, phases.sequences(recipe), recipe.data.curriculum.replay, seed=recipe.train.seed
            )
        except ValueError as error:
            raise BadRequest(f"data.{error}") from None
        return CurriculumLoader(levels, curriculum, *sizes, packed=recipe.data.packed)
    return ProblemLoader(prepared.train, *sizes, seed=recipe.train.seed, packed=recipe.data.packed)
