"""Preferences: one question, a right answer that is chosen, and a wrong one that is rejected (DPO, arXiv 2305.18290).

    problem    any with `prompt(form)`, `solution(form)` and `flawed(chance)`, as exercises and logic chains have
    chosen     its solution
    rejected   that of the same problem with a flaw: as long, written alike, and wrong

A verifier, which must not be the generator's, is asked about both, and has to accept the chosen one alone. As rows each pair
is two encoded problems with the same prompt, in both of which only the answer is learned from, and nothing a tool wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

from tinydata.problem_loader import EncodedProblem, encode_problems
from tinydata.synthetic.chance import Chance
from tinydata.tokenizer import Tokenizer


class Flawable(Protocol):
    """A problem that can be answered, and answered wrongly."""

    def prompt(self, form: Any) -> str: ...
    def solution(self, form: Any) -> str: ...
    def flawed(self, chance: Chance) -> Self: ...


Problem = TypeVar("Problem", bound=Flawable)


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """A prompt and two answers to it. Raises ValueError where these are the same, or one is empty."""

    prompt: str
    chosen: str
    rejected: str

    def __post_init__(self) -> None:
        if self.chosen == self.rejected:
            raise ValueError(f"preference: chosen and rejected are the same: {self.chosen[:60]!r}")
        if not self.chosen or not self.rejected:
            raise ValueError("preference: an answer is empty")


@dataclass(frozen=True, eq=False)
class EncodedPreference:
    """Both answers behind their prompt, which has the same ids in both."""

    chosen: EncodedProblem
    rejected: EncodedProblem


def preference_pairs(
    problems: Iterable[Problem], form: str, seed: int, accepts: Callable[[Problem, str], bool]
) -> Iterator[PreferencePair]:
    """A pair of each problem, answered in `form`, in their order; the flaws are those of `seed`.

    accepts(problem, answer): the verifier. Raises ValueError where it refuses the answer that is to be chosen or accepts the
    one that is to be rejected: one of the three is wrong then.
    """
    chance = Chance(f"preference pairs {form}", seed)
    for number, problem in enumerate(problems):
        pair = PreferencePair(problem.prompt(form), problem.solution(form), problem.flawed(chance).solution(form))
        if not accepts(problem, pair.chosen):
            raise ValueError(f"preference {number}: the verifier refuses what is to be chosen: {pair.chosen[-60:]!r}")
        if accepts(problem, pair.rejected):
            raise ValueError(
                f"preference {number}: the verifier accepts what is to be rejected: {pair.rejected[-60:]!r}"
            )
        yield pair


def encode_preferences(pairs: Sequence[PreferencePair], tokenizer: Tokenizer) -> list[EncodedPreference]:
    """Tags in answers are the single tokens that they name, in prompts they never are; see `encode_problems`.

    Raises ValueError where two different answers have the same ids: nothing could be preferred.
    """
    chosen = encode_problems([(pair.prompt, pair.chosen) for pair in pairs], tokenizer, calls=True)
    rejected = encode_problems([(pair.prompt, pair.rejected) for pair in pairs], tokenizer, calls=True)
    for pair, one, other in zip(pairs, chosen, rejected, strict=True):
        if one.ids.tolist() == other.ids.tolist():
            raise ValueError(f"preference: chosen and rejected have the same ids: {pair.chosen[:60]!r}")
    return [EncodedPreference(*both) for both in zip(chosen, rejected, strict=True)]
