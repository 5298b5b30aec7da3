"""A trained model that solves exercises: its weights, its tokenizer, the exercises it learned from, and its tools."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from apps.common import checkpoints, files, recipes, run_record, tool_use
from apps.common.command_line import Arguments
from apps.common.errors import BadRequest
from apps.common.generator import ModelGenerator
from apps.common.problem_config import ExerciseData
from apps.common.recipe import Recipe
from apps.common.value_scorer import ValueScorer
from tinycore import Decoder
from tinydata import Tokenizer
from tinydata.synthetic.arithmetic import MAX_STEPS


@dataclass(frozen=True)
class Solver:
    """The model in evaluation mode, and what belongs to it. data: the exercises of its recipe, the defaults where it had
    others; learned: whether it had; recipe: None where it was not trained here."""

    checkpoint: Path
    model: Decoder
    tokenizer: Tokenizer
    data: ExerciseData
    learned: bool
    recipe: Recipe | None = None

    def generator(self, tools: bool = True) -> ModelGenerator:
        """It as a generator of texts, with its tools or without."""
        return ModelGenerator(self.model, self.tokenizer, tool_use.toolbox(self.tokenizer) if tools else None)

    def scorer(self) -> ValueScorer:
        """It as a judge of answers. Raises BadRequest for a model without a value head."""
        return ValueScorer(self.model, self.tokenizer)


def load(path: Path, device: str = "cpu") -> Solver:
    """What the run or checkpoint at `path` holds. Raises one-line errors."""
    checkpoint = run_record.checkpoint_of(path)
    if not (checkpoint / "tokenizer.json").is_file():
        raise BadRequest(f"{checkpoint}: has no tokenizer, so it is no language model")
    model = checkpoints.load_model(checkpoint, device).eval()
    recipe = None
    if (checkpoint / "trainer.json").is_file():
        recipe = recipes.from_dict(files.read_json(checkpoint / "trainer.json").get("recipe", {}))
    learned = recipe is not None and isinstance(recipe.data, ExerciseData)
    data = recipe.data if learned else ExerciseData(sequence_length=model.config.max_seq_len)
    return Solver(checkpoint, model, Tokenizer.load(checkpoint), data, learned, recipe)


def same_tokens(generator: Solver, verifier: Solver) -> None:
    """Raise BadRequest where the two read text differently."""
    if generator.tokenizer.hash != verifier.tokenizer.hash:
        raise BadRequest(
            f"{verifier.checkpoint}: reads text by another tokenizer than {generator.checkpoint}; "
            "train it on that model's answers"
        )


def with_problems(data: ExerciseData, count: int) -> ExerciseData:
    """`data` with enough problems that `count` of a side of a tenth are among them."""
    share = min(data.validation, data.test) or 0.1
    return replace(data, problems=max(int(1.5 * count / share), 1000))


def steps(arguments: Arguments, data: ExerciseData) -> tuple[int, int]:
    """What `--steps 2-4` asks for, that of `data` without it. Raises BadRequest."""
    text = arguments.text("steps", f"{data.steps[0]}-{data.steps[1]}")
    found = re.fullmatch(r"([1-9])(?:-([1-9]))?", text, re.ASCII)
    first, last = (int(found[1]), int(found[2] or found[1])) if found is not None else (0, 0)
    if not 1 <= first <= last <= MAX_STEPS:
        raise BadRequest(f"--steps: {text!r} is not of the form 2-4, within 1 to {MAX_STEPS}")
    return first, last
