"""`uv run apps/reason RUN "What is 347 * 892?"`: thinking, calls of tools, candidates with their scores, the answer."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from apps.common import command_help, command_line, processes, solver, tool_use
from apps.common.command_line import Arguments, Grammar, Option
from apps.common.console import Console
from apps.common.errors import BadRequest
from apps.common.generator import require_room
from apps.common.solver import Solver
from apps.reason import display
from tinydata.synthetic.exercise import FORMS, Exercise, Form, Step
from tinyreason import ExecutionVerifier, Majority, Scorer, SearchIndex, Toolbox, best_of_n
from tinyreason.test_time import TEMPERATURES, Best, Filtered, Selector
from tinyreason.tools import search_tool

CHOOSE = ("majority", "verifier", "weighted", "executed")
OPTIONS = {
    "form": Option(
        f"how to answer: {', '.join(FORMS)}, or plain: the question as it is (default: calculator, or plain for a model that "
        "did not learn exercises)",
        "NAME",
        choices=(*FORMS, "plain"),
    ),
    "n": Option("candidates, of which one is taken (default: 1)", "N"),
    "verifier": Option("a run with a value head, from apps/verify, to judge candidates", "RUN"),
    "choose": Option(
        f"how one is taken: {', '.join(CHOOSE)} (default: weighted with --verifier, else majority)",
        "NAME",
        choices=CHOOSE,
    ),
    "temperature": Option("0: the likeliest tokens (default: 0 for one candidate, else .6, .8 and 1 in turn)", "X"),
    "max-tokens": Option("longest answer (default: the recipe's)", "N"),
    "search": Option("let it search the texts of this folder, where it knows <search>", "DIR"),
    "no-tools": Option("leave calls of tools unanswered"),
    "seed": Option("the same seed gives the same candidates (default: 0)", "N"),
    "device": command_line.DEVICE,
    "json": command_line.JSON,
    "help": command_line.HELP,
}
EXAMPLES = (
    ("by calculator", 'uv run apps/reason runs/arithmetic "What is 347 * 892?"'),
    ("by a program that is run in a sandbox", 'uv run apps/reason runs/arithmetic "What is 347 * 892?" --form program'),
    (
        "sixteen candidates, judged",
        'uv run apps/reason runs/arithmetic "What is 12 * 7?" --n 16 --verifier runs/arithmetic-verifier/verifier',
    ),
)


def run() -> int:
    """Do what the command line asks; the exit status."""
    arguments = command_line.take_apart(sys.argv[1:], Grammar(OPTIONS, words="RUN QUESTION"))
    if "help" in arguments.options:
        summary = "Ask a trained model one question and see how it comes to its answer."
        command_help.print_app_help("reason", summary, "RUN|CHECKPOINT QUESTION", OPTIONS, EXAMPLES)
        return 0
    if len(arguments.words) != 2 or not arguments.words[1].strip():
        raise BadRequest('give a run and a question: uv run apps/reason runs/arithmetic "What is 347 * 892?"')
    console = Console(json="json" in arguments.options)
    device = processes.device_type(arguments.text("device", "auto"), 1)
    model = solver.load(Path(arguments.words[0]), device)
    prompt = _prompt(model, arguments)
    require_room(model.model, model.tokenizer, prompt)
    count = arguments.whole("n", 1)
    generator = model.generator("no-tools" not in arguments.options)
    generator.toolbox = _with_search(generator.toolbox, model, arguments)
    scorer = _scorer(model, arguments, device)
    temperatures = _temperatures(arguments, count)
    chosen = best_of_n(
        generator,
        prompt,
        count,
        _selector(arguments, scorer),
        max_tokens=arguments.whole("max-tokens", model.data.answer_tokens),
        temperatures=temperatures,
        seed=arguments.whole("seed", 0, least=0),
        rounds=max(1, count // 4),
    )
    console.say(display.shown(prompt, chosen, count))
    console.result(
        {
            "question": arguments.words[1],
            "answer": chosen.answer,
            "text": chosen.text,
            "calls": [asdict(call) for call in chosen.candidates[chosen.index].completion.calls],
            "candidates": [
                {"answer": candidate.answer, "score": candidate.score, "text": candidate.completion.text}
                for candidate in chosen.candidates
            ],
            "spent": asdict(chosen.spent),
        }
    )
    return 0


def _prompt(model: Solver, arguments: Arguments) -> str:
    """The question as the model learned to be asked."""
    question = " ".join(arguments.words[1].split())
    form = arguments.text("form", "calculator" if model.learned else "plain")
    if form == "plain":
        return f"{question}\n"
    if not model.learned:
        raise BadRequest(
            f"--form {form}: {model.checkpoint} did not learn exercises; leave it out, or finetune it first"
        )
    # the steps are the solution's, and only the question is asked
    return Exercise("asked", question, (Step("", 0, "+", 0, 0),), model.data.language).prompt(cast(Form, form))


def _temperatures(arguments: Arguments, count: int) -> tuple[float, ...]:
    if "temperature" in arguments.options:
        return (arguments.number("temperature", 0.0, 0.0, 100.0),)
    return (0.0,) if count == 1 else TEMPERATURES


def _with_search(box: Toolbox | None, model: Solver, arguments: Arguments) -> Toolbox | None:
    folder = arguments.options.get("search")
    if not isinstance(folder, str):
        return box
    tools = [*(box.tools.values() if box is not None else ()), search_tool(SearchIndex.of_folder(folder))]
    found = tool_use.toolbox(model.tokenizer, tools)
    if found is None or "search" not in found.tools:
        raise BadRequest(
            f"--search: the tokenizer of {model.checkpoint} has no <search>, so the model cannot ask for it"
        )
    return found


def _scorer(model: Solver, arguments: Arguments, device: str) -> Scorer | None:
    path = arguments.path("verifier")
    if path is None:
        return None
    verifier = solver.load(path, device)
    solver.same_tokens(model, verifier)
    return verifier.scorer()


def _selector(arguments: Arguments, scorer: Scorer | None) -> Selector:
    how = arguments.text("choose", "majority" if scorer is None else "weighted")
    if how in ("verifier", "weighted") and scorer is None:
        raise BadRequest(f"--choose {how}: takes a verifier; name its run by --verifier")
    if how == "executed":
        return Filtered(ExecutionVerifier(tool_use.runner()), Majority(scorer))
    chosen: dict[str, Any] = {"majority": Majority(), "weighted": Majority(scorer)}
    return chosen[how] if how in chosen else Best(cast(Scorer, scorer))


if __name__ == "__main__":
    command_line.main(run)
