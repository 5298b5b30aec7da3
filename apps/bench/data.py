"""`uv run apps/bench data`: the rates that feed a run, beside what they should be: tokenizing, loading, verified problems.

    tokenizing   text through our path (pieces, groups, arrays of ids) beside `tokenizers` alone on the same texts: its
                 encode_batch, which the goal speaks of, and its encode_batch_fast, which keeps no places of the tokens
    loading      tokens a second of a loader over shards that are in memory, batches assembled in the thread that asks for them
    problems     word problems a second, each made and then read and verified by `exercise_check`, which shares nothing with it

Wall-clock seconds are what one waits; seconds of the processor are told beside them, since a machine that does other things at
the same time makes only the former longer. Tokenizers use the cores that the library takes (RAYON_NUM_THREADS); the rest is one
thread. Everything that is timed is checked before: the same ids, batches that hold what they say, no fault.
"""

from __future__ import annotations

import itertools
import os
import shlex
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from apps.bench import results
from apps.bench.rounds import Spread, ratio, spread
from apps.common import command_help
from apps.common.command_line import HELP, Grammar, Option, take_apart
from apps.common.console import Console
from apps.common.errors import TrainingFailed
from apps.common.markdown import table
from tinydata import Document, Loader, Tokenizer, pack, train_tokenizer
from tinydata.sources import EmbeddedCorpus
from tinydata.synthetic.exercise_check import exercise_fault
from tinydata.synthetic.exercises import exercises

OPTIONS = {
    "kilobytes": Option("text that is tokenized and loaded (default: 8192)", "N"),
    "problems": Option("word problems of a round (default: 5000)", "N"),
    "rounds": Option("times that each is timed, after one that is not counted (default: 5)", "N"),
    "json": Option("write the figures, with the machine they were measured on, to a file", "FILE"),
    "help": HELP,
}
EXAMPLES = (
    ("all three", "uv run apps/bench data"),
    ("a quick look", "uv run apps/bench data --kilobytes 500 --problems 500 --rounds 2"),
)
GOALS = {"tokenizing": 0.9, "loading": 20e6, "problems": 5000.0}
PARTS = (("code", "prose"), ("stories",), ("arithmetic",))
VOCABULARY = 8192
SEQUENCE_LENGTH = 512
ROWS = 32


def main(argv: Sequence[str]) -> int:
    """Measure what `argv` asks for and print it; the exit status."""
    arguments = take_apart(argv, Grammar(OPTIONS))
    if "help" in arguments.options:
        command_help.print_app_help("bench", __doc__ or "", "data", OPTIONS, EXAMPLES)
        return 0
    console, rounds = Console(), arguments.whole("rounds", 5)
    documents = _documents(arguments.whole("kilobytes", 8192) * 2**10)
    tokenizer = train_tokenizer(documents[: max(1, len(documents) // 4)], VOCABULARY)
    found: dict[str, Any] = {}
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        found["tokenizing"] = _tokenizing(documents, tokenizer, rounds, rows)
        found["loading"] = _loading(documents, tokenizer, Path(folder), rounds, rows)
    found["problems"] = _problems(arguments.whole("problems", 5000), rounds, rows)
    found["threads"] = os.environ.get("RAYON_NUM_THREADS", str(os.cpu_count()))
    console.say(table(("rate", "a second", "a second of the processor", "goal", "reached"), rows))
    target = arguments.path("json")
    if target is not None:
        results.write(target, shlex.join(["uv", "run", "apps/bench", "data", *argv]), found)
        console.say(f"\nwritten to {target}")
    return 0


def _documents(size: int) -> list[Document]:
    """Texts of the embedded corpus, one of each group of its parts in turn, of `size` bytes."""
    groups = [EmbeddedCorpus(parts=parts, synthetic_documents=100_000, seed=0).documents() for parts in PARTS]
    found, total = [], 0
    for turn in itertools.zip_longest(*groups):
        for document in filter(None, turn):
            # The library knows no trust: what is compared is how plain texts are encoded.
            found.append(Document(document.text, document.source))
            total += len(document.text.encode())
        if total >= size:
            break
    return found


class _Clock:
    """Seconds of the wall and of the processor (all threads of this process) that calls took."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.processor: list[float] = []

    def time(self, call: Callable[[], object]) -> None:
        wall, processor = time.perf_counter(), time.process_time()
        call()
        self.wall.append(time.perf_counter() - wall)
        self.processor.append(time.process_time() - processor)

    def rates(self, count: float) -> tuple[Spread, Spread]:
        """`count` a second, of either kind."""
        return spread([count / second for second in self.wall]), spread([count / second for second in self.processor])


def _timed(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, _Clock]:
    """Every call in every round, in turn and every second round backwards; the first round is not counted."""
    for call in calls.values():
        call()
    clocks = {name: _Clock() for name in calls}
    for number in range(rounds):
        for name in list(calls)[:: -1 if number % 2 else 1]:
            clocks[name].time(calls[name])
    return clocks


def _tokenizing(
    documents: list[Document], tokenizer: Tokenizer, rounds: int, rows: list[tuple[str, ...]]
) -> dict[str, Any]:
    texts = [document.text for document in documents]
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder)
        library = tokenizers.Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    library.encode_special_tokens = True
    ours = tokenizer.encode_arrays(texts)
    alone = [encoding.ids for encoding in library.encode_batch(texts, add_special_tokens=False)]
    if [ids.tolist() for ids in ours] != alone:
        raise TrainingFailed("tokenizing: both give other ids; nothing was timed")
    tokens = sum(map(len, alone))
    clocks = _timed(
        {
            "ours": lambda: tokenizer.encode_arrays(texts),
            "library": lambda: library.encode_batch(texts, add_special_tokens=False),
            "library, fast": lambda: library.encode_batch_fast(texts, add_special_tokens=False),
        },
        rounds,
    )
    found: dict[str, Any] = {"tokens": tokens, "goal": GOALS["tokenizing"]}
    for name, clock in clocks.items():
        wall, processor = clock.rates(tokens)
        found[name] = {"tokens_per_second": wall.to_dict(), "tokens_per_processor_second": processor.to_dict()}
        rows.append((f"tokenizing, {name}", f"{wall.median:,.0f}", f"{processor.median:,.0f}", "", ""))
    for name in ("library", "library, fast"):
        wall, processor = (
            ratio(getattr(clocks[name], kind), getattr(clocks["ours"], kind)) for kind in ("wall", "processor")
        )
        found[name]["ratio"] = {"wall": wall.to_dict(), "processor": processor.to_dict()}
        goal = GOALS["tokenizing"] if name == "library" else None
        ends = ("", "") if goal is None else (f"{goal:.2f}", _reached(wall.median, processor.median, goal))
        rows.append((f"tokenizing, ours : {name}", wall.shown(), processor.shown(), *ends))
    return found


def _loading(
    documents: list[Document], tokenizer: Tokenizer, folder: Path, rounds: int, rows: list[tuple[str, ...]]
) -> dict[str, Any]:
    shards = pack(documents, tokenizer, folder / "shards")
    loader = Loader(shards, SEQUENCE_LENGTH, ROWS, prefetch=0)
    batches = max(1, loader.rows // ROWS)
    seen = sum(batch.target_count for batch in itertools.islice(loader, batches))
    if not 0 < seen <= batches * ROWS * SEQUENCE_LENGTH:
        raise TrainingFailed("loading: batches do not hold what they say; nothing was timed")
    slots = batches * ROWS * SEQUENCE_LENGTH
    (clock,) = _timed({"loading": lambda: sum(1 for _ in itertools.islice(loader, batches))}, rounds).values()
    return _rate("loading", slots, clock, rows) | {"rows": ROWS, "sequence_length": SEQUENCE_LENGTH, "batches": batches}


def _problems(count: int, rounds: int, rows: list[tuple[str, ...]]) -> dict[str, Any]:
    def made() -> int:
        faults = (exercise_fault(one.question, one.solution("calculator")) for one in exercises(0, count))
        return sum(fault is not None for fault in faults)

    if made():
        raise TrainingFailed("problems: one is refused by its check; nothing was timed")
    (clock,) = _timed({"problems": made}, rounds).values()
    return _rate("problems", count, clock, rows)


def _rate(name: str, count: int, clock: _Clock, rows: list[tuple[str, ...]]) -> dict[str, Any]:
    wall, processor = clock.rates(count)
    goal = GOALS[name]
    reached = _reached(wall.median, processor.median, goal)
    rows.append((name, wall.shown(",.0f"), f"{processor.median:,.0f}", f"{goal:,.0f}", reached))
    return {
        "count": count,
        "per_second": wall.to_dict(),
        "per_processor_second": processor.to_dict(),
        "goal": goal,
    }


def _reached(wall: float, processor: float, goal: float) -> str:
    if wall >= goal:
        return "yes"
    return f"no, {wall / goal:.0%}" + (" (by the processor's: yes)" if processor >= goal else "")
