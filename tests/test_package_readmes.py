"""The examples in each package's README run and print what the README says they print."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

READMES = sorted((Path(__file__).parent.parent / "packages").glob("*/README.md"))
EXAMPLE = re.compile(r"```python\n((?:(?!```).)*)```\n+```text\n(.*?)```", flags=re.DOTALL)
EXAMPLES = [
    pytest.param(*example.groups(), id=f"{readme.parent.name}-{number}")
    for readme in READMES
    for number, example in enumerate(EXAMPLE.finditer(readme.read_text(encoding="utf-8")))
]


def test_every_readme_has_an_example_and_what_it_prints() -> None:
    assert [readme for readme in READMES if not EXAMPLE.search(readme.read_text(encoding="utf-8"))] == []


class Model(BaseHTTPRequestHandler):
    """Stands in for a server with a model: it calls the calculator, then answers what that said."""

    def do_POST(self) -> None:
        prompt = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["prompt"]
        result = re.search("<result>([^<]*)</result>$", prompt)
        text = "<calc>347*892</calc>" if result is None else f"\nAnswer: {result[1]}"
        content = json.dumps({"choices": [{"text": text, "finish_reason": "stop"}]}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    found = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{found.server_port}/v1"
    found.shutdown()
    found.server_close()


@pytest.mark.parametrize("code, printed", EXAMPLES)
def test_example_prints_what_it_says(code: str, printed: str, tmp_path: Path, server: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", code.replace("http://localhost:8000/v1", server)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (0, printed), ran.stderr
