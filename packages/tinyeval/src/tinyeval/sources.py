"""Where a task's items come from: a generator, a file, a file inside an installed package, or the Hugging Face hub.

No foreign data is copied into this repository. What cannot be had raises `Unavailable` with its remedy; evaluate turns that
into a result that says "skipped", never into a score. A file that the user names stands in for any dataset of its format.
"""

from __future__ import annotations

import gzip
import json
import os
import socket
import urllib.request
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlsplit

import numpy as np

from tinyeval.formats import FORMATS
from tinyeval.generators import GENERATORS
from tinyeval.items import DataError, Item, Unavailable
from tinyeval.strict_yaml import TaskError
from tinyeval.task import Task, nearest

Generator = Callable[..., Iterable[Item]]
"""generator(seed=, items=, **options) -> items, the same for the same arguments."""


MOST = 2**26  # characters


def items_of(
    task: Task,
    *,
    limit: int | None = None,
    seed: int = 0,
    files: Mapping[str, Path] | None = None,
    generators: Mapping[str, Generator] | None = None,
) -> list[Item]:
    """The items of ``task``; with ``limit`` a sample of so many, drawn by ``seed``, in their order.

    files: task name -> a file with its data. generators: name -> generator, beside `tinyeval.generators.GENERATORS`.
    Raises Unavailable, DataError for data that is damaged, and TaskError for a dataset that no task can have.
    """
    dataset = task.dataset
    named = (files or {}).get(task.name)
    if dataset["kind"] == "generated" and named is None:
        found = _generated(task, seed, {**GENERATORS, **(generators or {})})
    else:
        found = _items(task, _named_rows(task, named) if named is not None else _READERS[dataset["kind"]](task))
        if dataset["kind"] != "generated":
            found = _chosen(found, dataset)
    found = _sample(found, limit, seed)
    if not found:
        raise DataError(f"task {task.name}: its data holds no item")
    seen: set[str] = set()
    for item in found:
        if item.id in seen:
            raise DataError(f"task {task.name}: two items have the id {item.id!r}")
        seen.add(item.id)
    return found


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSONL or JSON file (a list of rows, or a mapping as rows of key and value), gzipped or not, or of Parquet.

    A file is a stranger's: no line, and no file of JSON, may have more than MOST characters. Raises Unavailable for a file that
    is not there, DataError for one that is not of its kind, damaged or too large.
    """
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    try:
        if suffixes[-1:] == [".parquet"]:
            yield from _parquet(path)
            return
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            rows = _whole(_bounded(lines)) if suffixes[-1:] == [".json"] else _lines(lines)
            for number, row in enumerate(rows, start=1):
                if not isinstance(row, dict):
                    raise DataError(f"{path}: row {number} is no mapping")
                yield row
    except FileNotFoundError:
        raise Unavailable(f"{path}: there is no such file") from None
    except OSError as error:
        raise Unavailable(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, TypeError, EOFError, RecursionError, zlib.error) as error:
        if isinstance(error, DataError):
            raise
        kind = suffixes[-1] if suffixes else "JSONL"
        raise DataError(f"{path}: not readable as {kind}: {' '.join(str(error).split())}") from None


def _lines(lines: TextIO) -> Iterator[Any]:
    while line := _bounded(lines, line=True):
        if line.strip():
            yield json.loads(line)


def _bounded(lines: TextIO, line: bool = False) -> str:
    """All of a file, or its next line; "" at the end. Raises ValueError for more than MOST characters."""
    found = lines.readline(MOST + 1) if line else lines.read(MOST + 1)
    if len(found) > MOST:
        raise ValueError(f"more than {MOST:,} characters in {'a line' if line else 'a file'}")
    return found


def _whole(text: str) -> list[Any]:
    found = json.loads(text)
    return [{"key": key, "value": value} for key, value in found.items()] if isinstance(found, dict) else list(found)


def _named_rows(task: Task, path: Path) -> Iterator[dict[str, Any]]:
    if "format" not in task.dataset and task.dataset["kind"] != "generated":
        raise TaskError(f"task {task.name}: has no format to read a file by")
    return read_rows(Path(path))


def _generated(task: Task, seed: int, generators: Mapping[str, Generator]) -> list[Item]:
    options = {key: value for key, value in task.dataset.items() if key not in ("kind", "generator", "items")}
    name = task.dataset["generator"]
    if name not in generators:
        raise Unavailable(
            f"task {task.name}: needs the generator {name!r}; pass generators={{{name!r}: ...}} (apps/evaluate does)"
        )
    try:
        return list(generators[name](seed=seed, items=task.dataset["items"], **options))
    except (TypeError, ValueError) as error:
        raise TaskError(f"task {task.name}: generator {name}: {' '.join(str(error).split())}") from None


def _file(task: Task) -> Iterator[dict[str, Any]]:
    if "path" not in task.dataset:
        raise Unavailable(f"task {task.name}: needs a file of format {task.dataset['format']}; name one for it")
    return read_rows(Path(task.dataset["path"]))


def _wheel(task: Task) -> Iterator[dict[str, Any]]:
    distribution, inside = task.dataset["distribution"], task.dataset["path"]
    try:
        path = Path(str(metadata.distribution(distribution).locate_file(inside)))
    except metadata.PackageNotFoundError:
        raise Unavailable(
            f"task {task.name}: its data is inside the package {distribution}; pip install {distribution}"
        ) from None
    if not path.is_file():
        version = metadata.version(distribution)
        raise Unavailable(f"task {task.name}: {distribution} {version} has no file {inside}; install another version")
    return read_rows(path)


def _hub(task: Task) -> Iterator[dict[str, Any]]:
    where = task.dataset["path"]
    remedy = f"name a file of format {task.dataset['format']} for it"
    if not hub_reachable():
        raise Unavailable(
            f"task {task.name}: {where} is on the hub, which cannot be reached; {remedy}, or set HF_HUB_OFFLINE=1 for what is "
            "cached"
        )
    try:
        import datasets  # two seconds, which only those pay who use it
    except ImportError:
        raise Unavailable(
            f"task {task.name}: {where} is on the hub, which takes the library datasets; pip install datasets, or {remedy}"
        ) from None
    config, split = task.dataset.get("config"), task.dataset["split"]
    revision = task.dataset.get("revision")
    try:
        configs = config if isinstance(config, list) else [config]
        if config == "*":
            configs = datasets.get_dataset_config_names(where, revision=revision)
        rows = []
        for one in configs:
            rows.extend(datasets.load_dataset(where, one, split=split, revision=revision))
    except Exception as error:  # the library passes on whatever its builders and its HTTP client raise
        while error.__cause__ is not None:
            error = error.__cause__
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise Unavailable(f"task {task.name}: {where} cannot be loaded from the hub ({reason}); {remedy}") from None
    return iter(rows)


@lru_cache(maxsize=1)
def hub_reachable() -> bool:
    """Whether the hub's name can be looked up: without it the library tries for half a minute before it says so."""
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") or urllib.request.getproxies():
        return True  # it looks into its cache, or the proxy looks names up
    host = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co").hostname
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True


_READERS: Mapping[str, Callable[[Task], Iterator[dict[str, Any]]]] = {"file": _file, "wheel": _wheel, "hub": _hub}


def _items(task: Task, rows: Iterable[Mapping[str, Any]]) -> list[Item]:
    name = task.dataset.get("format", "items")
    if name not in FORMATS:
        raise TaskError(f"task {task.name}: unknown format {name!r}; {nearest(name, list(FORMATS))}")
    found: list[Item] = []
    for number, row in enumerate(rows, start=1):
        try:
            found.extend(FORMATS[name](row, f"{task.name}-{number}"))
        except KeyError as error:
            raise DataError(f"task {task.name}: row {number} of format {name} has no column {error}") from None
        except (TypeError, ValueError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"task {task.name}: row {number} is not of format {name}: {reason}") from None
    return found


def _chosen(found: list[Item], dataset: Mapping[str, Any]) -> list[Item]:
    """What a dataset's `only`, `first` and `joined` leave of its items, in this order."""
    for key, values in dataset.get("only", {}).items():
        found = [item for item in found if item.meta.get(key) in values]
    found = found[: dataset.get("first")]
    if dataset.get("joined") and found:
        return [Item("whole", "".join(item.prompt for item in found))]
    return found


def _sample(found: list[Item], limit: int | None, seed: int) -> list[Item]:
    if limit is None or limit >= len(found):
        return found
    kept = np.random.default_rng(seed).choice(len(found), limit, replace=False)
    return [found[index] for index in sorted(kept.tolist())]


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow.parquet
    except ImportError:
        raise Unavailable(f"{path}: reading Parquet takes the library pyarrow; pip install pyarrow") from None
    if not path.is_file():
        raise FileNotFoundError(path)
    yield from pyarrow.parquet.read_table(path).to_pylist()
