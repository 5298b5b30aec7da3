"""Claim: a run draws its sources as its schedule says, its log lets the mixture be recovered, and it resumes inside a phase."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import tinycore
from apps.common import data, logs, recipes, strict_yaml
from apps.common.console import Console
from apps.common.errors import BadRequest

Sessions = Callable[[Sequence[dict[str, Any]]], Any]
STOP_AT_8 = {"rank": 0, "step": 8, "signal": 15}


@pytest.fixture
def mixed(tiny_recipe: Path, tmp_path: Path) -> Path:
    """The tiny recipe with two files as sources: the first fades, the second comes."""
    mapping = strict_yaml.read(tiny_recipe)
    paths = []
    for name in ("early", "late"):
        path = tmp_path / f"{name}.txt"
        path.write_text(
            "\n###\n".join(f"{name} {index} " + "words of a text " * (3 + index % 5) for index in range(200))
        )
        paths.append(str(path))
    mapping["data"]["sources"] = [{"kind": "files", "path": path, "separator": "###"} for path in paths]
    mapping["data"]["mixture"] = {
        paths[0]: {"kind": "linear", "start": 1.0, "end": 0.0},
        paths[1]: {"kind": "piecewise", "points": [[0.0, 0.0], [1.0, 1.0]]},
    }
    mapping["train"] |= {"steps": 16, "log_every": 1, "save_every": 4}
    file = tmp_path / "mixed.yaml"
    file.write_text(strict_yaml.dump(mapping))
    return file


def counts(run: Path) -> list[dict[str, int]]:
    return [
        {Path(name).stem: value for name, value in record.items() if name.startswith("mixture/")}
        for record in logs.read(run / "metrics.jsonl")
        if "loss" in record
    ]


def test_the_log_says_what_was_mixed_and_a_stopped_run_goes_on(sessions: Sessions, mixed: Path, tmp_path: Path) -> None:
    whole, halves = tmp_path / "runs" / "whole", tmp_path / "runs" / "halves"
    start = ["--recipe", str(mixed), "--out"]
    done, stopped = sessions([{"argv": [*start, str(whole)]}, {"argv": [*start, str(halves)], "hurt": STOP_AT_8}])
    assert done.codes == [0], done.err
    assert stopped.codes == [3], stopped.err
    (resumed,) = sessions([{"argv": ["--resume", str(halves)]}])
    assert resumed.codes == [0], resumed.err
    assert logs.read(whole / "metrics.jsonl") == logs.read(halves / "metrics.jsonl")

    found = counts(whole)
    assert len(found) == 16
    total = sum(found[-1].values())
    assert found[-1]["early"] == pytest.approx(total / 2, abs=0.02 * total)
    half = found[7]
    assert half["early"] == pytest.approx(0.75 * sum(half.values()), abs=0.05 * total)
    assert (whole / "mixture.png").is_file()


def test_a_run_may_fork_at_a_stage_with_another_mixture(sessions: Sessions, mixed: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "fork"
    (stopped,) = sessions([{"argv": ["--recipe", str(mixed), "--out", str(run)], "hurt": STOP_AT_8}])
    assert stopped.codes == [3], stopped.err
    only_early = json.dumps(
        {
            name: {"weight": 1.0 if "early" in name else 0.0}
            for name in strict_yaml.read(run / "recipe.yaml")["data"]["mixture"]
        }
    )
    change = ["--resume", str(run), "--data.mixture", only_early]
    refused, allowed = sessions([{"argv": change}, {"argv": [*change, "--allow-changes"]}])
    assert refused.codes == [2]
    assert "data.mixture" in refused.err
    assert allowed.codes == [0], allowed.err
    before, after = counts(run)[7 - 1], counts(run)[-1]
    assert after["late"] == before["late"], "nothing more of it after the fork"
    assert after["early"] > before["early"]


def test_what_does_not_fit_is_one_line(mixed: Path) -> None:
    mapping = strict_yaml.read(mixed)
    first, second = mapping["data"]["mixture"]

    def changed(**parts: Any) -> recipes.Recipe:
        return recipes.from_dict(mapping | {"data": mapping["data"] | parts})

    with pytest.raises(tinycore.ConfigError, match=r"data\.mixture: the weights sum to zero at 0% of the run"):
        changed(mixture={first: {"weight": 0.0}})
    with pytest.raises(tinycore.ConfigError, match=r"data\.mixture: .* early shares are at most 2/3"):
        changed(mixture={first: {"kind": "early", "base": 0.9}, second: {"weight": 1.0}})
    with pytest.raises(tinycore.ConfigError, match=r"data\.max_epochs: 'x' is no source of data\.mixture"):
        changed(max_epochs={"x": 1.0})
    with pytest.raises(BadRequest, match=r"data\.mixture: says nothing of source .*late\.txt"):
        data.prepare(changed(mixture={first: {"weight": 1.0}}), Console(json=True))
    with pytest.raises(tinycore.ConfigError, match=r"data\.mixture: unknown source 'other'"):
        data.prepare(changed(mixture={first: {"weight": 1.0}, "other": {"weight": 1.0}}), Console(json=True))
    with pytest.raises(BadRequest, match="the training data are several sources"):
        data.prepare(changed(), Console(json=True)).train  # noqa: B018
