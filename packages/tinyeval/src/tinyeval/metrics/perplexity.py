"""Perplexity, per token and therefore of one tokenizer only, with a sliding window; and bits per byte beside it.

A text of more tokens than a model reads at once is scored in windows. With window w and stride s, each step scores the next s
tokens with up to w - s tokens before them as context: every token once, and no token but the first w - s with less than
w - s before it. s = w is cheap and starts every window blind; s = 1 is exact and dear.

    perplexity = exp(-sum ln p / tokens)            bits per byte = -sum ln p / (ln 2 * UTF-8 bytes)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tinyeval.model import LanguageModel, Tokenized


@dataclass(frozen=True)
class Perplexity:
    """What texts cost: -ln p summed in `nats`, their tokens by `tokenizer_id`, and their UTF-8 bytes."""

    nats: float
    tokens: int
    bytes: int
    tokenizer_id: str

    @property
    def value(self) -> float:
        """Per token; infinite where it is too large for a float."""
        try:
            return math.exp(self.nats / self.tokens)
        except OverflowError:
            return math.inf

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.bytes

    def ratio(self, baseline: Perplexity) -> float:
        """This perplexity over the baseline's.

        Raises ValueError where their tokenizers differ: a token is then not the same thing.
        """
        if self.tokenizer_id != baseline.tokenizer_id:
            raise ValueError(
                f"perplexities of different tokenizers ({self.tokenizer_id}, {baseline.tokenizer_id}) do not compare; "
                f"bits per byte do: {self.bits_per_byte:.4f} and {baseline.bits_per_byte:.4f}"
            )
        return self.value / baseline.value


def perplexity(
    model: LanguageModel, texts: Iterable[str], window: int | None = None, stride: int | None = None
) -> Perplexity:
    """Of ``texts``, each from the start of a document; without ``window`` as the model's own rolling score has it.

    stride: default half the window. Raises TypeError for a model that does not say what its tokens are, and ValueError for no
    text or a stride that is not 1 to ``window``.
    """
    if not isinstance(model, Tokenized):
        raise TypeError("perplexity needs a model with tokenizer_id and pieces(text); bits per byte does not")
    read = [text for text in texts if text]
    if not read:
        raise ValueError("perplexity needs text")
    cut = [model.pieces(text) for text in read]
    if window is None:
        nats = -math.fsum(model.loglikelihood_rolling(read))
    else:
        step = max(1, window // 2) if stride is None else stride
        nats = -math.fsum(strided_loglikelihood(model, pieces, window, step) for pieces in cut)
    tokens, size = sum(map(len, cut)), sum(len(text.encode()) for text in read)
    return Perplexity(nats, tokens, size, model.tokenizer_id)


def strided_loglikelihood(model: LanguageModel, pieces: Sequence[str], window: int, stride: int) -> float:
    """ln p of a text that is given in pieces (its tokens, or words), scored ``stride`` pieces at a time.

    The first ``window`` pieces are scored at once. Raises ValueError unless 1 <= stride <= window.
    """
    if not 1 <= stride <= window:
        raise ValueError(f"a stride lies between 1 and the window of {window}, not at {stride}")
    pairs, at = [], 0
    while at < len(pieces):
        stop = min(at + (stride if at else window), len(pieces))
        start = max(0, stop - window)
        pairs.append(("".join(pieces[start:at]), "".join(pieces[at:stop])))
        at = stop
    return math.fsum(nats for nats, _ in model.loglikelihood(pairs))
