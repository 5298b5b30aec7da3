"""`apps/bench data` checks what it times, prints every rate beside its goal, and writes both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from apps.bench import data
from apps.common.errors import TrainingFailed


def test_rates_stand_beside_their_goals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "VOCABULARY", 512)
    monkeypatch.setattr(data, "PARTS", (("stories",), ("arithmetic",)))  # the library takes seconds to read
    target = tmp_path / "data.json"
    assert data.main(["--kilobytes", "100", "--problems", "60", "--rounds", "2", "--json", str(target)]) == 0
    found = json.loads(target.read_text("utf-8"))
    assert found["command"].startswith("uv run apps/bench data --kilobytes 100")
    for name, goal in data.GOALS.items():
        assert found[name]["goal"] == goal
    assert found["tokenizing"]["tokens"] > 2**14
    assert found["tokenizing"]["library"]["ratio"]["processor"]["n"] == 2
    for name in ("loading", "problems"):
        assert 0 < found[name]["per_second"]["least"] <= found[name]["per_second"]["most"]
        assert found[name]["per_processor_second"]["median"] > 0
    shown = capsys.readouterr().out
    assert "goal |" in shown
    assert "20,000,000" in shown
    assert "5,000" in shown


def test_nothing_is_timed_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "exercise_fault", lambda question, solution: "no")
    with pytest.raises(TrainingFailed, match="refused by its check; nothing was timed"):
        data._problems(2, 1, [])


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert data.main(["--help"]) == 0
    assert "--kilobytes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wall", "processor", "said"),
    [(2.0, 2.0, "yes"), (0.5, 2.0, "no, 50% (by the processor's: yes)"), (0.5, 0.6, "no, 50%")],
)
def test_what_is_reached_is_what_one_waits_for(wall: float, processor: float, said: str) -> None:
    assert data._reached(wall, processor, 1.0) == said
