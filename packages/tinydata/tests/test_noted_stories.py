"""Stories with notes: notes and answers are found again by following the sentences; they alone are learned."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from tinydata import Document, ProblemLoader, Tokenizer, encode_parts, train_tokenizer
from tinydata.synthetic.noted_stories import NotedStory, noted_stories


def told(story: NotedStory) -> tuple[list[str], str]:
    """Notes and answer, found by following the sentences; an AssertionError where one cannot happen."""
    where: dict[str, str] = {}  # of people and of things that lie or are carried
    carried: dict[str, str] = {}
    notes = []
    for sentence in story.sentences:
        person, verb, *_, last = sentence.removesuffix(".\n").split()
        if verb == "went":
            assert where.get(person) != last
            where[person] = last
        elif verb == "took":
            assert last not in carried.values()
            assert where.get(last, where[person]) == where[person]
            assert person not in carried
            carried[person] = last
        else:
            assert carried.pop(person) == last
        if person in carried:
            where[carried[person]] = where[person]
        dropped = f", {last} {where[last]}" if verb == "dropped" else ""
        notes.append(f"{person} {where[person]} {carried.get(person, 'nothing')}{dropped}")
    return notes, where[story.question.removesuffix("?\n").split()[-1]]


@pytest.fixture(scope="module")
def stories() -> list[NotedStory]:
    return list(itertools.islice(noted_stories(0, (2, 36)), 300))


@pytest.fixture(scope="module")
def tokenizer(stories: list[NotedStory]) -> Tokenizer:
    texts = ["".join(text for text, _ in story.parts(True)) for story in stories]
    return train_tokenizer([Document(text, "x", allow_special=True) for text in texts], 372)


def test_notes_and_answers_follow_from_the_story(stories: list[NotedStory]) -> None:
    for story in stories:
        assert (list(story.notes), story.answer) == told(story)
    verbs = {sentence.split()[1] for story in stories for sentence in story.sentences}
    assert verbs == {"went", "took", "dropped"}
    assert {len(story.sentences) for story in stories} >= set(range(2, 30))
    assert stories == list(itertools.islice(noted_stories(0, (2, 36)), 300))
    assert stories[:5] != list(itertools.islice(noted_stories(1, (2, 36)), 5))
    with pytest.raises(ValueError, match="two at least"):
        noted_stories(0, (1, 4))


def test_notes_and_answer_are_what_is_learned(stories: list[NotedStory], tokenizer: Tokenizer) -> None:
    for noted in (True, False):
        problems = [encode_parts(story.parts(noted), tokenizer) for story in stories]
        length = max(len(problem.ids) for problem in problems)
        (batch,) = ProblemLoader(problems, tokenizer, length, len(problems)).epoch_batches()
        for row, story in enumerate(stories):
            expected = [tokenizer.end_id]
            for text, learned in story.parts(noted):
                ids = tokenizer.encode(text, allow_special=learned)
                expected += ids if learned else [-100] * len(ids)
            expected.append(tokenizer.end_id)
            assert batch.targets[row, : len(expected) - 1].tolist() == expected[1:], "shifted once"
            assert (batch.targets[row, len(expected) - 1 :] == -100).all()
            assert problems[row].given.sum() == sum(target == -100 for target in expected)


def test_the_answer_with_notes_stripped_parses(stories: list[NotedStory]) -> None:
    for story in stories:
        text = "".join(part for part, _ in story.parts(True))
        stripped = re.sub(r"<note>[^<]*</note>\n", "", text)
        assert stripped == "".join(part for part, _ in story.parts(False))
        found = re.fullmatch(
            r"(?:[A-Z][a-z]+ (?:went to|took|dropped) the [a-z]+\.\n)+Where is the [a-z]+\?\n([a-z]+)", stripped
        )
        assert found is not None
        assert found[1] == told(story)[1]


def test_pieces_are_tokens_as_the_whole_text_is(stories: list[NotedStory], tokenizer: Tokenizer) -> None:
    """So that a model is asked with the ids that it learned from, wherever it is asked to go on."""
    for story in stories[:50]:
        pieces = [tokenizer.encode(text, allow_special=learned) for text, learned in story.parts(True)]
        text = ""
        for count, (piece, _) in enumerate(story.parts(True)):
            text += piece
            assert tokenizer.encode(text, allow_special=True) == [token for ids in pieces[: count + 1] for token in ids]
    assert not any(encode_parts([("<note>", False), ("x", True)], tokenizer).ids[1:3] == tokenizer.special["<note>"])
    with pytest.raises(ValueError, match="nothing is learned"):
        encode_parts([("x", False)], tokenizer)
    assert encode_parts([("x", True)], tokenizer).prompt == 1
    assert np.array_equal(encode_parts([("x", True)], tokenizer).given, [False, False, False])
