"""Test-time compute: votes, best of N, refinement, scratchpads, notes, budgets, with generators whose words are known."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest

from tinyreason import Completion, Majority, best_of_n, majority_vote, pass_at_k, refine, think
from tinyreason.test_time import (
    Best,
    Filtered,
    Pad,
    inductive,
    inductive_many,
    mean_pass_at_k,
    plain,
    plain_many,
    self_notes,
    self_notes_many,
    tally,
)
from tinyreason.testing import Nothing, Scripted, silent


def says(*answers: str) -> Scripted:
    """Answers in turn, whatever is asked."""
    endless = itertools.cycle(answers)
    return Scripted(lambda prompt, sample: f"Answer: {next(endless)}")


class ByAnswer:
    """Scores a completion by a table of its text's last word."""

    def __init__(self, **scores: float) -> None:
        self.scores = scores

    def score(self, prompt: str, completions: list[Completion]) -> list[float]:
        return [
            self.scores.get(f"a{completion.text.split()[-1]}" if completion.text else "", 0.0)
            for completion in completions
        ]


def test_votes_are_of_values() -> None:
    assert majority_vote(["309,524", "7", "309524", None]) == "309,524"
    assert majority_vote(["1", "2", "2"], [5.0, 1.0, 1.0]) == "1"
    assert majority_vote(["a", "b"]) == "a"
    assert majority_vote([None, " "]) is None
    assert majority_vote([]) is None
    assert [(group.answer, group.voters) for group in tally(["3", "4", "4.0", "3 apples", "4"])] == [
        ("4", [1, 2, 4]),
        ("3", [0, 3]),
    ]
    with pytest.raises(ValueError, match="2 for 1 answers"):
        majority_vote(["1"], [1.0, 2.0])
    with pytest.raises(ValueError, match="cannot weigh less"):
        majority_vote(["1"], [float("nan")])


@pytest.mark.parametrize(("n", "right", "k"), [(5, 2, 1), (5, 2, 3), (6, 0, 4), (6, 6, 2), (7, 3, 5), (4, 1, 4)])
def test_pass_at_k_is_the_share_of_all_choices(n: int, right: int, k: int) -> None:
    choices = list(itertools.combinations(range(n), k))
    hit = sum(any(index < right for index in choice) for choice in choices)
    assert pass_at_k(n, right, k) == pytest.approx(hit / len(choices), abs=1e-12)


def test_pass_at_k_is_unbiased_and_the_naive_form_is_not() -> None:
    draw = random.Random(0)
    p, n, k, trials = 0.3, 6, 4, 20_000
    counts = [sum(draw.random() < p for _ in range(n)) for _ in range(trials)]
    truth = 1 - (1 - p) ** k
    mean, error = mean_pass_at_k([(n, count) for count in counts], k)
    assert abs(mean - truth) < 4 * error
    naive = sum(1 - (1 - count / n) ** k for count in counts) / trials
    assert abs(naive - truth) > 10 * error
    with pytest.raises(ValueError, match="takes at least as many samples"):
        pass_at_k(3, 1, 4)
    with pytest.raises(ValueError, match="4 right of 3"):
        pass_at_k(3, 4, 1)


def test_best_of_one_is_the_generator_itself() -> None:
    source = says("5")
    found = best_of_n(source, "?", 1)
    assert (found.answer, found.text, len(found.candidates)) == ("5", "Answer: 5", 1)
    assert source.asked[0]["temperature"] == 0.6
    assert found.spent.generations == 1
    assert found.spent.tokens == 2


def test_a_third_of_the_samples_at_each_temperature() -> None:
    source = says("1")
    best_of_n(source, "?", 9)
    assert [(asked["temperature"], asked["n"]) for asked in source.asked] == [(0.6, 3), (0.8, 3), (1.0, 3)]
    assert len({asked["seed"] for asked in source.asked}) == 3


def test_majority_stops_as_soon_as_nothing_can_change() -> None:
    found = best_of_n(says("4"), "?", 16, rounds=8, temperatures=[1.0])
    assert len(found.candidates) == 10  # 9 of 16 would do, in rounds of 2
    split = best_of_n(says("4", "5"), "?", 16, rounds=8, temperatures=[1.0])
    assert len(split.candidates) == 16


def decided_for_good(answers: Sequence[str], selector: Majority, step: int) -> bool:
    """Whether what was chosen when `decided` first said so is what is chosen at the end."""
    candidates = selector.judge("?", [Completion(f"Answer: {answer}", 1) for answer in answers])
    final = candidates[selector.choose(candidates)].answer
    for count in range(step, len(answers), step):
        if selector.decided(candidates[:count], len(answers) - count):
            return candidates[selector.choose(candidates[:count])].answer == final
    return True


def test_an_early_stop_never_changes_the_answer() -> None:
    draw = random.Random(1)
    weighted = Majority(ByAnswer(a1=0.9, a2=0.3, a3=0.5))
    for _ in range(300):
        answers = draw.choices("123", weights=[3, 2, 1], k=draw.randint(2, 20))
        assert decided_for_good(answers, Majority(), 1)
        assert decided_for_good(answers, weighted, 1)


def test_weighted_majority_and_verifier_and_filter() -> None:
    answers, scorer = ("1", "1", "2"), ByAnswer(a1=0.2, a2=0.9)
    assert best_of_n(says(*answers), "?", 3, Majority(), temperatures=[1.0]).answer == "1"
    assert best_of_n(says(*answers), "?", 3, Majority(scorer), temperatures=[1.0]).answer == "2"
    assert best_of_n(says(*answers), "?", 3, Best(scorer), temperatures=[1.0]).answer == "2"
    only_one = Filtered(ByAnswer(a1=1.0, a2=0.0), Best(scorer))
    assert best_of_n(says(*answers), "?", 3, only_one, temperatures=[1.0]).answer == "1"
    found = best_of_n(says("7", "2", "2"), "?", 30, Best(scorer, enough=0.8), rounds=10, temperatures=[1.0])
    assert (found.answer, len(found.candidates)) == ("2", 3)


def test_more_samples_help_by_the_oracle_as_pass_at_k_says() -> None:
    """An oracle's best of N is pass@N: on a generator that is right with probability .3."""
    draw = random.Random(2)
    source = Scripted(lambda prompt, sample: "Answer: " + ("right" if draw.random() < 0.3 else "wrong"))
    oracle = Best(ByAnswer(aright=1.0))
    hits = sum(best_of_n(source, "?", 4, oracle, temperatures=[1.0]).answer == "right" for _ in range(1500))
    assert hits / 1500 == pytest.approx(1 - 0.7**4, abs=0.04)


def test_generators_that_say_nothing() -> None:
    for source in (Scripted(silent), Nothing()):
        found = best_of_n(source, "?", 3, Majority(), temperatures=[1.0])
        assert found.answer is None
        assert found.text == ""
    assert best_of_n(Nothing(), "?", 3).candidates[0].completion.finish == "error"
    with pytest.raises(ValueError, match="at least one sample"):
        best_of_n(Nothing(), "?", 0)
    with pytest.raises(ValueError, match="at least one temperature"):
        best_of_n(Nothing(), "?", 1, temperatures=[])


def again(prompt: str, attempt: str) -> str:
    return f"{prompt} You said {attempt}. Better?"


def test_refinement_keeps_what_the_scorer_prefers() -> None:
    scorer = ByAnswer(a1=0.1, a2=0.5, a3=0.3)
    source = says("1", "2", "3")
    found = refine(source, scorer, "?", again, rounds=2)
    assert (found.best.text, found.score, found.kept) == ("Answer: 2", 0.5, 1)
    assert source.asked[2]["prompts"] == ["? You said Answer: 2. Better?"]
    assert found.spent.generations == 3


def test_zero_rounds_are_one_pass_and_more_never_fall() -> None:
    assert refine(says("1", "2"), ByAnswer(a1=0.1, a2=0.5), "?", again, rounds=0).best.text == "Answer: 1"
    draw = random.Random(3)
    for _ in range(50):
        answers = [str(draw.randint(1, 9)) for _ in range(6)]
        scorer = ByAnswer(**{f"a{number}": draw.random() for number in range(10)})
        scores = [refine(says(*answers), scorer, "?", again, rounds=n).score for n in range(6)]
        assert scores == sorted(scores)
    assert refine(says("1", "2"), ByAnswer(a1=1.0), "?", again, rounds=5).spent.generations == 1
    assert refine(Nothing(), ByAnswer(), "?", again, rounds=1).best.finish == "error"
    with pytest.raises(ValueError, match="-1 rounds"):
        refine(says("1"), ByAnswer(), "?", again, rounds=-1)


def counts_down(prompt: str, sample: int) -> str:
    """Knows the last state only: n -> n - 1, and says so when it is done."""
    state = int(prompt.rsplit(" ", 1)[-1])
    return "Answer: 0\n" if state == 0 else f"{state - 1} # {state - 2} # never read"


def test_inductive_states_come_from_the_state_before_alone() -> None:
    source = Scripted(counts_down)
    found = inductive(source, "count down:", "12", join=lambda question, state: f"{question} {state}")
    assert found.states == tuple(str(number) for number in range(12, -1, -1))
    assert (found.answer, found.ended) == ("0", "done")
    assert all(len(asked["prompts"][0].split()) == 3 for asked in source.asked)  # question and one state
    assert found.spent.generations == 13


@pytest.mark.parametrize(
    ("source", "ended"),
    [
        (Scripted(lambda prompt, sample: "1 # "), "repeated"),
        (Scripted(lambda prompt, sample: f"{len(prompt)}{prompt}"[:40] + " # "), "steps"),
        (Scripted(silent), "error"),
        (Nothing(), "error"),
        (Scripted(lambda prompt, sample: "w " * 100), "length"),
    ],
)
def test_pads_that_come_to_no_end(source: Scripted, ended: str) -> None:
    found = inductive(source, "q", "0", max_steps=5, max_tokens=8)
    assert (found.ended, found.answer) == (ended, None)


def test_a_plain_scratchpad() -> None:
    found = plain(Scripted(lambda prompt, sample: "3 # 2 # 1 # Answer: 1\nrest"), "?")
    assert (found.states, found.answer, found.ended) == (("3", "2", "1"), "1", "done")
    assert plain(Scripted(lambda prompt, sample: "3 # " * 50), "?", max_tokens=5).ended == "length"
    assert plain(Nothing(), "?").ended == "error"
    assert plain(Scripted(lambda p, s: "3; so: 4|x"), "?", Pad(mark=";", done="so:", stop="|")).answer == "4"


def test_notes_stand_where_they_were_taken() -> None:
    def write(prompt: str, sample: int) -> str:
        if prompt.endswith("?"):
            return "Answer: Rome"
        return "<note>Ana is in Rome</note>" if prompt.endswith("Rome. ") else "whatever comes next"

    source = Scripted(write)
    found = self_notes(source, ["It rains. ", "Ana flew to Rome. ", "Bo stayed. "], "Where is Ana?")
    assert found.notes == ("Ana is in Rome",)
    assert found.context == "It rains. Ana flew to Rome. <note>Ana is in Rome</note> Bo stayed. "
    assert found.answer.text == "Answer: Rome"
    assert found.spent.generations == 4
    assert self_notes(Nothing(), ["a. "], "?").answer.finish == "error"


def test_many_at_once_are_what_they_are_alone() -> None:
    def join(question: str, state: str) -> str:
        return f"{question} {state}"

    def pads(source: Scripted) -> list[tuple[object, ...]]:
        found = inductive_many(source, ["count down:"] * 3, ["2", "9", "0"], join=join, max_steps=5)
        return [(pad.states, pad.answer, pad.ended, pad.spent.tokens, pad.spent.generations) for pad in found]

    source = Scripted(counts_down)
    alone = [
        inductive(Scripted(counts_down), "count down:", first, join=join, max_steps=5) for first in ("2", "9", "0")
    ]
    assert pads(source) == [(p.states, p.answer, p.ended, p.spent.tokens, p.spent.generations) for p in alone]
    assert [pad.ended for pad in alone] == ["done", "steps", "done"]
    assert [len(asked["prompts"]) for asked in source.asked] == [3, 2, 2, 1, 1], "a pad that is done is asked no more"
    source = Scripted(lambda prompt, sample: f"1 # Answer: {prompt}\n")
    assert [pad.answer for pad in plain_many(source, ["a", "b"])] == ["a", "b"]
    assert len(source.asked) == 1
    assert plain_many(source, []) == inductive_many(source, [], []) == self_notes_many(source, []) == []
    assert [pad.ended for pad in inductive_many(Nothing(), ["a", "b"], ["0", "0"])] == ["error", "error"]


def test_notes_of_many_texts_are_taken_at_once() -> None:
    def write(prompt: str, sample: int) -> str:
        return f"{len(prompt)}" if prompt.endswith("?") else f"<note>{prompt.split()[-1]}</note>"

    source = Scripted(write)
    texts = [(["a.\n", "b.\n"], "?"), (["c.\n"], "?"), ([], "?")]
    found = self_notes_many(source, texts, behind="\n", max_notes=1)
    assert [noted.context for noted in found] == ["a.\n<note>a.</note>\nb.\n", "c.\n<note>c.</note>\n", ""]
    assert [noted.answer.text for noted in found] == [str(len(noted.context) + 1) for noted in found]
    assert [len(asked["prompts"]) for asked in source.asked] == [2, 3], "no more notes, no more calls"
    assert [noted.spent.generations for noted in found] == [2, 2, 1]
    for (sentences, question), noted in zip(texts, found, strict=True):
        alone = self_notes(Scripted(write), sentences, question, behind="\n", max_notes=1)
        assert (alone.context, alone.notes, alone.answer) == (noted.context, noted.notes, noted.answer)


def test_a_thought_that_does_not_end_is_ended() -> None:
    def write(prompt: str, sample: int) -> str:
        return "Answer: 1" if prompt.endswith("</think>") else "hm " * 50

    source = Scripted(write)
    found = think(source, "?", 7)
    assert (found.forced, found.answer.text) == (True, "Answer: 1")
    assert source.asked[0]["max_tokens"] == 7
    assert source.asked[1]["prompts"] == [f"?<think>{found.thinking}</think>"]
    assert found.spent.tokens == 7 + 2


def test_a_thought_that_ends_too_soon_goes_on() -> None:
    def write(prompt: str, sample: int) -> str:
        if prompt.endswith("</think>"):
            return "Answer: 1"
        return "three short words</think>" if prompt.endswith(("<think>", "Wait,")) else ""

    found = think(Scripted(write), "?", 20, least=5)
    assert not found.forced
    assert found.thinking == "three short words Wait,three short words"
    assert think(Scripted(write), "?", 0).thinking == ""
    with pytest.raises(ValueError, match="at least 5 of a budget of 4"):
        think(Scripted(write), "?", 4, least=5)
