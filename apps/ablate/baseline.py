"""What counting alone reaches: the corpus's bigram model in bits per byte, on the very targets that cells are scored on.

Interpolated modified Kneser-Ney over the tokens of the whole training split. A bigram looks at one token, which every
target of a validation row has before it, so that both models are asked the same questions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apps.common import files
from apps.common.data import Prepared
from apps.common.errors import RunError
from apps.common.language_task import VALIDATION_ORDER
from apps.common.recipe import Recipe
from tinycore import ConfigError
from tinycore.config import dump
from tinycore.config import load as load_strictly
from tinydata import Batch, Loader, ShardSet
from tinyeval import NgramModel, bits_per_byte

FILE = "bigram.json"
ORDER = 2


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Bits per byte of the bigram model, over so many targets of `rows` validation rows of `sequence_length` tokens."""

    val_bpb: float
    targets: int
    rows: int
    sequence_length: int
    data: str


def of(folder: Path, recipe: Recipe, prepared: Prepared) -> Baseline:
    """The baseline of `recipe`'s validation, from `folder` if it was measured before. Raises RunError for a damaged file."""
    if (folder / FILE).exists():
        there = read(folder)
        if (there.rows, there.sequence_length, there.data) == (
            recipe.train.validate_rows,
            recipe.data.positions,
            prepared.manifest["sha256"],
        ):
            return there
    found = measure(recipe, prepared)
    files.write_json(folder / FILE, dump(found))
    return found


def read(folder: Path) -> Baseline:
    """The baseline that a run left in `folder`. Raises RunError, one line."""
    path = folder / FILE
    try:
        return load_strictly(Baseline, files.read_json(path), "")
    except ConfigError as error:
        raise RunError(f"{path}: {error}; remove the file, the next run measures it again") from None


def measure(recipe: Recipe, prepared: Prepared) -> Baseline:
    """Train the bigram model on the training split and score it on the rows that `recipe` validates on."""
    rows, length = recipe.train.validate_rows, recipe.data.positions
    loader = Loader(prepared.validation, length, recipe.micro_batch(), seed=VALIDATION_ORDER, prefetch=0)
    batches = list(loader.epoch_batches(rows))
    model = NgramModel.train(_documents(prepared.train), vocab_size=prepared.train.vocab_size, order=ORDER)
    bits = model.bits(piece for batch in batches for piece in pieces(batch))
    return Baseline(
        val_bpb=bits_per_byte(bits, sum(batch.bytes for batch in batches)),
        targets=sum(batch.target_count for batch in batches),
        rows=rows,
        sequence_length=length,
        data=prepared.manifest["sha256"],
    )


def _documents(shards: ShardSet) -> Iterator[np.ndarray]:
    for index in range(shards.documents):
        yield shards.read(index)


def pieces(batch: Batch) -> Iterator[np.ndarray]:
    """Each piece of a document in the rows of `batch`, with the target of its last token if it has one."""
    for tokens, targets, documents in zip(batch.tokens, batch.targets, batch.documents, strict=True):
        for number in range(int(documents.max()) + 1):
            (slots,) = np.nonzero(documents == number)
            following = targets[slots[-1:]]
            yield np.concatenate([tokens[slots], following[following >= 0]])
