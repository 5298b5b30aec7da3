"""Claim: what a teacher behind a server writes is kept where it is right, once, and can be learned from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from apps.common import command_line
from apps.common.console import Console
from apps.common.problem_config import ChatData
from apps.common.problems import prepare as prepared
from apps.prepare import __main__ as prepare
from apps.prepare import taught
from tests.scripted_teacher import ScriptedTeacher, teaching


def sums(body: dict[str, Any], number: int) -> tuple[int, str]:
    """Right on even seeds; on odd ones its calculation is wrong, and its answer right."""
    words = body["messages"][0]["content"].split("?")[0].split()
    a, b = int(words[2]), int(words[4])
    return (200 if body["model"] == "sums" else 404), f"{a} + {b} = {a + b + body['seed'] % 2}\n#### {a + b}"


@pytest.fixture
def server() -> Iterator[ScriptedTeacher]:
    with teaching(sums) as found:
        yield found


@pytest.fixture
def app(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], server: ScriptedTeacher
) -> Callable[..., tuple[int, dict[str, Any], str]]:
    """Runs the app on 60 sums; exit status, result, and what it said."""
    file = tmp_path / "sums.jsonl"
    rows = [
        {"question": f"What is {a} plus {b}?", "answer": f"{a} + {b} = {a + b}\n#### {a + b}"}
        for a in range(10, 20)
        for b in range(6)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)

    def run(*more: str, url: str = "") -> tuple[int, dict[str, Any], str]:
        url = url or server.url
        problems = ["--recipe", "gsm8k", "--data.path", str(file), "--data.tokenizer.vocab_size", "300"]
        argv = ["prepare", *problems, "--out", "out", "--taught-by", url, "--json", *more]
        monkeypatch.setattr("sys.argv", argv)
        with pytest.raises(SystemExit) as left:
            command_line.main(prepare.run)
        said = capsys.readouterr()
        return int(left.value.code or 0), json.loads(said.out.splitlines()[-1]) if said.out else {}, said.err

    return run


def test_what_is_right_is_kept_and_asked_for_once(
    app: Callable[..., tuple[int, dict[str, Any], str]], server: ScriptedTeacher, tmp_path: Path
) -> None:
    options = ("--teacher", "sums", "--problems", "20", "--samples", "2")
    code, result, said = app(*options)
    assert (code, result["taught"], result["solved"], len(server.asked)) == (0, 20, 20, 40)
    assert "of 40 answers 20 were verified and kept, left out: 20 wrong step" in said
    assert "next: uv run apps/finetune RUN --recipe chat --data.path out/taught.jsonl" in said
    names = (taught.TRIPLES, taught.TAUGHT)
    before = [(tmp_path / "out" / name).read_bytes() for name in names]
    for line in before[1].splitlines():
        asked, answer = json.loads(line)["messages"]
        assert asked["content"].startswith("What is ")
        left, right = answer["content"].split("\n")[0].split(" = ")
        assert sum(map(int, left.split(" + "))) == int(right) == int(answer["content"].split("#### ")[1])
    code, result, _ = app(*options)
    assert (code, result["asked"], len(server.asked)) == (0, 0, 40), "nothing is asked twice"
    assert [(tmp_path / "out" / name).read_bytes() for name in names] == before
    learned = ChatData(path=str(tmp_path / "out" / taught.TAUGHT), format="plain", validation=0.2)
    rows = prepared(learned, 1024, Console(json=True))
    assert len(rows.train) + len(rows.validation) == 20


@pytest.mark.parametrize(
    ("more", "url", "message"),
    [
        (("--teacher", "other"), "", "error: --taught-by http://127.0.0.1:"),
        (("--teacher", "sums"), "ftp://somewhere", "an endpoint begins with http:// or https://"),
        ((), "", "name the model that the server has with --teacher NAME"),
        (("--teacher", "sums", "--solved-by", "runs/x"), "", "--taught-by: does not go with --solved-by"),
        (("--teacher", "sums", "--keep", "0.2-0.8"), "", "--keep: goes with --solved-by RUN"),
    ],
)
def test_what_cannot_be_is_one_line(
    more: tuple[str, ...], url: str, message: str, app: Callable[..., tuple[int, dict[str, Any], str]]
) -> None:
    code, _, said = app("--problems", "2", "--samples", "1", *more, url=url)
    assert code == 2
    assert message in said
    assert "Traceback" not in said
