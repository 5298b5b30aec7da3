"""What prepared data are made of, in numbers: documents by source, how long they are, what is repeated, and examples."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from apps.common import loaders, phases
from apps.common.data import Prepared
from apps.common.data_config import TextData
from apps.common.problems import PreparedProblems
from apps.common.puzzles import PreparedPuzzles
from apps.common.recipe import Recipe
from apps.common.synthetic_text import GENERATORS, REFUSED
from apps.common.tasks import Prepared as AnyPrepared
from apps.common.verdicts import PreparedVerdicts
from tinydata import CurriculumLoader, ShardSet, Tokenizer
from tinydata.puzzles import Boards

EXAMPLES = 2  # of each group
EXAMPLE_TOKENS = 160
MOMENTS = 2000  # of the run at which shares are taken, to integrate them


@dataclass(frozen=True)
class Group:
    """Documents of one source, or problems of one kind. lengths: tokens of each (N,); share: of all tokens that there are;
    drawn: of those that a run learns from, where a mixture says so; passes: how often the run sees them then."""

    name: str
    lengths: np.ndarray
    share: float
    size: int
    repeated: int
    examples: list[str]
    licence: str = ""
    learned: int | None = None
    drawn: float | None = None
    passes: float | None = None
    dropped: int = 0

    @property
    def documents(self) -> int:
        return len(self.lengths)

    @property
    def tokens(self) -> int:
        return int(self.lengths.sum())

    def quantile(self, share: float) -> int:
        """The length that so many of the documents do not exceed."""
        return int(np.quantile(self.lengths, share, method="inverted_cdf")) if len(self.lengths) else 0

    def plain(self) -> dict[str, Any]:
        """The numbers, for --json."""
        return {
            "documents": self.documents,
            "tokens": self.tokens,
            "bytes": self.size,
            "share": self.share,
            "repeated": self.repeated,
            **({"drawn": self.drawn, "passes": self.passes} if self.drawn is not None else {}),
            **({"learned": self.learned} if self.learned is not None else {}),
        }


@dataclass(frozen=True)
class Figures:
    """what: of what there are so many; facts: the rest, by name; skipped: by source and reason; depths: of each stage of a
    curriculum, {depth: problems that a run learns from}."""

    what: str
    groups: list[Group]
    facts: dict[str, str]
    skipped: dict[str, dict[str, int]] = field(default_factory=dict)
    depths: list[dict[float, int]] = field(default_factory=list)


def of(recipe: Recipe, prepared: AnyPrepared) -> Figures:
    """Everything is counted from what was prepared, not from what was said while it was."""
    if isinstance(prepared, PreparedPuzzles):
        return _of_puzzles(prepared)
    if isinstance(prepared, PreparedProblems):
        return _of_problems(recipe, prepared)
    if isinstance(prepared, PreparedVerdicts):
        return _of_verdicts(prepared)
    return _of_text(recipe, prepared)


def _of_text(recipe: Recipe, prepared: Prepared) -> Figures:
    assert isinstance(recipe.data, TextData)
    manifest = prepared.manifest
    sets = list(prepared.mixed.values()) if prepared.mixed else [prepared.train]
    read = [(name, lengths, digests, shards) for shards in sets for name, lengths, digests in _by_source(shards)]
    repeated = _repeated([digests for _, _, digests, _ in read])
    total = sum(int(lengths.sum()) for _, lengths, _, _ in read)
    drawn = _drawn(recipe, prepared)
    rows = phases.sequences(recipe) * recipe.data.positions
    groups = []
    for (name, lengths, _, shards), again in zip(read, repeated, strict=True):
        tokens, share = int(lengths.sum()), drawn.get(name)
        groups.append(
            Group(
                name,
                lengths,
                tokens / total,
                shards.manifest["sources"][name]["bytes"],
                again,
                list(_documents(shards, name, prepared.tokenizer)),
                licence=manifest["parts"].get(name, {}).get("licence", "unknown"),
                drawn=share,
                passes=None if share is None else share * rows / tokens,
                dropped=manifest.get("duplicates", {}).get(name, 0),
            )
        )
    loader = loaders.text(recipe, prepared, 1)
    counted = {split: entry for split, entry in manifest["splits"].items() if split != "train"}
    facts = {
        "key": prepared.key,
        "contents": f"sha256 {prepared.content[:16]}",
        "tokenizer": f"{manifest['tokenizer']['kind']}, {prepared.tokenizer.vocab_size:,} tokens, {prepared.codes[:16]}",
        "bytes a token": f"{sum(group.size for group in groups) / total:.2f}",
        "rows": f"{loader.rows:,} of {recipe.data.positions} tokens, a pass over all that is trained on",
        **{split: f"{entry['documents']:,} documents, {entry['tokens']:,} tokens" for split, entry in counted.items()},
        "one run": f"{rows:,} tokens, {rows / total:.2f} passes over all sources together",
        **_verified(manifest),
    }
    return Figures("documents", groups, facts, manifest.get("skipped", {}))


def _verified(manifest: dict[str, Any]) -> dict[str, str]:
    """The sources whose every document a checker has read, and how many of these it refused."""
    made = [source for source in manifest["sources"] if source["kind"] == "synthetic"]
    names = [source["name"] for source in made if GENERATORS[source["generator"]].checked]
    refused = sum(manifest["skipped"].get(name, {}).get(REFUSED, 0) for name in names)
    return {"verified": f"every document of {', '.join(names)}; {refused:,} were refused"} if names else {}


def _by_source(shards: ShardSet) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Of each source: tokens of its documents (N,), ends left out, and a hash of each (N,) uint64."""
    names = list(shards.manifest["sources"])
    labels = np.concatenate(shards.labels({name: at for at, name in enumerate(names)}))
    lengths = np.concatenate([np.diff(shard.offsets) for shard in shards.shards]).astype(np.int64) - 2
    digests = np.empty(len(lengths), dtype=np.uint64)
    at = 0
    for shard in shards.shards:
        offsets = shard.offsets.tolist()
        for first, last in itertools.pairwise(offsets):
            content = np.ascontiguousarray(shard.tokens[first:last]).tobytes()
            digests[at] = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")
            at += 1
    for number, name in enumerate(names):
        yield name, lengths[labels == number], digests[labels == number]


def _repeated(digests: Sequence[np.ndarray]) -> list[int]:
    """How many of each group were there before, in the same or an earlier group."""
    whole = np.concatenate(digests)
    first = np.zeros(len(whole), dtype=bool)
    first[np.unique(whole, return_index=True)[1]] = True
    ends = np.cumsum([len(part) for part in digests])[:-1]
    return [int((~part).sum()) for part in np.split(first, ends)]


def _documents(shards: ShardSet, name: str, tokenizer: Tokenizer) -> Iterator[str]:
    """The beginnings of the first documents of a source."""
    at = found = 0
    for source, count in shards.manifest["source_runs"]:
        if source == name:
            for document in range(at, min(at + count, at + EXAMPLES - found)):
                yield _beginning(shards.read(document)[1:-1].tolist(), tokenizer)
                found += 1
        if found == EXAMPLES:
            return
        at += count


def _beginning(ids: Sequence[int], tokenizer: Tokenizer) -> str:
    return tokenizer.decode(ids[:EXAMPLE_TOKENS]) + (" ..." if len(ids) > EXAMPLE_TOKENS else "")


def _drawn(recipe: Recipe, prepared: Prepared) -> dict[str, float]:
    """The share of a run's tokens that each source of a mixture has: its share over progress, integrated."""
    if not prepared.mixed:
        return {}
    assert isinstance(recipe.data, TextData)
    mixture = recipe.data.shares({name: shards.tokens for name, shards in prepared.mixed.items()})
    sums = dict.fromkeys(mixture.names, 0.0)
    for moment in range(MOMENTS):
        for name, share in mixture.shares((moment + 0.5) / MOMENTS).items():
            sums[name] += share / MOMENTS
    return sums


def _of_problems(recipe: Recipe, prepared: PreparedProblems) -> Figures:
    problems = [problem for problem in prepared.train if problem.prompt > 1]
    pieces = [problem for problem in prepared.train if problem.prompt <= 1]  # of documents that are replayed
    named = [("to train on", problems), ("documents that are replayed", pieces), ("held out", prepared.validation)]
    total = sum(len(problem.ids) for _, found in named for problem in found)
    sizes = prepared.tokenizer.token_bytes()
    groups = []
    for name, found in named:
        if not found:
            continue
        lengths = np.array([len(problem.ids) for problem in found], dtype=np.int64)
        digests = [hashlib.blake2b(problem.ids.tobytes(), digest_size=16).digest() for problem in found]
        learned = sum(int((~problem.given[problem.prompt :]).sum()) for problem in found)
        groups.append(
            Group(
                name,
                lengths,
                int(lengths.sum()) / total,
                sum(int(sizes[problem.ids].sum()) for problem in found),
                len(digests) - len(set(digests)),
                [_beginning(problem.ids[1:-1].tolist(), prepared.tokenizer) for problem in found[:EXAMPLES]],
                learned=learned,
            )
        )
    loader = loaders.problems(recipe, prepared, 1)
    facts = {
        "key": prepared.key,
        "tokenizer": f"{prepared.tokenizer.vocab_size:,} tokens, {prepared.codes[:16]}",
        "rows": f"{loader.rows:,} of {recipe.data.positions} tokens, a pass over all that is trained on",
        **_forms(prepared),
    }
    depths = loader.depths(prepared.depths) if isinstance(loader, CurriculumLoader) else []
    return Figures("problems", groups, facts, depths=depths)


def _forms(prepared: PreparedProblems) -> dict[str, str]:
    """How many of the held-out problems are answered in each form."""
    labels = [problem.label for problem in prepared.written if problem.label]
    found = {label: labels.count(label) for label in sorted(set(labels))}
    return {"held out by form": ", ".join(f"{name} {count:,}" for name, count in found.items())} if found else {}


def _of_verdicts(prepared: PreparedVerdicts) -> Figures:
    total = sum(len(row.ids) for side in (prepared.train, prepared.validation) for row in side)
    sizes = prepared.tokenizer.token_bytes()
    groups = []
    for name, found in (("to train on", prepared.train), ("held out", prepared.validation)):
        lengths = np.array([len(row.ids) for row in found], dtype=np.int64)
        digests = [row.ids.tobytes() for row in found]
        groups.append(
            Group(
                name,
                lengths,
                int(lengths.sum()) / total,
                sum(int(sizes[row.ids].sum()) for row in found),
                len(digests) - len(set(digests)),
                [_beginning(row.ids[1:].tolist(), prepared.tokenizer) for row in found[:EXAMPLES]],
                learned=sum(int((row.labels >= 0).sum()) for row in found),
            )
        )
    right = {"to train on": sum(row.right for row in prepared.train)}
    right["held out"] = sum(row.right for row in prepared.validation)
    facts = {"key": prepared.key, "tokenizer": f"{prepared.tokenizer.vocab_size:,} tokens, {prepared.codes[:16]}"}
    facts |= {f"right, {name}": f"{count:,}" for name, count in right.items()}
    return Figures("answers", groups, facts)


def _of_puzzles(prepared: PreparedPuzzles) -> Figures:
    groups = []
    sides = (("to train on", prepared.train), ("validation", prepared.validation), ("test", prepared.test))
    total = sum(len(boards) * boards.cells for _, boards in sides)
    seen: set[bytes] = set()
    for name, boards in sides:
        again, learned = 0, 0
        for index in range(len(boards)):
            inputs, answers = boards.row(index)
            digest = hashlib.blake2b(inputs.tobytes(), digest_size=16).digest()
            again += digest in seen
            seen.add(digest)
            learned += int((answers >= 0).sum())
        lengths = np.full(len(boards), boards.cells, dtype=np.int64)
        groups.append(Group(name, lengths, int(lengths.sum()) / total, 0, again, _boards(boards), learned=learned))
    return Figures("puzzles", groups, {"key": prepared.key, "codes": f"{prepared.train.vocabulary} a cell"})


def _boards(boards: Boards) -> list[str]:
    return [boards.show(boards.row(index)[0][boards.slots :]) for index in range(min(EXAMPLES, len(boards)))]
