"""`uv run apps/import model.gguf --out runs/NAME`: a model that others trained, as a run to talk to and to train on.

`import` is a word of Python's own, so that nothing can be imported from this package: the work is in
`apps.common.pretrained`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import tinycore
from apps.common import command_help, command_line
from apps.common.command_line import Grammar, Option
from apps.common.console import Console, duration
from apps.common.errors import BadRequest
from apps.common.pretrained import run as imported_run
from apps.common.pretrained import source

OPTIONS = {
    "out": Option("run directory (default: runs/ and the name of the source)", "DIR"),
    "json": command_line.JSON,
    "help": command_line.HELP,
}
EXAMPLES = (
    ("a GGUF file", "uv run apps/import path/to/model.gguf --out runs/smollm2"),
    ("a model directory of Hugging Face's layout", "uv run apps/import path/to/model --out runs/mine"),
    ("talk to it", 'uv run apps/chat runs/smollm2 --prompt "What is the capital of France?"'),
    ("train it on", "uv run apps/pretrain --init-from runs/smollm2"),
)


def run() -> int:
    """Do what the command line asks; the exit status."""
    arguments = command_line.take_apart(sys.argv[1:], Grammar(OPTIONS, words="SOURCE"))
    if "help" in arguments.options:
        summary = "Import a model of Llama's layout (Llama, Mistral, Qwen3) from safetensors or GGUF."
        command_help.print_app_help("import", summary, "SOURCE", OPTIONS, EXAMPLES)
        return 0
    if len(arguments.words) != 1:
        raise BadRequest("give one GGUF file or model directory to import")
    console = Console(json="json" in arguments.options)
    start = time.perf_counter()
    path = Path(arguments.words[0])
    wanted = arguments.path("out") or Path("runs") / (path.stem if path.is_file() else path.resolve().name)
    imported = source.read(path)
    parameters = tinycore.count(imported.model.config).parameters
    out = imported_run.write(imported, path, wanted)
    if out != wanted:
        console.say(f"{wanted} holds a finished run; this one goes to {out}")
    template = "with" if imported.tokenizer.conventions.chat_template else "without"
    console.say(
        f"{path}: {parameters:,} parameters, {imported.tokenizer.vocab_size:,} tokens, {template} a chat template, "
        f"in {duration(time.perf_counter() - start)}"
    )
    console.say(f"run: {out}")
    console.say(f"next: uv run apps/chat {out}")
    console.say(f"or train it on: uv run apps/pretrain --init-from {out}")
    console.result({"parameters": parameters, "run": str(out), "seconds": time.perf_counter() - start})
    return 0


if __name__ == "__main__":
    command_line.main(run)
