"""How the processes of a test end that belong to one group."""

from __future__ import annotations

import os
import time
from pathlib import Path

WAIT = 60.0  # seconds for the others to be done as well


def leave(folder: Path, rank: int, world: int) -> None:
    """End this process with status 0 once all `world` of them have come here, by a file of each in `folder`.

    Nothing is torn down: gloo's threads and destructors may abort a process (SIGABRT) whose peers are gone, although its work
    is done. Raises TimeoutError where another one does not come.
    """
    (folder / f"done-{world}-{rank}").touch()
    until = time.monotonic() + WAIT
    while not all((folder / f"done-{world}-{other}").exists() for other in range(world)):
        if time.monotonic() > until:
            raise TimeoutError(f"process {rank}: not all of {world} were done in {WAIT:g} s")
        time.sleep(0.02)
    os._exit(0)
