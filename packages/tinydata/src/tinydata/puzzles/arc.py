"""Reader of ARC-AGI tasks (1911.01547): a few pairs of coloured grids that show a rule, and inputs to apply it to.

    one task      {"train": [{"input": grid, "output": grid}, ...], "test": [{"input": grid, "output": grid?}, ...]}
    a collection  {name: task, ...}, with the outputs of its tests in a file beside it: {name: [grid, ...], ...}
    grid          1 to 30 rows of 1 to 30 colours, each a whole number from 0 to 9

A path may name either file, or a folder of task files. Files are somebody else's: their size is bounded before they are
parsed, and whatever is not as above is refused in one line that says where.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinydata.puzzles.stream import PuzzleError

MAX_SIDE = 30
COLOURS = 10
MAX_FILE_BYTES = 8 * 2**20  # the largest published one has 4 MB; parsed, JSON takes up to 40 times as much
MAX_FILES = 10_000


@dataclass(frozen=True, eq=False)
class ArcPair:
    """input, output: (H, W) int8 of 0..9, each of its own size; output is None where it is kept secret."""

    input: np.ndarray
    output: np.ndarray | None


@dataclass(frozen=True, eq=False)
class ArcTask:
    """train: pairs that show the rule, all with outputs. test: pairs to solve."""

    name: str
    train: tuple[ArcPair, ...]
    test: tuple[ArcPair, ...]


def read_arc(path: str | Path, solutions: str | Path | None = None) -> dict[str, ArcTask]:
    """Every task of a file or a folder by its name: the key in a collection, else the file's name without suffix.

    solutions: the file with the outputs of a collection's tests. Raises PuzzleError for a file that is not as the module
    says, is larger than MAX_FILE_BYTES, or, with `solutions`, does not match it.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(path.glob("*.json"))
        if not 0 < len(files) <= MAX_FILES:
            raise PuzzleError(f"{path}: {len(files)} files that end in .json, expected 1 to {MAX_FILES}")
        if solutions is not None:
            raise PuzzleError(f"{path}: solutions go with a collection in one file, not with a folder")
        return {file.stem: _task(file.stem, _object(file), None, str(file)) for file in files}
    content = _object(path)
    if "train" in content or "test" in content:
        if solutions is not None:
            raise PuzzleError(f"{path}: solutions go with a collection of tasks, this is one task")
        return {path.stem: _task(path.stem, content, None, str(path))}
    if not content:
        raise PuzzleError(f"{path}: no task in it")
    outputs = None if solutions is None else _object(Path(solutions))
    tasks = {}
    for name, task in content.items():
        where = f"{path}: task {name[:40]!r}"
        if outputs is not None and not isinstance(outputs.get(name), list):
            raise PuzzleError(f"{where}: no list of outputs in {solutions}")
        tasks[name] = _task(name, task, None if outputs is None else outputs[name], where)
    return tasks


def checked_grid(value: object, where: str) -> np.ndarray:
    """Nested lists or an array -> (H, W) int8. Raises PuzzleError that begins with `where` unless it is a grid."""
    rows = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(rows, list) or not 1 <= len(rows) <= MAX_SIDE:
        raise PuzzleError(f"{where}: expected 1 to {MAX_SIDE} rows, got {_size(rows)}")
    width = len(rows[0]) if isinstance(rows[0], list) else 0
    for number, row in enumerate(rows):
        if not isinstance(row, list) or not 1 <= len(row) <= MAX_SIDE:
            raise PuzzleError(f"{where}: row {number}: expected 1 to {MAX_SIDE} colours, got {_size(row)}")
        if len(row) != width:
            raise PuzzleError(f"{where}: row {number} has {len(row)} colours, row 0 has {width}")
        for column, colour in enumerate(row):
            # bool is an int to Python; true is no colour.
            if type(colour) is not int or not 0 <= colour < COLOURS:
                raise PuzzleError(
                    f"{where}: row {number}, column {column} is not a whole number from 0 to {COLOURS - 1}"
                )
    return np.array(rows, dtype=np.int8)


def _task(name: str, task: object, outputs: list | None, where: str) -> ArcTask:
    if not isinstance(task, Mapping):
        raise PuzzleError(f"{where}: a task is an object with 'train' and 'test', got {_size(task)}")
    train, test = (_pairs(task, key, where) for key in ("train", "test"))
    for number, pair in enumerate(train):
        if pair.output is None:
            raise PuzzleError(f"{where}: train {number}: no output")
    if outputs is not None:
        if len(outputs) != len(test):
            raise PuzzleError(f"{where}: {len(test)} tests, {len(outputs)} solutions")
        test = tuple(
            ArcPair(pair.input, checked_grid(output, f"{where}: solution {number}"))
            for number, (pair, output) in enumerate(zip(test, outputs, strict=True))
        )
    return ArcTask(name, train, test)


def _pairs(task: Mapping, key: str, where: str) -> tuple[ArcPair, ...]:
    entries = task.get(key)
    if not isinstance(entries, list) or not entries:
        raise PuzzleError(f"{where}: {key!r} is not a list of pairs")
    pairs = []
    for number, entry in enumerate(entries):
        place = f"{where}: {key} {number}"
        if not isinstance(entry, dict) or "input" not in entry:
            raise PuzzleError(f"{place}: a pair is an object with 'input' and 'output'")
        output = entry.get("output")
        checked = None if output is None else checked_grid(output, f"{place}: output")
        pairs.append(ArcPair(checked_grid(entry["input"], f"{place}: input"), checked))
    return tuple(pairs)


def _object(path: Path) -> dict:
    """The JSON object in a file. Reads no more than the limit, whatever the file says of its size."""
    if not path.is_file():
        raise PuzzleError(f"{path}: no such file")
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise PuzzleError(f"{path}: cannot be read ({error.strerror})") from None
    if len(data) > MAX_FILE_BYTES:
        raise PuzzleError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise PuzzleError(f"{path}: not JSON") from None
    if not isinstance(content, dict):
        raise PuzzleError(f"{path}: not a JSON object")
    return content


def _size(value: object) -> str:
    return str(len(value)) if isinstance(value, list) else type(value).__name__
