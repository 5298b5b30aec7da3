"""The examples in each package's README run and print what the README says they print."""

import re
import subprocess
import sys
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


@pytest.mark.parametrize("code, printed", EXAMPLES)
def test_example_prints_what_it_says(code: str, printed: str, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (0, printed), ran.stderr
