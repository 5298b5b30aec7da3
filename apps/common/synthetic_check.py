"""Are scratchpads, notes and needles right? Read from their texts alone; nothing is shared with what wrote them.

`exercise_check`, `logic_check` and `dialogue_check` of tinydata judge problems, conclusions and dialogues in the same way. What
cannot be read is wrong.
"""

from __future__ import annotations

import re


def scratchpad_fault(text: str) -> str | None:
    """What is wrong with a question, its states and its answer, in a few words; None where nothing is."""
    question, found, worked = text.partition(";")
    states, marked, answer = worked.rpartition("=")
    if not found or not marked or not states.endswith("#"):
        return "there is no answer"
    shown = states[:-1].split("#")
    if added := re.fullmatch(r"((?:[a-z][\d$])+)\+((?:[A-Z][\d$])+)", question):
        expected, last = _addition(added[1], added[2])
    elif re.fullmatch(r"(?:[a-z][01$])+", question):
        expected, last = _parity(question)
    elif re.fullmatch(r"\d\d(?:,\d\d)*", question):
        expected, last = _sorting([int(number) for number in question.split(",")])
    else:
        return "the question cannot be read"
    if answer != last:
        return f"the answer is {last}"
    wrong = next((at for at, pair in enumerate(zip(shown, expected, strict=False)) if pair[0] != pair[1]), None)
    if wrong is not None or len(shown) != len(expected):
        return f"state {len(expected) if wrong is None else wrong} is wrong"
    return None


def _addition(first: str, second: str) -> tuple[list[str], str]:
    """The states and the answer that an addition has: what is done, lowest digit first, the next digits, and the carry."""
    one, other = int(re.sub(r"\D", "", first)), int(re.sub(r"\D", "", second))
    pairs = [(first[at : at + 2], second[at : at + 2]) for at in range(len(first) - 2, -1, -2)]
    total, states = one + other, []
    for place in range(len(pairs)):
        unit = 10**place
        done = "".join(f"{pairs[at][0][0]}{total // 10**at % 10}" for at in range(place))
        states.append(f"{done}:{pairs[place][0]}{pairs[place][1]}{(one % unit + other % unit) // unit}")
    return states, "".join(f"{pair[0][0]}{total // 10**at % 10}" for at, pair in enumerate(pairs))


def _parity(question: str) -> tuple[list[str], str]:
    """The bit that is next, and whether there were an odd number of ones before it."""
    bits = question[1::2]
    states = [f"{question[2 * at : 2 * at + 2]}{bits[:at].count('1') % 2}" for at in range(len(bits))]
    return states, str(bits.count("1") % 2)


def _sorting(numbers: list[int]) -> tuple[list[str], str]:
    """The smallest so far, in order."""
    states, left = [""], list(numbers)
    while left:
        left.remove(least := min(left))
        states.append(f"{states[-1]}{least:02},")
    return states, states[-1]


def notes_fault(text: str) -> str | None:
    """What is wrong with a story whose every sentence has a note behind it, and with the answer; None where nothing is."""
    *lines, question, answer = ["", *text.split("\n")]
    lines = lines[1:]
    places: dict[str, str] = {}  # of people
    hands: dict[str, str] = {}  # person -> thing
    things: dict[str, str] = {}  # thing -> place, of those that lie somewhere
    if len(lines) % 2:
        return "a sentence has no note"
    for number, (sentence, note) in enumerate(zip(lines[::2], lines[1::2], strict=True), 1):
        told = re.fullmatch(r"(\w+) (went to|took|dropped) the (\w+)\.", sentence)
        if told is None:
            return f"sentence {number} cannot be read"
        who, happened, what = told.groups()
        behind = ""
        if happened == "went to":
            places[who] = what
        elif who not in places:
            return f"sentence {number}: nobody knows where {who} is"
        elif happened == "took":
            if who in hands or what in hands.values() or things.get(what, places[who]) != places[who]:
                return f"sentence {number}: {who} cannot take it"
            hands[who] = what
            things.pop(what, None)
        else:
            if hands.pop(who, None) != what:
                return f"sentence {number}: {who} does not have it"
            things[what] = places[who]
            behind = f", {what} {places[who]}"
        if note != f"<note>{who} {places[who]} {hands.get(who, 'nothing')}{behind}</note>":
            return f"note {number} is wrong"
    asked = re.fullmatch(r"Where is the (\w+)\?", question)
    if asked is None:
        return "the question cannot be read"
    holder = next((who for who, what in hands.items() if what == asked[1]), None)
    place = things.get(asked[1]) if holder is None else places[holder]
    return None if answer == place else f"the answer is {place}"


def needle_fault(text: str) -> str | None:
    """What is wrong with a long text, a question for a code in it, and the answer; None where nothing is."""
    document, _, rest = text.rpartition("\n")[0].rpartition("\n")
    asked = re.fullmatch(r"(?:What is the code of the|¿Cuál es el código del) (.+)\?", rest)
    if asked is None:
        return "the question cannot be read"
    said = re.findall(r"(?:The code of the|El código del) ([^.\d]+?) (?:is|es) (\d+)\.", document)
    if len(re.findall(r"\d+", document)) != len(said):
        return "a number is no code"
    codes = [code for thing, code in said if thing == asked[1]]
    if len(codes) != 1:
        return f"there are {len(codes)} codes of it"
    return None if text.endswith(f"\n{codes[0]}") else f"the answer is {codes[0]}"
