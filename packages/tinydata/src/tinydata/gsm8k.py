"""GSM8K (2110.14168) and what is written like it: word problems, worked out, with calculator annotations.

    {"question": "...", "answer": "She sold 48/2 = <<48/2=24>>24 clips.\\n#### 24"}                one line of a JSONL file

The text between question and `####` is the reasoning. An annotation `<<expression=result>>` stands before the result that the
text goes on with; it can be left out, or become a call of the calculator. Each is verified with exact arithmetic:

    exact        the expression has that value
    rounded      it has, rounded to as many decimals as the result shows (1/3=.33)
    wrong        it has another
    unreadable   one side is no arithmetic (`arithmetic_expression`)

The file is the user's: lines that are no such problem are skipped and counted by reason, as sources do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Literal

from tinydata.arithmetic_expression import ExpressionError, evaluate
from tinydata.documents import SourceError
from tinydata.sources.counted import MISSING_COLUMN, Skipped, checked
from tinydata.sources.formats import json_object, lines
from tinydata.special_tokens import SPECIAL_TOKENS

MAX_LINE_BYTES = 2**16  # the longest of the 8,792 published problems has less than 3 kB

Verdict = Literal["exact", "rounded", "wrong", "unreadable"]

LONG_LINE = Skipped(f"longer than {MAX_LINE_BYTES} bytes")
NO_ANSWER = Skipped("no number after ####")
STRAY_MARK = Skipped("<< or >> outside an annotation")
SPECIAL_TOKEN = Skipped("special token in the text")

_ANNOTATION = re.compile(r"<<([^<>]*)>>")
_ANSWER = re.compile(r"(-?)\s*\$?\s*(-?)(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?", re.ASCII)
_DECIMALS = re.compile(r"\.(\d+)\s*$", re.ASCII)


@dataclass(frozen=True, slots=True)
class Annotation:
    """What stands between << and >>, and whether it is true."""

    expression: str
    result: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class WordProblem:
    """question; annotated: the reasoning as written, annotations included; answer: a number such as 1234, -5 or 0.5."""

    question: str
    annotated: str
    answer: str

    @property
    def reasoning(self) -> str:
        """The reasoning without annotations."""
        return _ANNOTATION.sub("", self.annotated)

    @property
    def annotations(self) -> list[Annotation]:
        """All of them in order, verified."""
        return [verified(content) for content in _ANNOTATION.findall(self.annotated)]

    def with_calls(
        self,
        call: tuple[str, str] = ("<calc>", "</calc>"),
        result: tuple[str, str] | None = ("<result>", "</result>"),
    ) -> str:
        """The reasoning with each annotation as a call: `<calc>48/2</calc><result>24</result>24 clips`.

        The tags are the tokenizer's. A host that answers calls by itself writes the result's block, and its tokens are not
        for learning; with None there is no block, and the text's own number follows the call: `<calc>48/2</calc>24`.
        Results are as the problem says, right or wrong: drop problems with other verdicts than "exact" beforehand.
        """

        def written(match: re.Match[str]) -> str:
            expression, _, value = match[1].rpartition("=")
            block = "" if result is None else f"{result[0]}{value.strip()}{result[1]}"
            return f"{call[0]}{expression.strip()}{call[1]}{block}"

        return _ANNOTATION.sub(written, self.annotated)


class Gsm8k:
    """The problems of a JSONL file or of a dataset on the hub, in their order, as often as they are asked for.

    `skipped` counts by reason the lines that the latest iteration left out, `verdicts` the annotations of those it kept.
    """

    def __init__(self, path: str | Path) -> None:
        """Raises SourceError if there is no such file."""
        self.name = str(path)
        self.skipped: dict[str, int] = {}
        self.verdicts: dict[str, int] = {}
        self._lines: Callable[[], Iterator[bytes | Skipped]] = partial(_file_lines, Path(path))
        if not Path(path).is_file():
            raise SourceError(f"{path}: no such file")

    @classmethod
    def from_hub(cls, name: str = "openai/gsm8k", config: str | None = "main", split: str = "train") -> Gsm8k:
        """A dataset with columns `question` and `answer`, by the `datasets` library; its own code is never run."""
        found = cls.__new__(cls)
        found.name, found.skipped, found.verdicts = name, {}, {}
        found._lines = partial(_hub_lines, name, config, split)
        return found

    def problems(self) -> Iterator[WordProblem]:
        """Raises SourceError if the problems cannot be read, and at the end if there was none."""
        self.skipped, self.verdicts = {}, {}
        usable = 0
        for line in self._lines():
            if not isinstance(line, Skipped) and line.isspace():
                continue
            problem = line if isinstance(line, Skipped) else _problem(line)
            if isinstance(problem, Skipped):
                self.skipped[problem.reason] = self.skipped.get(problem.reason, 0) + 1
                continue
            for annotation in problem.annotations:
                self.verdicts[annotation.verdict] = self.verdicts.get(annotation.verdict, 0) + 1
            usable += 1
            yield problem
        if not usable:
            counts = ", ".join(f"{reason}: {count}" for reason, count in sorted(self.skipped.items()))
            raise SourceError(f"{self.name}: no problem in it ({counts or 'no lines at all'})")


def _file_lines(path: Path) -> Iterator[bytes | Skipped]:
    try:
        with path.open("rb") as handle:
            yield from lines(handle, MAX_LINE_BYTES, LONG_LINE)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from None


def _hub_lines(name: str, config: str | None, split: str) -> Iterator[bytes | Skipped]:
    import datasets  # two seconds, which only those pay who use it

    try:
        for row in datasets.load_dataset(name, config, split=split, streaming=True):
            yield json.dumps({key: row.get(key) for key in ("question", "answer")}).encode()
    except Exception as error:  # the library passes on whatever its builders and its HTTP client raise
        reason = " ".join(str(error).split())[:200]
        raise SourceError(f"dataset {name}: cannot be read ({reason}); name a file of such problems instead") from error


def _number(text: str) -> str | None:
    number = _ANSWER.fullmatch(text.strip())
    if number is None or (number[1] and number[2]):
        return None
    return number[1] + number[2] + number[3].replace(",", "") + (number[4] or "")


def _problem(line: bytes) -> WordProblem | Skipped:
    row = json_object(line)
    if isinstance(row, Skipped):
        return row
    if "question" not in row or "answer" not in row:
        return MISSING_COLUMN
    question, worked = checked(row["question"]), checked(row["answer"])
    if isinstance(question, Skipped):
        return question
    if isinstance(worked, Skipped):
        return worked
    reasoning, _, final = worked.rpartition("####")
    answer = _number(final)
    if answer is None:
        return NO_ANSWER
    plain = question + _ANNOTATION.sub("", reasoning)
    if "<<" in plain or ">>" in plain:
        return STRAY_MARK
    # Calls are written with tags: the same characters in a stranger's text would pass for them.
    if any(token in question or token in worked for token in SPECIAL_TOKENS):
        return SPECIAL_TOKEN
    return WordProblem(question.strip(), reasoning.strip(), answer)


def without_annotations(text: str) -> str:
    """A worked answer as a reader sees it."""
    return _ANNOTATION.sub("", text)


def verified(content: str) -> Annotation:
    """What stands between << and >>, or an equation such as `48/2=24`, with whether it is true."""
    expression, equals, result = (part.strip() for part in content.rpartition("="))
    try:
        if not equals:
            raise ExpressionError("no '='")
        value, claimed = evaluate(expression), evaluate(result)
    except ExpressionError:
        return Annotation(expression, result, "unreadable")
    if value == claimed:
        return Annotation(expression, result, "exact")
    decimals = _DECIMALS.search(result)
    half_unit = Fraction(1, 2 * 10 ** (len(decimals[1]) if decimals else 0))
    return Annotation(expression, result, "rounded" if abs(value - claimed) <= half_unit else "wrong")
