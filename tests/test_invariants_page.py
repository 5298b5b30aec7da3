"""docs/invariants.md is what `python -m tinycore.testing` prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "invariants.md"


def test_page_is_what_the_command_prints() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tinycore.testing"],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=True,
    )
    assert PAGE.read_text(encoding="utf-8") == ran.stdout, "run: uv run python -m tinycore.testing > docs/invariants.md"
