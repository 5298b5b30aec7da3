"""Runs apps/prepare in forked children, so that everything is imported once, and kills some of them on purpose.

Reads a job a line from stdin and answers with its result, a line on stdout. A job is {"argv": [...], "kill": n or null}, its
result {"code": exit code (negative: killed by that signal), "events": how many there were, "out": ..., "err": ...}. Events are
every write, fsync and rename of a file, every fsync of a shard, and every hundredth document that is read.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from typing import Any

from apps.common import command_line, files
from apps.common.spool import Spool
from apps.prepare import __main__ as prepare
from tinydata import packing

DOCUMENTS = 100  # that are read between two events


def main() -> None:
    for line in sys.stdin:
        sys.stdout.write(json.dumps(run(json.loads(line))) + "\n")
        sys.stdout.flush()


def run(job: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err, tempfile.TemporaryFile("w+") as told:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            live(job, told.fileno())
        _, status = os.waitpid(child, 0)
        for file in (out, err, told):
            file.seek(0)
        events = int(told.read() or 0)
        return {"code": os.waitstatus_to_exitcode(status), "events": events, "out": out.read(), "err": err.read()}


def live(job: dict[str, Any], told: int) -> None:
    """The whole life of a child; never returns."""
    events = documents = 0

    def happened() -> None:
        nonlocal events
        events += 1
        if events == job.get("kill"):
            os.kill(os.getpid(), signal.SIGKILL)

    def added(self: Spool, *arguments: Any) -> None:
        nonlocal documents
        documents += 1
        if documents % DOCUMENTS == 0:
            happened()
        add(self, *arguments)

    def flushed(file: Any) -> None:
        flush(file)
        happened()

    add, flush = Spool.add, packing._flush
    Spool.add, packing._flush = added, flushed
    files.probe = lambda event, path: happened()
    code = 70
    try:
        sys.argv = ["prepare", *job["argv"]]
        command_line.main(prepare.run)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(told, str(events).encode())
        os._exit(code)


if __name__ == "__main__":
    main()
