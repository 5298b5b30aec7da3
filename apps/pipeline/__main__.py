"""`uv run apps/pipeline`: from nothing to an evaluated model, stage after stage, as one recipe says.

    DIR/pipeline.yaml      what is done, and with which seed
    DIR/STAGE/             a run directory, or what the stage's app leaves
    DIR/seconds.json       how long each stage took
    DIR/report.md          the results of all stages

Each stage is an app of its own in a process of its own. A finished stage is not done again, an unfinished one goes on where
it was saved: the same command goes on. Exit status: that of the stage that did not end well, else 0.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from apps.common import command_help, command_line, files, run_record, strict_yaml
from apps.common.command_line import Grammar, Option
from apps.common.console import Console, duration
from apps.common.errors import BadRequest
from apps.pipeline import plan, summary
from apps.pipeline.plan import Plan, Stage

DEFAULT = "arithmetic-1m"
OPTIONS = {
    "recipe": Option(f"which pipeline (default: {DEFAULT})", "NAME|FILE"),
    "out": Option("folder of all stages (default: runs/NAME)", "DIR"),
    "seed": Option("of weights, order of the data and samples in every stage (default: 0)", "N"),
    "until": Option("end after this stage", "STAGE"),
    "dry-run": Option("print the command of every stage, and stop"),
    "list-recipes": Option("print the pipelines there are"),
    "json": command_line.JSON,
    "help": command_line.HELP,
}
EXAMPLES = (
    ("a small model that uses tools, and its verifier", "uv run apps/pipeline"),
    ("another seed beside it", "uv run apps/pipeline --seed 1 --out runs/arithmetic-1m-1"),
    ("what it would run", "uv run apps/pipeline --recipe arithmetic-10m --dry-run"),
)


def run() -> int:
    """Do what the command line asks; the exit status."""
    arguments = command_line.take_apart(sys.argv[1:], Grammar(OPTIONS))
    if "help" in arguments.options:
        text = "Run the stages of a pipeline one after another: pretraining, fine-tuning, verifier, evaluation."
        command_help.print_app_help("pipeline", text, "", OPTIONS, EXAMPLES)
        return 0
    console = Console(json="json" in arguments.options)
    if "list-recipes" in arguments.options:
        for name in plan.names():
            console.say(f"{name}: {plan.read(name).description}")
        return 0
    wanted = plan.read(arguments.text("recipe", DEFAULT))
    seed = arguments.whole("seed", 0, least=0)
    out = arguments.path("out") or Path("runs") / wanted.name
    stages = _until(wanted, arguments.options.get("until"))
    if "dry-run" in arguments.options:
        for stage in stages:
            console.say(
                f"{stage.name}: {' '.join(['uv run', f'apps/{stage.app}', *_arguments(stage, out, seed, begun=False)])}"
            )
        return 0
    _claim(out, wanted, seed)
    timing = out / "seconds.json"
    seconds: dict[str, Any] = files.read_json(timing) if timing.is_file() else {}
    for number, stage in enumerate(stages, 1):
        if _done(stage, out):
            console.say(f"[{number}/{len(stages)}] {stage.name}: done before")
            continue
        console.say(f"[{number}/{len(stages)}] {stage.name}: {stage.app}")
        _write_recipe(stage, wanted, out)
        began = time.perf_counter()
        status = _child(["-m", f"apps.{stage.app}", *_arguments(stage, out, seed, _begun(stage, out))], console.json)
        seconds[stage.name] = seconds.get(stage.name, 0.0) + time.perf_counter() - began
        files.write_json(timing, seconds)
        if status:
            console.say(f"stage {stage.name} ended with exit status {status}; the same command goes on from there")
            return status
        console.say(f"[{number}/{len(stages)}] {stage.name}: {duration(seconds[stage.name])}")
    results = {stage.name: summary.of(stage, out / stage.name) for stage in stages}
    files.write_text(out / "report.md", summary.report(wanted, stages, results, seconds))
    console.say(f"all stages: {duration(sum(seconds.values()))}; results: {out / 'report.md'}")
    last = next((stage for stage in reversed(stages) if stage.app == "finetune"), None)
    if last is not None:
        console.say(f'next: uv run apps/reason {out / last.name} "What is 347 * 892?"')
    console.result({"pipeline": wanted.name, "seed": seed, "seconds": seconds, "stages": results})
    return 0


def _until(wanted: Plan, last: Any) -> list[Stage]:
    names = [stage.name for stage in wanted.stages]
    if last is None:
        return list(wanted.stages)
    if last not in names:
        raise BadRequest(f"--until: there is no stage {last!r}, only {', '.join(names)}")
    return list(wanted.stages[: names.index(last) + 1])


def _claim(out: Path, wanted: Plan, seed: int) -> None:
    """Write down what is done in `out`, or raise BadRequest where it is something else already."""
    mine = {"seed": seed, **wanted.mapping}
    kept = out / "pipeline.yaml"
    if kept.is_file():
        before = strict_yaml.read(kept)
        if before != strict_yaml.parse(strict_yaml.dump(mine), str(kept)):
            changed = next((key for key in {**before, **mine} if before.get(key) != mine.get(key)), "it")
            raise BadRequest(f"{out}: holds a pipeline with another {changed}; give another --out")
        return
    if out.is_dir() and any(out.iterdir()):
        raise BadRequest(f"{out}: is there already and holds no pipeline; give another --out")
    out.mkdir(parents=True, exist_ok=True)
    files.write_text(kept, strict_yaml.dump(mine))


def _write_recipe(stage: Stage, wanted: Plan, out: Path) -> None:
    if isinstance(stage.recipe, str) or stage.recipe is None:
        return
    model = {"model": dict(wanted.model)} if stage.begins is None else {}
    files.write_text(out / f"{stage.name}.yaml", strict_yaml.dump({**model, **stage.recipe}))


def _arguments(stage: Stage, out: Path, seed: int, begun: bool) -> list[str]:
    """The stage's command line behind the app's name."""
    target = out / stage.name
    options = stage.arguments(out)
    if stage.trains:
        if begun:
            return ["--resume", str(target)]
        recipe = stage.recipe if isinstance(stage.recipe, str) else str(out / f"{stage.name}.yaml")
        begins = [] if stage.begins is None else [str(out / stage.begins)]
        return [*begins, "--recipe", recipe, "--train.seed", str(seed), "--out", str(target), *options]
    place = ["--out", str(target / "result.json" if stage.app == "evaluate" else target)]
    seeded = ["--seed", str(seed)] if stage.app == "verify" else []
    return [str(out / str(stage.begins)), *place, *seeded, *options]


def _begun(stage: Stage, out: Path) -> bool:
    try:
        run_record.checkpoint_of(out / stage.name)
    except BadRequest:
        return False
    return True


def _done(stage: Stage, out: Path) -> bool:
    """Whether the stage ended well before."""
    if not stage.trains:
        return (out / stage.name / "result.json").is_file()
    status = out / stage.name / "status.json"
    return status.is_file() and files.read_json(status).get("status") == "done"


def _child(arguments: list[str], to_stderr: bool) -> int:
    """Run this Python with `arguments`; its exit status. What stops us stops it: it saves, and we wait for it."""
    process = subprocess.Popen([sys.executable, *arguments], stdout=sys.stderr if to_stderr else None)

    def pass_on(number: int, frame: object) -> None:
        # a Ctrl-C at a terminal reaches the child by itself
        if number == signal.SIGTERM and process.poll() is None:
            process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status if status >= 0 else 1


if __name__ == "__main__":
    command_line.main(run)
