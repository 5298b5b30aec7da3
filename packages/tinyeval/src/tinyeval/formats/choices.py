"""Formats with choices. Texts are prepared exactly as lm-eval prepares them, so that log-likelihoods agree to the last bit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tinyeval.items import Item

_MMLU = re.compile(
    r"Q: (?P<question>.*?)\n\(A\) (?P<options>.*?)\n"
    r"A: Let's think step by step\.(?P<thoughts>.*?)\s*The answer is \((?P<right>[A-E])\)\.?",
    re.DOTALL,
)
_OPTION = re.compile(r"\s\(([B-E])\) ")


def arc(row: Mapping[str, Any], identity: str) -> list[Item]:
    """ARC (arXiv 1803.05457), 3 to 5 choices: question, choices {text, label}, answerKey."""
    labels = list(row["choices"]["label"])
    return [
        Item(
            str(row.get("id", identity)),
            row["question"],
            choices=tuple(row["choices"]["text"]),
            right=labels.index(row["answerKey"]),
        )
    ]


def blimp(row: Mapping[str, Any], identity: str) -> list[Item]:
    """BLiMP (arXiv 1912.00582): sentence_good, sentence_bad; which phenomenon stands in `UID` and `linguistics_term`."""
    kinds = {key: row[key] for key in ("UID", "linguistics_term", "field") if key in row}
    name = f"{row['UID']}-{row['pair_id']}" if "UID" in row and "pair_id" in row else identity
    return [Item(name, choices=(row["sentence_good"], row["sentence_bad"]), right=0, meta=kinds)]


def hellaswag(row: Mapping[str, Any], identity: str) -> list[Item]:
    """HellaSwag (arXiv 1905.07830): activity_label, ctx_a, ctx_b, endings, label; WikiHow's brackets are taken out."""
    context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    return [
        Item(
            identity,
            _without_brackets(context),
            choices=tuple(_without_brackets(ending) for ending in row["endings"]),
            right=int(row["label"]),
        )
    ]


def hellaswag_plain(row: Mapping[str, Any], identity: str) -> list[Item]:
    """HellaSwag with `ctx` and `endings` as they are, brackets and all."""
    return [Item(identity, row["ctx"], choices=tuple(row["endings"]), right=int(row["label"]))]


def piqa(row: Mapping[str, Any], identity: str) -> list[Item]:
    """PIQA (arXiv 1911.11641): goal, sol1, sol2, label."""
    return [Item(identity, row["goal"], choices=(row["sol1"], row["sol2"]), right=int(row["label"]))]


def winogrande(row: Mapping[str, Any], identity: str) -> list[Item]:
    """WinoGrande (arXiv 1907.10641), scored as Trinh and Le do (arXiv 1806.02847): what follows the gap, given each option."""
    before, gap, after = row["sentence"].partition("_")
    if not gap:
        raise ValueError("the sentence has no gap (_)")
    contexts = tuple(before + row[option] for option in ("option1", "option2"))
    return [Item(identity, choices=(after.strip(),) * 2, contexts=contexts, right=int(row["answer"]) - 1)]


def winogrande_whole(row: Mapping[str, Any], identity: str) -> list[Item]:
    """WinoGrande as two whole sentences, each option written into the gap."""
    if "_" not in row["sentence"]:
        raise ValueError("the sentence has no gap (_)")
    sentences = tuple(row["sentence"].replace("_", row[option]) for option in ("option1", "option2"))
    return [Item(identity, choices=sentences, right=int(row["answer"]) - 1)]


def mmlu_cot(row: Mapping[str, Any], identity: str) -> list[Item]:
    """MMLU's five questions a subject (arXiv 2009.03300) as lm-eval's wheel has them, written out with reasoning in one text.

    key: the subject; value: "Q: ... (A) ... (B) ... (C) ... (D) ... A: Let's think step by step. ... The answer is (C)."
    One of the 282 has five options. The choices are letters; field `options` is a line for each.
    """
    subject, text = row["key"], row["value"]
    found = list(_MMLU.finditer(text))
    if len(found) != text.count("Q: "):
        raise ValueError(f"{subject}: {text.count('Q: ')} questions, of which {len(found)} can be read")
    made = []
    for index, match in enumerate(found):
        parts = _OPTION.split(match["options"])  # A's text, B, B's text, ...
        letters, texts = ["A", *parts[1::2]], parts[::2]
        if letters not in (list("ABCD"), list("ABCDE")):
            raise ValueError(f"{subject}: question {index + 1} has the options {' '.join(letters)}")
        options = "\n".join(f"{letter}. {option.strip()}" for letter, option in zip(letters, texts, strict=True))
        made.append(
            Item(
                f"{subject}-{index}",
                match["question"].strip(),
                choices=tuple(letters),
                right=letters.index(match["right"]),
                fields={"options": options, "subject": subject.replace("_", " ")},
                meta={"subject": subject},
            )
        )
    return made


def _without_brackets(text: str) -> str:
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")
