"""What the stages of a pipeline came to, as values and as a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apps.common import files
from apps.common.console import duration
from apps.common.markdown import table
from apps.pipeline.plan import Plan, Stage
from apps.verify import curves


def of(stage: Stage, path: Path) -> dict[str, Any]:
    """The stage's result: the last validation of a run, or what its app wrote to result.json."""
    if not stage.trains:
        return files.read_json(path / "result.json")
    status = files.read_json(path / "status.json")
    latest = status.get("latest") or {}
    return {"parameters": status.get("parameters"), "tokens": status.get("tokens"), **latest}


def report(wanted: Plan, stages: Sequence[Stage], results: Mapping[str, Any], seconds: Mapping[str, float]) -> str:
    """The report as Markdown."""
    parts = [f"# {wanted.name}", wanted.description]
    rows = [
        [stage.name, f"apps/{stage.app}", stage.begins or "", duration(seconds.get(stage.name, 0.0))]
        for stage in stages
    ]
    parts.append(table(["stage", "by", "from", "time"], rows))
    for stage in stages:
        parts += [f"## {stage.name}", _told(stage, results[stage.name])]
    return "\n\n".join(part for part in parts if part) + "\n"


def _told(stage: Stage, result: Mapping[str, Any]) -> str:
    if stage.app == "evaluate":
        rows = [
            [
                cell["kind"],
                cell["form"],
                str(cell["problems"]),
                f"{cell['exact']:.1%} +- {cell['standard_error']:.1%}",
                "" if cell["executed"] is None else f"{cell['executed']:.1%}",
            ]
            for cell in result["cells"]
        ]
        text = table(["problems", "solved", "n", "right", "program printed it"], rows)
        rounds = [
            [str(number), f"{one['right'] / cell['problems']:.1%}", str(one["mended"]), str(one["spoilt"])]
            for cell in result["cells"]
            for number, one in enumerate(cell["rounds"])
        ]
        return f"{text}\n\n{table(['rounds of refinement', 'right', 'mended', 'spoilt'], rounds)}" if rounds else text
    if stage.app == "verify":
        points = [curves.Point(**point) for point in result["curves"]]
        about = f"{result['problems']} problems, {result['samples']} samples each; AUC {result['auc']:.3f}."
        return f"{about}\n\n{curves.shown(points)}\n\n![curves]({stage.name}/curves.png)"
    scores = {name: value for name, value in result.items() if name.startswith("val_") and value is not None}
    text = ", ".join(f"{name.removeprefix('val_')} {value:.3f}" for name, value in scores.items())
    return f"{result['parameters']:,} parameters, {result['tokens']:,} targets learned from. Held out: {text}."
