"""Claim: the calculator replays every <<expression=value>> of GSM8K's training split (2110.14168) to the value's own rounding.

The file is not ours to ship: GSM8K_TRAIN=path/to/train.jsonl uv run pytest tests/test_gsm8k_annotations.py
"""

from __future__ import annotations

import json
import os
import re
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest

from tinyreason import Calculator

FILE = os.environ.get("GSM8K_TRAIN", "")
CALCULATE = Calculator()
COUNT = 23_716  # of the published file


def within_rounding(exact: Fraction, written: str) -> bool:
    """Whether a number written in decimals is `exact` rounded, either way from a tie, to as many places."""
    places = len(written.partition(".")[2])
    return abs(exact - Fraction(Decimal(written))) <= Fraction(1, 2 * 10**places)


def plain(text: str) -> str:
    """Without currency signs and separators of thousands."""
    return re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text.replace("$", "").strip())


@pytest.mark.skipif(not Path(FILE).is_file(), reason="needs GSM8K's train.jsonl: set GSM8K_TRAIN to its path")
def test_every_annotation_is_replayed() -> None:
    found, wrong = 0, []
    for line in Path(FILE).read_text(encoding="utf-8").splitlines():
        for annotation in re.findall(r"<<(.*?)>>", json.loads(line)["answer"]):
            expression, _, written = annotation.rpartition("=")
            found += 1
            value = plain(written)
            exact = CALCULATE.evaluate(plain(expression))
            decimals = re.fullmatch(r"-?\d*\.?\d+", value)
            right = within_rounding(exact, value) if decimals else exact == CALCULATE.evaluate(value)
            if not right:
                wrong.append(annotation)
    assert not wrong, wrong[:10]
    assert found == COUNT


@pytest.mark.parametrize(
    ("exact", "written", "right"),
    [("1/3", "0.33", True), ("1/3", "0.34", False), ("5/2", "3", True), ("5/2", "2", True), ("18", "18.00", True)],
)
def test_rounding_is_to_the_places_written(exact: str, written: str, right: bool) -> None:
    assert within_rounding(Fraction(exact), written) is right
