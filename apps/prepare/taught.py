"""What a teacher writes for the problems of a recipe, kept where it is verified: `--taught-by URL`.

The teacher is any server of OpenAI's chat completions (vLLM, llama.cpp, Ollama, a paid one: its key from OPENAI_API_KEY). Each
problem of the training side is asked several times; `tinydata.teachers` checks every calculation, runs the programs in the
sandbox and compares with the known answer. Answers are kept as they come, so whoever is stopped asks nothing twice. Left are
`triples.jsonl`, with what was checked of each, and `taught.jsonl`, conversations that `apps/finetune --recipe chat` learns.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from apps.common import files, problems, tool_use
from apps.common.console import Console
from apps.common.errors import BadRequest
from apps.common.problem_config import ExerciseData, ProblemData
from tinydata.teachers import Asking, Problem, TeacherError, TeacherImport, Triple, write_triples
from tinyreason import Answers, Endpoint
from tinyreason.endpoint import EndpointError

ANSWERS, TRIPLES, TAUGHT = "teacher-answers.jsonl", "triples.jsonl", "taught.jsonl"
PROMPT = "{question}\nShow each calculation as `a * b = c`. End with a line `#### ` and the answer, a number alone.\n"
MOST_TOKENS = 512  # of an answer


def teach(
    home: Path, url: str, model: str, data: ExerciseData | ProblemData, count: int, samples: int, console: Console
) -> dict[str, int | str]:
    """Have `model` at `url` answer the first `count` problems `samples` times each; what was kept, in files in `home`.

    Raises BadRequest for a server that cannot be asked or does not answer, and for what is left of other answers in `home`.
    """
    asked = [
        Problem(question, answer) for question, answer in itertools.islice(problems.questions(data, console), count)
    ]
    try:
        endpoint = Endpoint(url, model, key=os.environ.get("OPENAI_API_KEY"), chat=True)
        importer = TeacherImport(
            endpoint,
            Answers(),
            teacher=model,
            cache=home / ANSWERS,
            asking=Asking(prompt=PROMPT, n=samples, max_tokens=MOST_TOKENS),
            runner=tool_use.runner(),
        )
        with console.counting(f"asking {model} {len(asked):,} problems {samples} times", len(asked)) as counting:

            def counted() -> Iterator[Problem]:
                for problem in asked:
                    yield problem
                    counting.advance()

            triples = list(importer.triples(counted()))
        write_triples(home / TRIPLES, triples)
    except (EndpointError, TeacherError) as error:
        raise BadRequest(f"--taught-by: {error}") from None
    summary = importer.summary
    if summary.samples and summary.rejected.get("nothing came", 0) == summary.samples:
        why = endpoint.errors[-1] if endpoint.errors else "nothing came"
        raise BadRequest(f"--taught-by {url}: {why}")
    files.write_text(home / TAUGHT, "".join(conversations(triples)))
    reasons = ", ".join(f"{number:,} {reason}" for reason, number in sorted(summary.rejected.items()))
    console.say(
        f"{model} solved {summary.solved:,} of {summary.problems:,} problems; of {summary.samples:,} answers "
        f"{summary.kept:,} were verified and kept" + (f", left out: {reasons}" if reasons else "")
    )
    return {"taught": summary.kept, "solved": summary.solved, "asked": summary.asked, "file": str(home / TAUGHT)}


def conversations(triples: Iterable[Triple]) -> Iterator[str]:
    """Each triple as a line of a file of conversations."""
    for one in triples:
        messages = [{"role": "user", "content": one.question}, {"role": "assistant", "content": one.trace}]
        yield json.dumps({"messages": messages}, ensure_ascii=False) + "\n"
