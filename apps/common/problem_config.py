"""Problems with worked answers that a recipe may learn from, as values: GSM8K and its like, and generated exercises."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from apps.common.config_fields import below_one, described, not_negative, positive, share
from apps.common.curriculum_config import CurriculumConfig
from apps.common.data_config import DataConfig, EmbeddedSource, SourceConfig, TokenizerConfig, TrainedTokenizer
from tinycore.config import ConfigError, unknown
from tinydata.synthetic.arithmetic import MAX_STEPS
from tinydata.synthetic.exercise import FORMS
from tinydata.synthetic.exercises import KINDS, MAX_DIGITS

Kind = Literal["words", "expression", "multiplication"]
assert get_args(Kind) == KINDS


@dataclass(frozen=True, kw_only=True)
class AnsweredData:
    """What problems of all kinds share: only the answer is learned, and of it nothing that a tool writes."""

    tokenizer: TokenizerConfig = field(
        default_factory=lambda: TrainedTokenizer(vocab_size=1024), metadata={"help": "what a token is"}
    )
    sequence_length: int = described("tokens a row; longer problems are left out, and counted, or see overlap", 256)
    overlap: int | None = described(
        "cut longer problems and conversations into pieces with so many tokens in common, each learned once; null: leave out",
        None,
    )
    validation: float = described("share of the problems, chosen by hash of the question", 0.05)
    packed: bool = described("train on rows of as many problems as fit, each for itself; false: one a row", True)
    exact: int = described("held-out problems that are answered at each validation, to count exact matches", 64)
    answer_tokens: int = described("longest answer that is written then", 200)
    replay: float = described("share of the training tokens that are documents, so that they are not forgotten", 0.0)
    replay_from: tuple[SourceConfig, ...] = field(
        default_factory=lambda: (EmbeddedSource(),), metadata={"help": "sources of these documents"}
    )

    def __post_init__(self) -> None:
        positive(self, "sequence_length", "answer_tokens")
        not_negative(self, "exact")
        below_one(self, "replay")
        if self.overlap is not None and not 1 <= self.overlap < self.sequence_length:
            raise ConfigError(f"overlap: {self.overlap} is not between 1 and sequence_length less one")
        if self.replay and not self.replay_from:
            raise ConfigError("replay_from: needs at least one source")
        if not 0 < self.validation <= 0.5:
            raise ConfigError(f"validation: {self.validation} is not above 0 and at most .5")

    @property
    def positions(self) -> int:
        return self.sequence_length

    @property
    def tags(self) -> bool:
        """Whether answers have tags in them, calls of tools among them."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class ProblemData(AnsweredData, DataConfig, kind="problems"):
    """Word problems with worked answers, as GSM8K writes them."""

    path: str | None = described('JSONL with "question" and "answer" a line; null: the dataset on the hub', None)
    name: str = described("dataset on the hub, as owner/name", "openai/gsm8k")
    config: str | None = described("its configuration", "main")
    annotations: Literal["strip", "calls"] = described(
        "calculator annotations: left out, or calls of a tool and what it answers", "strip"
    )

    @property
    def tags(self) -> bool:
        return self.annotations == "calls"


@dataclass(frozen=True, kw_only=True)
class ExerciseData(AnsweredData, DataConfig, kind="exercises"):
    """Generated arithmetic with verified solutions: by hand, by calculator, by program, or with none."""

    kinds: tuple[Kind, ...] = described("kinds of problems, as many of each", ("words", "multiplication"))
    forms: dict[str, float] = field(
        default_factory=lambda: {"calculator": 1.0},
        metadata={"help": f"share of the solutions in each form: {', '.join(FORMS)}"},
    )
    again: float = described(
        "share of the problems that are asked with an attempt, half of these flawed, to be improved", 0.0
    )
    language: Literal["english", "spanish"] = described("of questions and solutions", "english")
    steps: tuple[int, int] = described("fewest and most calculations of a word problem", (1, MAX_STEPS))
    digits: int = described("digits of the factors of a multiplication", 3)
    problems: int = described("different problems, all sides together", 20_000)
    seed: int = described("of the problems", 0)
    test: float = described("share of the problems that is neither trained on nor scored in training", 0.1)
    curriculum: CurriculumConfig | None = field(
        default=None,
        metadata={
            "help": "easy ones first, {stages: [{until: 0.5, depth: [1, 1]}, {until: 1.0}], by: steps, replay: 0.25}; null: "
            "in any order"
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.overlap is not None:
            raise ConfigError("overlap: exercises are answered whole; give sequence_length instead")
        positive(self, "problems")
        not_negative(self, "seed")
        share(self, "test", "again")
        if self.validation + self.test > 0.9:
            raise ConfigError("validation: leaves nothing to train on together with test")
        if not self.kinds or len(set(self.kinds)) < len(self.kinds):
            raise ConfigError("kinds: takes at least one kind, each once")
        if not 1 <= self.steps[0] <= self.steps[1] <= MAX_STEPS:
            raise ConfigError(f"steps: {list(self.steps)} are not within 1 to {MAX_STEPS}, the fewest first")
        if not 1 <= self.digits <= MAX_DIGITS:
            raise ConfigError(f"digits: {self.digits} is not between 1 and {MAX_DIGITS}")
        for name, weight in self.forms.items():
            if name not in FORMS:
                raise ConfigError(f"forms: unknown form '{name}'; there are {', '.join(FORMS)}")
            if not weight >= 0:
                raise ConfigError(f"forms: {weight} of '{name}' is negative")
        if not sum(self.forms.values()) > 0:
            raise ConfigError("forms: takes at least one form with a share above 0")
        if self.curriculum is not None:
            self._check_curriculum(self.curriculum)

    def _check_curriculum(self, curriculum: CurriculumConfig) -> None:
        if self.replay:
            raise ConfigError("replay: documents have no place in a curriculum; leave one of replay and curriculum out")
        for number, stage in enumerate(curriculum.stages):
            for name, asked, there in (("kinds", stage.kinds, self.kinds), ("forms", stage.forms, tuple(self.forms))):
                odd = next((one for one in asked if one not in there), None)
                if odd is not None:
                    raise unknown(f"curriculum.stages.{number}.{name}", "name", odd, there)

    @property
    def tags(self) -> bool:
        return True

    @property
    def next_command(self) -> str:
        return 'uv run apps/reason {} "What is 347 * 892?"'


@dataclass(frozen=True, kw_only=True)
class ChatData(AnsweredData, DataConfig, kind="chat"):
    """Conversations, of which the assistant's words are learned; the format becomes the model's chat template."""

    path: str | None = described(
        'JSONL with "messages" of role and content a line; null: made-up dialogues with checked answers', None
    )
    format: Literal["chatml", "plain"] = described(
        "how turns are written: between tokens of their own, or as User: and Assistant:", "chatml"
    )
    think: float = described("share of the conversations that show their thoughts, where they have any", 0.45)
    conversations: int = described("of those that are made up, all sides together", 4000)
    seed: int = described("of these", 0)
    language: Literal["english", "spanish"] = described("of these", "english")
    exact: int = described("not for conversations, whose answers have no one value: 0", 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        share(self, "think")
        positive(self, "conversations")
        not_negative(self, "seed")
        if self.exact:
            raise ConfigError("exact: the answers of conversations are not counted; leave it 0")

    @property
    def tags(self) -> bool:
        return False
