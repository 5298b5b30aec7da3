"""What a recipe may learn from, as values: sources of text and their tokenizer (`problem_config`, `puzzle_config`: the rest).

Each field says in its `help` metadata what `--help` prints; each class checks its own fields and raises `ConfigError`
with the key in front, to which the loader adds the path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from apps.common.config_fields import described, not_negative, positive, share
from apps.common.mixture_config import MixtureStage, WeightConfig, staged
from apps.common.synthetic_text import GENERATORS, GeneratorName
from tinycore.config import ConfigError, Family, unknown
from tinydata.mixture import Mixture, MixtureError, temperature_weights
from tinydata.sources.catalog import CATALOG
from tinydata.special_tokens import SPECIAL_TOKENS

BYTES_AND_SPECIALS = 256 + len(SPECIAL_TOKENS)  # with so many tokens nothing is merged: text is bytes


class SourceConfig(Family):
    """Where documents come from."""


@dataclass(frozen=True, kw_only=True)
class EmbeddedSource(SourceConfig, kind="embedded"):
    """The corpus that needs no network: this Python's own sources and prose, and synthetic text of ours."""

    parts: tuple[str, ...] = described("which parts, in this order", ("code", "prose", "stories", "arithmetic"))
    documents: int = described("documents of each synthetic part", 20_000)
    seed: int = described("of the synthetic documents", 0)

    def __post_init__(self) -> None:
        positive(self, "documents")


@dataclass(frozen=True, kw_only=True)
class FilesSource(SourceConfig, kind="files"):
    """Local text: .txt, .md, .jsonl(.gz), .parquet, a folder or a glob."""

    path: str = described("file, folder or glob")
    column: str = described("field that holds the text (jsonl, parquet)", "text")
    separator: str | None = described("line that separates the documents of a text file; null: a file is one", None)


@dataclass(frozen=True, kw_only=True)
class HubSource(SourceConfig, kind="hub"):
    """A Hugging Face dataset, streamed."""

    name: str = described("dataset, as owner/name")
    config: str | None = described("configuration (subset) of the dataset", None)
    split: str = described("split to read", "train")
    column: str = described("column that holds the text", "text")
    data_files: str | None = described("files of the dataset to read; null: all of the split", None)
    revision: str | None = described("branch, tag or commit; a commit makes the run repeatable", None)
    documents: int | None = described("read at most this many documents; null: all", None)

    def __post_init__(self) -> None:
        positive(self, "documents")


@dataclass(frozen=True, kw_only=True)
class CatalogSource(SourceConfig, kind="catalog"):
    """A dataset of the hub that tinydata knows, with its columns and its licence (tinydata.sources.catalog)."""

    name: str = described("short name, such as tinystories, finemath or smoltalk")
    revision: str | None = described("branch, tag or commit; a commit makes the run repeatable", None)
    documents: int | None = described("read at most this many documents; null: all", None)

    def __post_init__(self) -> None:
        positive(self, "documents")
        if self.name not in CATALOG:
            raise unknown("name", "dataset", self.name, CATALOG)


@dataclass(frozen=True, kw_only=True)
class SyntheticSource(SourceConfig, kind="synthetic"):
    """Documents of our own, each verified while it is made (apps/common/synthetic_text.py)."""

    generator: GeneratorName = field(metadata={"help": "what they are"})
    documents: int = described("how many", 20_000)
    seed: int = described("of the documents", 0)
    language: Literal["english", "spanish"] = described("of the documents", "english")
    levels: tuple[int, int] | None = described(
        "fewest and most calculations, hops, turns, sentences, digits or words of one; null: the generator's own", None
    )
    name: str | None = described("what mixtures and reports call them; null: the generator's name", None)

    @property
    def sizes(self) -> tuple[int, int]:
        """`levels`, or the generator's own."""
        return self.levels or GENERATORS[self.generator].levels

    def __post_init__(self) -> None:
        positive(self, "documents")
        not_negative(self, "seed")
        made = GENERATORS[self.generator]
        if self.language == "spanish" and not made.spanish:
            raise ConfigError(f"language: {self.generator} are written in english alone")
        low, high = self.sizes
        if not made.within[0] <= low <= high <= made.within[1]:
            raise ConfigError(
                f"levels: {[low, high]} {made.of} of {self.generator} are not within {made.within[0]} to {made.within[1]}, "
                "the fewest first"
            )
        if self.name == "":
            raise ConfigError("name: is empty; null is the generator's name")


class TokenizerConfig(Family):
    """What a token is."""

    default: ClassVar[str | None] = "train"


@dataclass(frozen=True, kw_only=True)
class TrainedTokenizer(TokenizerConfig, kind="train"):
    """Byte-level BPE trained on the training split."""

    vocab_size: int = described("tokens, special ones included", 4096)

    def __post_init__(self) -> None:
        if not BYTES_AND_SPECIALS <= self.vocab_size <= 2**20:
            raise ConfigError(
                f"vocab_size: {self.vocab_size} is not between {BYTES_AND_SPECIALS} (256 bytes and the specials) and {2**20}"
            )


@dataclass(frozen=True, kw_only=True)
class TokenizerFile(TokenizerConfig, kind="file"):
    """A tokenizer.json, or a folder that holds one."""

    path: str = described("tokenizer.json or its folder")


@dataclass(frozen=True, kw_only=True)
class HubTokenizer(TokenizerConfig, kind="hub"):
    """The tokenizer of a Hugging Face model."""

    name: str = described("model, as owner/name")


@dataclass(frozen=True, kw_only=True)
class DataConfig(Family):
    """What is learned from."""

    default: ClassVar[str | None] = "text"

    @property
    def positions(self) -> int:
        """Positions of a row."""
        raise NotImplementedError

    @property
    def next_command(self) -> str:
        """What to do with a finished run, which stands for {}."""
        return "uv run apps/chat {}"

    @property
    def in_place(self) -> bool:
        """Whether a row is answered in place, by a model that sees all of it."""
        return False


@dataclass(frozen=True, kw_only=True)
class TextData(DataConfig, kind="text"):
    """Documents, packed into rows."""

    sources: tuple[SourceConfig, ...] = field(
        default_factory=lambda: (EmbeddedSource(),), metadata={"help": "read one after another"}
    )
    tokenizer: TokenizerConfig = field(default_factory=TrainedTokenizer, metadata={"help": "what a token is"})
    sequence_length: int = described("tokens a row", 256)
    validation: float = described("share of the documents, chosen by hash of the text", 0.01)
    test: float = described("share of the documents, never trained on nor looked at in training", 0.01)
    experts: dict[str, tuple[str, ...]] = field(
        default_factory=dict,
        metadata={"help": "names of sources whose tokens a cognitive expert of the model is told to be for, by expert"},
    )
    mixture: dict[str, WeightConfig] = field(
        default_factory=dict,
        metadata={
            "help": "share of each source's tokens by its name, as it changes over the run; empty: all as they come"
        },
    )
    stages: tuple[MixtureStage, ...] = field(
        default=(),
        metadata={
            "help": "the mixture in another form: stages of the run, each until a share of it and with weights of its own"
        },
    )
    temperature: float | None = described(
        "mix sources by (tokens)^(1 / temperature): 1 by size, larger more evenly; null: no such mixture", None
    )
    max_epochs: dict[str, float] = field(
        default_factory=dict,
        metadata={"help": "passes over a source of the mixture that it gives at most, by its name"},
    )
    deduplicate: bool = described(
        "leave out documents whose text came before, but for case and white space, and count them", False
    )
    decontaminate: str | None = described(
        "file, folder or glob of evaluation texts: documents that share 13 words in a row with one are left out", None
    )
    cache: str = described("folder of prepared data, one subfolder for each content", "data")

    @property
    def positions(self) -> int:
        return self.sequence_length

    @property
    def mixed(self) -> bool:
        """Whether rows are drawn from each source for itself, by shares."""
        return bool(self.mixture or self.stages) or self.temperature is not None

    @property
    def mixed_names(self) -> tuple[str, ...]:
        """Names of the sources that shares are given for; none where each has one, by its size."""
        return tuple(self.mixture) or tuple(dict.fromkeys(name for stage in self.stages for name in stage.weights))

    def shares(self, tokens: Mapping[str, int]) -> Mixture:
        """The mixture of sources of so many tokens, to be asked for shares. Raises ConfigError for one that cannot be."""
        key = "mixture" if self.mixture else "stages" if self.stages else "temperature"
        try:
            if self.temperature is not None:
                return Mixture(dict(temperature_weights(tokens, self.temperature)))
            return staged(self.stages) if self.stages else Mixture({k: v.weigh() for k, v in self.mixture.items()})
        except MixtureError as error:
            raise ConfigError(f"{key}: {str(error).removeprefix('mixture: ').removeprefix('temperature: ')}") from None

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("sources: needs at least one source")
        told = [source for sources in self.experts.values() for source in sources]
        twice = next((source for source in told if told.count(source) > 1), None)
        if twice is not None:
            raise ConfigError(f"experts: source '{twice}' is given to an expert twice")
        if sum((bool(self.mixture), bool(self.stages), self.temperature is not None)) > 1:
            raise ConfigError("mixture: is told in more than one of mixture, stages and temperature; leave one of them")
        if self.mixed:
            self.shares({"": 1})  # refuses what cannot be, whatever the sizes
        if self.experts and self.mixed:
            raise ConfigError("experts: cannot be told of rows that a mixture draws; leave one of them out")
        for name, epochs in self.max_epochs.items():
            if name not in self.mixed_names and self.temperature is None:
                raise ConfigError(f"max_epochs: '{name}' is no source of data.{'stages' if self.stages else 'mixture'}")
            if not epochs > 0:
                raise ConfigError(f"max_epochs: {epochs} of '{name}' is not above 0")
        if self.sequence_length < 2:
            raise ConfigError(f"sequence_length: {self.sequence_length} leaves no token to predict; use at least 2")
        share(self, "validation", "test")
        if self.validation <= 0 or self.validation + self.test > 0.9:
            raise ConfigError("validation: needs more than 0, and at most 0.9 together with test")
