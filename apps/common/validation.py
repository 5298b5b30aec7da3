"""How good the model is: the same rows scored each time, with the plain next-token cross-entropy and nothing else.

    loss      nats per target                    bpb       bits per UTF-8 byte = nll / ln 2 / bytes
    accuracy  share of targets ranked first

over all targets of the rows, end tokens included; bytes are those of the text, special tokens counting none. Bits per
byte do not depend on the tokenizer: they are the number by which runs are compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

import tinydata
from apps.common.processes import World


@dataclass(frozen=True)
class Score:
    """Loss in nats per target, bits per byte, accuracy, and how many targets they stand on."""

    loss: float
    bpb: float
    accuracy: float
    targets: int


class Rows(Protocol):
    """A loader whose first rows can be had again and again."""

    def epoch_batches(self, rows: int | None = None) -> Iterator[tinydata.Batch]: ...


class Validator:
    """Scores a model on the first `rows` rows of the loader's first epoch; all processes share the work."""

    def __init__(self, world: World, loader: Rows, rows: int) -> None:
        self.world, self.loader, self.rows = world, loader, rows

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> Score:
        training = model.training
        model.eval()
        nll = torch.zeros((), dtype=torch.float32 if self.world.device.type == "mps" else torch.float64)
        nll = nll.to(self.world.device)
        correct = torch.zeros((), dtype=torch.int64, device=self.world.device)
        targets = text_bytes = 0
        for batch in self.loader.epoch_batches(self.rows):
            targets += batch.target_count
            text_bytes += batch.bytes
            tokens, labels, documents, *_ = to_device(batch, self.world.device)
            with self.world.accelerator.autocast():
                out = model(tokens, targets=labels, doc_ids=documents)
            nll += out.losses["lm"][0]
            correct += out.stats["correct"][0]
        model.train(training)
        total, right, count, size = self.world.total(nll.item(), correct.item(), targets, text_bytes)
        return Score(total / max(count, 1), total / math.log(2) / max(size, 1), right / max(count, 1), int(count))


def to_device(batch: tinydata.Batch, device: torch.device) -> tuple[torch.Tensor, ...]:
    """tokens, targets, documents (B, T) int64 on `device`, and the labels of sources where the batch has them; the copy to a
    GPU overlaps with its work."""
    labels = [] if batch.labels is None else [batch.labels]
    arrays = (torch.from_numpy(array) for array in (batch.tokens, batch.targets, batch.documents, *labels))
    if device.type == "cuda":
        arrays = (array.pin_memory() for array in arrays)
    return tuple(array.to(device, non_blocking=True) for array in arrays)
