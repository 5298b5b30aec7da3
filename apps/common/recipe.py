"""The recipe as a value: the tree of frozen dataclasses that a recipe's YAML is loaded into.

Each field says in its `help` metadata what `--help` prints; each class checks its own fields and raises `ConfigError`
with the key in front, to which the loader adds the path.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field
from typing import Any, ClassVar, Literal

from tinycore import ModelConfig
from tinycore.config import ConfigError, Family, unknown
from tinycore.ffns.experts import expert_names

MICRO_BATCH_TOKENS = 16_384  # what one forward holds when micro_batch is left to us


def _positive(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if value is not None and value < 1:
            raise ConfigError(f"{name}: {value} is not positive")


def _not_negative(owner: object, *names: str) -> None:
    for name in names:
        if getattr(owner, name) < 0:
            raise ConfigError(f"{name}: {getattr(owner, name)} is negative")


def _share(owner: object, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(owner, name) <= 1:
            raise ConfigError(f"{name}: {getattr(owner, name)} is not a share between 0 and 1")


def _described(help: str, default: Any = MISSING) -> Any:
    return field(metadata={"help": help}) if default is MISSING else field(default=default, metadata={"help": help})


class SourceConfig(Family):
    """Where documents come from."""


@dataclass(frozen=True, kw_only=True)
class EmbeddedSource(SourceConfig, kind="embedded"):
    """The corpus that needs no network: this Python's own sources and prose, and synthetic text of ours."""

    parts: tuple[str, ...] = _described("which parts, in this order", ("code", "prose", "stories", "arithmetic"))
    documents: int = _described("documents of each synthetic part", 20_000)
    seed: int = _described("of the synthetic documents", 0)

    def __post_init__(self) -> None:
        _positive(self, "documents")


@dataclass(frozen=True, kw_only=True)
class FilesSource(SourceConfig, kind="files"):
    """Local text: .txt, .md, .jsonl(.gz), .parquet, a folder or a glob."""

    path: str = _described("file, folder or glob")
    column: str = _described("field that holds the text (jsonl, parquet)", "text")
    separator: str | None = _described("line that separates the documents of a text file; null: a file is one", None)


@dataclass(frozen=True, kw_only=True)
class HubSource(SourceConfig, kind="hub"):
    """A Hugging Face dataset, streamed."""

    name: str = _described("dataset, as owner/name")
    config: str | None = _described("configuration (subset) of the dataset", None)
    split: str = _described("split to read", "train")
    column: str = _described("column that holds the text", "text")
    data_files: str | None = _described("files of the dataset to read; null: all of the split", None)
    revision: str | None = _described("branch, tag or commit; a commit makes the run repeatable", None)
    documents: int | None = _described("read at most this many documents; null: all", None)

    def __post_init__(self) -> None:
        _positive(self, "documents")


class TokenizerConfig(Family):
    """What a token is."""

    default: ClassVar[str | None] = "train"


@dataclass(frozen=True, kw_only=True)
class TrainedTokenizer(TokenizerConfig, kind="train"):
    """Byte-level BPE trained on the training split."""

    vocab_size: int = _described("tokens, special ones included", 4096)

    def __post_init__(self) -> None:
        if not 300 <= self.vocab_size <= 2**20:
            raise ConfigError(
                f"vocab_size: {self.vocab_size} is not between 300 (256 bytes and the specials) and {2**20}"
            )


@dataclass(frozen=True, kw_only=True)
class TokenizerFile(TokenizerConfig, kind="file"):
    """A tokenizer.json, or a folder that holds one."""

    path: str = _described("tokenizer.json or its folder")


@dataclass(frozen=True, kw_only=True)
class HubTokenizer(TokenizerConfig, kind="hub"):
    """The tokenizer of a Hugging Face model."""

    name: str = _described("model, as owner/name")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is learned from."""

    sources: tuple[SourceConfig, ...] = field(
        default_factory=lambda: (EmbeddedSource(),), metadata={"help": "read one after another"}
    )
    tokenizer: TokenizerConfig = field(default_factory=TrainedTokenizer, metadata={"help": "what a token is"})
    sequence_length: int = _described("tokens a row", 256)
    validation: float = _described("share of the documents, chosen by hash of the text", 0.01)
    test: float = _described("share of the documents, never trained on nor looked at in training", 0.01)
    experts: dict[str, tuple[str, ...]] = field(
        default_factory=dict,
        metadata={"help": "names of sources whose tokens a cognitive expert of the model is told to be for, by expert"},
    )
    cache: str = _described("folder of prepared data, one subfolder for each content", "data")

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("sources: needs at least one source")
        told = [source for sources in self.experts.values() for source in sources]
        twice = next((source for source in told if told.count(source) > 1), None)
        if twice is not None:
            raise ConfigError(f"experts: source '{twice}' is given to an expert twice")
        if self.sequence_length < 2:
            raise ConfigError(f"sequence_length: {self.sequence_length} leaves no token to predict; use at least 2")
        _share(self, "validation", "test")
        if self.validation <= 0 or self.validation + self.test > 0.9:
            raise ConfigError("validation: needs more than 0, and at most 0.9 together with test")


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig(Family):
    """Learning rate over time: a pure function of the step, with a linear warmup."""

    default: ClassVar[str | None] = "wsd"
    warmup: int = _described("steps from 0 to the learning rate", 100)

    def __post_init__(self) -> None:
        _not_negative(self, "warmup")


@dataclass(frozen=True, kw_only=True)
class WarmupStableDecay(ScheduleConfig, kind="wsd"):
    """Linear warmup, constant, decay at the end (arXiv 2404.06395)."""

    decay: float = _described("share of the steps that decay, at the end", 0.2)
    final: float = _described("last learning rate, as a share of the learning rate", 0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        _share(self, "decay", "final")


@dataclass(frozen=True, kw_only=True)
class Cosine(ScheduleConfig, kind="cosine"):
    """Linear warmup, then half a cosine (arXiv 1608.03983)."""

    final: float = _described("last learning rate, as a share of the learning rate", 0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        _share(self, "final")


@dataclass(frozen=True, kw_only=True)
class Constant(ScheduleConfig, kind="constant"):
    """Linear warmup, then constant."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig(Family):
    """How weights move."""

    default: ClassVar[str | None] = "adamw"
    learning_rate: float = _described("peak, per step", 1e-3)
    clip: float = _described("largest norm of the gradient; larger ones are scaled down to it", 1.0)
    schedule: ScheduleConfig = field(
        default_factory=WarmupStableDecay, metadata={"help": "factor of the learning rate over the steps"}
    )

    def __post_init__(self) -> None:
        _not_negative(self, "learning_rate")
        if self.clip <= 0:
            raise ConfigError(f"clip: {self.clip} is not above 0")


@dataclass(frozen=True, kw_only=True)
class AdamW(OptimConfig, kind="adamw"):
    """AdamW (arXiv 1711.05101), weight decay on matrices only."""

    betas: tuple[float, float] = _described("decay of the two moments", (0.9, 0.95))
    eps: float = _described("added to the root of the second moment", 1e-8)
    weight_decay: float = _described("times the learning rate, on matrices only", 0.1)
    weight_decay_until: float = _described("share of the steps after which weights decay no more", 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        _not_negative(self, "weight_decay")
        _share(self, "weight_decay_until")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas: {list(self.betas)} are not both at least 0 and below 1")
        if self.eps <= 0:
            raise ConfigError(f"eps: {self.eps} is not above 0")


@dataclass(frozen=True, kw_only=True)
class Muon(AdamW, kind="muon"):
    """Muon (arXiv 2502.16982) for the matrices of the layers, AdamW for everything else, at the same rate and decay."""

    momentum: float = _described("of the gradients that are orthogonalised", 0.95)
    nesterov: bool = _described("look one step of momentum ahead", True)
    cautious: bool = _described("decay a weight only where the step makes it smaller too", False)
    ns_steps: int = _described("Newton-Schulz steps", 5)
    ns_dtype: Literal["auto", "bfloat16", "float32"] = _described(
        "in which matrices are orthogonalised; auto: bfloat16 on a GPU, float32 elsewhere", "auto"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self, "ns_steps")
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"momentum: {self.momentum} is not at least 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long and how often."""

    steps: int = _described("optimizer steps", 600)
    batch_size: int = _described("sequences per optimizer step, over all processes", 32)
    micro_batch: int | None = _described(
        f"sequences per forward on one process; null: the most that {MICRO_BATCH_TOKENS:,} tokens allow", None
    )
    precision: Literal["auto", "bf16", "fp32"] = _described("of matrix products; auto: bf16 where it is fast", "auto")
    seed: int = _described("of the initial weights, the order of the data and the samples", 0)
    compile: bool = _described("torch.compile the model", False)
    recompute: Literal["none", "layers", "low_rank"] = _described(
        "what the backward pass makes again, to save memory: none, whole layers, or all but products of low rank (CoLA-M)",
        "none",
    )
    log_every: int = _described("steps between lines of metrics.jsonl", 10)
    validate_every: int = _described("steps between validations; 0: only at the end", 100)
    validate_rows: int = _described("rows of the validation split that are scored, the same each time", 256)
    save_every: int = _described("steps between checkpoints; 0: only at the end", 200)
    keep: int = _described("newest checkpoints that are kept, beside the best", 2)
    sample_every: int = _described("steps between samples; 0: only at the end", 0)
    trackers: tuple[str, ...] = _described("Accelerate trackers to report to, such as tensorboard", ())
    mirror: str | None = _described(
        "folder on another disk that holds a copy of the run as it trains; null: none", None
    )

    def __post_init__(self) -> None:
        if self.mirror == "":
            raise ConfigError("mirror: an empty path names no folder; null is no mirror")
        if self.compile and self.recompute != "none":
            raise ConfigError(f"recompute: {self.recompute} does not go with compile; set one of them to its default")
        _positive(self, "steps", "batch_size", "micro_batch", "log_every", "validate_rows", "keep")
        _not_negative(self, "seed", "validate_every", "save_every", "sample_every")


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """What is sampled from the model, to look at."""

    prompts: tuple[str, ...] = _described("texts to continue", ("def ", "Once upon a time", "The "))
    max_new_tokens: int = _described("tokens a sample", 100)
    temperature: float = _described("0: always the likeliest token", 0.8)
    top_p: float = _described("share of the probability that is drawn from", 0.95)

    def __post_init__(self) -> None:
        _positive(self, "max_new_tokens")
        _not_negative(self, "temperature")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p: {self.top_p} is not above 0 and at most 1")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that determines a pretraining run."""

    description: str = _described("what it is for, in one line", "")
    model: ModelConfig = field(metadata={"help": "architecture; vocab_size null: the tokenizer's"})
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=AdamW)
    train: TrainConfig = field(default_factory=TrainConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)

    def __post_init__(self) -> None:
        if self.data.sequence_length > self.model.max_seq_len:
            raise ConfigError(
                f"data.sequence_length: {self.data.sequence_length} is longer than model.max_seq_len "
                f"{self.model.max_seq_len}; shorten it or raise model.max_seq_len"
            )
        tokenizer = self.data.tokenizer
        if isinstance(tokenizer, TrainedTokenizer) and tokenizer.vocab_size > self.model.vocab_size:
            raise ConfigError(
                f"model.vocab_size: {self.model.vocab_size} has no row for every one of the tokenizer's "
                f"{tokenizer.vocab_size} tokens; leave it null to follow data.tokenizer.vocab_size"
            )

        known = expert_names(self.model.flat_layers()) if self.data.experts else ()
        for name in self.data.experts:
            if name not in known:
                raise unknown("data.experts", "expert of the model", name, known)

    def expert_labels(self) -> dict[str, int] | None:
        """The number of the expert that each source's tokens are told to belong to; None where nothing is told."""
        names = expert_names(self.model.flat_layers()) if self.data.experts else ()
        labels = {source: names.index(name) for name, sources in self.data.experts.items() for source in sources}
        return labels or None

    def micro_batch(self, processes: int = 1) -> int:
        """Sequences per forward on each of `processes` processes.

        The recipe's own, or the largest divisor of its share of the batch that holds at most `MICRO_BATCH_TOKENS`.
        Raises ConfigError where accumulation would not be a whole number of forwards.
        """
        rows, rest = divmod(self.train.batch_size, processes)
        micro = self.train.micro_batch
        if rest:
            raise ConfigError(
                f"train.batch_size: {self.train.batch_size} sequences do not divide over {processes} processes"
            )
        if micro is None:
            most = max(1, MICRO_BATCH_TOKENS // self.data.sequence_length)
            return max(size for size in range(1, min(rows, most) + 1) if rows % size == 0)
        if rows % micro:
            raise ConfigError(
                f"train.micro_batch: {micro} does not divide the {rows} sequences a step of each of {processes} "
                f"process{'es' if processes > 1 else ''} (train.batch_size {self.train.batch_size})"
            )
        return micro

    def accumulation(self, processes: int = 1) -> int:
        """Forwards per optimizer step on each process."""
        return self.train.batch_size // (self.micro_batch(processes) * processes)
