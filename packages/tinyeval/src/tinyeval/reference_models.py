"""Models whose every answer is known beforehand: the controls that a task and its scorer are held against.

    RandomModel      knows nothing: every byte has probability 1/256. A task on which it is above chance leaks.
    CopyingOracle    goes on as the prompt did where it last was at the longest such place (an induction head, arXiv
                     2209.11895). A needle task that it does not solve cannot be solved by reading.
    Scripted         writes what a function says. With the right answers, a scorer must give it everything.

They score bytes; a token that they may write is a character.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tinyeval.model import Likelihood, Pair, cut

_BYTES = 256
_LETTERS = "abcdefghijklmnopqrstuvwxyz 0123456789"


class ByteModel:
    """What models over bytes share. Their pieces are characters: a byte within a character has no text of its own."""

    tokenizer_id = "characters"

    def pieces(self, text: str) -> list[str]:
        return list(text)


@dataclass(frozen=True)
class RandomModel(ByteModel):
    """Uniform over bytes; what it writes depends on ``seed`` and the prompt alone, and is letters, digits and spaces."""

    seed: int = 0

    def loglikelihood(self, pairs: Sequence[Pair]) -> list[Likelihood]:
        return [(self._nats(continuation), not continuation) for _, continuation in pairs]

    def loglikelihood_rolling(self, texts: Sequence[str]) -> list[float]:
        return [self._nats(text) for text in texts]

    def generate_until(self, prompts: Sequence[str], until: Sequence[str], max_tokens: int) -> list[str]:
        return [cut(self._text(prompt, max_tokens), until) for prompt in prompts]

    @staticmethod
    def _nats(text: str) -> float:
        return -math.log(_BYTES) * len(text.encode())

    def _text(self, prompt: str, length: int) -> str:
        drawn = b""
        while len(drawn) < length:
            drawn += hashlib.blake2b(f"{self.seed} {len(drawn)} {prompt}".encode(errors="surrogatepass")).digest()
        return "".join(_LETTERS[byte % len(_LETTERS)] for byte in drawn[:length])


@dataclass(frozen=True)
class CopyingOracle(ByteModel):
    """Copies from its prompt: what followed where the longest ending of the prompt stood before, last of all.

    least: characters that must agree for a place to count. copied: the probability of the copied character; every other of
    the 255 bytes has an equal part of the rest, and without a place to copy from all have 1/256.
    """

    least: int = 4
    copied: float = 0.999

    def loglikelihood(self, pairs: Sequence[Pair]) -> list[Likelihood]:
        return [self._scored(context, continuation) for context, continuation in pairs]

    def loglikelihood_rolling(self, texts: Sequence[str]) -> list[float]:
        return [math.fsum(self._scored(text[:at], character)[0] for at, character in enumerate(text)) for text in texts]

    def generate_until(self, prompts: Sequence[str], until: Sequence[str], max_tokens: int) -> list[str]:
        return [cut(self._followed(prompt)[:max_tokens], until) for prompt in prompts]

    def _followed(self, prompt: str) -> str:
        """All that followed in the prompt at the place that looks most like its end."""
        best, length = -1, self.least - 1
        while length < len(prompt):  # where an ending stands nowhere, no longer one does
            at = prompt.rfind(prompt[len(prompt) - length - 1 :], 0, len(prompt) - 1)
            if at < 0:
                break
            length += 1
            best = at + length
        return "" if best < 0 else prompt[best:]

    def _scored(self, context: str, continuation: str) -> Likelihood:
        followed = self._followed(context)
        hit, miss = math.log(self.copied), math.log((1 - self.copied) / (_BYTES - 1))
        nats, greedy = 0.0, True
        for at, character in enumerate(continuation):
            size = len(character.encode())
            if not greedy or at >= len(followed):
                greedy = False
                nats -= size * math.log(_BYTES)
            else:
                greedy = followed[at] == character
                nats += size * (hit if greedy else miss)
        return nats, greedy


@dataclass(frozen=True)
class Scripted(ByteModel):
    """Writes ``write(prompt)``, cut at ``until`` and at ``max_tokens`` characters.

    nats: ln p(continuation | context), for the scores of choices; without it, what it would write has probability 1 and
    every other byte 1/256.
    """

    write: Callable[[str], str]
    nats: Callable[[str, str], float] | None = None

    def loglikelihood(self, pairs: Sequence[Pair]) -> list[Likelihood]:
        return [self._scored(context, continuation) for context, continuation in pairs]

    def loglikelihood_rolling(self, texts: Sequence[str]) -> list[float]:
        return [self._scored("", text)[0] for text in texts]

    def generate_until(self, prompts: Sequence[str], until: Sequence[str], max_tokens: int) -> list[str]:
        return [cut(self.write(prompt)[:max_tokens], until) for prompt in prompts]

    def _scored(self, context: str, continuation: str) -> Likelihood:
        greedy = self.write(context).startswith(continuation)
        if self.nats is not None:
            return self.nats(context, continuation), greedy
        return (0.0 if greedy else -math.log(_BYTES) * len(continuation.encode())), greedy
