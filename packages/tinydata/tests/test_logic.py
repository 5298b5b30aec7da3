"""Logic chains: a solver of this file agrees, the checker accepts every one and rejects what was changed in meaning."""

from __future__ import annotations

import random
import re
from collections import Counter
from typing import Any

import pytest

from tinydata.synthetic.arithmetic_phrases import Language
from tinydata.synthetic.chance import Chance
from tinydata.synthetic.logic import LOGIC_KINDS, LogicProblem, logic
from tinydata.synthetic.logic_check import logic_fault

LANGUAGES: tuple[Language, ...] = ("english", "spanish")
ENGLISH = "Mia is a wug. No dax is a fep. Leo is a dax. Every wug is a dax. Is Mia a fep?"
PROOF = [
    "Mia is a wug.",
    "Every wug is a dax, so Mia is a dax.",
    "No dax is a fep, so Mia is not a fep.",
]
FIRST = (
    "Lily is a vosk. Every crog is a mib. No hix is a mib. No sterp is a mib. Ruby is a sterp. No jompus "
    "is a sterp. Is Ruby a mib?"
)
PEOPLE = "Ben visits Eva. Ana helps Ben. Eva calls Ana. Who is visited by the one that is helped by Ana?"


def worked(lines: list[str], answer: str, word: str = "Answer") -> str:
    return "<think>" + "\n".join(lines) + f"</think>\n{word}: {answer}"


@pytest.fixture(scope="module")
def problems() -> list[LogicProblem]:
    return [
        problem
        for language in LANGUAGES
        for settings in ({}, {"hops": (1, 12), "distractors": 24}, {"hops": (1, 2), "distractors": 0})
        for problem in logic(5, 400, language=language, **settings)
    ]


# --- a solver that walks backwards from the question, word by word -------------------------------------------------------


def words_of(sentence: str) -> list[str]:
    return re.findall(r"\w+", sentence)


def solved(question: str) -> tuple[str, list[set[str]]] | None:
    """The answer and the sets of statements that it can be had from; None where there is no answer or more than one."""
    *statements, asked = re.split(r"(?<=\.) ", question)
    asked_words = words_of(asked)
    if asked_words[0] in ("Who", "A"):
        verbs = [
            {"helped": "helps", "visited": "visits", "called": "calls", "thanked": "thanks"}.get(word, word)
            for word in asked_words[2:]
            if word in ["helped", "visited", "called", "thanked", "ayuda", "visita", "llama", "saluda"]
        ]
        at, used = asked_words[-1], set()
        for verb in reversed(verbs):
            found = [line for line in statements if words_of(line)[:2] == [at, verb]]
            if len({words_of(line)[-1] for line in found}) != 1:
                return None
            at = words_of(found[0])[-1]
            used.add(found[0])
        return at, [used]
    who, kind = asked_words[1], asked_words[-1]
    ways: list[tuple[bool, set[str]]] = []

    def back(kind: str, holds: bool, used: set[str]) -> None:
        for line in statements:
            words = words_of(line)
            if line in used or words[-1] != kind:
                continue
            if words[0] == who:
                ways.append((holds, used | {line}))
            elif words[0] in ("Every", "Todo"):
                back(words[1], holds, used | {line})

    back(kind, True, set())
    for line in statements:
        words = words_of(line)
        if words[0] in ("No", "Ningún") and words[-1] == kind:
            back(words[1], False, {line})
    if len({holds for holds, _ in ways}) != 1:
        return None
    yes, no = ("sí", "no") if asked.startswith("¿") else ("yes", "no")
    return (yes if ways[0][0] else no), [used for _, used in ways]


def test_the_solver_solves() -> None:
    assert solved(ENGLISH) == ("no", [{"Mia is a wug.", "No dax is a fep.", "Every wug is a dax."}])
    assert solved(PEOPLE) == ("Eva", [{"Ben visits Eva.", "Ana helps Ben."}])
    assert solved("Mia is a wug. Every dax is a wug. Is Mia a dax?") is None
    assert solved("Mia is a wug. Every wug is a dax. Is Mia a dax?") == (
        "yes",
        [{"Mia is a wug.", "Every wug is a dax."}],
    )


def test_every_answer_is_what_follows_and_every_step_is_needed(problems: list[LogicProblem]) -> None:
    for problem in problems:
        found = solved(problem.question)
        assert found is not None
        answer, used = found
        assert answer == problem.answer
        cited = {re.split(", so |, así que ", step)[0].removesuffix(".") + "." for step in problem.steps}
        assert [cited] == used, "there is one way"
        assert len(problem.steps) == problem.hops + (problem.kind == "kinds")
        assert logic_fault(problem.question, problem.solution("hand")) is None
        assert logic_fault(problem.question, problem.solution("once")) is None
        for form in ("hand", "once"):
            assert problem.question in problem.prompt(form)  # ty: ignore[invalid-argument-type]


@pytest.mark.parametrize(
    ("question", "solution", "fault"),
    [
        (ENGLISH, worked(PROOF, "no"), None),
        (ENGLISH, "Answer: no", None),
        (ENGLISH, "Answer: yes", "the answer is no"),
        (ENGLISH, worked(PROOF, "yes"), "the answer is no"),
        (ENGLISH, worked(PROOF[:2], "no"), "what was asked for is not concluded"),
        (ENGLISH, worked([PROOF[0], PROOF[2]], "no"), "says nothing about the step before"),
        (ENGLISH, worked(PROOF[1:], "no"), "is not stated"),
        (ENGLISH, worked([PROOF[0], PROOF[1], PROOF[2].replace("not ", "")], "no"), "does not follow"),
        (ENGLISH, worked([PROOF[0], PROOF[1], PROOF[2].replace("No", "Every")], "no"), "is not stated"),
        (ENGLISH, worked([PROOF[0].replace("Mia", "Leo"), *PROOF[1:]], "no"), "is not stated"),
        (ENGLISH, worked([PROOF[0], "So it goes.", *PROOF[1:]], "no"), "is no step"),
        (ENGLISH, "no", "there is no answer"),
        (ENGLISH, "I know\nAnswer: no", "there are no thoughts"),
        (ENGLISH.replace("wug. No", "wug No"), worked(PROOF, "no"), "is no statement"),
        (ENGLISH.replace("Every wug", "Every bem"), "Answer: no", "nothing follows"),
        (f"Mia is a fep. {ENGLISH}", "Answer: no", "contradict"),
        (ENGLISH.replace("Is Mia a fep?", "Why?"), "Answer: no", "is no question"),
        (PEOPLE, worked(["Ana helps Ben.", "Ben visits Eva."], "Eva"), None),
        (PEOPLE, worked(["Ana helps Ben."], "Eva"), "more or fewer steps"),
        (PEOPLE, worked(["Ana helps Ben.", "Eva calls Ana."], "Eva"), "is not the next step"),
        (PEOPLE, worked(["Ana helps Ben.", "Ben visits Eva."], "Ben"), "the answer is Eva"),
        (f"Ana helps Eva. {PEOPLE}", "Answer: Eva", "Ana helps two people"),
        (PEOPLE.replace("Ana helps Ben. ", ""), "Answer: Eva", "nobody says whom Ana helps"),
        ("Mia es un wug. Todo wug es un dax. ¿Es Mia un dax?", "Respuesta: sí", None),
        ("Mia es un wug. Ningún wug es un dax. ¿Es Mia un dax?",
         worked(["Mia es un wug.", "Ningún wug es un dax, así que Mia no es un dax."], "no", "Respuesta"), None),
        ("Ana ayuda a Ben. ¿A quién ayuda Ana?", worked(["Ana ayuda a Ben."], "Ben", "Respuesta"), None),
    ],
)  # fmt: skip
def test_the_checker_says_what_is_wrong(question: str, solution: str, fault: str | None) -> None:
    found = logic_fault(question, solution)
    assert (found is None) == (fault is None), found
    assert fault is None or fault in str(found)


# --- what is changed is noticed ------------------------------------------------------------------------------------------


def changed(text: str, vocabulary: list[str], chance: random.Random) -> str:
    """`text` with one token, a word or a sign, replaced, left out, or put in."""
    tokens = [(found.start(), found.end()) for found in re.finditer(r"\w+|[^\w\s]|\s", text)]
    start, end = chance.choice(tokens)
    way = chance.random()
    if way < 0.7:
        return text[:start] + chance.choice([word for word in vocabulary if word != text[start:end]]) + text[end:]
    if way < 0.85:
        return text[:start] + text[end:]
    return f"{text[:start]}{chance.choice(vocabulary)} {text[start:]}"


def test_changed_solutions_are_rejected(problems: list[LogicProblem]) -> None:
    chance = random.Random(1)
    tried, accepted = 0, []
    for problem in problems:
        vocabulary = sorted(
            {*words_of(problem.question), *words_of(problem.solution("hand")), "yes", "no", "not", "sí"}
        )
        for form in ("hand", "hand", "hand", "once"):
            solution = problem.solution(form)  # ty: ignore[invalid-argument-type]
            text = changed(solution, vocabulary, chance)
            if text == solution:
                continue
            tried += 1
            if logic_fault(problem.question, text) is None:
                accepted.append(text)
    assert tried > 9000
    assert len(accepted) <= 0.01 * tried, accepted[:5]


NO_NAMES = {"Every", "No", "Todo", "Ningún", "Is", "Who", "Es", "A"}


def test_changed_questions_are_noticed_where_the_answer_or_a_step_changes(problems: list[LogicProblem]) -> None:
    """A word of the question is replaced by one of its sort; whether that matters, the solver says."""
    chance = random.Random(2)
    matters = wrong = harmless = refused = 0
    for problem in problems:
        names = {word for word in words_of(problem.question) if word[0].isupper()} - NO_NAMES
        sorts = [
            sorted(names),
            sorted(set(re.findall(r"\b(?:a|un|Every|No|Todo|Ningún) ([a-z]+)", problem.question))),
            ["Every", "No"] if problem.language == "english" else ["Todo", "Ningún"],
            ["helps", "visits", "calls", "thanks"]
            if problem.language == "english"
            else ["ayuda", "visita", "llama", "saluda"],
        ]
        places = [
            (found.start(), found[0], sort)
            for found in re.finditer(r"\w+", problem.question)
            for sort in sorts
            if found[0] in sort and len(sort) > 1
        ]
        for _ in range(3):
            at, word, sort = chance.choice(places)
            other = chance.choice([one for one in sort if one != word])
            question = problem.question[:at] + other + problem.question[at + len(word) :]
            found = solved(question)
            cited = {re.split(", so |, así que ", step)[0].removesuffix(".") + "." for step in problem.steps}
            same = found is not None and found[0] == problem.answer and cited in found[1]
            same = same and words_of(question)[-4:] == words_of(problem.question)[-4:]
            accepted = logic_fault(question, problem.solution("hand")) is None
            if same:
                harmless += 1
                refused += not accepted
            else:
                matters += 1
                wrong += accepted
    assert matters > 3000
    assert wrong <= 0.01 * matters
    assert harmless > 1000
    assert refused <= 0.01 * harmless, "what stays right stays accepted"


def test_flawed_ones_are_rejected(problems: list[LogicProblem]) -> None:
    chance = Chance("flawed", 0)
    steps = Counter()
    for problem in problems:
        attempt = problem.flawed(chance)
        assert (attempt.question, len(attempt.steps)) == (problem.question, len(problem.steps))
        assert attempt.answer != problem.answer
        steps[attempt.steps == problem.steps] += 1
        for form in ("hand", "once"):
            fault = logic_fault(attempt.question, attempt.solution(form))  # ty: ignore[invalid-argument-type]
            assert fault == f"the answer is {problem.answer}"
    assert min(steps[True], steps[False]) > 0.45 * len(problems)


# --- as asked for --------------------------------------------------------------------------------------------------------


def test_problems_are_distinct_and_as_asked_for() -> None:
    for language in LANGUAGES:
        made = list(logic(3, 3000, language=language, hops=(2, 5), distractors=6))
        assert len({problem.question for problem in made}) == len(made)
        assert Counter(problem.kind for problem in made) == dict.fromkeys(LOGIC_KINDS, 1500)
        hops = Counter(problem.hops for problem in made)
        assert set(hops) == {2, 3, 4, 5}
        assert min(hops.values()) > 600
        answers = Counter(problem.answer for problem in made if problem.kind == "kinds")
        assert max(answers.values()) < 0.55 * 1500
        for problem in made:
            assert problem.question.count(". ") == problem.hops + 6 + (problem.kind == "kinds")
    assert list(logic(3, 50)) == list(logic(3, 80))[:50]
    assert list(logic(3, 50)) != list(logic(4, 50))
    # a change here means that models trained on the old problems are not comparable with those on the new ones
    first = next(logic(0, 1))
    assert first.question == FIRST


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kinds": ("riddles",)}, "unknown kind 'riddles'"),
        ({"kinds": ()}, "unknown kind None"),
        ({"language": "latin"}, "unknown language 'latin'"),
        ({"hops": (0, 3)}, "0 to 3 hops"),
        ({"hops": (3, 2)}, "3 to 2 hops"),
        ({"hops": (1, 13)}, "1 to 13 hops"),
        ({"distractors": -1}, "-1 distractors"),
    ],
)
def test_what_cannot_be_says_so(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        next(logic(0, 1, **settings))
