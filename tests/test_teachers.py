"""tinydata's importer with tinyreason's endpoint, answers and sandbox, against a server that is scripted here: good traces,
wrong steps, programs, refusals, and a first failure that is tried again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scripted_teacher import ScriptedTeacher, teaching
from tinydata.teachers import Asking, Problem, TeacherImport, write_triples
from tinyreason import CodeSandbox, Endpoint
from tinyreason.answers import Answers
from tinyreason.sandbox import SandboxUnavailable

ANSWERS = {
    ("What is 12 * 7 - 4?", 0): "12 * 7 = 84\n84 - 4 = 80\n#### 80",
    ("What is 12 * 7 - 4?", 1): "12 * 7 = 74\n74 - 4 = 70\n#### 80",
    ("What is 12 * 7 - 4?", 2): "<think><calc>12*7</calc><result>84</result></think>\nAnswer: $80",
    ("How many in 5 dozen?", 0): "<code>print(5 * 12)</code><result>60</result>\nAnswer: 60",
    ("How many in 5 dozen?", 1): "5 * 12 = 60, so the answer is 60.0",
    ("How many in 5 dozen?", 2): "<code>print(5 * 10)</code>\nAnswer: 60",
    ("Why?", 0): "I will not say.",
    ("Why?", 1): "#### 1",
    ("Why?", 2): "#### 2",
}


def scripted(body: dict[str, Any], number: int) -> tuple[int, str]:
    """Busy at the first request."""
    question = body["messages"][0]["content"].strip()
    return (503 if number == 1 else 200), ANSWERS[question, body["seed"]]


@pytest.fixture
def server() -> Iterator[ScriptedTeacher]:
    with teaching(scripted) as found:
        yield found


@pytest.fixture(scope="module")
def sandbox() -> CodeSandbox:
    try:
        return CodeSandbox("monty")
    except SandboxUnavailable as error:
        pytest.skip(str(error))


def test_triples_from_an_endpoint(server: ScriptedTeacher, sandbox: CodeSandbox, tmp_path: Path) -> None:
    problems = [Problem("What is 12 * 7 - 4?", "80"), Problem("How many in 5 dozen?"), Problem("Why?")]

    def importing() -> TeacherImport:
        endpoint = Endpoint(server.url, "scripted", chat=True, parallel=1)
        return TeacherImport(
            endpoint,
            Answers(),
            teacher="scripted",
            cache=tmp_path / "answers.jsonl",
            asking=Asking(n=3),
            runner=sandbox,
        )

    found = importing()
    triples = list(found.triples(problems))
    assert [(one.question, one.answer, one.trace) for one in triples] == [
        ("What is 12 * 7 - 4?", "80", ANSWERS["What is 12 * 7 - 4?", 0]),
        ("What is 12 * 7 - 4?", "80", ANSWERS["What is 12 * 7 - 4?", 2]),
        ("How many in 5 dozen?", "60", ANSWERS["How many in 5 dozen?", 0]),
        ("How many in 5 dozen?", "60.0", ANSWERS["How many in 5 dozen?", 1]),
    ]
    assert [(one.steps, one.programs, one.votes) for one in triples] == [(2, 0, 2), (1, 0, 2), (0, 1, 2), (1, 0, 2)]
    assert found.summary.rejected == {
        "wrong step": 1,
        "program prints something else": 1,
        "no answer": 1,
        "no majority": 2,
    }
    assert len(server.asked) == 10, "nine samples and one more try"

    write_triples(tmp_path / "a.jsonl", triples)
    write_triples(tmp_path / "b.jsonl", importing().triples(problems))
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert len(server.asked) == 10, "nothing is asked twice"


def test_a_server_that_is_gone_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    endpoint = Endpoint("http://127.0.0.1:9/v1", "nobody", retries=0)
    found = TeacherImport(endpoint, Answers(), teacher="nobody", cache=tmp_path / "answers.jsonl", asking=Asking(n=2))
    assert list(found.triples([Problem("Why?")])) == []
    assert found.summary.rejected == {"nothing came": 2}
    assert (tmp_path / "answers.jsonl").read_bytes() == b""
