"""Does a story have what its first line asks for? Read from its text alone; what wrote it shares only the list of words.

    words      every one is of `story_vocabulary`, and those asked for are used
    dialogue   two people with different names say something, and quotation marks come in pairs
    twist      the hero is sure of one thing about something strange; later, and of the same strange thing, it says that this
               was not so and what was instead
    moral      the last sentence says what the hero knows now, in four words at least
    hero       has a name in the first two sentences

A twist or a moral that was not asked for is a fault as well. Whether a moral fits its story is not judged.
"""

from __future__ import annotations

import re

from tinydata.synthetic.story_vocabulary import STORY_WORDS

_ORDER = re.compile(r"Write a story(?: with ([a-z ,]+))?\. Use the words ([a-z]+(?:(?:, [a-z]+)* and [a-z]+)?)\.\n?")
_FEATURES = {"dialogue": "dialogue", "a twist": "twist", "a moral": "moral"}
_SAYING = r"(?:said|asked|called)"
_SPEAKERS = (
    re.compile(rf'"[^"\n]+[,.?!]" {_SAYING} ([A-Z][a-z]+)\b'),
    re.compile(rf'"[^"\n]+[,.?!]" ([A-Z][a-z]+) {_SAYING}\b'),
    re.compile(rf'\b([A-Z][a-z]+) {_SAYING},? "[^"\n]+"'),
)
_NOT_NAMES = frozenset(("He", "She", "It", "They", "Then"))
_HERO = re.compile(r"(?:named|called|name was) ([A-Z][a-z]+)\b|\A(?!There )([A-Z][a-z]+) was\b")
_BELIEF = re.compile(
    r"\bthere (?:was|were) (?:an? )?([a-z ]+?) (?:at|in|on|next to) the [a-z ]+\. "
    r"([A-Z][a-z]+) (?:was sure|thought) that (it|they) (came from|had) ([a-z ]+?)( in it)?\."
)
_REVEAL = re.compile(
    r"\b([A-Z][a-z]+) found out about the ([a-z ]+)\. "
    r"(It|They) did not (come from|have) ([a-z ]+?)( in it)? at all\. (It|They) (came from|had) ([a-z ]+?)( in it)?!"
)
_LEARNED = (
    re.compile(r"From that day on, ([A-Z][a-z]+) knew that ([a-z ,]+)\."),
    re.compile(r"([A-Z][a-z]+) learned that ([a-z ,]+)\."),
    re.compile(r"And ([A-Z][a-z]+) never forgot that ([a-z ,]+)\."),
    re.compile(r'"Now I know that (?P<moral>[a-z ,]+)," (?P<hero>[A-Z][a-z]+) said\.'),
)


def story_fault(text: str) -> str | None:
    """What is wrong with a story and its first line, in a few words; None where nothing is."""
    line, _, story = text.partition("\n")
    order = _ORDER.fullmatch(line)
    if order is None:
        return "the first line asks for nothing"
    wanted = []
    for name in _split(order[1]) if order[1] else []:
        if name not in _FEATURES:
            return f"unknown feature {name!r}"
        wanted.append(_FEATURES[name])
    used = re.findall(r"[A-Za-z]+", story)
    unknown = next((word for word in used if word.lower() not in STORY_WORDS), None)
    if unknown is not None or re.search(r"[^A-Za-z ,.:?!'\"\n]", story):
        return f"{unknown!r} is not of the vocabulary" if unknown else "there is a sign that stories do not use"
    missing = next((word for word in _split(order[2]) if word not in used), None)
    if missing is not None:
        return f"the word {missing!r} is not used"
    found = _HERO.search(" ".join(re.split(r"(?<=[.!?]) ", story)[:2]))
    if found is None:
        return "the hero has no name"
    hero = found[1] or found[2]
    return (
        _dialogue(story, "dialogue" in wanted)
        or _twist(story, hero, "twist" in wanted)
        or _moral(story, hero, "moral" in wanted)
    )


def _split(listed: str) -> list[str]:
    return re.split(r", | and ", listed)


def _dialogue(story: str, wanted: bool) -> str | None:
    if any(paragraph.count('"') % 2 for paragraph in story.split("\n")):
        return "a quotation mark is alone"
    speakers = {name for pattern in _SPEAKERS for name in pattern.findall(story)} - _NOT_NAMES
    return "nobody talks to another" if wanted and len(speakers) < 2 else None


def _twist(story: str, hero: str, wanted: bool) -> str | None:
    belief, reveal = _BELIEF.search(story), _REVEAL.search(story)
    if belief is None and reveal is None:
        return "there is no twist" if wanted else None
    if not wanted:
        return "there is a twist that nobody asked for"
    if belief is None or reveal is None or reveal.start() < belief.end():
        return "the twist has one end only"
    strange, who, pronoun, verb, believed, inside = belief.groups()
    who_found, about, denied, not_verb, not_so, not_inside, told, real_verb, real, real_inside = reveal.groups()
    if {who, who_found} != {hero}:
        return "the twist is somebody else's"
    if strange != about or not denied.lower() == told.lower() == pronoun:
        return "the twist is about something else"
    if verb != real_verb or not_verb != {"came from": "come from", "had": "have"}[verb]:
        return "the twist is about something else"
    if believed != not_so or not inside == not_inside == real_inside:
        return "what is denied was not believed"
    return "the twist changes nothing" if real == believed else None


def _moral(story: str, hero: str, wanted: bool) -> str | None:
    last = story.rstrip().rsplit("\n", 1)[-1]
    for pattern in _LEARNED:
        found = next((match for match in pattern.finditer(last) if match.end() == len(last)), None)
        if found is None:
            continue
        named = found.groupdict() or {"hero": found[1], "moral": found[2]}
        if not wanted:
            return "there is a moral that nobody asked for"
        if named["hero"] != hero:
            return "the moral is somebody else's"
        return None if len(named["moral"].split()) >= 4 else "the moral says nothing"
    return "there is no moral" if wanted else None
