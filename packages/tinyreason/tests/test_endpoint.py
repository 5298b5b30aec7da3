"""A generator behind HTTP, against a server of the standard library that behaves, and one that does not."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tinyreason import Endpoint, EndpointError, Toolbox, ToolGenerator, best_of_n
from tinyreason.tools import calculator_tool

Answer = Callable[[str, dict[str, Any]], tuple[int, bytes]]


class Server(ThreadingHTTPServer):
    """Answers by `answer(path, body)` -> (status, bytes), and remembers headers."""

    answer: Answer
    headers_seen: list[dict[str, str]]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.headers_seen.append(dict(self.headers))
        status, content = self.server.answer(self.path, body)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], Server]]:
    servers: list[Server] = []

    def start(answer: Answer) -> Server:
        server = Server(("127.0.0.1", 0), Handler)
        server.answer, server.headers_seen = answer, []
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_port}/v1"


def text(content: str, **more: Any) -> tuple[int, bytes]:
    return 200, json.dumps({"choices": [{"text": content, "finish_reason": "stop"}], **more}).encode()


def ask(endpoint: Endpoint, n: int = 1) -> list[str]:
    found = endpoint.generate(["hi"], n=n, max_tokens=5, temperature=0.5, stop=["END"], seed=7)
    return [f"{completion.finish}:{completion.text}" for completion in found[0]]


def test_completions_with_tools_and_best_of_n(serve: Callable[[Answer], Server]) -> None:
    def answer(path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        assert path == "/v1/completions"
        if "<result>309524</result>" in body["prompt"]:
            return text("\nAnswer: 309524", usage={"completion_tokens": 3})
        return text("<calc>347*892</calc> and so on", usage={"completion_tokens": 5})

    server = serve(answer)
    generator = ToolGenerator(Endpoint(url(server), "tiny", key="secret"), Toolbox([calculator_tool()]))
    found = best_of_n(generator, "What is 347 * 892?", 4)
    assert found.answer == "309524"
    assert found.spent.calls == 4
    assert found.spent.tokens == 4 * 8
    assert server.headers_seen[0]["Authorization"] == "Bearer secret"
    assert "secret" not in repr(generator)


def test_chat_completions_and_seeds(serve: Callable[[Answer], Server]) -> None:
    asked: list[dict[str, Any]] = []

    def answer(path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        asked.append(body)
        message = {"message": {"role": "assistant", "content": "one END two"}, "finish_reason": "length"}
        return 200, json.dumps({"choices": [message]}).encode()

    endpoint = Endpoint(url(serve(answer)), "tiny", chat=True)
    assert ask(endpoint, n=3) == ["stop:one "] * 3
    assert sorted(body["seed"] for body in asked) == [7, 8, 9]
    assert asked[0]["messages"] == [{"role": "user", "content": "hi"}]
    assert asked[0]["stop"] == ["END"]


@pytest.mark.parametrize(
    "content",
    [b"", b"no json", b"[]", b"{}", b'{"choices": []}', b'{"choices": [{"text": 3}]}', b"[" * 100_000, b"\xff"],
)
def test_answers_that_are_none(serve: Callable[[Answer], Server], content: bytes) -> None:
    endpoint = Endpoint(url(serve(lambda path, body: (200, content))), "tiny", retries=0)
    assert ask(endpoint) == ["error:"]
    assert len(endpoint.errors) == 1
    assert "\n" not in endpoint.errors[0]


def test_a_server_that_comes_back_and_one_that_refuses(serve: Callable[[Answer], Server]) -> None:
    tries: list[int] = []

    def answer(path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        tries.append(1)
        return text("ok") if len(tries) > 1 else (503, b"")

    assert ask(Endpoint(url(serve(answer)), "tiny")) == ["stop:ok"]
    refused = Endpoint(url(serve(lambda path, body: (401, b"who are you"))), "tiny")
    assert ask(refused) == ["error:"]
    assert "401" in refused.errors[0]
    gone = Endpoint("http://127.0.0.1:9/v1", "tiny", retries=0)
    assert ask(gone) == ["error:"]


def test_an_answer_without_end_is_cut_off(serve: Callable[[Answer], Server]) -> None:
    endpoint = Endpoint(url(serve(lambda path, body: (200, b'"' + b"x" * (2**24 + 10)))), "tiny", retries=0)
    assert ask(endpoint) == ["error:"]
    assert "more than 16 MiB" in endpoint.errors[0]


def test_only_http() -> None:
    with pytest.raises(EndpointError, match="begins with http"):
        Endpoint("file:///etc/passwd", "tiny")
