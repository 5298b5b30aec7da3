"""`uv run apps/pretrain`: from raw text to a trained, sampled, resumable model. Exit status: see apps.common.errors."""

from __future__ import annotations

import os
import sys

from apps.common import command_line, dry_run, launcher, processes
from apps.common.console import Console
from apps.common.errors import TrainingFailed
from apps.pretrain import session

MODULE = "apps.pretrain"


def run() -> int:
    """Do what the command line asks; the exit status."""
    return carry_out(command_line.parse("pretrain", sys.argv[1:]), MODULE, sys.argv[1:])


def carry_out(request: command_line.Request, module: str, arguments: list[str]) -> int:
    """Train what `request` asks for, in this process or in several that run `module` with the same arguments."""
    console = Console(json=request.json, main_process=os.environ.get("RANK", "0") == "0")
    if request.dry_run:
        return dry_run.show(request, console)
    if request.processes > 1 and not launcher.launched():
        # what every process would refuse is refused once, before any is started
        processes.device_type(request.device, request.processes)
        if request.resume is None:
            request.recipe.micro_batch(request.processes)
        return launcher.launch(module, arguments, request.processes)
    try:
        return session.pretrain(request, console)
    except TrainingFailed as error:
        sys.stderr.write(f"error: {error}\n")
        return error.status


if __name__ == "__main__":
    command_line.main(run)
