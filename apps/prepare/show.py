"""Rows as a run sees them, decoded, with what is learned set apart: whether masks are right can be seen.

On a terminal what is learned is green, what is given is faint; elsewhere what is learned stands between ⟦ and ⟧. Of rows of a
verifier what is labelled right is green, ⟦+ and ⟧, what is labelled wrong red, ⟦- and ⟧.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice
from typing import Any

import numpy as np
from rich.console import Console as RichConsole
from rich.text import Text

from apps.common import loaders
from apps.common.console import Console
from apps.common.problems import PreparedProblems
from apps.common.puzzles import PreparedPuzzles
from apps.common.recipe import Recipe
from apps.common.tasks import Prepared
from apps.common.verdicts import PreparedVerdicts
from tinydata import Batch, Tokenizer, VerdictBatch, VerdictLoader
from tinydata.batch import NOTHING_ASKED
from tinydata.puzzles import PuzzleLoader

GIVEN, LEARNED, WRONG = -1, 1, 0  # states of a token, as a verifier's labels
STYLES = {GIVEN: "dim", LEARNED: "green", WRONG: "red"}
OPENING = {GIVEN: "", LEARNED: "⟦", WRONG: "⟦-"}
Marked = list[tuple[int, int]]  # ids with their states


def rows(recipe: Recipe, prepared: Prepared, count: int, console: Console) -> None:
    """The first `count` rows that a run of the recipe learns from."""
    screen = RichConsole(stderr=console.json, highlight=False, soft_wrap=True)
    for number, (head, pieces) in enumerate(islice(drawn(recipe, prepared, not screen.is_terminal), count), 1):
        screen.print(f"\n[bold]row {number}[/] [dim]{head}[/]")
        for piece in pieces:
            screen.print(piece)
    screen.print()


def drawn(recipe: Recipe, prepared: Prepared, brackets: bool) -> Iterator[tuple[str, list[Text]]]:
    """Rows without end: what is in each, in words, and its documents, in colours and, if asked for, between brackets."""
    if isinstance(prepared, PreparedPuzzles):
        yield from _puzzles(recipe, prepared)
        return
    loader: Any
    state = _state(prepared)
    if isinstance(prepared, PreparedVerdicts):
        loader = VerdictLoader(prepared.train, prepared.tokenizer, recipe.data.positions, 1, seed=recipe.train.seed)
    elif isinstance(prepared, PreparedProblems):
        loader = loaders.problems(recipe, prepared, 1)
    else:
        loader = loaders.text(recipe, prepared, 1)
    judged = isinstance(prepared, PreparedVerdicts)
    for batch in loader:
        documents = batch.documents[0]
        found = [state(batch, documents == number) for number in range(int(documents.max()) + 1)]
        head = f"{len(found)} in {int((documents >= 0).sum())} of {len(documents)} tokens, {batch.target_count} "
        yield (
            f"{head}{'labelled' if judged else 'learned'}",
            [written(one, prepared.tokenizer, brackets, judged) for one in found],
        )


def _state(prepared: Prepared) -> Callable[[Any, np.ndarray], Marked]:
    """What makes marked ids of a batch and the slots of one of its documents."""
    return _judged if isinstance(prepared, PreparedVerdicts) else _learned


def _learned(batch: Batch, of: np.ndarray) -> Marked:
    return marked(batch.tokens[0][of], batch.targets[0][of])


def _judged(batch: VerdictBatch, of: np.ndarray) -> Marked:
    return list(zip(batch.tokens[0][of].tolist(), batch.labels[0][of].tolist(), strict=True))


def marked(tokens: np.ndarray, targets: np.ndarray) -> Marked:
    """A document's ids with their states: id t + 1 is learned where target t asks for it. The last target of a document that
    goes on in another row stands behind its tokens."""
    asked = targets != NOTHING_ASKED
    following = np.where(asked, targets, np.append(tokens[1:], NOTHING_ASKED))
    found = [(int(tokens[0]), GIVEN)]
    found += [(int(value), LEARNED if learned else GIVEN) for value, learned in zip(following, asked, strict=True)]
    return [pair for pair in found if pair[0] != NOTHING_ASKED]


def written(states: Sequence[tuple[int, int]], tokenizer: Tokenizer, brackets: bool, signed: bool = False) -> Text:
    """The text of ids with their states. signed: brackets say what is right and what is wrong."""
    text = Text()
    for state, run in groupby(states, key=lambda pair: pair[1]):
        opening = "⟦+" if signed and state == LEARNED else OPENING[state]
        said = tokenizer.decode([value for value, _ in run])
        text.append(f"{opening}{said}{'⟧' if opening else ''}" if brackets else said, STYLES[state])
    return text


def _puzzles(recipe: Recipe, prepared: PreparedPuzzles) -> Iterator[tuple[str, list[Text]]]:
    boards = prepared.train
    copies = bool(getattr(recipe.data, "copies", True))
    for batch in PuzzleLoader(boards, 1, seed=recipe.train.seed, copies=copies):
        given, answers = batch.inputs[0][boards.slots :], batch.answers[0][boards.slots :]
        asked = answers != NOTHING_ASKED
        head = f"{int(asked.sum())} of {len(given)} cells are learned; what is given, then what belongs there"
        yield head, [Text(f"{boards.show(given)}\n\n{boards.show(np.where(asked, answers, given))}")]
