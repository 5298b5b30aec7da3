"""Needles in haystacks: one sentence with a number at a chosen depth of a long text, and the question for it (Kamradt 2023;
several of them, of which one is asked for, as in RULER, arXiv 2404.06654).

    The little fox walked to the river. ... The code of the red kite is 48213. ... The shy owl saw a blue drum.
    What is the code of the red kite?
    48213

The haystack is made of everyday sentences without any number or code, so that nothing but the needle answers. How long it
is, a function that counts tokens says; depth is the share of the haystack's tokens before the needle.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from types import MappingProxyType

from tinydata.synthetic.arithmetic_phrases import PHRASES, Language
from tinydata.synthetic.chance import Chance
from tinydata.synthetic.everyday_words import EVERYDAY_WORDS

_FILLERS = MappingProxyType(
    {
        "english": (
            "The {trait} {animal} walked to the {place}.",
            "A {colour} {thing} lay near the {place}.",
            "The {animal} and the {other} talked about the {place}.",
            "In the evening the {trait} {animal} came back from the {place}.",
            "The {animal} gave the {other} a {colour} {thing}.",
            "Nobody at the {place} had seen the {trait} {animal}.",
        ),
        "spanish": (
            "El {animal} {trait} caminó hasta el {place}.",
            "Había un {thing} {colour} cerca del {place}.",
            "El {animal} y el {other} hablaron del {place}.",
            "Por la tarde el {animal} {trait} volvió del {place}.",
            "El {animal} le dio al {other} un {thing} {colour}.",
            "Nadie en el {place} había visto al {animal} {trait}.",
        ),
    }
)
_NEEDLE = MappingProxyType(
    {
        "english": ("The code of the {colour} {thing} is {value}.", "What is the code of the {colour} {thing}?"),
        "spanish": ("El código del {thing} {colour} es {value}.", "¿Cuál es el código del {thing} {colour}?"),
    }
)
MAX_NEEDLES = 64
_DIGITS = 5


@dataclass(frozen=True, slots=True)
class Needle:
    """document: the haystack with the needles; question and answer: about one of them; depth: the share of the haystack's
    tokens that stand before that one, as near to the one asked for as sentences allow; tokens: of the document."""

    document: str
    needle: str
    question: str
    answer: str
    depth: float
    tokens: int

    def parts(self) -> list[tuple[str, bool]]:
        """The text in pieces, each with whether it is learned: the answer only (`encode_parts`)."""
        return [(f"{self.document}\n{self.question}\n", False), (self.answer, True)]


def needle(
    seed: int,
    tokens: int,
    depth: float,
    count_tokens: Callable[[str], int] = lambda text: len(text.split()),
    needles: int = 1,
    language: Language = "english",
) -> Needle:
    """The haystack of `seed` with at most `tokens` tokens, and fewer by less than its next sentence would have.

    count_tokens: how many tokens a text has, words if nothing is said; it is asked for each sentence and, at the end, for the
    whole, from which sentences are taken until it fits. needles: how many things have a code; the others stand anywhere.
    Raises ValueError for a depth that is not within 0 and 1, other languages, and a length that has no room for the needles.
    """
    if language not in PHRASES:
        raise ValueError(f"needle: unknown language {language!r}, expected one of {', '.join(PHRASES)}")
    if not 0 <= depth <= 1:
        raise ValueError(f"needle: depth {depth} is not within 0 and 1")
    if not 1 <= needles <= MAX_NEEDLES:
        raise ValueError(f"needle: {needles} needles are not within 1 to {MAX_NEEDLES}")
    # depth and length are not in the name: the same needle and haystack, deeper or longer
    chance = Chance(f"needle {language} {needles}", seed)
    says, asks = _NEEDLE[language]
    words = EVERYDAY_WORDS[language]
    keys = chance.distinct([(colour, thing) for colour in words["colours"] for thing in words["things"]], needles)
    values = _values(chance, needles)
    said = [
        says.format(colour=colour, thing=thing, value=value)
        for (colour, thing), value in zip(keys, values, strict=True)
    ]
    places = [chance.random() for _ in said[1:]]  # of the needles that are not asked for
    hay, sizes = _hay(chance, language, tokens - sum(count_tokens(f" {line}") for line in said), count_tokens)
    while True:
        document = _document(hay, sizes, said, [depth, *places])
        total = count_tokens(document)
        if total <= tokens:
            break
        if not hay:
            raise ValueError(f"needle: {tokens} tokens have no room for {needles} needles, which take {total}")
        del hay[-1], sizes[-1]
    before = _before(sizes, depth)
    question = asks.format(colour=keys[0][0], thing=keys[0][1])
    reached = sum(sizes[:before]) / max(sum(sizes), 1)
    return Needle(document, said[0], question, str(values[0]), reached, total)


def _values(chance: Chance, count: int) -> list[int]:
    found: dict[int, None] = {}
    while len(found) < count:
        found[chance.between(10 ** (_DIGITS - 1), 10**_DIGITS - 1)] = None
    return list(found)


def _hay(
    chance: Chance, language: Language, tokens: int, count_tokens: Callable[[str], int]
) -> tuple[list[str], list[int]]:
    """Sentences of about so many tokens together, and how many each has."""
    lines: list[str] = []
    sizes: list[int] = []
    words, left = EVERYDAY_WORDS[language], tokens
    while left > 0:
        animal, other = chance.distinct(words["animals"], 2)
        line = chance.choose(_FILLERS[language]).format(
            animal=animal,
            other=other,
            trait=chance.choose(words["traits"]),
            place=chance.choose(words["places"]),
            thing=chance.choose(words["things"]),
            colour=chance.choose(words["colours"]),
        )
        size = count_tokens(f" {line}")
        if size < 1:
            raise ValueError(f"needle: count_tokens says that {line!r} has {size} tokens")
        lines.append(line)
        sizes.append(size)
        left -= size
    return lines, sizes


def _before(sizes: Sequence[int], depth: float) -> int:
    """How many sentences stand before `depth`: as many as bring their tokens nearest to that share."""
    sums = [0, *accumulate(sizes)]
    wanted = depth * sums[-1]
    after = min(bisect_left(sums, wanted), len(sizes))
    return after - 1 if after and wanted - sums[after - 1] <= sums[after] - wanted else after


def _document(hay: Sequence[str], sizes: Sequence[int], said: Sequence[str], depths: Sequence[float]) -> str:
    lines = [(float(index), line) for index, line in enumerate(hay)]
    placed = [(_before(sizes, depth) - 0.5, line) for line, depth in zip(said, depths, strict=True)]
    return " ".join(line for _, line in sorted([*lines, *placed], key=lambda placed: placed[0]))
