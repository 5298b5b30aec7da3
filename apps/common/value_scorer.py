"""A model with a `value` head as tinyreason's `Scorer`: how likely each answer is right, read at its last token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from apps.common.errors import BadRequest
from tinycore import Decoder
from tinydata import Tokenizer, Verdict, VerdictLoader, encode_verdicts
from tinyreason import Completion

AT_ONCE = 64  # answers in one batch


@dataclass
class ValueScorer:
    """Raises BadRequest for a model without the head."""

    model: Decoder
    tokenizer: Tokenizer

    def __post_init__(self) -> None:
        if "value" not in self.model.config.heads:
            raise BadRequest("the verifier has no value head; uv run apps/verify RUN trains one that has")

    def score(self, prompt: str, completions: list[Completion]) -> list[float]:
        """Between 0 and 1; 0 for what is empty or longer than the model's context."""
        return self.score_all([(prompt, completion.text) for completion in completions])

    @torch.inference_mode()
    def score_all(self, answers: Sequence[tuple[str, str]]) -> list[float]:
        """Of (prompt, answer) each; those of about one length go through the model together."""
        verdicts = [Verdict(prompt, answer, ((len(answer), None),), False) for prompt, answer in answers]
        encoded = encode_verdicts(verdicts, self.tokenizer)
        longest = self.model.config.max_seq_len
        fits = [i for i, row in enumerate(encoded) if answers[i][1] and len(row.ids) <= longest]
        fits.sort(key=lambda index: len(encoded[index].ids))
        scores = [0.0] * len(answers)
        device = next(self.model.parameters()).device
        for first in range(0, len(fits), AT_ONCE):
            chosen = fits[first : first + AT_ONCE]
            length = len(encoded[chosen[-1]].ids)
            loader = VerdictLoader([encoded[index] for index in chosen], self.tokenizer, length, len(chosen))
            batch = next(loader.epoch_batches())
            tokens, documents = (torch.from_numpy(part).to(device) for part in (batch.tokens, batch.documents))
            logits = self.model(tokens, doc_ids=documents, return_logits=False).values["value"]
            last = torch.from_numpy(batch.lengths - 1).to(device)[:, None]
            for index, score in zip(chosen, torch.sigmoid(logits.gather(1, last)[:, 0].double()).tolist(), strict=True):
                scores[index] = score
        return scores
