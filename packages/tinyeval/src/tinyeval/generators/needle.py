"""A needle in a haystack: one fact at a chosen depth of a text of a chosen length (RULER, arXiv 2404.06654).

    The baker walks to the old bridge. ... The secret number of the red lantern is 48213. ... A boy sings. ...
    Question: What is the secret number of the red lantern?
    Answer: The secret number of the red lantern is

The value is a random number, so that nobody can know or guess it (chance 1 / 90,000); other needles with other names may
distract. Depth 0 is the beginning of the text, 100 its end. `length` counts UTF-8 bytes of text before the question, less at
most one sentence. A model that was not trained must score 0, and `CopyingOracle` must score 1: otherwise the grid shows
something else than reading.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence

from tinyeval.items import Item

WHO = ("baker", "boy", "girl", "farmer", "teacher", "dog", "old man", "sailor", "queen", "neighbour")
DOES = ("walks to", "looks at", "thinks of", "draws", "sings about", "waits near", "runs past", "talks about")
WHAT = (
    "the bridge",
    "the river",
    "a small house",
    "the garden",
    "an apple tree",
    "the market",
    "a blue boat",
    "the hill",
)
COLOURS = ("red", "green", "blue", "yellow", "white", "black", "golden", "silver")
THINGS = ("lantern", "box", "door", "wagon", "crown", "clock", "kettle", "statue", "ladder", "drum")


def needle(
    *,
    seed: int,
    items: int,
    lengths: Sequence[int] = (256, 512, 1024, 2048),
    depths: Sequence[int] = (0, 25, 50, 75, 100),
    distractors: int = 0,
) -> Iterator[Item]:
    """Items of each length and depth in turn. Raises ValueError for lengths under 128, depths outside 0 to 100, or more
    distractors than half of the 80 names."""
    if not lengths or min(lengths) < 128 or not depths or not all(0 <= depth <= 100 for depth in depths):
        raise ValueError(f"needle: lengths {list(lengths)} start at 128, depths {list(depths)} lie in 0 to 100")
    if not 0 <= distractors <= len(COLOURS) * len(THINGS) // 2:
        raise ValueError(f"needle: {distractors} distractors are not 0 to {len(COLOURS) * len(THINGS) // 2}")
    cells = itertools.islice(itertools.cycle(itertools.product(lengths, depths)), items)
    for index, (length, depth) in enumerate(cells):
        chance = random.Random(f"needle {seed} {index}")
        names = chance.sample(list(itertools.product(COLOURS, THINGS)), 1 + distractors)
        values = chance.sample(range(10_000, 100_000), 1 + distractors)
        facts = [
            f"The secret number of the {colour} {thing} is {number}."
            for (colour, thing), number in zip(names, values, strict=True)
        ]
        (colour, thing), value = names[0], values[0]
        question = f"the secret number of the {colour} {thing}"
        prompt = f"{_hay(chance, facts, length, depth)}\nQuestion: What is {question}?\nAnswer: The{question[3:]} is"
        yield Item(str(index), prompt, answer=str(value), meta={"length": length, "depth": depth})


def _hay(chance: random.Random, facts: Sequence[str], length: int, depth: int) -> str:
    """Sentences of `length` bytes in all, the first fact at `depth` per cent of them, the others anywhere."""
    room = length - sum(len(fact) + 1 for fact in facts)
    hay: list[str] = []
    while True:
        sentence = f"The {chance.choice(WHO)} {chance.choice(DOES)} {chance.choice(WHAT)}."
        if room < len(sentence) + 1:
            break
        hay.append(sentence)
        room -= len(sentence) + 1
    for other in facts[1:]:
        hay.insert(chance.randint(0, len(hay)), other)
    hay.insert(round(depth / 100 * len(hay)), facts[0])
    return " ".join(hay)
