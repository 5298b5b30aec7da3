"""Claim: of what a teacher says only traces are kept whose calculations, programs and answer hold; nothing is asked twice, a
kill changes no byte of what comes out, and damage to the cache is one line.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import pytest

from tinydata.teachers import (
    Asking,
    Problem,
    Rules,
    TeacherError,
    TeacherImport,
    Triple,
    read_triples,
    write_triples,
)


@dataclass(frozen=True)
class Said:
    text: str
    finish: str = "stop"


@dataclass
class Scripted:
    """Answers by `script(question, sample)`, and remembers what it was asked; `dies_after`: calls before it fails."""

    script: Callable[[str, int], Said | str]
    asked: list[str] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    dies_after: int = 10**9

    def generate(
        self, prompts: list[str], *, n: int, max_tokens: int, temperature: float, stop: Sequence[str], seed: int
    ) -> list[list[Said]]:
        if len(self.calls) >= self.dies_after:
            raise KeyboardInterrupt
        self.calls.append(len(prompts))
        self.asked += prompts
        found = [[self.script(prompt.strip(), sample) for sample in range(n)] for prompt in prompts]
        return [[one if isinstance(one, Said) else Said(one) for one in samples] for samples in found]


class Numbers:
    """Compares numbers exactly and everything else as text."""

    def equal(self, a: str, b: str) -> bool:
        try:
            return Fraction(a.replace(",", "")) == Fraction(b.replace(",", ""))
        except ValueError:
            return a.strip().lower() == b.strip().lower()


@dataclass(frozen=True)
class Ran:
    output: str
    error: str | None = None


class Printing:
    """A runner that knows one kind of program: print(number)."""

    def run(self, source: str, seconds: float, bytes: int) -> Ran:
        assert seconds > 0
        assert bytes > 0
        inner = source.strip().removeprefix("print(").removesuffix(")")
        return Ran(f"{inner}\n") if inner.isdigit() else Ran("", "NameError: what?")


def importing(path: Path, script: Callable[[str, int], Said | str], **more: object) -> tuple[TeacherImport, Scripted]:
    generator = Scripted(script)
    asking = Asking(n=more.pop("n", 1))  # ty: ignore[invalid-argument-type]
    rules = Rules(**more.pop("rules", {}))  # ty: ignore[invalid-argument-type]
    return TeacherImport(
        generator,
        Numbers(),
        teacher="scripted",
        cache=path / "answers.jsonl",
        asking=asking,
        rules=rules,
        **more,  # ty: ignore[invalid-argument-type]
    ), generator


# --- what is kept -----------------------------------------------------------------------------------------------------

GOOD = "12 * 7 = 84\n84 - 4 = 80\n#### 80"
REJECTED = [
    (Said("", "error"), "nothing came"),
    (Said(GOOD, "length"), "cut off"),
    ("", "too short"),
    ("x" * 5000, "too long"),
    (GOOD + "\ud800", "not Unicode"),
    ("<|im_end|>" + GOOD, "special token"),
    ("so it goes on, " * 20 + GOOD, "repeats itself"),
    ("a long enough line\n" * 4 + GOOD, "repeats itself"),
    ("<calc>1+1\n" + GOOD, "unbalanced tags"),
    ("12 * 7 = 84", "no answer"),
    ("12 * 7 = 85\n#### 80", "wrong step"),
    ("<calc>twelve</calc><result>12</result>\n#### 80", "unreadable step"),
    ("<code>print(80)</code>\n#### 81", "program prints something else"),
    ("<code>print(80)</code><result>81</result>\n#### 80", "program prints something else"),
    ("<code>import os</code>\n#### 80", "program failed"),
    ("".join(f"{way}: <code>print(80)</code>\n" for way in "abcde") + "#### 80", "too many programs"),
    ("<result>80</result>\n#### 80", "unbalanced tags"),
    ("#### 81", "wrong answer"),
]


@pytest.mark.parametrize(("said", "reason"), REJECTED)
def test_what_does_not_hold_is_rejected_and_counted(tmp_path: Path, said: Said | str, reason: str) -> None:
    found, _ = importing(tmp_path, lambda question, sample: said if sample else GOOD, n=2, runner=Printing())
    (triple,) = found.triples([Problem("How many?", "80")])
    assert (triple.trace, triple.answer, triple.steps) == (GOOD, "80", 2)
    assert found.summary.rejected == {reason: 1}
    assert (found.summary.problems, found.summary.samples, found.summary.kept, found.summary.solved) == (1, 2, 1, 1)


def test_programs_are_run(tmp_path: Path) -> None:
    text = "<think><code>print(80)</code><result>80</result></think>\nAnswer: 80.0"
    found, _ = importing(tmp_path, lambda *_: text, runner=Printing())
    (triple,) = found.triples([Problem("How many?", "80")])
    assert (triple.programs, triple.answer) == (1, "80")
    without, generator = importing(tmp_path, lambda *_: text)
    assert list(without.triples([Problem("How many?", "80")])) == []
    assert without.summary.rejected == {"program not run": 1}
    assert generator.asked == [], "the answers were in the cache"


@pytest.mark.parametrize(
    ("answers", "share", "kept"),
    [
        ("7 7.0 8 9", 0.5, 2),
        ("7 7 8 8", 0.5, 0),  # a tie
        ("7 7 8 9", 0.6, 0),
        ("7 7 7 9", 0.75, 3),
        ("7 8 9 10", 0.1, 0),  # nobody agrees
        ("7 7 - -", 0.5, 2),
        ("7 7 - -", 0.6, 0),  # those that failed count as asked
        ("7", 0.5, 0),
    ],
)
def test_without_an_answer_the_majority_decides(tmp_path: Path, answers: str, share: float, kept: int) -> None:
    said = answers.split()

    def script(question: str, sample: int) -> str:
        return "nothing" if said[sample] == "-" else f"trace {sample}\n#### {said[sample]}"

    found, _ = importing(tmp_path, script, n=len(said), rules={"share": share})
    triples = list(found.triples([Problem("How many?")]))
    assert len(triples) == kept
    assert all(triple.answer in ("7", "7.0") and triple.votes == kept for triple in triples)
    assert found.summary.kept + sum(found.summary.rejected.values()) == len(said)


def test_copies_and_more_than_enough_are_left_out(tmp_path: Path) -> None:
    texts = ["a #### 7", "a  #### 7", "b #### 7", "c #### 7", "d #### 7"]
    found, _ = importing(tmp_path, lambda question, sample: texts[sample], n=5, rules={"keep": 2})
    triples = list(found.triples([Problem("q", "7"), Problem("q", "7"), Problem("r", "7")]))
    assert [(one.question, one.trace) for one in triples] == [
        ("q", "a #### 7"),
        ("q", "b #### 7"),
        ("q", "c #### 7"),
        ("q", "d #### 7"),
        ("r", "a #### 7"),
        ("r", "b #### 7"),
    ]
    assert found.summary.rejected == {"duplicate": 5, "enough": 4}


# --- the cache --------------------------------------------------------------------------------------------------------

PROBLEMS = [Problem(f"What is {number} + {number}?", str(2 * number) if number % 2 else None) for number in range(20)]


def adds(question: str, sample: int) -> Said | str:
    number = int(question.split()[2])
    if number == 3 and sample == 0:
        return Said(f"{number} + {number} = {2 * number}\n#### {2 * number}", "length")
    wrong = sample == 2
    return f"Way {sample}: {number} + {number} = {2 * number + wrong}\n#### {2 * number}"


def lines(triples: Sequence[Triple]) -> str:
    return "\n".join(triple.to_json() for triple in triples)


def test_a_killed_import_asks_nothing_twice_and_gives_the_same_bytes(tmp_path: Path) -> None:
    whole, generator = importing(tmp_path / "whole", adds, n=3, batch=4)
    expected = lines(list(whole.triples(PROBLEMS)))
    assert len(generator.asked) == 20
    assert whole.summary.asked == 20
    for dies_after in range(5):
        path = tmp_path / str(dies_after)
        first, dying = importing(path, adds, n=3, batch=4)
        dying.dies_after = dies_after
        with pytest.raises(KeyboardInterrupt):
            list(first.triples(PROBLEMS))
        # the kill also tears the line that was being written
        cache = path / "answers.jsonl"
        torn = cache.read_bytes()[:-30]
        cache.write_bytes(torn)
        second, living = importing(path, adds, n=3, batch=4)
        assert lines(list(second.triples(PROBLEMS))) == expected
        again = max(0, 4 * dies_after - 1)
        assert living.asked == [f"{problem.question}\n" for problem in PROBLEMS[again:]]
        assert second.summary.rejected == whole.summary.rejected
        assert cache.read_bytes() == (tmp_path / "whole/answers.jsonl").read_bytes()


def test_other_settings_and_another_teacher_are_asked_anew(tmp_path: Path) -> None:
    problem = Problem("What is 1 + 1?", "2")
    asking = Asking()
    keys = {
        asking.key("a", problem),
        asking.key("b", problem),
        asking.key("a", Problem("What is 1 + 2?", "2")),
        *(
            Asking(**{name: value}).key("a", problem)  # ty: ignore[invalid-argument-type]
            for name, value in {"n": 5, "max_tokens": 3, "temperature": 0.1, "stop": ("x",), "seed": 1}.items()
        ),
        Asking(prompt="Q: {question}").key("a", problem),
    }
    assert len(keys) == 9
    assert asking.key("a", Problem(problem.question, None)) == asking.key("a", problem), "what is asked is the same"
    assert Asking(prompt="{question} {x}").asked(Problem("{y} {question}")) == "{y} {question} {x}"


def test_what_failed_is_asked_again_another_time(tmp_path: Path) -> None:
    failing, _ = importing(tmp_path, lambda question, sample: Said("", "error"))
    assert list(failing.triples(PROBLEMS[:2])) == []
    assert failing.summary.rejected == {"nothing came": 2}
    found, generator = importing(tmp_path, lambda question, sample: "#### 2")
    assert len(list(found.triples(PROBLEMS[1:2]))) == 1
    assert generator.calls == [1]


def test_long_answers_are_bounded_in_the_cache_and_stay_too_long(tmp_path: Path) -> None:
    said = "#### 2\n" * 10**5
    found, _ = importing(tmp_path, lambda *_: said, rules={"longest": 100})
    assert list(found.triples(PROBLEMS[:1])) == []
    assert found.summary.rejected == {"too long": 1}
    assert (tmp_path / "answers.jsonl").stat().st_size < 2**17
    again, generator = importing(tmp_path, lambda *_: said, rules={"longest": 2**16})
    assert list(again.triples(PROBLEMS[:1])) == [], "what was cut is not mistaken for a whole answer"
    assert again.summary.rejected == {"too long": 1}
    assert generator.asked == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line.replace(b"Way 0", b"Way 9"),
        lambda line: b"{}\n",
        lambda line: b"[" * 10_000 + b"\n",
        lambda line: b"\xff\n",
        lambda line: b"\n",
        lambda line: line.replace(b'"stop"', b"7"),
        lambda line: line[:40] + b"\n",
    ],
)
def test_a_damaged_line_is_one_line_and_nothing_is_lost(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    found, _ = importing(tmp_path, adds, n=3)
    list(found.triples(PROBLEMS[:3]))
    cache = tmp_path / "answers.jsonl"
    written = cache.read_bytes().splitlines(keepends=True)
    written[1] = damage(written[1])
    cache.write_bytes(b"".join(written))
    with pytest.raises(TeacherError, match=r"answers.jsonl: line 2 is damaged: delete that line") as error:
        list(found.triples(PROBLEMS[:3]))
    assert "\n" not in str(error.value)
    assert cache.read_bytes() == b"".join(written)
    cache.write_bytes(written[0] + written[2])  # the remedy
    again, generator = importing(tmp_path, adds, n=3)
    list(again.triples(PROBLEMS[:3]))
    assert generator.asked == [f"{PROBLEMS[1].question}\n"]


def test_two_imports_into_one_file_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    found, _ = importing(tmp_path, adds, n=3)
    stream = found.triples(PROBLEMS)
    next(stream)
    other, _ = importing(tmp_path, adds, n=3)
    with pytest.raises(TeacherError, match="another import is using it"):
        next(other.triples(PROBLEMS))
    stream.close()
    assert len(list(other.triples(PROBLEMS))) > 10


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    found, _ = importing(tmp_path / "file", adds)
    with pytest.raises(TeacherError, match="cannot be written"):
        list(found.triples(PROBLEMS))


def test_a_teacher_that_miscounts_is_one_line(tmp_path: Path) -> None:
    class Short(Scripted):
        def generate(self, prompts: list[str], **more: object) -> list[list[Said]]:
            return [[Said("x")] for _ in prompts]

    found = TeacherImport(Short(adds), Numbers(), teacher="short", cache=tmp_path / "answers.jsonl", asking=Asking(n=2))
    with pytest.raises(TeacherError, match="teacher short: answered another number of times than 2"):
        list(found.triples(PROBLEMS))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Asking(prompt="nothing"),
        lambda: Asking(n=0),
        lambda: Asking(temperature=float("nan")),
        lambda: Rules(share=0),
        lambda: Rules(longest=0),
        lambda: Rules(longest=2**17),
        lambda: Rules(keep=0),
        lambda: importing(Path(), adds, batch=0),
    ],
)
def test_settings_that_make_no_sense_are_one_line(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"^teachers: "):
        make()


# --- triples on disk --------------------------------------------------------------------------------------------------


def test_triples_come_back_and_half_a_file_never_appears(tmp_path: Path) -> None:
    found, _ = importing(tmp_path, adds, n=3)
    triples = list(found.triples(PROBLEMS))
    path = tmp_path / "triples.jsonl"
    assert write_triples(path, triples) == len(triples)
    assert read_triples(path) == triples

    def broken():
        yield triples[0]
        raise TeacherError("broke off")

    before = path.read_bytes()
    with pytest.raises(TeacherError, match="broke off"):
        write_triples(path, broken())
    assert path.read_bytes() == before
    assert sorted(one.name for one in tmp_path.iterdir()) == ["answers.jsonl", "triples.jsonl"]
    for line in (b"{}\n", b"x\n", json.dumps({**json.loads(triples[0].to_json()), "votes": True}).encode()):
        path.write_bytes(before + line)
        with pytest.raises(TeacherError, match=f"line {len(triples) + 1} is no triple"):
            read_triples(path)
    with pytest.raises(TeacherError, match="cannot be read"):
        read_triples(tmp_path / "missing.jsonl")


def test_importing_teachers_is_light() -> None:
    script = "import sys, tinydata.teachers; print([m for m in ('datasets', 'pyarrow', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
