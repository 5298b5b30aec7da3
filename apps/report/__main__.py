"""`uv run apps/report runs/demo`: (re)write a run's report; with several runs, lay them over each other."""

from __future__ import annotations

import sys
from pathlib import Path

from apps.common import command_help, command_line, comparison, report, run_record
from apps.common.command_line import Grammar, Option
from apps.common.console import Console
from apps.common.errors import BadRequest

OPTIONS = {
    "out": Option("where a comparison is written (default: runs/comparison)", "DIR"),
    "json": command_line.JSON,
    "help": command_line.HELP,
}
EXAMPLES = (
    ("one run, finished or not", "uv run apps/report runs/demo"),
    ("several over each other", "uv run apps/report runs/demo runs/mine --out runs/comparison"),
)


def run() -> int:
    """Do what the command line asks; the exit status."""
    arguments = command_line.take_apart(sys.argv[1:], Grammar(OPTIONS, words="RUN"))
    if "help" in arguments.options:
        summary = "Write the report of a run from its files; given several runs, compare them by tokens."
        command_help.print_app_help("report", summary, "RUN...", OPTIONS, EXAMPLES)
        return 0
    paths = [Path(word) for word in arguments.words]
    if not paths:
        raise BadRequest("give one or more runs to report on, such as runs/demo")
    if len({path.resolve() for path in paths}) < len(paths):
        raise BadRequest("the same run is given twice")
    if len(paths) == 1 and arguments.path("out"):
        raise BadRequest("--out is for comparisons: the report of one run is written into its own directory")
    console = Console(json="json" in arguments.options)
    written = [report.write(path) for path in paths]
    records = [run_record.read(path) for path in paths]
    for record in records:
        if record.damaged:
            console.warn(f"{record.path}: unreadable log lines, left out: {record.damaged}")
    console.columns(comparison.COLUMNS, comparison.rows(records))
    caveats = comparison.caveats(records)
    for caveat in caveats:
        console.warn(caveat)
    if len(records) > 1:
        written = [comparison.write(records, arguments.path("out") or Path("runs/comparison"))]
    console.say(f"results: {written[-1]}")
    if len(records) == 1:
        console.say(f"next: uv run apps/chat {records[0].path}")
    console.result(
        {
            "report": str(written[-1]),
            "runs": [
                {
                    "run": str(record.path),
                    "status": record.status.get("status"),
                    "parameters": record.parameters,
                    "step": record.metrics[-1]["step"] if record.metrics else 0,
                    "val_bpb": record.last("val_bpb"),
                    "val_loss": record.last("val_loss"),
                    "damaged_lines": record.damaged,
                }
                for record in records
            ],
            "caveats": caveats,
        }
    )
    return 0


if __name__ == "__main__":
    command_line.main(run)
