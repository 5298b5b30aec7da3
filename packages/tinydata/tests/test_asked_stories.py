"""Claim: stories have what their first line asks for and use the words of the list alone; the check, which shares nothing with
what writes them, finds every feature and refuses at least 99 % of stories that lost one.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from itertools import pairwise

import pytest

from tinydata import split_of
from tinydata.synthetic.asked_stories import FEATURES, AskedStory, asked_stories
from tinydata.synthetic.stories import stories
from tinydata.synthetic.story_check import story_fault
from tinydata.synthetic.story_vocabulary import STORY_WORDS

MADE = list(asked_stories(0, 2000))
QUOTED = re.compile(r'[^".!?\n]*"[^"\n]*"[^".!?\n]*[.!?]? ?')
REVEAL = re.compile(r"In the end, .*?!")


def test_every_story_has_what_was_asked_for() -> None:
    assert [fault for story in MADE if (fault := story_fault(story.document.text))] == []


def test_every_set_of_features_comes_as_often() -> None:
    counts: dict[tuple[str, ...], int] = {}
    for story in MADE:
        counts[story.features] = counts.get(story.features, 0) + 1
        assert list(story.features) == [feature for feature in FEATURES if feature in story.features]
    assert sorted(counts.values()) == [250] * 8


def test_stories_are_different_the_same_again_and_longer_with_a_larger_count() -> None:
    assert len({story.text for story in MADE}) == len(MADE)
    assert list(asked_stories(0, 300)) == MADE[:300]
    assert not {story.text for story in asked_stories(1, 300)} & {story.text for story in MADE}
    sides = {split_of(story.document.text, {"validation": 0.5}) for story in MADE}
    assert sides == {"train", "validation"}
    assert all(300 < len(story.text) < 1700 for story in MADE)


def test_the_plain_stories_keep_to_the_list_of_words_as_well() -> None:
    for document in stories(5, 1500):
        assert {word.lower() for word in re.findall("[A-Za-z]+", document.text)} <= STORY_WORDS


def without_dialogue(story: AskedStory, other: AskedStory) -> str:
    return QUOTED.sub("", story.text)


def with_one_speaker(story: AskedStory, other: AskedStory) -> str:
    name = sorted(re.findall(r"\b(?:said|asked|called) ([A-Z][a-z]+)", story.text))[0]
    text = re.sub(r"\b[A-Z][a-z]+ (said|asked|called)\b", r"he \1", story.text)
    return re.sub(r"\b(said|asked|called) [A-Z][a-z]+", rf"\1 {name}", text)


def without_moral(story: AskedStory, other: AskedStory) -> str:
    return re.sub(
        r'(?:From that day|And [A-Z][a-z]+ never|[A-Z][a-z]+ learned|"Now I know)[^\n]*$', "", story.text
    ).strip()


def with_a_strangers_moral(story: AskedStory, other: AskedStory) -> str:
    return re.sub(r"\b[A-Z][a-z]+( knew that| learned that| never forgot that| said\.$)", r"Nobody\1", story.text)


def with_another_twist(story: AskedStory, other: AskedStory) -> str:
    found = REVEAL.search(other.text)
    assert found is not None
    own = REVEAL.search(story.text)
    assert own is not None
    ours, theirs = (one[0].partition(" found out ")[2] for one in (own, found))
    if ours.partition(" at all. ")[0] == theirs.partition(" at all. ")[0]:
        return story.text  # what was believed is the same: the other end is as good
    return story.text.replace(ours, theirs)


def with_a_twist_turned_round(story: AskedStory, other: AskedStory) -> str:
    sides = r"(did not \w+(?: from)?) (.+?)((?: in it)? at all\. \w+ (?:came from|had)) (.+?)((?: in it)?!)"
    return re.sub(sides, r"\1 \4\3 \2\5", story.text)


def without_the_reveal(story: AskedStory, other: AskedStory) -> str:
    return REVEAL.sub("", story.text).replace("  ", " ")


def without_the_belief(story: AskedStory, other: AskedStory) -> str:
    return re.sub(r"[A-Z][a-z]+ (?:was sure|thought) that [^.]*\. ", "", story.text, count=1)


def with_the_twist_first(story: AskedStory, other: AskedStory) -> str:
    reveal = REVEAL.search(story.text)
    assert reveal is not None
    first, rest = story.text.replace(reveal[0] + " ", "").split(". ", 1)
    return f"{first}. {reveal[0]} {rest}"


def with_a_word_too_many(story: AskedStory, other: AskedStory) -> str:
    words = story.text.split(" ")
    words.insert(
        random.Random(len(words)).randrange(len(words)), random.choice(["democracy", "Kevin", "7", "very-very"])
    )
    return " ".join(words)


def without_a_word(story: AskedStory, other: AskedStory) -> str:
    return re.sub(rf"\b{story.words[0]}\b", "thing", story.text)


def with_half_a_quotation(story: AskedStory, other: AskedStory) -> str:
    return story.text.replace('"', "", 1)


CORRUPTIONS: list[tuple[str, Callable[[AskedStory, AskedStory], str]]] = [
    ("dialogue", without_dialogue),
    ("dialogue", with_one_speaker),
    ("dialogue", with_half_a_quotation),
    ("moral", without_moral),
    ("moral", with_a_strangers_moral),
    ("twist", with_another_twist),
    ("twist", with_a_twist_turned_round),
    ("twist", without_the_reveal),
    ("twist", without_the_belief),
    ("twist", with_the_twist_first),
    ("", with_a_word_too_many),
    ("", without_a_word),
]


@pytest.mark.parametrize(("feature", "corrupt"), CORRUPTIONS, ids=lambda value: getattr(value, "__name__", None))
def test_what_lost_a_feature_is_refused(feature: str, corrupt: Callable[[AskedStory, AskedStory], str]) -> None:
    able = [story for story in MADE if not feature or feature in story.features]
    tried = refused = 0
    for story, other in pairwise(able):
        text = corrupt(story, other)
        if text == story.text:
            continue  # nothing was lost
        tried += 1
        refused += story_fault(story.prompt + text) is not None
    assert tried > 0.9 * len(able)
    assert refused >= 0.99 * tried, (refused, tried)


@pytest.mark.parametrize("feature", ["twist", "moral"])
def test_what_nobody_asked_for_is_a_fault(feature: str) -> None:
    for story in MADE[:400]:
        if feature in story.features:
            rest = tuple(name for name in story.features if name != feature)
            fault = story_fault(AskedStory(rest, story.words, story.text).document.text)
            assert fault == f"there is a {feature} that nobody asked for"


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Write a story.",
        "Write a story with a dragon. Use the words a and b.",
        "Write a poem. Use the words a and b.",
    ],
)
def test_an_order_that_cannot_be_read_is_a_fault(line: str) -> None:
    assert story_fault(f"{line}\n{MADE[0].text}") is not None
