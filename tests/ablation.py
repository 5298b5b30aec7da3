"""What the tests of apps/ablate share: a table to be trained by drivers/instant_pretrain.py, and the app as a function."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from apps.ablate import nursery, schedule
from apps.ablate.__main__ import run as ablate_app

INSTANT = Path(__file__).parent / "drivers" / "instant_pretrain.py"
BASE = """
train: {{recipe: {recipe}, overrides: {{train.steps: 30, optim.schedule.warmup: 3}}}}
"""


def table(folder: Path, recipe: Path, text: str, name: str = "table") -> None:
    """A table of variants of the tiny recipe, 30 steps a cell."""
    (folder / f"{name}.yaml").write_text(BASE.format(recipe=recipe) + text)


def ablate(monkeypatch: pytest.MonkeyPatch, folder: Path, *argv: str, name: str = "table", out: str = "cells") -> int:
    """The app's exit status."""
    command = ["--recipe", str(folder / f"{name}.yaml"), "--out", str(folder / out), *argv]
    monkeypatch.setattr(sys, "argv", ["ablate", *command])
    return ablate_app()


def kept(folder: Path, where: str = "cells") -> dict[str, dict[str, Any]]:
    """The cells that an experiment left, by their names."""
    return {path.stem: json.loads(path.read_text()) for path in sorted((folder / where).glob("*-s*.json"))}


def answered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Have cells answered by the driver; the seed and rate of each call so far."""
    monkeypatch.setattr(schedule, "PRETRAIN", INSTANT)
    monkeypatch.setattr(nursery, "PRELOADED", [])
    monkeypatch.setattr(schedule, "POLL", 0.01)
    monkeypatch.setenv("CALLS", str(folder / "calls"))
    calls = folder / "calls"
    return lambda: [line.rpartition(" ")[0] for line in calls.read_text().splitlines()] if calls.exists() else []
