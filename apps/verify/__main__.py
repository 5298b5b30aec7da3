"""`uv run apps/verify RUN`: from a generator to a verifier of its answers, and what best-of-N is worth with it.

    DIR/samples.jsonl   answers to problems that the generator was not trained on (its validation side), labelled
    DIR/verdicts.jsonl  the same as the verifier learns them
    DIR/verifier/       the run that trains it, by the session that trains everything
    DIR/test.jsonl      answers to problems of the test side
    DIR/report.md, curves.png, result.json

Each part is kept and not made again: the same command goes on where it was. Exit status: see apps.common.errors.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from apps.common import (
    command_help,
    command_line,
    files,
    processes,
    recipes,
    run_record,
    solver,
    strict_yaml,
    tool_use,
    verdicts,
)
from apps.common.command_line import Arguments, Grammar, Option
from apps.common.console import Console
from apps.common.errors import BadRequest
from apps.common.problems import generated
from apps.common.solver import Solver
from apps.pretrain.__main__ import carry_out
from apps.verify import curves, sampling
from apps.verify.sampling import Labels, Sampled
from tinydata.documents import Split
from tinydata.synthetic.exercise import FORMS, Exercise, Form
from tinydata.synthetic.exercises import KINDS
from tinyeval import roc_auc
from tinyreason import ExecutionVerifier

RECIPE = Path(__file__).parent / "verifier.yaml"
NUMBERS = (1, 2, 4, 8, 16, 32, 64)
OPTIONS = {
    "kinds": Option(f"kinds of problems: {', '.join(KINDS)} (default: words)", "NAME,NAME"),
    "form": Option(f"form of the answers: {', '.join(FORMS)} (default: hand)", "NAME", choices=FORMS),
    "steps": Option("fewest and most calculations of a word problem (default: the recipe's)", "N-N"),
    "problems": Option("problems that the verifier learns from (default: 1000)", "N"),
    "samples": Option("answers to each of them (default: 8)", "N"),
    "labels": Option(
        "label answers as a whole, or their steps (default: outcome)", "NAME", choices=("outcome", "process")
    ),
    "test": Option("problems that best-of-N is measured on (default: 200)", "N"),
    "test-samples": Option("answers to each of them, the largest N (default: 16)", "N"),
    "max-tokens": Option("longest answer (default: the recipe's)", "N"),
    "seed": Option("of problems, samples and training (default: 0)", "N"),
    "out": Option("folder (default: that of the generator's run with -verifier behind it)", "DIR"),
    "device": command_line.DEVICE,
    "json": command_line.JSON,
    "help": command_line.HELP,
}
EXAMPLES = (
    ("a verifier and its curves", "uv run apps/verify runs/arithmetic"),
    ("labels for every step, a larger N", "uv run apps/verify runs/arithmetic --labels process --test-samples 64"),
    ("dotted keys change the training", "uv run apps/verify runs/arithmetic --train.steps 800"),
)


def run() -> int:
    """Do what the command line asks; the exit status."""
    arguments = command_line.take_apart(sys.argv[1:], Grammar(OPTIONS, dotted=True, words="RUN"))
    if "help" in arguments.options:
        summary = "Train a verifier on a generator's own answers and measure best-of-N with it."
        command_help.print_app_help("verify", summary, "RUN|CHECKPOINT", OPTIONS, EXAMPLES)
        return 0
    if len(arguments.words) != 1:
        raise BadRequest("give the run of one generator, such as runs/arithmetic")
    console = Console(json="json" in arguments.options)
    path = Path(arguments.words[0])
    device = processes.device_type(arguments.text("device", "auto"), 1)
    generator = solver.load(path, device)
    out = arguments.path("out") or path.with_name(f"{path.name}-verifier")
    out.mkdir(parents=True, exist_ok=True)
    labels = cast(Labels, arguments.text("labels", "outcome"))
    learned = _sampled(
        generator, "validation", "problems", 1000, "samples", 8, out / "samples.jsonl", arguments, console
    )
    shares = [sum(row.right) / len(row.right) for row in learned]
    console.say(f"{sum(shares) / len(shares):.1%} of the generator's answers are right")
    if not 0 < sum(shares) < len(shares):
        raise BadRequest("the answers are all right or all wrong: nothing is to be told apart; take other problems")
    verdicts.write(out / "verdicts.jsonl", sampling.verdicts(learned, labels))
    status = _train(generator, out, arguments)
    if status:
        return status
    verifier = solver.load(out / "verifier", device)
    solver.same_tokens(generator, verifier)
    tested = _sampled(generator, "test", "test", 200, "test-samples", 16, out / "test.jsonl", arguments, console)
    found = _measured(tested, verifier, console)
    found |= {"generator": str(generator.checkpoint), "verifier": str(verifier.checkpoint), "labels": labels}
    files.write_json(out / "result.json", found)
    points = [curves.Point(*point.values()) for point in found["curves"]]
    curves.draw(points, out / "curves.png")
    report = _report(found, points)
    files.write_text(out / "report.md", report)
    console.say(report)
    console.say(f"results: {out / 'report.md'}")
    console.say(f'next: uv run apps/reason {path} "What is 12 * 7?" --n 16 --verifier {out / "verifier"}')
    console.result(found)
    return 0


def _sampled(
    generator: Solver,
    side: Split,
    problems: str,
    count: int,
    samples: str,
    each: int,
    path: Path,
    arguments: Arguments,
    console: Console,
) -> list[Sampled]:
    """The answers at `path`, sampled where they are not there yet."""
    count, each = arguments.whole(problems, count), arguments.whole(samples, each)
    seed = arguments.whole("seed", 0, least=0)
    kinds = [name for name in arguments.text("kinds", "words").split(",") if name]
    form = cast(Form, arguments.text("form", "hand"))
    steps = solver.steps(arguments, generator.data)
    settings: dict[str, Any] = {
        "generator": str(generator.checkpoint),
        "side": side,
        "kinds": kinds,
        "steps": list(steps),
        "form": form,
        problems: count,
        samples: each,
        "max_tokens": arguments.whole("max-tokens", generator.data.answer_tokens),
        "seed": seed,
    }
    before = sampling.kept(path, settings)
    if before is not None:
        console.say(f"{path}: {len(before):,} problems, sampled before")
        return before
    asked = _problems(generator, side, kinds, steps, count, seed)
    with console.counting(f"sampling {each} answers to each of {count:,} problems", each * count) as counting:
        found = sampling.sample(
            generator.generator(), asked, form, each, settings["max_tokens"], seed, counting.advance
        )
    sampling.keep(path, found, settings)
    return found


def _problems(
    generator: Solver, side: Split, kinds: list[str], steps: tuple[int, int], count: int, seed: int
) -> list[Exercise]:
    unknown = next((kind for kind in kinds if kind not in KINDS), None)
    if unknown is not None:
        raise BadRequest(f"--kinds: {unknown!r} is none of {', '.join(KINDS)}")
    wanted = solver.with_problems(generator.data, count)
    data = replace(wanted, kinds=tuple(kinds), steps=steps, seed=2_000_003 + seed)
    found = []
    for exercise in generated(data, side):
        found.append(exercise)
        if len(found) == count:
            return found
    raise BadRequest(f"only {len(found)} such problems were found on the {side} side; ask for fewer")


def _train(generator: Solver, out: Path, arguments: Arguments) -> int:
    """Train the verifier, or go on with it; the exit status of the session."""
    target = out / "verifier"
    status = files.read_json(target / "status.json") if (target / "status.json").is_file() else {}
    if status.get("status") == "done":
        return 0
    model = generator.model.config.to_dict()
    model["heads"] = {**model["heads"], "value": {}}
    mapping = strict_yaml.read(RECIPE) | {
        "model": model,
        "data": {
            "kind": "verdicts",
            "path": str(out / "verdicts.jsonl"),
            "sequence_length": generator.model.config.max_seq_len,
        },
    }
    mapping["train"] = {**mapping["train"], "seed": arguments.whole("seed", 0, least=0)}
    mapping = recipes.merge(mapping, arguments.overrides)
    given = ["--device", device] if (device := arguments.text("device", "")) else []
    new = ["--init-from", str(generator.checkpoint), "--out", str(target)]
    begin = ["--resume", str(target)] if _begun(target) else new
    request = command_line.parse("verify", [*begin, *given], base=lambda name: ("verifier", mapping))
    # the session's own lines are not this app's result
    aside = contextlib.redirect_stdout(sys.stderr) if "json" in arguments.options else contextlib.nullcontext()
    with aside:
        return carry_out(replace(request, json=False), "apps.verify", sys.argv[1:])


def _begun(path: Path) -> bool:
    """Whether there is a run with a checkpoint at `path`."""
    try:
        run_record.checkpoint_of(path)
    except BadRequest:
        return False
    return True


def _measured(tested: list[Sampled], verifier: Solver, console: Console) -> dict[str, Any]:
    answers = [(row.prompt, text) for row in tested for text in row.texts]
    scored = iter(verifier.scorer().score_all(answers))
    scores = [[next(scored) for _ in row.texts] for row in tested]
    with console.counting("choosing among the samples", len(tested)) as counting:
        points = curves.curves(tested, scores, NUMBERS, ExecutionVerifier(tool_use.runner()), counting.advance)
    flat_scores = [score for row in scores for score in row]
    flat_right = [right for row in tested for right in row.right]
    # within a problem, where it counts: whether a question is easy tells nothing about which of its answers to take
    within = [roc_auc(row, tested[index].right) for index, row in enumerate(scores)]
    within = [auc for auc in within if auc == auc]
    return {
        "problems": len(tested),
        "samples": min(len(row.texts) for row in tested),
        "accuracy_of_one": sum(flat_right) / len(flat_right),
        "auc": roc_auc(flat_scores, flat_right),
        "auc_within_problems": sum(within) / len(within) if within else None,
        "tokens": sum(row.tokens for row in tested),
        "curves": [vars(point) for point in points],
    }


def _report(found: dict[str, Any], points: list[curves.Point]) -> str:
    within = found["auc_within_problems"]
    return (
        f"# Best of N\n\nGenerator {found['generator']}, verifier {found['verifier']} (labels: {found['labels']}). "
        f"{found['problems']} problems of the test side, {found['samples']} samples each; "
        "mean over problems +- its standard error.\n\n"
        f"{curves.shown(points)}\n\n"
        f"The verifier ranks a right answer above a wrong one with probability {found['auc']:.3f}"
        + (f", {within:.3f} where both answer the same problem" if within is not None else "")
        + ".\n\n![curves](curves.png)\n"
    )


if __name__ == "__main__":
    command_line.main(run)
