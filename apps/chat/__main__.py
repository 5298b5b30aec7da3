"""`uv run apps/chat runs/demo`: talk to a model, or one answer with --prompt. Needs nothing but a checkpoint.

A model with a chat template answers in turns (apps.chat.dialogue); any other continues the text that it is given, and
so does every model with --raw (apps.chat.conversation).
"""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import tinycore
from apps.chat import conversation
from apps.chat.conversation import Conversation
from apps.chat.dialogue import Dialogue
from apps.common import command_help, command_line, processes, recursion, run_record
from apps.common.chat_template import ChatTemplate
from apps.common.command_line import Arguments, Grammar, Option
from apps.common.console import Console
from apps.common.errors import BadRequest
from tinycore.generation import Sampling

OPTIONS = {
    "prompt": Option("answer or continue this text once and leave", "TEXT"),
    "raw": Option("continue the text as it is, also where the model has a chat template"),
    "max-tokens": Option("longest answer (default: 200)", "N"),
    "temperature": Option("0: always the likeliest token (default: 0.8)", "X"),
    "top-p": Option("draw from this share of the probability (default: 0.95)", "X"),
    "top-k": Option("draw from the K likeliest tokens (default: all)", "K"),
    "seed": Option("the same seed and text give the same answer (default: 0)", "N"),
    "device": command_line.DEVICE,
    "json": command_line.JSON,
    "help": command_line.HELP,
}
EXAMPLES = (
    ("talk", "uv run apps/chat runs/demo"),
    ("one answer", 'uv run apps/chat runs/demo --prompt "def "'),
    ("continue a text with a chat model", 'uv run apps/chat runs/smollm2 --raw --prompt "The capital of France is"'),
    ("a recursive model, thinking for longer", "uv run apps/chat runs/trm-math --model.depth.L_cycles 8"),
    ("a certain checkpoint", "uv run apps/chat runs/demo/checkpoints/step_00000600"),
)
COMMANDS = """/reset  begin a new text
/help   this list
/quit   leave (or Ctrl-D); Ctrl-C stops an answer"""
_UNPRINTABLE = {code: "\ufffd" for code in (*range(32), 127, *range(128, 160)) if chr(code) not in "\n\t"}


def run() -> int:
    """Do what the command line asks; the exit status."""
    arguments = command_line.take_apart(sys.argv[1:], Grammar(OPTIONS, dotted=True, words="RUN"))
    if "help" in arguments.options:
        summary = "Talk to a trained model: it answers if it was taught to, or continues what you write."
        command_help.print_app_help("chat", summary, "RUN|CHECKPOINT", OPTIONS, EXAMPLES)
        return 0
    if len(arguments.words) != 1:
        raise BadRequest("give one run or checkpoint to talk to, such as runs/demo")
    prompt = arguments.options.get("prompt")
    if "json" in arguments.options and prompt is None:
        raise BadRequest("--json needs --prompt TEXT: a conversation has no single result")
    talk = _conversation(Path(arguments.words[0]), arguments)
    if isinstance(prompt, str):
        return _once(talk, prompt, Console(json="json" in arguments.options))
    return _talk(talk)


def _conversation(path: Path, arguments: Arguments) -> Conversation | Dialogue:
    top_k = arguments.whole("top-k", 0) if "top-k" in arguments.options else None
    sampling = Sampling(
        temperature=arguments.number("temperature", 0.8, 0.0, 100.0),
        top_p=arguments.number("top-p", 0.95, 0.0, 1.0) or None,
        top_k=top_k,
    )
    max_tokens, seed = arguments.whole("max-tokens", 200), arguments.whole("seed", 0, least=0)
    device = processes.device_type(arguments.text("device", "auto"), 1)
    speaker = conversation.load(run_record.checkpoint_of(path), device)
    speaker.model = recursion.at(speaker.model, arguments.overrides)
    parameters = tinycore.count(speaker.model.config).parameters
    step = f", step {speaker.step:,}" if speaker.step is not None else ""
    sys.stderr.write(
        f"{speaker.directory}: {parameters:,} parameters{step}, context {speaker.context} tokens, on {device}\n"
    )
    if speaker.tokenizer.conventions.chat_template is None or "raw" in arguments.options:
        return Conversation(speaker, sampling, max_tokens, seed)
    return Dialogue(speaker, ChatTemplate(speaker.tokenizer), sampling, max_tokens, seed)


def _once(talk: Conversation | Dialogue, prompt: str, console: Console) -> int:
    """Print the answer, or the prompt and its continuation."""
    out = sys.stderr if console.json else sys.stdout
    pieces, start = talk.say(prompt), time.perf_counter()
    before = len(talk.ids)
    if isinstance(talk, Conversation):
        _print(prompt, out)
    text = ""
    with contextlib.suppress(KeyboardInterrupt):
        for piece in pieces:
            text += piece
            _print(piece, out)
    _print("\n", out)
    seconds, tokens = time.perf_counter() - start, len(talk.ids) - before
    console.result({"prompt": prompt, "text": text, "tokens": tokens, "seconds": seconds})
    return 0


def _talk(talk: Conversation | Dialogue) -> int:
    """Read a line, answer it, until the person leaves."""
    interactive = sys.stdin.isatty()
    if interactive:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  (line editing and history for input())
        manner = "A base model: it continues" if isinstance(talk, Conversation) else "A chat model: it answers"
        sys.stderr.write(f"{manner} what you write.\n{COMMANDS}\n")
    for line in _lines("\n> " if interactive else ""):
        command = line.strip()
        if command == "/quit":
            return 0
        if command == "/reset":
            talk.reset()
            sys.stderr.write(f"a new {'text' if isinstance(talk, Conversation) else 'conversation'}\n")
        elif re.fullmatch(r"/[a-z]+", command):
            unknown = "" if command == "/help" else f"no command {command}; there are\n"
            sys.stderr.write(f"{unknown}{COMMANDS}\n")
        elif line:
            _answer(talk, line)
    if interactive:
        sys.stderr.write("\n")
    return 0


def _lines(mark: str) -> Iterator[str]:
    while True:
        try:
            yield input(mark)
        except EOFError:
            return
        except KeyboardInterrupt:
            sys.stderr.write("\nCtrl-D or /quit leaves\n")


def _answer(talk: Conversation | Dialogue, line: str) -> None:
    try:
        pieces = talk.say(line)
    except BadRequest as error:
        sys.stderr.write(f"error: {error}\n")
        return
    if talk.forgot:
        sys.stderr.write("(the text has outgrown the context: its beginning is forgotten)\n")
    with contextlib.suppress(KeyboardInterrupt):
        for piece in pieces:
            _print(piece, sys.stdout)
    _print("\n", sys.stdout)


def _print(text: str, out: TextIO) -> None:
    """Show text at once; what a terminal would take for a command is made visible instead."""
    out.write(text.translate(_UNPRINTABLE) if out.isatty() else text)
    out.flush()


if __name__ == "__main__":
    command_line.main(run)
