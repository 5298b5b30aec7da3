"""Any dataset that the `datasets` library can load: by its name on the Hugging Face hub, or from local data files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinydata.documents import SourceError
from tinydata.sources.counted import NOT_UTF8, CountedSource, Skipped
from tinydata.sources.files import fingerprint
from tinydata.sources.formats import arrow_records

if TYPE_CHECKING:
    import datasets
    import pyarrow

DataFiles = str | Sequence[str] | Mapping[str, str | Sequence[str]]

Row = Mapping[str, Any]

# Rows that are decoded together. Small, because a row may hold a whole book.
_BATCH_ROWS = 64


@dataclass(frozen=True)
class RowText:
    """A text that is made of several columns: which ones, and how; what cannot be used is `Skipped`."""

    columns: tuple[str, ...]
    text: Callable[[Row], str | Skipped]


class Hub(CountedSource):
    """The texts in one column of one split of a dataset, in the dataset's order.

    `name` is a hub name such as "HuggingFaceFW/fineweb-edu", or a builder such as "json" with `data_files`; `config`
    is its subset, `data_dir` a folder in it, `revision` a branch, tag or commit: give a commit where a run must be
    repeatable. Instead of a column's name, `column` may be a `RowText`. `licence` is what its card says; `note`, such as
    how to get access, ends the line of a dataset that cannot be loaded. With `streaming`
    nothing is stored on disk; without it the dataset is downloaded to the library's cache first. Code that comes with
    a dataset is never run.

    Skipped and counted in `.skipped`: "empty", "not utf-8", "null characters", "not text" (no value included). Raises
    SourceError, while iterating, for a dataset that cannot be reached or found, an unknown config, split or column (naming
    those there are), a stream that breaks off, and a split without a usable document.
    """

    def __init__(
        self,
        name: str,
        config: str | None = None,
        split: str = "train",
        column: str | RowText = "text",
        streaming: bool = True,
        data_files: DataFiles | None = None,
        revision: str | None = None,
        data_dir: str | None = None,
        licence: str | None = None,
        note: str = "",
    ) -> None:
        super().__init__(name if config is None else f"{name}/{config}")
        self.dataset_name = name
        self.config = config
        self.split = split
        self.column = column
        self.streaming = streaming
        self.data_files = data_files
        self.revision = revision
        self.data_dir = data_dir
        self.licence = licence
        self.note = note

    def records(self) -> Iterator[object]:
        if isinstance(self.column, RowText):
            for row in self.rows(self.column.columns):
                yield row if isinstance(row, Skipped) else self.column.text(row)
            return
        for table in self._tables((self.column,)):
            for values in table.column(self.column).chunks:
                yield from arrow_records(values)

    def rows(self, columns: Sequence[str]) -> Iterator[Row | Skipped]:
        """These columns of every row, as Python values; a row with a text that is not UTF-8 is `Skipped`."""
        for table in self._tables(columns):
            try:
                yield from table.to_pylist()
            except UnicodeDecodeError:
                for number in range(table.num_rows):
                    try:
                        yield from table.slice(number, 1).to_pylist()
                    except UnicodeDecodeError:
                        yield NOT_UTF8

    def description(self) -> dict[str, object]:
        """Kind, parameters, and the size and sha256 of data files that are on this machine."""
        return {
            "kind": "hub",
            "name": self.dataset_name,
            "licence": self.licence or "unknown: see the dataset's card",
            "config": self.config,
            "split": self.split,
            "column": list(self.column.columns) if isinstance(self.column, RowText) else self.column,
            "revision": self.revision,
            **({} if self.data_dir is None else {"data_dir": self.data_dir}),
            "data_files": [
                fingerprint(Path(path)) if Path(path).is_file() else {"name": path} for path in self._paths()
            ],
        }

    def _paths(self) -> list[str]:
        groups = self.data_files.values() if isinstance(self.data_files, Mapping) else [self.data_files or []]
        return list(chain.from_iterable([group] if isinstance(group, str) else group for group in groups))

    def _load(self) -> datasets.Dataset | datasets.IterableDataset:
        import datasets  # two seconds, which only those pay who use it

        try:
            loaded = datasets.load_dataset(
                self.dataset_name,
                self.config,
                split=self.split,
                streaming=self.streaming,
                data_files=self.data_files,
                data_dir=self.data_dir,
                revision=self.revision,
            )
        except Exception as error:  # the library passes on whatever its builders and its HTTP client raise
            note = f" ({self.note})" if self.note else ""
            raise SourceError(f"dataset {self.name}: cannot be loaded: {_first_line(error)}{note}") from error
        if not isinstance(loaded, datasets.Dataset | datasets.IterableDataset):
            raise SourceError(f"dataset {self.name}: split {self.split!r} is not one split: name a single one")
        return loaded

    def _tables(self, columns: Sequence[str]) -> Iterator[pyarrow.Table]:
        """These columns in batches of rows.

        Arrow tables instead of Python rows: a text that is not UTF-8 costs itself, not the rest of the stream.
        """
        dataset = self._load()
        self._check_columns(columns, dataset.column_names)
        if dataset.column_names is not None:
            dataset = dataset.select_columns(list(columns))
        batches = iter(dataset.with_format("arrow").iter(batch_size=_BATCH_ROWS))
        while True:
            try:
                table = next(batches, None)
            except Exception as error:  # as above; what was read so far is not the dataset, so nothing is kept of it
                raise SourceError(f"dataset {self.name}: reading broke off: {_first_line(error)}") from error
            if table is None:
                return
            self._check_columns(columns, table.column_names)
            yield table

    def _check_columns(self, wanted: Sequence[str], columns: list[str] | None) -> None:
        missing = next((name for name in wanted if columns is not None and name not in columns), None)
        if columns is not None and missing is not None:
            raise SourceError(
                f"dataset {self.name}: no column {missing!r} in split {self.split!r}, only "
                f"{', '.join(sorted(columns))}: choose one with `column`"
            )


def _first_line(error: BaseException) -> str:
    """The first line of the root cause: the library wraps the useful message in general ones."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
