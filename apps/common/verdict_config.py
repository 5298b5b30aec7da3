"""Answers with verdicts, which a verifier learns from, as values of a recipe: what apps/verify writes."""

from __future__ import annotations

from dataclasses import dataclass, field

from apps.common.config_fields import described, positive
from apps.common.data_config import DataConfig, TokenizerConfig, TrainedTokenizer
from tinycore.config import ConfigError


@dataclass(frozen=True, kw_only=True)
class VerdictData(DataConfig, kind="verdicts"):
    """A generator's own answers to problems that it was not trained on, each known to be right or wrong."""

    path: str = described("JSONL with prompt, answer, right and parts a line, as apps/verify writes it")
    tokenizer: TokenizerConfig = field(
        default_factory=lambda: TrainedTokenizer(vocab_size=1024),
        metadata={"help": "that of the generator whose weights the verifier begins with"},
    )
    sequence_length: int = described("tokens a row; longer answers are left out, and counted", 256)
    validation: float = described("share of the questions, chosen by hash", 0.1)

    def __post_init__(self) -> None:
        positive(self, "sequence_length")
        if not 0 < self.validation <= 0.5:
            raise ConfigError(f"validation: {self.validation} is not above 0 and at most .5")

    @property
    def positions(self) -> int:
        return self.sequence_length

    @property
    def next_command(self) -> str:
        return 'uv run apps/reason RUN "What is 347 * 892?" --n 16 --verifier {}'
