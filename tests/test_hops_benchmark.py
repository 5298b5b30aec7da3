"""`apps/bench hops`: every model trains and is asked, a stopped run goes on, and the table says what the cells hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from apps.bench import hops, hops_report
from apps.common.errors import BadRequest

SHORT = ("--train-steps", "2", "--seeds", "1")


@pytest.mark.parametrize("name", hops.MODELS)
def test_every_model_is_trained_and_asked(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "hops.json"
    assert hops.main([*SHORT, "--only", name, "--json", str(target)]) == 0
    (cell,) = json.loads(target.read_text("utf-8"))["cells"].values()
    assert cell["parameters"] > 0
    assert len(cell["asked"]) == len(hops.MODELS[name].asked)
    for asked in cell["asked"].values():
        assert len(asked["accuracy"]) == 8
        assert all(0 <= value <= 1 for value in asked["accuracy"])
        assert ("steps_taken" in asked) == ("universal" in name or "halting" in name)
    assert f"| {name}" in capsys.readouterr().out


def test_a_stopped_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, plot = tmp_path / "hops.json", tmp_path / "hops.png"
    command = [*SHORT, "--only", "plain 2,looped 2x4", "--json", str(target)]
    assert hops.main(command) == 0
    before = json.loads(target.read_text("utf-8"))["cells"]
    trained: list[int] = []
    cell = hops.cell
    monkeypatch.setattr(
        hops, "cell", lambda model, seed, settings: (trained.append(seed), cell(model, seed, settings))[1]
    )
    assert hops.main([*command[:3], "2", *command[4:], "--plot", str(plot)]) == 0
    assert trained == [1, 1], "the second seed only"
    after = json.loads(target.read_text("utf-8"))["cells"]
    assert {key: after[key] for key in before} == before
    assert plot.read_bytes()[:4] == b"\x89PNG"


def test_means_and_errors_are_over_seeds() -> None:
    mean, error = hops_report.mean_and_error([1.0, 2.0, 6.0])
    assert mean == 3.0
    assert error == pytest.approx((7 / 3) ** 0.5)


def test_what_cannot_be_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="--only: no model begins 'plain 3'"):
        hops.main(["--only", "plain 2,plain 3"])
    with pytest.raises(BadRequest, match="--steps: rows of 8 nodes"):
        hops.main(["--steps", "100"])
    target = tmp_path / "hops.json"
    target.write_text(json.dumps({"settings": {"train_steps": 1}, "cells": {}}), encoding="utf-8")
    with pytest.raises(BadRequest, match="measured with other train-steps"):
        hops.main([*SHORT, "--json", str(target)])
