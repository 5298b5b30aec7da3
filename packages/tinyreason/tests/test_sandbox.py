"""Benign programs print what they should, limits hold, and runs know nothing of each other.

The attacks are in test_sandbox_attacks.py.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tinyreason.sandbox import CodeResult, CodeRunner, CodeSandbox, SandboxUnavailable
from tinyreason.sandbox.runner import Printed, one_line, size

BENIGN = {
    "print(2 + 3 * 4, 7 // 2, -7 % 3, 2**100)": "14 3 2 1267650600228229401496703205376\n",
    "print(0.1 + 0.2, round(2.5), 7 / 2)": "0.30000000000000004 2 3.5\n",
    "print(f'{3.14159:.2f} {42:>6} {255:#x} {1234567:,} {\"a\"!r}')": "3.14     42 0xff 1,234,567 'a'\n",
    "print('%s is %d' % ('x', 3), '{} {b}'.format(1, b=2))": "x is 3 1 2\n",
    "print('Hello World'.swapcase().replace('w', 'v').split(), 'a-b'.partition('-'))": "['hELLO', 'vORLD'] ('a', '-', 'b')\n",
    "print(' x '.strip(), 'abc'[::-1], 'ab' * 3, 'abc'.find('c'), 'a,b'.upper())": "x cba ababab 2 A,B\n",
    "print(sorted([3, 1, 2], reverse=True), sorted(['bb', 'a'], key=len))": "[3, 2, 1] ['a', 'bb']\n",
    "print([x * x for x in range(5) if x % 2], {x: x + 1 for x in range(2)}, {1, 1})": "[1, 9] {0: 1, 1: 2} {1}\n",
    "def f(n): return 1 if n < 2 else n * f(n - 1)\nprint(f(20))": "2432902008176640000\n",
    "def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)\nprint(fib(15))": "610\n",
    "def f(a, *b, c=1, **d): return a, b, c, d\nprint(f(1, 2, 3, c=4, e=5))": "(1, (2, 3), 4, {'e': 5})\n",
    "f = lambda x: x + 1\nprint(list(map(f, [1, 2])), list(zip('ab', [1, 2])))": "[2, 3] [('a', 1), ('b', 2)]\n",
    "import math\nprint(math.sqrt(2), math.gcd(12, 18), math.pi, math.comb(5, 2))": "1.4142135623730951 6 3.141592653589793 10\n",  # noqa: E501
    "import json\nprint(json.dumps({'a': [1, None, True]}), json.loads('[1, 2.5]'))": '{"a": [1, null, true]} [1, 2.5]\n',
    "import re\nprint(re.findall(r'\\d+', 'a1b22'), re.sub('a', 'b', 'banana'))": "['1', '22'] bbnbnb\n",
    "import re\nprint(re.match(r'(?P<x>\\w+)@', 'me@x').group('x'))": "me\n",
    "import itertools\nprint(list(itertools.combinations('abc', 2)))": "[('a', 'b'), ('a', 'c'), ('b', 'c')]\n",
    "import itertools\nprint(len(list(itertools.permutations(range(5)))))": "120\n",
    "from collections import Counter\nprint(Counter('banana').most_common(2))": "[('a', 3), ('n', 2)]\n",
    "from collections import defaultdict\nd = defaultdict(list)\nd[1].append(2)\nprint(dict(d))": "{1: [2]}\n",
    "from functools import reduce\nprint(reduce(lambda a, b: a * b, [1, 2, 3, 4]))": "24\n",
    "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n    y: int = 2\nprint(P(1), P(1) == P(1))": "P(x=1, y=2) True\n",  # noqa: E501
    "class A:\n    def __init__(self): self.x = 1\n    def add(self, n): return self.x + n\nprint(A().add(2))": "3\n",
    "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    print('caught', e)\nfinally:\n    print('done')": "caught division by zero\ndone\n",  # noqa: E501
    "x = 0\nwhile True:\n    x += 1\n    if x == 3: continue\n    if x > 5: break\nelse:\n    print('no')\nprint(x)": "6\n",
    "match [1, 2]:\n    case [a, b]: print(a + b)\n    case _: print('no')": "3\n",
    "if (n := len('abc')) > 2: print(n)": "3\n",
    "a, *b = range(4)\nprint(a, b, any(b), all([]), sum(b), max(b), min(b))": "0 [1, 2, 3] True True 6 3 1\n",
    "from decimal import Decimal\nprint(Decimal('0.1') + Decimal('0.2'))": "0.3\n",
    "import datetime\nprint(datetime.date(2024, 2, 28) + datetime.timedelta(days=2))": "2024-03-01\n",
    "print('é', '日本', '🙂', len('🙂'))": "é 日本 🙂 1\n",
    "print(1, 2, sep='-', end='!')\nprint()": "1-2!\n",
    "1 + 1": "",
    "": "",
    "x = [1]\nx": "",
}
TIME_SLACK = 0.5


@pytest.fixture(scope="module", params=["monty", "full"])
def sandbox(request: pytest.FixtureRequest) -> CodeSandbox:
    pytest.importorskip({"monty": "pydantic_monty", "full": "sandlock"}[request.param])
    try:
        return CodeSandbox(request.param)
    except SandboxUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def monty() -> CodeSandbox:
    pytest.importorskip("pydantic_monty")
    return CodeSandbox("monty")


@pytest.mark.parametrize("source", BENIGN)
def test_a_benign_program_prints_what_it_should(source: str, sandbox: CodeSandbox) -> None:
    result = sandbox.run(source)
    assert result.error is None
    assert result.output == BENIGN[source]
    assert result.ok


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise ValueError('two\\nlines')", "ValueError: two lines"),
        ("[][1]", "IndexError: list index out of range"),
        ("assert 1 == 2", "AssertionError"),
        ("assert False, 'why'", "AssertionError: why"),
        ("undefined", "NameError: name 'undefined' is not defined"),
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("while True: pass", "time: longer than 0.3 s"),
        ("a = []\nwhile True: a.append('x' * 10**5)", "memory: more than 64 MiB"),
        ("a = 'x' * 10**10", "memory: more than 64 MiB"),
        ("while True: print('x')", "output: more than 64 KiB"),
        ("#" * 2**16 + "#", "source: more than 64 KiB"),
        ("é" * 2**15 + "é", "source: more than 64 KiB"),
        ("print('\ud800')", "SyntaxError: the source contains lone surrogates"),
        ("print(1)\0", "SyntaxError: the source contains a null byte"),
    ],
)
def test_an_error_is_one_line(source: str, error: str, sandbox: CodeSandbox) -> None:
    assert sandbox.run(source, seconds=0.3).error == error


def test_a_syntax_error_is_named_and_a_long_message_is_cut(sandbox: CodeSandbox) -> None:
    syntax, long = sandbox.run("x = = 1"), sandbox.run("raise ValueError('word ' * 1000)")
    assert (syntax.error or "").startswith("SyntaxError: ")
    assert (long.error or "").startswith("ValueError: word word")
    assert len(long.error or "") == 300


def test_what_was_printed_before_an_error_is_kept(sandbox: CodeSandbox) -> None:
    assert sandbox.run("print('before')\n1 / 0").output == "before\n"
    assert sandbox.run("print('before', flush=True)\nwhile True: pass", seconds=0.3).output == "before\n"


def test_the_output_is_cut_at_its_limit(sandbox: CodeSandbox) -> None:
    kept = sandbox.run("for _ in range(30000): print('é')")
    assert kept.error == "output: more than 64 KiB"
    assert len(kept.output.encode()) in range(2**16 - 1, 2**16 + 1)  # a cut character is dropped
    assert set(kept.output) == {"é", "\n"}
    assert sandbox.run("print('x' * 65535)").ok
    assert not sandbox.run("print('x' * 65536)").ok
    small = CodeSandbox("monty" if sandbox.engine == "monty" else "full", output_bytes=10)
    assert small.run("print('x' * 20)").output == "x" * 10


@pytest.mark.parametrize("source", ["while True: pass", "import math\nmath.lcm(*range(1, 200000))"])
def test_the_time_limit_holds(source: str, sandbox: CodeSandbox) -> None:
    results = []
    for _ in range(3):  # a busy machine may be late once
        start = time.perf_counter()
        result = sandbox.run(source, seconds=0.4)
        results.append(time.perf_counter() - start)
        assert result.error == "time: longer than 0.4 s"
        assert result.seconds <= results[-1]
        if results[-1] <= 0.4 + TIME_SLACK:
            break
    assert 0.4 <= min(results) <= 0.4 + TIME_SLACK


def test_a_larger_memory_limit_admits_a_larger_program(sandbox: CodeSandbox) -> None:
    source = "a = 'x' * (100 * 2**20)\nprint(len(a))"
    assert sandbox.run(source).error == "memory: more than 64 MiB"
    assert sandbox.run(source, bytes=2**28).output == "104857600\n"


def test_limits_must_be_positive(sandbox: CodeSandbox) -> None:
    for limits in ({"seconds": 0}, {"seconds": float("nan")}, {"bytes": 0}):
        with pytest.raises(ValueError, match="positive"):
            sandbox.run("1", **limits)


def test_runs_know_nothing_of_each_other(sandbox: CodeSandbox) -> None:
    assert sandbox.run("secret = 1\nimport math\nmath.leak = 2 if False else 0\nprint(secret)").output in ("1\n", "")
    assert sandbox.run("kept = 1\nprint(kept)").output == "1\n"
    assert sandbox.run("print(kept)").error == "NameError: name 'kept' is not defined"
    assert sandbox.run("while True: print('x')").error
    assert sandbox.run("print('next')").output == "next\n"


def test_equal_programs_have_equal_outputs(sandbox: CodeSandbox) -> None:
    source = "import random\nprint(random.random(), random.Random().random(), random.sample(range(100), 5), list({'a', 'b', 'c'}))"  # noqa: E501
    outputs = {sandbox.run(source).output for _ in range(5)}
    assert len(outputs) == 1
    assert outputs.pop().strip()


def test_the_clock_stands_still_and_sleep_is_free(monty: CodeSandbox) -> None:
    source = "import datetime, time\nt = time.time()\ntime.sleep(1000)\nprint(datetime.datetime.now(), time.time() - t)"
    result = monty.run(source, seconds=0.5)
    assert result == CodeResult("2026-01-01 00:00:00 0.0\n", None, result.seconds)


def test_the_host_does_not_see_the_value_of_the_last_expression(monty: CodeSandbox) -> None:
    assert monty.run("print(1)\n[0] * 10**6") == CodeResult("1\n", None, pytest.approx(0, abs=2))


def test_threads_share_a_sandbox(sandbox: CodeSandbox) -> None:
    def run(number: int) -> str:
        return sandbox.run(f"x = {number}\nfor _ in range(1000): x += 1\nprint(x)", seconds=10).output

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(run, range(40))) == [f"{number + 1000}\n" for number in range(40)]


def test_one_thread_at_its_limit_does_not_hurt_the_others(monty: CodeSandbox) -> None:
    sources = ["while True: print('x')", "print('fine')", "a = 'x' * 10**10", "print('fine')"] * 5
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(monty.run, sources))
    assert [result.output for result in results[1::2]] == ["fine\n"] * 10
    assert not any(result.ok for result in results[::2])


def test_a_hundred_trivial_runs_take_less_than_three_seconds(monty: CodeSandbox) -> None:
    start = time.perf_counter()
    assert all(monty.run("print(1)").output == "1\n" for _ in range(100))
    assert time.perf_counter() - start < 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_is_refused_rather_than_left_waiting(monty: CodeSandbox) -> None:
    def attempt() -> None:
        with pytest.raises(SandboxUnavailable, match="spawn"):
            monty.run("print(1)")
        with pytest.raises(SandboxUnavailable, match="spawn"):
            CodeSandbox()

    child = multiprocessing.get_context("fork").Process(target=attempt)
    child.start()
    child.join(10)
    child.kill()
    assert child.exitcode == 0
    assert monty.run("print('parent')").output == "parent\n"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_are_bounded_from_outside_and_end_with_their_host(monty: CodeSandbox) -> None:
    source = (
        "import os, pathlib\nfrom tinyreason.sandbox import CodeSandbox\n"
        "sandbox = CodeSandbox()\nsandbox.run('1', bytes=2**20)\n"
        "for path in pathlib.Path('/proc/self/task').glob('*/children'):\n"
        "    for child in path.read_text().split():\n"
        "        print(child, pathlib.Path(f'/proc/{child}/limits').read_text(), flush=True)\n"
        "os._exit(0)"  # nothing is cleaned up
    )
    output = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True).stdout
    workers = [int(line.split()[0]) for line in output.splitlines() if "Limit" in line]
    assert workers
    assert f"Max address space         {2**28 + 2**22} " in output
    assert "Max core file size        0 " in output
    deadline = time.perf_counter() + 5
    while any(Path(f"/proc/{worker}/exe").exists() for worker in workers) and time.perf_counter() < deadline:
        time.sleep(0.01)
    assert not any(Path(f"/proc/{worker}/exe").exists() for worker in workers)


@pytest.mark.parametrize(
    ("engine", "module", "remedy"),
    [
        ("auto", "pydantic_monty", "pip install 'pydantic-monty>=1.4,<2'"),
        ("monty", "pydantic_monty", "pip install 'pydantic-monty>=1.4,<2'"),
        ("full", "sandlock", "pip install 'sandlock>=0.9,<1'"),
    ],
)
def test_without_its_package_an_engine_refuses(
    engine: str, module: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SandboxUnavailable) as raised:
        CodeSandbox(engine)  # ty: ignore[invalid-argument-type]
    assert remedy in str(raised.value)
    assert "\n" not in str(raised.value)


def test_without_its_worker_binary_monty_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pydantic_monty")
    monkeypatch.setenv("MONTY_BIN", "/nowhere/monty")
    with pytest.raises(SandboxUnavailable, match="pip install"):
        CodeSandbox()


def test_auto_is_monty_and_other_names_are_refused(monty: CodeSandbox) -> None:
    runner: CodeRunner = CodeSandbox()
    assert runner.run("print(1)").output == "1\n"
    assert CodeSandbox().engine == monty.engine == "monty"
    with pytest.raises(ValueError, match="bare"):
        CodeSandbox("bare")  # ty: ignore[invalid-argument-type]


def test_pieces_of_output_and_messages() -> None:
    printed = Printed(5)
    assert [printed.add(piece) for piece in (b"abc", b"", "éé".encode(), b"x")] == [False, False, True, False]
    assert printed.text == "abcé"
    assert size(2**16) == "64 KiB"
    assert size(3 * 2**29) == "1.5 GiB"
    assert size(10) == "10 bytes"
    assert one_line(" a\n b ") == "a b"
