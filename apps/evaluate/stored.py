"""Results of tasks on disk, one file a task, so that what was found once is not computed again.

    RUN/evaluation/needle.json     {"format": 1, "asked": {...}, "results": tinyeval's document of results}

`asked` is all that determines a result: hash of the weights and the tokenizer, task, version and identity, seed, limit, tools,
votes, hash of a file that was named. A file whose `asked` differs, or that cannot be read, is not used and is written anew.
Tasks that were skipped are not stored: what they lacked may be there the next time.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps.common import checkpoints, files, run_record
from apps.common.errors import BadRequest, RunError
from tinyeval import Result, ResultError, Results, Task

FORMAT = 1
DIRECTORY = "evaluation"
SCORED = ("config.json", "model.safetensors", checkpoints.AVERAGE, "tokenizer.json")  # what a score depends on


@dataclass(frozen=True)
class Place:
    """What is evaluated, and where its results lie."""

    name: str
    checkpoint: Path
    sha256: str
    directory: Path


def place(path: Path) -> Place:
    """Of a run or a checkpoint. Raises RunError for what is neither.

    A run's results lie in RUN/evaluation, those of one of its checkpoints that was named itself in a folder of its own there.
    """
    checkpoint = run_record.checkpoint_of(path)
    files_of = files.read_json(checkpoint / "manifest.json").get("files")
    if not isinstance(files_of, dict):
        raise RunError(f"{checkpoint / 'manifest.json'}: lists no files")
    parts = {name: entry.get("sha256") for name, entry in files_of.items() if name in SCORED}
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    directory = path / DIRECTORY
    if path == checkpoint and path.absolute().parent.name == "checkpoints":
        directory = path.absolute().parents[1] / DIRECTORY / path.name
    return Place(path.resolve().name, checkpoint, digest, directory)


def asked(
    where: Place, task: Task, limit: int | None, seed: int, tools: bool, file: Path | None, votes: int = 1
) -> dict[str, Any]:
    """All that determines a result. Raises BadRequest for a file that cannot be read."""
    digest = None
    if file is not None:
        try:
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
        except OSError as error:
            raise BadRequest(f"--files: {file}: cannot be read ({error.strerror})") from None
    return {
        "checkpoint": where.sha256,
        "task": task.name,
        "version": task.version,
        "identity": task.identity,
        "limit": limit,
        "seed": seed,
        "tools": tools,
        "file": digest,
        **({} if votes == 1 else {"votes": votes}),
    }


def find(where: Place, wanted: dict[str, Any], any_limit: bool = False) -> Result | None:
    """The stored result of what is `wanted`; None where there is none. any_limit: with as many items as it may have."""
    task = str(wanted["task"])
    path = where.directory / f"{task}.json"
    if not path.is_file():
        return None
    try:
        document = files.read_json(path)
        found = document.get("asked")
        if not isinstance(found, dict) or document.get("format") != FORMAT:
            return None
        if any_limit:
            found, wanted = {**found, "limit": None}, {**wanted, "limit": None}
        if found != wanted:
            return None
        return Results.from_json(json.dumps(document["results"]))[task]
    except (RunError, ResultError, KeyError):
        return None  # damaged: it is evaluated again


def keep(where: Place, wanted: dict[str, Any], result: Result) -> None:
    """Store a result. Raises RunError on a full disk."""
    where.directory.mkdir(parents=True, exist_ok=True)
    document = {
        "format": FORMAT,
        "asked": wanted,
        "results": json.loads(Results({result.task: result}).to_json()),
    }
    files.write_json(where.directory / f"{result.task}.json", document)
