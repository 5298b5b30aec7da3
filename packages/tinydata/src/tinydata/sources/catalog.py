"""Datasets of the hub by a short name: where they are, what their rows hold, how a row becomes a text, under which licence.

    source("tinystories").documents()         texts, of every entry that holds any
    pairs("orca-math").values()               (question, answer), of entries with questions
    conversations("smoltalk").values()        lists of ChatMessage, of entries with conversations

Names, columns and licences are those of the datasets' cards where nothing else is said; nothing here was downloaded by us, and
a card may change: `revision` pins a dataset. A licence is what the card says of the collection, texts in it may have others.
Two entries hold no texts, only where in the archive of Software Heritage they are: asking for their documents is one line that
says so. Everything in these datasets is a stranger's: no text is trusted with our tags.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, TypedDict, TypeVar, Unpack

from tinydata.chat import ChatMessage
from tinydata.chat_files import conversation_of
from tinydata.chat_format import CHAT_FORMATS
from tinydata.documents import SourceError
from tinydata.gsm8k import without_annotations
from tinydata.sources.counted import Skipped, checked
from tinydata.sources.hub import DataFiles, Hub, Row, RowText

Value = TypeVar("Value")
Pair = tuple[str, str]

_ELSEWHERE = (
    "it holds no texts, only ids of Software Heritage (blob_id): fetch content/<blob_id> of its bucket `softwareheritage` "
    "(gzip) into files and read those with `Files`"
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One dataset. columns: what is read of a row. pair, conversation: how a row is read as one, where it can be.

    note: what one must do or know before it can be read. texts: whether it holds any.
    """

    hub: str
    licence: str
    config: str | None = None
    split: str = "train"
    columns: tuple[str, ...] = ("text",)
    data_dir: str | None = None
    note: str = ""
    texts: bool = True
    pair: Callable[[Row], Pair | Skipped] | None = None
    conversation: Callable[[Row], list[ChatMessage] | Skipped] | None = None

    def text(self, row: Row) -> str | Skipped:
        """The row as one text: its column, question and answer one behind the other, or a conversation in the plain form."""
        if self.pair is not None:
            found = self.pair(row)
            return found if isinstance(found, Skipped) else "\n".join(found)
        if self.conversation is not None:
            messages = self.conversation(row)
            return messages if isinstance(messages, Skipped) else _plain(messages)
        return checked(row.get(self.columns[0]))


def _pair(question: str, answer: str) -> Callable[[Row], Pair | Skipped]:
    def read(row: Row) -> Pair | Skipped:
        found = []
        for value in (row.get(question), row.get(answer)):
            text = checked(value)
            if isinstance(text, Skipped):
                return text
            found.append(text.strip())
        return found[0], found[1]

    return read


def _gsm8k(row: Row) -> Pair | Skipped:
    """Without the calculator's annotations: `Gsm8k` reads those."""
    found = _pair("question", "answer")(row)
    return found if isinstance(found, Skipped) else (found[0], without_annotations(found[1]))


def _mbpp(row: Row) -> Pair | Skipped:
    """The task with its first test, which says what the function is called, and the program."""
    found = _pair("text", "code")(row)
    tests = row.get("test_list")
    if isinstance(found, Skipped) or not isinstance(tests, list) or not tests or not isinstance(tests[0], str):
        return found
    return f"{found[0]}\n{tests[0].strip()}", found[1].replace("\r\n", "\n")


def _plain(messages: list[ChatMessage]) -> str:
    form = CHAT_FORMATS["plain"]
    return "\n\n".join(
        f"{form.names['assistant' if message.role == 'tool' else message.role]}\n{message.text}" for message in messages
    )


CATALOG: Mapping[str, Entry] = MappingProxyType(
    {
        "gsm8k": Entry(hub="openai/gsm8k", config="main", columns=("question", "answer"), licence="MIT", pair=_gsm8k),
        "orca-math": Entry(
            hub="microsoft/orca-math-word-problems-200k",
            columns=("question", "answer"),
            licence="MIT",
            pair=_pair("question", "answer"),
        ),
        # columns and licence as users of it report them: the card itself was not verified
        "tinygsm": Entry(
            hub="TinyGSM/TinyGSM", columns=("question", "code"), licence="MIT", pair=_pair("question", "code")
        ),
        # the licence is the one that translations and annotations of it repeat: the card itself was not verified
        "tinystories": Entry(hub="roneneldan/TinyStories", licence="CDLA-Sharing-1.0"),
        # the licence is the one that subsets of it repeat; the sample's name was not verified
        "fineweb-edu": Entry(hub="HuggingFaceFW/fineweb-edu", config="sample-10BT", licence="ODC-By-1.0"),
        "smollm-fineweb-edu": Entry(
            hub="HuggingFaceTB/smollm-corpus", config="fineweb-edu-dedup", licence="ODC-By-1.0"
        ),
        "cosmopedia-v2": Entry(hub="HuggingFaceTB/smollm-corpus", config="cosmopedia-v2", licence="ODC-By-1.0"),
        # all columns but blob_id: not verified, and not read
        "smollm-python-edu": Entry(
            hub="HuggingFaceTB/smollm-corpus",
            config="python-edu",
            columns=("blob_id",),
            licence="ODC-By-1.0, the files their own",
            texts=False,
            note=_ELSEWHERE,
        ),
        "finemath": Entry(hub="HuggingFaceTB/finemath", config="finemath-3plus", licence="ODC-By-1.0"),
        "finemath-4plus": Entry(hub="HuggingFaceTB/finemath", config="finemath-4plus", licence="ODC-By-1.0"),
        "open-web-math": Entry(hub="open-web-math/open-web-math", licence="ODC-By-1.0"),
        "stack-edu": Entry(
            hub="HuggingFaceTB/stack-edu",
            config="Python",
            columns=("blob_id", "language", "repo_name", "path", "src_encoding", "length_bytes", "detected_licenses"),
            licence="those of the files (detected_licenses), and the terms of bigcode/the-stack-v2",
            texts=False,
            note=_ELSEWHERE,
        ),
        "starcoder": Entry(
            hub="bigcode/starcoderdata",
            data_dir="python",
            columns=("content",),
            licence="those of the files, permissive ones; terms of use on its card",
            note="gated: accept its terms on the hub and log in with `hf auth login` first",
        ),
        # its card names no licence: that of what Stack Overflow publishes
        "stackoverflow": Entry(
            hub="bigcode/stackoverflow-clean",
            columns=("content",),
            licence="none on its card; Stack Overflow's contents are CC-BY-SA",
        ),
        # the licence of the collection was not verified
        "smoltalk": Entry(
            hub="HuggingFaceTB/smoltalk",
            config="all",
            columns=("messages",),
            licence="Apache-2.0 for its new parts, those of older datasets their own",
            conversation=conversation_of,
        ),
        "mbpp": Entry(
            hub="google-research-datasets/mbpp",
            config="full",
            columns=("text", "code", "test_list"),
            licence="CC-BY-4.0",
            pair=_mbpp,
            note="train, validation, prompt: its test split is an evaluation",
        ),
    }
)


class Rows(Generic[Value]):
    """What a reader makes of the rows of a dataset, as often as it is asked for; `skipped` counts by reason, as sources do."""

    def __init__(self, hub: Hub, columns: tuple[str, ...], read: Callable[[Row], Value | Skipped]) -> None:
        self.name, self.hub = hub.name, hub
        self.skipped: dict[str, int] = {}
        self._columns, self._read = columns, read

    def values(self) -> Iterator[Value]:
        """Raises SourceError where the dataset cannot be read, and at the end if no row was usable."""
        self.skipped = {}
        usable = 0
        for row in self.hub.rows(self._columns):
            found = row if isinstance(row, Skipped) else self._read(row)
            if isinstance(found, Skipped):
                self.skipped[found.reason] = self.skipped.get(found.reason, 0) + 1
            else:
                usable += 1
                yield found
        if not usable:
            counts = ", ".join(f"{reason}: {count}" for reason, count in sorted(self.skipped.items()))
            raise SourceError(f"{self.name}: no usable row ({counts or 'no rows at all'})")


class Wanted(TypedDict, total=False):
    """What is read of a dataset, where it is not what the catalog says.

    config: another subset. data_files: where its files are on this machine; the hub is then not asked, and they are JSON lines
    or Parquet, by their names.
    """

    split: str | None
    streaming: bool
    revision: str | None
    config: str | None
    data_files: DataFiles | None


def entry(name: str) -> Entry:
    """Raises SourceError for a name that is not in the catalog."""
    if name not in CATALOG:
        raise SourceError(f"catalog: unknown dataset {name!r}, expected one of {', '.join(sorted(CATALOG))}")
    return CATALOG[name]


def source(name: str, **wanted: Unpack[Wanted]) -> Hub:
    """The texts of a dataset. Raises SourceError for an unknown name, and for a dataset without texts."""
    found = entry(name)
    if not found.texts:
        raise SourceError(f"catalog: {name} ({found.hub}): {found.note}")
    plain = found.pair is None and found.conversation is None
    column = found.columns[0] if plain else RowText(found.columns, found.text)
    return _hub(found, column, wanted)


def pairs(name: str, **wanted: Unpack[Wanted]) -> Rows[Pair]:
    """Questions with answers; see `source`. Raises SourceError also for an entry without questions."""
    found = entry(name)
    if found.pair is None:
        raise SourceError(f"catalog: {name} ({found.hub}) has no questions with answers")
    hub = _hub(found, found.columns[0], wanted)
    return Rows(hub, found.columns, found.pair)


def conversations(name: str, **wanted: Unpack[Wanted]) -> Rows[list[ChatMessage]]:
    """Conversations, checked as `Conversations` checks those of files; see `source`. Raises SourceError also for an entry
    without them."""
    found = entry(name)
    if found.conversation is None:
        raise SourceError(f"catalog: {name} ({found.hub}) has no conversations")
    hub = _hub(found, found.columns[0], wanted)
    return Rows(hub, found.columns, found.conversation)


def _hub(found: Entry, column: str | RowText, wanted: Wanted) -> Hub:
    data_files, split, streaming = wanted.get("data_files"), wanted.get("split"), wanted.get("streaming", True)
    if data_files is not None:
        first = data_files if isinstance(data_files, str) else next(iter(data_files))
        builder = "parquet" if str(first).endswith(".parquet") else "json"
        return Hub(builder, None, split or "train", column, streaming, data_files, licence=found.licence)
    return Hub(
        found.hub,
        wanted.get("config") or found.config,
        split or found.split,
        column,
        streaming,
        revision=wanted.get("revision"),
        data_dir=found.data_dir,
        licence=found.licence,
        note=found.note,
    )
