"""Claim: problems are read as written, bad lines are skipped and counted, annotations are judged by exact arithmetic, held
against Python's own parser and fractions in this file.
"""

from __future__ import annotations

import ast
import json
import operator
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydata import Gsm8k, SourceError, WordProblem
from tinydata.arithmetic_expression import ExpressionError, evaluate
from tinydata.gsm8k import MAX_LINE_BYTES

CLIPS = {
    "question": "Natalia sold clips to 48 friends in April, and half as many in May. How many in all?",
    "answer": "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nAltogether 48+24 = <<48+24=72>>72.\n#### 72",
}


def file(folder: Path, *rows: object) -> Path:
    path = folder / "problems.jsonl"
    encoded = (row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows)
    path.write_bytes(b"\n".join(encoded) + b"\n")
    return path


def read(folder: Path, *rows: object) -> list[WordProblem]:
    return list(Gsm8k(file(folder, *rows)).problems())


def worked(annotations: str) -> WordProblem:
    return WordProblem("?", annotations, "0")


# --- arithmetic -------------------------------------------------------------------------------------------------------

OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}


def value_of(expression: str) -> Fraction:
    """By Python's parser, decimals taken from the source and not from floats. Raises ZeroDivisionError."""

    def walk(node: ast.expr) -> Fraction:
        match node:
            case ast.Constant():
                return Fraction(ast.get_source_segment(expression, node) or "")
            case ast.UnaryOp(op=sign, operand=operand):
                return -walk(operand) if isinstance(sign, ast.USub) else walk(operand)
            case ast.BinOp(left=left, op=op, right=right):
                return OPERATORS[type(op)](walk(left), walk(right))
        raise AssertionError(f"not arithmetic: {expression}")

    return walk(ast.parse(expression, mode="eval").body)


NUMBERS = st.one_of(
    st.integers(0, 10**9).map(str),
    st.tuples(st.integers(0, 999), st.integers(0, 999)).map(lambda parts: f"{parts[0]}.{parts[1]}"),
    st.integers(0, 99).map(lambda digits: f".{digits}"),
)
EXPRESSIONS = st.recursive(
    NUMBERS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", " + ", " / ", "-+", "*-"]), inner).map("".join),
        inner.map("({})".format),
        inner.map("-{}".format),
    ),
    max_leaves=8,
).filter(lambda expression: len(expression) <= 256)


@given(EXPRESSIONS)
def test_values_are_those_of_pythons_parser(expression: str) -> None:
    try:
        expected = value_of(expression)
    except ZeroDivisionError:
        with pytest.raises(ExpressionError, match="division by zero"):
            evaluate(expression)
    else:
        assert evaluate(expression) == expected


@pytest.mark.parametrize(
    "expression, value",
    [
        ("1,234*2", 2468),
        ("1,234,567.5", Fraction("1234567.5")),
        ("20%*50", 10),
        ("(20+30)%", Fraction(1, 2)),
        ("5.", 5),
        ("--+-3", -3),
        ("-2-3", -5),
        ("8/4/2", 1),
        ("-7//2", -4),
        ("(" * 20 + "7" + ")" * 20, 7),
    ],
)
def test_values_beyond_pythons_notation(expression: str, value: Fraction | int) -> None:
    assert evaluate(expression) == value


@pytest.mark.parametrize(
    "expression, message",
    [
        ("", "a number is missing at the end"),
        ("  ", "a number is missing at the end"),
        ("1+", "a number is missing at the end"),
        ("1**2", "unexpected '\\*'"),
        ("2^9", "unexpected '\\^'"),
        ("1 2", "unexpected '2'"),
        ("12,34", "unexpected ','"),
        ("1.2.3", "unexpected '.3'"),
        ("1///2", "unexpected '/'"),
        ("(1", "'\\)' is missing"),
        ("1)", "unexpected '\\)'"),
        ("x+1", "unexpected 'x'"),
        ("1e9", "unexpected 'e'"),
        ("٣", "unexpected"),
        ("%", "unexpected '%'"),
        ("1/(2-2)", "division by zero"),
        ("(" * 21 + "7" + ")" * 21, "nested deeper than 20"),
        ("(" * 256, "nested deeper than 20"),
        ("-" * 256, "a number is missing at the end"),
        ("9" * 257, "257 characters are more than 256"),
        ("__import__('os')", "unexpected '_'"),
    ],
)
def test_what_has_no_value_says_why(expression: str, message: str) -> None:
    with pytest.raises(ExpressionError, match=message):
        evaluate(expression)


# --- reading ----------------------------------------------------------------------------------------------------------


def test_a_problem_is_read_in_its_parts(tmp_path: Path) -> None:
    (problem,) = read(tmp_path, CLIPS)
    assert problem.question == CLIPS["question"]
    assert problem.reasoning == "Natalia sold 48/2 = 24 clips in May.\nAltogether 48+24 = 72."
    assert problem.answer == "72"
    assert [(a.expression, a.result, a.verdict) for a in problem.annotations] == [
        ("48/2", "24", "exact"),
        ("48+24", "72", "exact"),
    ]


def test_annotations_become_calls(tmp_path: Path) -> None:
    (problem,) = read(tmp_path, CLIPS)
    assert problem.with_calls().startswith("Natalia sold 48/2 = <calc>48/2</calc><result>24</result>24 clips")
    assert problem.with_calls(result=None).endswith("48+24 = <calc>48+24</calc>72.")
    own = problem.with_calls(call=("[", "]"), result=("{", "}"))
    assert own.count("[48/2]{24}24") == own.count("[48+24]{72}72") == 1
    assert WordProblem("?", "No sums.", "1").with_calls() == "No sums."


@pytest.mark.parametrize(
    "final, answer",
    [
        ("72", "72"),
        ("1,234,567", "1234567"),
        ("-5", "-5"),
        ("$1,000", "1000"),
        ("-$30", "-30"),
        ("$-30", "-30"),
        ("0.5", "0.5"),
        (" 7 \n", "7"),
    ],
)
def test_answers_are_plain_numbers(tmp_path: Path, final: str, answer: str) -> None:
    (problem,) = read(tmp_path, {"question": "?", "answer": f"So.\n#### {final}"})
    assert problem.answer == answer
    assert problem.reasoning == "So."


@pytest.mark.parametrize(
    "annotation, verdict",
    [
        ("48/2=24", "exact"),
        ("560//10=56", "exact"),
        ("2*.5 = 1.00", "exact"),
        ("1,200*2=2,400", "exact"),
        ("50-80=-30", "exact"),
        ("1/3=.33", "rounded"),
        ("2/3=0.667", "rounded"),
        ("10/4=3", "rounded"),
        ("2/3=.66", "wrong"),
        ("10/4=4", "wrong"),
        ("48/2=25", "wrong"),
        ("1/0=0", "unreadable"),
        ("24", "unreadable"),
        ("3*4=12=12", "unreadable"),
        ("3 apples=3", "unreadable"),
        ("=", "unreadable"),
        ("", "unreadable"),
    ],
)
def test_annotations_are_verified(annotation: str, verdict: str) -> None:
    (found,) = worked(f"It is <<{annotation}>>so.").annotations
    assert found.verdict == verdict


@given(EXPRESSIONS, st.integers(0, 4), st.integers(-3, 3))
def test_rounding_is_judged_exactly(expression: str, decimals: int, off: int) -> None:
    try:
        value = value_of(expression)
    except ZeroDivisionError:
        return
    # round() of a Fraction is exact; `off` moves the last decimal.
    units = round(value * 10**decimals) + off
    digits = str(abs(units)).zfill(decimals + 1)
    result = ("-" if units < 0 else "") + digits[: len(digits) - decimals]
    result += "." + digits[len(digits) - decimals :] if decimals else ""
    verdict = worked(f"<<{expression}={result}>>").annotations[0].verdict
    error = abs(value - Fraction(units, 10**decimals))
    assert verdict == ("exact" if not error else "rounded" if 2 * 10**decimals * error <= 1 else "wrong")


def test_bad_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    rows: list[object] = [
        CLIPS,
        b"",
        b"  ",
        b"{not json",
        b"\xff\xfe",
        b"[" * 10_000,
        b'{"question": "' + b"x" * MAX_LINE_BYTES + b'", "answer": "#### 1"}',
        [1],
        {"question": "only"},
        {"question": 5, "answer": "#### 5"},
        {"question": "", "answer": "#### 5"},
        {"question": "\ud800", "answer": "#### 5"},
        {"question": "?", "answer": "no number"},
        {"question": "?", "answer": "#### five"},
        {"question": "?", "answer": "#### 12,34"},
        {"question": "?", "answer": "#### -$-5"},
        {"question": "?", "answer": "####"},
        {"question": "?", "answer": "half <<1/2=.5 of it\n#### 1"},
        {"question": "is 1 << 2?", "answer": "#### 1"},
        {"question": "?", "answer": "say <result>9</result>\n#### 1"},
        {"question": "end<|endoftext|>?", "answer": "#### 1"},
        {"question": "2?", "answer": "<<1+1=3>>3\n#### 3"},
    ]
    source = Gsm8k(file(tmp_path, *rows))
    for _ in range(2):  # counted anew each time
        assert [problem.answer for problem in source.problems()] == ["72", "3"]
        assert source.verdicts == {"exact": 2, "wrong": 1}
        assert source.skipped == {
            "bad json": 3,
            "not utf-8": 2,
            "longer than 65536 bytes": 1,
            "missing column": 1,
            "not text": 1,
            "empty": 1,
            "no number after ####": 5,
            "<< or >> outside an annotation": 2,
            "special token in the text": 2,
        }


def test_a_file_without_problems_is_an_error_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        Gsm8k(tmp_path / "none.jsonl")
    with pytest.raises(SourceError, match=r"no problem in it \(no lines at all\)$"):
        read(tmp_path)
    with pytest.raises(SourceError, match=r"no problem in it \(bad json: 2\)$"):
        read(tmp_path, 1, 2)
