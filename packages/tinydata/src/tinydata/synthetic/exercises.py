"""Problems to practise on, as values: word problems, expressions and multiplications of so many digits and steps."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from tinydata.synthetic.arithmetic import MAX_STEPS, WORD_PROBLEMS, Draft, expression
from tinydata.synthetic.arithmetic_phrases import PHRASES, Language
from tinydata.synthetic.chance import Chance
from tinydata.synthetic.exercise import Exercise

KINDS = ("words", "expression", "multiplication")
MAX_DIGITS = 6
_PATIENCE = 10_000  # drafts in a row that bring nothing new before it is said that there is nothing more


def exercises(
    seed: int,
    count: int,
    kinds: Sequence[str] = ("words",),
    language: Language = "english",
    steps: tuple[int, int] = (1, MAX_STEPS),
    digits: int = 3,
) -> Iterator[Exercise]:
    """The first `count` different problems of `seed`, of each of `kinds` in turn, the same in every Python version.

    kinds: "words" (all word problems of `arithmetic`), "expression", "multiplication" (two factors of `digits` digits).
    steps: fewest and most calculations of a solution; a multiplication has one whatever they say.
    Raises ValueError for other kinds, languages and numbers, and where there are fewer different problems than asked for.
    """
    _check(kinds, language, steps, digits)
    chance = Chance(f"exercises {language} {digits} {steps[0]}-{steps[1]} {' '.join(kinds)}", seed)
    posed: set[bytes] = set()
    failed = 0
    while len(posed) < count:
        kind = kinds[len(posed) % len(kinds)]
        made = (
            _multiplication(chance, language, digits)
            if kind == "multiplication"
            else _drawn(chance, language, kind, steps)
        )
        digest = hashlib.blake2b(made.question.encode(), digest_size=12).digest()
        fits = kind == "multiplication" or steps[0] <= len(made.steps) <= steps[1]
        if not fits or digest in posed:
            failed += 1
            if failed > _PATIENCE:
                raise ValueError(
                    f"exercises: there are hardly more than {len(posed)} different problems of kind {kind!r}"
                )
            continue
        failed = 0
        posed.add(digest)
        yield made


def _multiplication(chance: Chance, language: Language, digits: int) -> Exercise:
    draft = Draft(chance, language)
    low, high = 10 ** (digits - 1), 10**digits - 1
    a, b = chance.between(low, high), chance.between(low, high)

    def multiplication(draft: Draft, steps: int) -> None:
        draft.say(draft.phrases.expression, expression=f"{a} * {b}")
        draft.calculate(("",), a, "*", b)

    return draft.exercise(multiplication, 1)


def _drawn(chance: Chance, language: Language, kind: str, steps: tuple[int, int]) -> Exercise:
    pose = expression if kind == "expression" else chance.choose(WORD_PROBLEMS)
    return Draft(chance, language).exercise(pose, chance.between(*steps))


def _check(kinds: Sequence[str], language: Language, steps: tuple[int, int], digits: int) -> None:
    if language not in PHRASES:
        raise ValueError(f"exercises: unknown language {language!r}, expected one of {', '.join(PHRASES)}")
    unknown = next((kind for kind in kinds if kind not in KINDS), None)
    if unknown is not None or not kinds:
        raise ValueError(f"exercises: unknown kind {unknown!r}, expected some of {', '.join(KINDS)}")
    if not 1 <= steps[0] <= steps[1] <= MAX_STEPS:
        raise ValueError(f"exercises: steps {steps[0]} to {steps[1]} are not within 1 to {MAX_STEPS}")
    if not 1 <= digits <= MAX_DIGITS:
        raise ValueError(f"exercises: {digits} digits are not 1 to {MAX_DIGITS}")
