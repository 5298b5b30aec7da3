"""A counting model over bytes with the methods of `LanguageModel`: a baseline, and a real model without torch.

A document is byte 0, the UTF-8 bytes of the text, byte 0, as `NgramModel` is trained. Scoring is exact in float64; greedy
writing takes the most probable byte, of equal ones the lowest, and ends at byte 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from tinyeval.model import Likelihood, Pair, cut
from tinyeval.ngram import NgramModel
from tinyeval.reference_models import ByteModel


class ByteNgram(ByteModel):
    """Train with :meth:`train`; ``order`` 1 to 3."""

    def __init__(self, counts: NgramModel) -> None:
        self._counts = counts

    @classmethod
    def train(cls, texts: Iterable[str], order: int = 3) -> ByteNgram:
        """Count the bytes of ``texts``. Raises ValueError for an order outside 1..3 or no text at all."""
        documents = (_bytes(f"\0{text}\0") for text in texts)
        return cls(NgramModel.train(documents, vocab_size=256, order=order))

    def loglikelihood(self, pairs: Sequence[Pair]) -> list[Likelihood]:
        return [self._scored(context, continuation) for context, continuation in pairs]

    def loglikelihood_rolling(self, texts: Sequence[str]) -> list[float]:
        return [math.log(2) * float(self._counts.log2_probabilities(_bytes(f"\0{text}")).sum()) for text in texts]

    def generate_until(self, prompts: Sequence[str], until: Sequence[str], max_tokens: int) -> list[str]:
        return [self._written(prompt, until, max_tokens) for prompt in prompts]

    def _scored(self, context: str, continuation: str) -> Likelihood:
        document = _bytes(f"\0{context}{continuation}")
        scored = len(continuation.encode())
        start = len(document) - scored
        log2 = self._counts.log2_probabilities(document)[start - 1 :]
        greedy = all(int(document[at]) == self._likeliest(document[:at]) for at in range(start, len(document)))
        return math.log(2) * float(log2.sum()), greedy

    def _likeliest(self, document: NDArray[np.uint8]) -> int:
        return int(np.argmax(self._counts.log2_distribution(document)))

    def _written(self, prompt: str, until: Sequence[str], max_tokens: int) -> str:
        document = bytearray(f"\0{prompt}".encode())
        start = len(document)
        for _ in range(max_tokens):
            following = self._likeliest(np.frombuffer(bytes(document[-4:]), dtype=np.uint8))
            if not following:
                break
            document.append(following)
            text = document[start:].decode(errors="ignore")
            if any(one and one in text for one in until):
                return cut(text, until)
        return document[start:].decode(errors="ignore")


def _bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), dtype=np.uint8)
