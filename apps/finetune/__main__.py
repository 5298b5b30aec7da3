"""`uv run apps/finetune RUN`: a trained model learns to answer problems, with tools where its tokenizer has their tags.

Everything apps/pretrain promises holds: it is the same session, with the weights, the model and the tokenizer of RUN.
Exit status: see apps.common.errors.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from apps.common import command_line, run_record, strict_yaml
from apps.common.errors import BadRequest
from apps.pretrain.__main__ import carry_out

DIRECTORY = Path(__file__).parent
DEFAULT = "arithmetic"
USAGE = "give a trained run or checkpoint first: uv run apps/finetune runs/demo [--recipe arithmetic|gsm8k|FILE]"


def run() -> int:
    """Do what the command line asks; the exit status."""
    arguments = sys.argv[1:]
    if "--help" in arguments or "-h" in arguments:
        request = command_line.parse("finetune", ["--help"], DEFAULT, lambda name: _base(name, None))
    elif arguments and not arguments[0].startswith("-"):
        origin, rest = Path(arguments[0]), arguments[1:]
        request = command_line.parse(
            "finetune", [*rest, "--init-from", str(origin)], DEFAULT, lambda name: _base(name, origin)
        )
    elif any(argument.partition("=")[0] == "--resume" for argument in arguments):
        request = command_line.parse("finetune", arguments, DEFAULT)
    else:
        raise BadRequest(USAGE)
    return carry_out(request, "apps.finetune", arguments)


def _base(name: str | None, origin: Path | None) -> tuple[str, dict[str, Any]]:
    """The recipe's mapping with the model of `origin`; of the demo where there is none, to print what can be set."""
    asked = DEFAULT if name is None else name
    path = Path(asked) if asked.endswith((".yaml", ".yml")) else DIRECTORY / f"{asked}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(entry.stem for entry in DIRECTORY.glob("*.yaml")))
        raise BadRequest(f"unknown recipe {asked!r}; there are {known}, and files that end in .yaml")
    mapping = strict_yaml.read(path)
    if "model" in mapping:
        raise BadRequest(f"{path}: names a model, and fine-tuning keeps that of the weights; leave it out")
    from apps.common import recipes
    from tinycore.checkpoint import load_config

    model = recipes.read("demo")["model"] if origin is None else load_config(run_record.checkpoint_of(origin)).to_dict()
    return path.stem, {**mapping, "model": model}


if __name__ == "__main__":
    command_line.main(run)
