"""The recipe as a value: the tree of frozen dataclasses that a recipe's YAML is loaded into.

Each field says in its `help` metadata what `--help` prints; each class checks its own fields and raises `ConfigError`
with the key in front, to which the loader adds the path.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from apps.common.config_fields import below_one, described, not_negative, positive, share
from apps.common.data_config import DataConfig, TextData, TrainedTokenizer
from apps.common.lora import LoRA
from apps.common.phase_config import BatchPhase, LengthPhase, grows
from apps.common.puzzle_config import PuzzleData
from apps.common.verdict_config import VerdictData
from tinycore import ModelConfig
from tinycore.config import ConfigError, Family, unknown
from tinycore.ffns.experts import expert_names
from tinycore.recompute import Policy

_IN_PLACE = (
    "model.layers: no mixer sees later positions, and a puzzle is answered in place; "
    "give attention causal: false, or token_mlp"
)
_NEXT_TOKEN = "model.layers: a mixer sees the tokens that it should predict; text needs causal mixers"
MICRO_BATCH_TOKENS = 16_384  # what one forward holds when micro_batch is left to us


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig(Family):
    """Learning rate over time: a pure function of the step, with a linear warmup."""

    default: ClassVar[str | None] = "wsd"
    warmup: int = described("steps from 0 to the learning rate", 100)

    def __post_init__(self) -> None:
        not_negative(self, "warmup")


@dataclass(frozen=True, kw_only=True)
class WarmupStableDecay(ScheduleConfig, kind="wsd"):
    """Linear warmup, constant, decay at the end (arXiv 2404.06395)."""

    decay: float = described("share of the steps that decay, at the end", 0.2)
    final: float = described("last learning rate, as a share of the learning rate", 0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        share(self, "decay", "final")


@dataclass(frozen=True, kw_only=True)
class Cosine(ScheduleConfig, kind="cosine"):
    """Linear warmup, then half a cosine (arXiv 1608.03983)."""

    final: float = described("last learning rate, as a share of the learning rate", 0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        share(self, "final")


@dataclass(frozen=True, kw_only=True)
class Constant(ScheduleConfig, kind="constant"):
    """Linear warmup, then constant."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig(Family):
    """How weights move."""

    default: ClassVar[str | None] = "adamw"
    learning_rate: float = described("peak, per step", 1e-3)
    clip: float = described("largest norm of the gradient; larger ones are scaled down to it", 1.0)
    base_width: int | None = described(
        "model.dim that learning_rate was found with: at another width rates of matrices and logits are scaled so that it is "
        "right there too (docs/width.md); null: they are not",
        None,
    )
    schedule: ScheduleConfig = field(
        default_factory=WarmupStableDecay, metadata={"help": "factor of the learning rate over the steps"}
    )

    def __post_init__(self) -> None:
        not_negative(self, "learning_rate")
        positive(self, "base_width")
        if self.clip <= 0:
            raise ConfigError(f"clip: {self.clip} is not above 0")


@dataclass(frozen=True, kw_only=True)
class AdamW(OptimConfig, kind="adamw"):
    """AdamW (arXiv 1711.05101), weight decay on matrices only."""

    betas: tuple[float, float] = described("decay of the two moments", (0.9, 0.95))
    eps: float = described("added to the root of the second moment", 1e-8)
    weight_decay: float = described("times the learning rate, on matrices only", 0.1)
    weight_decay_until: float = described("share of the steps after which weights decay no more", 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        not_negative(self, "weight_decay")
        share(self, "weight_decay_until")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas: {list(self.betas)} are not both at least 0 and below 1")
        if self.eps <= 0:
            raise ConfigError(f"eps: {self.eps} is not above 0")


@dataclass(frozen=True, kw_only=True)
class Muon(AdamW, kind="muon"):
    """Muon (arXiv 2502.16982) for the matrices of the layers, AdamW for everything else, at the same rate and decay."""

    momentum: float = described("of the gradients that are orthogonalised", 0.95)
    nesterov: bool = described("look one step of momentum ahead", True)
    cautious: bool = described("decay a weight only where the step makes it smaller too", False)
    ns_steps: int = described("Newton-Schulz steps", 5)
    ns_dtype: Literal["auto", "bfloat16", "float32"] = described(
        "in which matrices are orthogonalised; auto: bfloat16 on a GPU, float32 elsewhere", "auto"
    )
    ns_coefficients: Literal["quintic", "polar_express"] = described(
        "of Newton-Schulz; polar_express (arXiv 2505.16932) has others for each step and comes nearer", "quintic"
    )
    shared: bool = described("share its state and its work out among the processes (ZeRO-1)", False)

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "ns_steps")
        below_one(self, "momentum")
        if self.shared and type(self) is not Muon:
            raise ConfigError(f"shared: only muon shares its state out, {self.kind} does not")


@dataclass(frozen=True, kw_only=True)
class M3(Muon, kind="m3"):
    """Multi-scale momentum Muon (arXiv 2512.24695): a second, slower momentum beside Muon's."""

    slow_period: int = described("steps between updates of the slow momentum", 8)
    slow_momentum: float = described("of the mean gradients of so many steps", 0.9)
    slow_share: float = described("of the slow direction, beside the fast one's 1; 0 is Muon", 0.5)
    second_moment: float | None = described(
        "decay of the squared gradients that steps are divided by; null: they are not", None
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "slow_period")
        not_negative(self, "slow_share")
        below_one(self, "slow_momentum")
        if self.second_moment is not None and not 0 <= self.second_moment < 1:
            raise ConfigError(f"second_moment: {self.second_moment} is not at least 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class DeepMomentum(Muon, kind="deep_momentum"):
    """Deep momentum (arXiv 2512.24695): Muon whose memory of past gradients is a small network for each matrix."""

    nesterov: bool = described("not with a deep memory", False)
    hidden: int = described("units of each matrix's memory", 8)
    inner_rate: float = described("learning rate of the memory; 0 is Muon without Nesterov's step", 0.1)
    keep: float = described("what a step leaves of the memory", 0.99)

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "hidden")
        not_negative(self, "inner_rate")
        share(self, "keep")
        if self.nesterov:
            raise ConfigError("nesterov: a deep memory has no step ahead; leave it false")


@dataclass(frozen=True, kw_only=True)
class DeltaGD(AdamW, kind="delta_gd"):
    """Delta gradient descent (arXiv 2512.24695): hidden matrices forget what they say of the inputs they just met."""

    weight_decay: float = described("times the learning rate, on matrices only, beside the forgetting", 0.0)
    momentum: float = described("of the gradients; the printed rule has 0", 0.9)
    scale: float = described("of a hidden matrix's gradient steps, times the learning rate", 10.0)
    forgetting: float = described("times the learning rate; 0 is gradient descent", 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        below_one(self, "momentum")
        not_negative(self, "scale")
        not_negative(self, "forgetting")


@dataclass(frozen=True, kw_only=True)
class AdamATan2(OptimConfig, kind="adam_atan2"):
    """Adam-atan2 (arXiv 2407.05872): AdamW without epsilon, whose steps are angles; TRM's optimizer."""

    betas: tuple[float, float] = described("decay of the two moments", (0.9, 0.95))
    weight_decay: float = described("times the learning rate, on matrices only", 0.1)

    def __post_init__(self) -> None:
        super().__post_init__()
        not_negative(self, "weight_decay")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas: {list(self.betas)} are not both at least 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class StopConfig:
    """When a run ends before its steps do; each half is for itself."""

    loss_band: tuple[float, float] | None = described(
        "end once the training loss, its mean since the last log line, is inside; null: do not look", None
    )
    patience: int | None = described(
        "end after so many validations without more exact answers (val_exact), or, where there are none to count, without "
        "fewer bits per byte (val_bpb) or a lower val_loss; null: do not look",
        None,
    )
    band: float = described(
        "for patience: an improvement no larger than this, in what it looks at (share, bits per byte, nats), counts as none",
        0.0,
    )

    def __post_init__(self) -> None:
        positive(self, "patience")
        not_negative(self, "band")
        if self.band and self.patience is None:
            raise ConfigError("band: is what patience overlooks; give patience too")
        if self.loss_band is not None and not 0 <= self.loss_band[0] < self.loss_band[1]:
            raise ConfigError(f"loss_band: {list(self.loss_band)} is not from a loss to a larger one")


@dataclass(frozen=True, kw_only=True)
class SpikeConfig:
    """Which losses are called spikes (apps/common/health.py); nothing follows from it but a line."""

    window: int = described("steps before it that a loss is compared with", 64)
    deviations: float = described("how far above their median it is, in their spread", 6.0)

    def __post_init__(self) -> None:
        positive(self, "window")
        if not self.deviations > 0:
            raise ConfigError(f"deviations: {self.deviations} is not above 0")


@dataclass(frozen=True, kw_only=True)
class RepetitionConfig:
    """Losses against a model that repeats itself, beside the cross-entropy; all 0: none. The seed's: .1, .5, .01."""

    smoothing: float = described("of labels (arXiv 1512.00567)", 0.0)
    unlikelihood: float = described("of tokens that stand before it and are not the target (arXiv 1908.04319)", 0.0)
    entropy: float = described("of what is predicted, which is made larger", 0.0)

    def __post_init__(self) -> None:
        below_one(self, "smoothing")
        not_negative(self, "unlikelihood", "entropy")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long and how often."""

    steps: int = described("optimizer steps", 600)
    epochs: float | None = described("passes over the data, which then give train.steps; null: steps count", None)
    stop: StopConfig = field(default_factory=StopConfig, metadata={"help": "when a run ends before its steps do"})
    rollback_after: int = described(
        "steps in a row whose loss or gradient is not finite, after which the run goes back to its last good checkpoint at "
        "half the learning rate",
        3,
    )
    spikes: SpikeConfig = field(default_factory=SpikeConfig, metadata={"help": "which losses are told as spikes"})
    freeze: tuple[str, ...] = described(
        "names of parameters that are not trained, as patterns such as embed.* or layers.0.*", ()
    )
    max_hours: float | None = described(
        "of a new run: fewer steps where the speed measured at the start says that all of them take longer; null: all",
        None,
    )
    batch_size: int = described("sequences per optimizer step, over all processes", 32)
    batch_schedule: tuple[BatchPhase, ...] = described(
        "smaller batches first, [{until: 0.2, batch: 8}, ...]: until a share of the steps so many sequences; then batch_size",
        (),
    )
    length_schedule: tuple[LengthPhase, ...] = described(
        "shorter rows first, [{until: 0.3, length: 128}, ...]: until a share of the steps rows are cut into pieces of so many "
        "tokens; then data.sequence_length",
        (),
    )
    micro_batch: int | None = described(
        f"sequences per forward on one process; null: the most that {MICRO_BATCH_TOKENS:,} tokens allow", None
    )
    precision: Literal["auto", "bf16", "fp16", "fp32"] = described(
        "of matrix products; auto: bf16 where it is fast; fp16: on CUDA, with a scaled loss", "auto"
    )
    ema: float | None = described(
        "decay of an average of the weights, which is scored beside them, sampled and used afterwards; null: none",
        None,
    )
    lora: LoRA | None = field(
        default=None,
        metadata={
            "help": "train adapters of low rank and freeze the weights, {rank: 8, alpha: 16, dropout: 0, targets: "
            "[mixer, ffn], base: float}; null: train the weights"
        },
    )
    repetition: RepetitionConfig = field(
        default_factory=RepetitionConfig, metadata={"help": "losses against a model that repeats itself"}
    )
    seed: int = described("of the initial weights, the order of the data and the samples", 0)
    sharding: Literal["none", "full"] = described(
        "full: each of several processes holds a part of the weights, gradients and optimizer state (FSDP2); none: all of "
        "them",
        "none",
    )
    compile: bool = described("torch.compile the model", False)
    recompute: Literal["auto", "none", "layers", "low_rank"] = described(
        "what the backward pass makes again, to save memory: none, whole layers, or all but products of low rank (CoLA-M); "
        "auto: the least of them that is predicted to fit --memory or what is free",
        "none",
    )
    log_every: int = described("steps between lines of metrics.jsonl", 10)
    norms_every: int = described(
        "steps between norms of the gradient by family of parameters and by layer; 0: with each validation", 0
    )
    validate_every: int = described("steps between validations; 0: only at the end", 100)
    validate_rows: int = described("rows of the validation split that are scored, the same each time", 256)
    save_every: int = described("steps between checkpoints; 0: only at the end", 200)
    keep: int = described("newest checkpoints that are kept, beside the best", 2)
    sample_every: int = described("steps between samples; 0: only at the end", 0)
    trackers: tuple[str, ...] = described("Accelerate trackers to report to, such as tensorboard", ())
    mirror: str | None = described("folder on another disk that holds a copy of the run as it trains; null: none", None)

    def __post_init__(self) -> None:
        if self.mirror == "":
            raise ConfigError("mirror: an empty path names no folder; null is no mirror")
        if self.compile and self.recompute != "none":
            raise ConfigError(f"recompute: {self.recompute} does not go with compile; set one of them to its default")
        if self.lora is not None and self.compile:
            raise ConfigError("compile: adapters are not compiled; leave one of compile and lora out")
        if self.lora is not None and self.ema is not None:
            raise ConfigError("ema: adapters are not averaged; leave one of ema and lora out")
        if self.lora is not None and self.freeze:
            raise ConfigError("freeze: with adapters every weight is frozen; leave one of freeze and lora out")
        if self.max_hours is not None and not self.max_hours > 0:
            raise ConfigError(f"max_hours: {self.max_hours} is not above 0")
        if self.epochs is not None and not self.epochs > 0:
            raise ConfigError(f"epochs: {self.epochs} is not above 0")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise ConfigError(f"ema: {self.ema} is not at least 0 and below 1")
        positive(self, "steps", "rollback_after", "batch_size", "micro_batch", "log_every", "validate_rows", "keep")
        batches = [entry.batch for entry in self.batch_schedule]
        grows("batch_schedule", self.batch_schedule, batches, self.batch_size, "batch_size")
        not_negative(self, "seed", "norms_every", "validate_every", "save_every", "sample_every")

    @property
    def policy(self) -> Policy:
        """What is made again, once that is settled (apps/common/fit.py). Raises ValueError before."""
        if self.recompute == "auto":
            raise ValueError("recompute: auto is settled before anything is predicted or trained")
        return self.recompute


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """What is sampled from the model, to look at."""

    prompts: tuple[str, ...] = described("texts to continue", ("def ", "Once upon a time", "The "))
    max_new_tokens: int = described("tokens a sample", 100)
    temperature: float = described("0: always the likeliest token", 0.8)
    top_p: float = described("share of the probability that is drawn from", 0.95)

    def __post_init__(self) -> None:
        positive(self, "max_new_tokens")
        not_negative(self, "temperature")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p: {self.top_p} is not above 0 and at most 1")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that determines a run."""

    description: str = described("what it is for, in one line", "")
    model: ModelConfig = field(metadata={"help": "architecture; vocab_size null: the tokenizer's, or the puzzle's"})
    data: DataConfig = field(default_factory=TextData)
    optim: OptimConfig = field(default_factory=AdamW)
    train: TrainConfig = field(default_factory=TrainConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)

    def __post_init__(self) -> None:
        if self.data.positions > self.model.max_seq_len:
            raise ConfigError(
                f"data.sequence_length: {self.data.positions} is longer than model.max_seq_len "
                f"{self.model.max_seq_len}; shorten it or raise model.max_seq_len"
            )
        if self.train.compile and any(head.halts for head in self.model.heads.values()):
            raise ConfigError(
                "train.compile: rows leave a batch that halts, and every number of rows would be compiled anew"
            )
        if self.data.in_place == self.model.causal:
            raise ConfigError(_IN_PLACE if self.data.in_place else _NEXT_TOKEN)
        if isinstance(self.data, PuzzleData):
            self._check_puzzles(self.data)
        if isinstance(self.data, TextData):
            self._check_text(self.data)
        self._check_lengths()
        if self.optim.base_width is not None:
            self._check_width(self.optim.base_width)
        if isinstance(self.data, VerdictData) and "value" not in self.model.heads:
            raise ConfigError("model.heads: verdicts are learned by a value head; add value: {}")

    def _check_puzzles(self, data: PuzzleData) -> None:
        if data.positions != self.model.max_seq_len:
            raise ConfigError(
                f"model.max_seq_len: {self.model.max_seq_len}, and a puzzle has {data.slots} slots and {data.cells} cells; "
                "leave it null to follow the data"
            )
        if data.vocabulary > self.model.vocab_size:
            raise ConfigError(
                f"model.vocab_size: {self.model.vocab_size} has no row for every one of the puzzle's {data.vocabulary} "
                "codes; leave it null to follow the data"
            )

    def _check_text(self, data: TextData) -> None:
        tokenizer = data.tokenizer
        if isinstance(tokenizer, TrainedTokenizer) and tokenizer.vocab_size > self.model.vocab_size:
            raise ConfigError(
                f"model.vocab_size: {self.model.vocab_size} has no row for every one of the tokenizer's "
                f"{tokenizer.vocab_size} tokens; leave it null to follow data.tokenizer.vocab_size"
            )
        known = expert_names(self.model.flat_layers()) if data.experts else ()
        for name in data.experts:
            if name not in known:
                raise unknown("data.experts", "expert of the model", name, known)

    def _check_width(self, base: int) -> None:
        if self.train.lora is not None:
            raise ConfigError(
                "optim.base_width: adapters have one rank at every width; leave one of base_width and lora out"
            )
        found = getattr(self.model.heads["lm"], "scale", None)
        wanted = 1.0 if self.model.embed.tied else base / self.model.dim
        if (1.0 if found is None else found) != wanted:
            raise ConfigError(
                f"model.heads.lm.scale: {found} does not go with optim.base_width {base} and model.dim {self.model.dim}, for "
                f"which it is {wanted:g}; set it to null to follow them"
            )

    def _check_lengths(self) -> None:
        entries, whole = self.train.length_schedule, self.data.positions
        if entries and not isinstance(self.data, TextData):
            raise ConfigError(
                "train.length_schedule: cuts rows of running text, and these rows belong together; leave it out"
            )
        lengths = [entry.length for entry in entries]
        grows("train.length_schedule", entries, lengths, whole, "data.sequence_length")
        for length in lengths:
            if whole % length:
                raise ConfigError(f"train.length_schedule: {length} does not divide data.sequence_length {whole}")

    def expert_labels(self) -> dict[str, int] | None:
        """The number of the expert that each source's tokens are told to belong to; None where nothing is told."""
        if not isinstance(self.data, TextData) or not self.data.experts:
            return None
        names = expert_names(self.model.flat_layers())
        labels = {source: names.index(name) for name, sources in self.data.experts.items() for source in sources}
        return labels or None

    def micro_batch(self, processes: int = 1) -> int:
        """Sequences per forward on each of `processes` processes.

        The recipe's own, or the largest divisor of its share of every batch that holds at most `MICRO_BATCH_TOKENS`.
        Raises ConfigError where accumulation would not be a whole number of forwards.
        """
        rows, micro = self.share_of_batches(processes), self.train.micro_batch
        if micro is None:
            most = max(1, MICRO_BATCH_TOKENS // self.data.positions)
            return max(size for size in range(1, min(rows, most) + 1) if rows % size == 0)
        if rows % micro:
            raise ConfigError(
                f"train.micro_batch: {micro} does not divide the {rows} sequences a step of each of {processes} "
                f"process{'es' if processes > 1 else ''} (train.batch_size {self.train.batch_size}"
                f"{', and what batch_schedule has before it' if self.train.batch_schedule else ''})"
            )
        return micro

    def share_of_batches(self, processes: int = 1) -> int:
        """What a micro-batch has to divide on each of `processes` processes: its share of the batch, with a schedule the
        largest number that divides its share of every batch. Raises ConfigError for a batch that cannot be shared out."""
        for batch in (self.train.batch_size, *(entry.batch for entry in self.train.batch_schedule)):
            if batch % processes:
                key = "batch_size" if batch == self.train.batch_size else "batch_schedule"
                raise ConfigError(f"train.{key}: {batch} sequences do not divide over {processes} processes")
        return math.gcd(self.train.batch_size, *(entry.batch for entry in self.train.batch_schedule)) // processes

    def accumulation(self, processes: int = 1) -> int:
        """Forwards per optimizer step on each process, once the batch is whole."""
        return self.train.batch_size // (self.micro_batch(processes) * processes)
