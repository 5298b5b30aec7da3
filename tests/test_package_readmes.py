"""The example in each package's README runs and prints what the README says it prints."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

READMES = sorted((Path(__file__).parent.parent / "packages").glob("*/README.md"))


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_example_prints_what_it_says(readme: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"```(python|text)\n(.*?)```", readme.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert [kind for kind, _ in blocks[:2]] == ["python", "text"], "an example, then what it prints"
    ran = subprocess.run(
        [sys.executable, "-c", blocks[0][1]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (0, blocks[1][1]), ran.stderr
