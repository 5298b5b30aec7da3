"""tinydata's importer with tinyreason's endpoint, answers and sandbox, against a server that is scripted here: good traces,
wrong steps, programs, refusals, and a first failure that is tried again.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

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


class Served(ThreadingHTTPServer):
    asked: list[tuple[str, int]]


class Teacher(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Served)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = body["messages"][0]["content"].strip()
        self.server.asked.append((question, body["seed"]))
        busy = len(self.server.asked) == 1
        content = json.dumps(
            {"choices": [{"message": {"content": ANSWERS[question, body["seed"]]}, "finish_reason": "stop"}]}
        )
        self.send_response(503 if busy else 200)
        self.end_headers()
        self.wfile.write(content.encode())

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Served]:
    found = Served(("127.0.0.1", 0), Teacher)
    found.asked = []
    threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


@pytest.fixture(scope="module")
def sandbox() -> CodeSandbox:
    try:
        return CodeSandbox("monty")
    except SandboxUnavailable as error:
        pytest.skip(str(error))


def test_triples_from_an_endpoint(server: Served, sandbox: CodeSandbox, tmp_path: Path) -> None:
    problems = [Problem("What is 12 * 7 - 4?", "80"), Problem("How many in 5 dozen?"), Problem("Why?")]

    def importing() -> TeacherImport:
        endpoint = Endpoint(f"http://127.0.0.1:{server.server_port}/v1", "scripted", chat=True, parallel=1)
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
