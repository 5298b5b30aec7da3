"""Spending more on an answer: sampling and choosing, refining, writing things down, thinking for longer."""

from tinyreason.test_time.best_of_n import TEMPERATURES, Chosen, best_of_n
from tinyreason.test_time.pass_at_k import mean_pass_at_k, pass_at_k
from tinyreason.test_time.refine import Refined, refine
from tinyreason.test_time.scratchpad import Pad, Scratchpad, inductive, inductive_many, plain, plain_many
from tinyreason.test_time.selectors import Best, Candidate, Filtered, Majority, Selector
from tinyreason.test_time.self_notes import Noted, self_notes, self_notes_many
from tinyreason.test_time.thinking import Thought, think
from tinyreason.test_time.voting import Group, majority_vote, tally

__all__ = [
    "TEMPERATURES",
    "Best",
    "Candidate",
    "Chosen",
    "Filtered",
    "Group",
    "Majority",
    "Noted",
    "Pad",
    "Refined",
    "Scratchpad",
    "Selector",
    "Thought",
    "best_of_n",
    "inductive",
    "inductive_many",
    "majority_vote",
    "mean_pass_at_k",
    "pass_at_k",
    "plain",
    "plain_many",
    "refine",
    "self_notes",
    "self_notes_many",
    "tally",
    "think",
]
