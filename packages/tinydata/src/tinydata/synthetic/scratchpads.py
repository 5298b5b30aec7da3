"""Problems that are solved state by state, and the ways to write that down (arXiv 2112.00114, inductive: 2406.06467).

    direct      question -> =answer
    plain       question s0# -> s1#s2#...#=answer           one text
    inductive   question s(i-1)# -> s(i)                    one transition a text; the last one is question s(n)# -> =answer

Digits and bits bear labels, consecutive letters from a random one on (index hints, arXiv 2310.16028): where a state stands is
then found by its label, not by counting, so that a long question asks for nothing that a short one did not; the second term's
are capitals. The label behind the last digit bears a $: there is nothing more.

    addition    d$c4b7+D$C3B9;    the digits done, the lowest first, then the digits that are next and the carry into them:
                                  :b7B90  b6:c4C31  b6c8:d$D$0  =b6c8d0
    parity      b1c1d0e$;         the bit that is next, and the parity so far:  b10  c11  d00  e$0  =0
    sorting     47,03,88;         the smallest so far, in order (selection):  (empty)  03,  03,47,  03,47,88,  =03,47,88,

Every letter, digit and sign is to be a token of its own: give it a tokenizer without merges (`train_tokenizer` on such texts
with no more ids than bytes and special tokens).
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

from tinydata.synthetic.chance import Chance

Form = Literal["direct", "plain", "inductive"]
FORMS: tuple[Form, ...] = get_args(Form)

LABELS = string.ascii_lowercase
MARK, DONE, NOTHING_MORE = "#", "=", "$"  # ends a state; begins the answer; stands where digits end
_NUMBERS = range(100)  # that are sorted, two digits each


@dataclass(frozen=True, slots=True)
class Worked:
    """A question, its states from the one that anybody can write down (s0) to the last, and the answer as it is written."""

    task: str
    question: str
    states: tuple[str, ...]
    answer: str

    def prompt(self, form: Form) -> str:
        """What stands before the first thing that is to be written."""
        return self.question if form == "direct" else self.join(self.states[0])

    def join(self, state: str) -> str:
        """What the next state is written from: no state before `state` is in it."""
        return f"{self.question}{state}{MARK}"

    def pairs(self, form: Form) -> list[tuple[str, str]]:
        """(given, to be written), one for each text to learn from."""
        answer = f"{DONE}{self.answer}"
        if form == "direct":
            return [(self.question, answer)]
        if form == "plain":
            return [(self.prompt(form), "".join(f"{state}{MARK}" for state in self.states[1:]) + answer)]
        return [(self.join(state), after) for state, after in zip(self.states, (*self.states[1:], answer), strict=True)]


def scratchpads(task: str, seed: int, sizes: tuple[int, int]) -> Iterator[Worked]:
    """Problems of `task` (see `TASKS`) without end, the same in every Python version; some may come again.

    sizes: fewest and most digits, bits or numbers, each as often. Raises ValueError for tasks and sizes that there are not.
    """
    if task not in TASKS:
        raise ValueError(f"scratchpads: unknown task {task!r}, expected one of {', '.join(TASKS)}")
    most = len(_NUMBERS) if task == "sorting" else len(LABELS) - 1
    if not 1 <= sizes[0] <= sizes[1] <= most:
        raise ValueError(f"scratchpads: sizes {sizes[0]} to {sizes[1]} of {task} are not within 1 to {most}")
    return _drawn(TASKS[task], Chance(f"scratchpads {task} {sizes[0]}-{sizes[1]}", seed), sizes)


def _drawn(draw: Callable[[Chance, int], Worked], chance: Chance, sizes: tuple[int, int]) -> Iterator[Worked]:
    while True:
        yield draw(chance, chance.between(*sizes))


def _addition(chance: Chance, size: int) -> Worked:
    labels = _labels(chance, size + 1)
    # lowest digit first; numbers of several digits begin with none that could be left out
    terms = [[chance.between(int(0 < place == size - 1), 9) for place in range(size)] for _ in range(2)]
    first, second = _marked(labels, terms[0]), _marked(labels.upper(), terms[1])
    states, done, carry = [], "", 0
    for place, label in enumerate(labels):
        states.append(f"{done}:{first[place]}{second[place]}{carry}")
        if place < size:
            carry, digit = divmod(terms[0][place] + terms[1][place] + carry, 10)
            done += f"{label}{digit}"
    question = f"{''.join(reversed(first))}+{''.join(reversed(second))};"
    return Worked("addition", question, tuple(states), f"{done}{labels[size]}{carry}")


def _parity(chance: Chance, size: int) -> Worked:
    labels = _labels(chance, size + 1)
    bits = [chance.below(2) for _ in range(size)]
    marked = _marked(labels, bits)
    states = tuple(f"{pair}{sum(bits[:place]) % 2}" for place, pair in enumerate(marked))
    return Worked("parity", f"{''.join(marked)};", states, str(sum(bits) % 2))


def _marked(labels: str, digits: list[int]) -> list[str]:
    """Each digit with its label, and what stands where they end."""
    return [f"{label}{digit}" for label, digit in zip(labels, [*digits, NOTHING_MORE], strict=True)]


def _sorting(chance: Chance, size: int) -> Worked:
    numbers = chance.distinct(_NUMBERS, size)
    ordered = [f"{number:02}," for number in sorted(numbers)]
    states = tuple("".join(ordered[:count]) for count in range(size + 1))
    return Worked("sorting", f"{','.join(f'{number:02}' for number in numbers)};", states, states[-1])


def _labels(chance: Chance, count: int) -> str:
    first = chance.below(len(LABELS) - count + 1)
    return LABELS[first : first + count]


TASKS: MappingProxyType[str, Callable[[Chance, int], Worked]] = MappingProxyType(
    {"addition": _addition, "parity": _parity, "sorting": _sorting}
)
