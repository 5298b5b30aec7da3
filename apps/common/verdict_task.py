"""Learning to judge answers: binary cross-entropy at every token, and how well right ones are told from wrong ones.

val_loss    nats a label
val_auc     probability that a right answer gets a higher score than a wrong one, at the last token (1/2: by chance)
val_exact   share of the held-out answers whose last score is on the right side of 1/2
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from apps.common.processes import World
from apps.common.recipe import Recipe
from apps.common.run_directory import sample_heading
from apps.common.task import Task
from apps.common.verdicts import PreparedVerdicts
from tinycore import Decoder, objectives
from tinycore.objectives import Losses
from tinydata import VerdictBatch, VerdictLoader
from tinyeval import roc_auc


class VerdictTask(Task):
    """See `Task`."""

    best_by: ClassVar[str] = "val_loss"

    def __init__(self, recipe: Recipe, prepared: PreparedVerdicts, world: World) -> None:
        """`recipe.train` has its micro_batch resolved."""
        self.world, self.tokenizer = world, prepared.tokenizer
        sizes = (prepared.tokenizer, recipe.data.positions, recipe.micro_batch(world.size), world.index, world.size)
        self.loader = VerdictLoader(prepared.train, *sizes, seed=recipe.train.seed)
        self.held_out = VerdictLoader(prepared.validation, *sizes)
        self.rows = recipe.train.validate_rows

    def passes(self, model: nn.Module, batch: VerdictBatch) -> Iterator[tuple[Losses, bool]]:
        """See `Task`."""
        return objectives.verdicts(model, *_tensors(batch, self.world.device))

    def validate(self, model: nn.Module) -> dict[str, Any]:
        """See the module's docstring."""
        return self._scored(model, self.rows)

    @torch.no_grad()
    def _scored(self, model: Any, rows: int) -> dict[str, Any]:
        training = model.training
        model.eval()
        total = count = 0.0
        scores: list[float] = []
        right: list[float] = []
        for batch in self.held_out.epoch_batches(rows):
            tokens, labels, documents = _tensors(batch, self.world.device)
            with self.world.accelerator.autocast():
                logits = model(tokens, doc_ids=documents, return_logits=False).values["value"].double()
            judged = labels >= 0
            each = nn.functional.binary_cross_entropy_with_logits(
                logits, labels.clamp(min=0).double(), reduction="none"
            )
            total += float(each[judged].sum())
            count += float(judged.sum())
            last = torch.from_numpy(batch.lengths - 1).to(logits.device)[:, None]
            scores += logits.gather(1, last)[:, 0].tolist()
            right += batch.right.tolist()
        model.train(training)
        total, count = self.world.total(total, count)
        everyone = [row for part in self.world.gather(_packed(scores, right)) for row in _unpacked(part)]
        correct = sum((score > 0) == (verdict > 0.5) for score, verdict in everyone)
        auc = roc_auc([score for score, _ in everyone], [verdict > 0.5 for _, verdict in everyone])
        found = {"val_loss": total / max(count, 1), "val_exact": correct / max(len(everyone), 1)}
        return found if math.isnan(auc) else found | {"val_auc": auc}

    @torch.no_grad()
    def sample(self, model: Decoder, step: int) -> str:
        """The first held-out answers, right and wrong, each with the score at its end."""
        training = model.training
        model.eval()
        batch = next(self.held_out.epoch_batches(6))
        tokens, _, documents = _tensors(batch, self.world.device)
        logits = model(tokens, doc_ids=documents, return_logits=False).values["value"]
        pieces = [sample_heading(step)]
        for row, length in enumerate(batch.lengths.tolist()):
            text = self.tokenizer.decode(batch.tokens[row, 1:length].tolist())
            verdict = "right" if batch.right[row] else "wrong"
            pieces.append(f"    {torch.sigmoid(logits[row, length - 1]):.2f} for this answer, which is {verdict}:")
            pieces += [f"    | {line}" for line in text.splitlines()]
        model.train(training)
        return "\n".join(pieces) + "\n"

    def save(self, directory: Any) -> None:
        """The tokenizer."""
        self.tokenizer.save(directory / "tokenizer.json")

    def seconds(self, model: nn.Module, timed: Callable[[Callable[[], object]], float]) -> tuple[float, float]:
        """From one batch of each process; samples are one small batch and take next to nothing."""
        one = self.held_out.batch_size * self.world.size
        few = min(one, self.rows, self.held_out.rows)
        return timed(lambda: self._scored(model, few)) * min(self.rows, self.held_out.rows) / few, 0.0


def _tensors(batch: VerdictBatch, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    tokens, labels, documents = (torch.from_numpy(part) for part in (batch.tokens, batch.labels, batch.documents))
    return tokens.to(device), labels.to(device), documents.to(device)


def _packed(scores: list[float], right: list[float]) -> bytes:
    return torch.tensor([scores, right], dtype=torch.float64).numpy().tobytes()


def _unpacked(content: bytes) -> list[tuple[float, float]]:
    rows = torch.frombuffer(bytearray(content), dtype=torch.float64).reshape(2, -1).tolist() if content else [[], []]
    return list(zip(*rows, strict=True))
