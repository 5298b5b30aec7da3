"""From a recipe's sources to packed shards, once: `data/<key>/` with a folder a split, tokenizer and manifest.

The key is a hash of everything that determines the bytes, so that another recipe with the same data reuses them and a
changed file or another Python makes new ones. One pass over the sources assigns each document to its split by the hash
of its text and spools it; the tokenizer is trained on the training split only; then each split is packed. The directory
appears whole or not at all; what was read stands beside it until then, so that whoever is killed later need not read it again.
Of several processes and runs that want the same data one prepares it, the others wait.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import shutil
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from apps.common import files
from apps.common.console import Console, Counting, duration, short
from apps.common.data_config import (
    CatalogSource,
    EmbeddedSource,
    FilesSource,
    HubSource,
    HubTokenizer,
    SourceConfig,
    SyntheticSource,
    TextData,
    TokenizerFile,
    TrainedTokenizer,
)
from apps.common.errors import BadRequest, RunError
from apps.common.recipe import Recipe
from apps.common.spool import SPLITS, Spool, combined_hash
from apps.common.synthetic_text import SyntheticText
from tinycore.config import ConfigError, dump, unknown
from tinydata import Decontamination, Deduplication, Document, ShardSet, Tokenizer, pack, split_of, train_tokenizer
from tinydata.decontamination import ngram_set
from tinydata.sources import EmbeddedCorpus, Files, Hub, catalog

FORMAT = 1  # of the directory; part of the key
CONTAMINATED = "with words of evaluation texts"
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Prepared:
    """Data ready to be loaded. `manifest` says what it is made of: sources, parts with hash and licence, splits."""

    tokenizer: Tokenizer
    unmixed: ShardSet | None
    mixed: dict[str, ShardSet]
    validation: ShardSet
    test: ShardSet | None
    manifest: dict[str, Any]
    key: str
    directory: Path

    @property
    def train(self) -> ShardSet:
        """What is trained on, in one piece. Raises BadRequest where it is the sources of a mixture."""
        if self.unmixed is None:
            raise BadRequest("data.mixture: the training data are several sources, which this command does not take")
        return self.unmixed

    @property
    def dataset(self) -> dict[str, str]:
        """What is trained on and scored, by hashes of the contents."""
        train = self.manifest["splits"]["train"]["sha256"]
        return {"train": train, "validation": self.validation.content_key}

    @property
    def codes(self) -> str:
        """What the model's ids mean, as a hash."""
        return self.tokenizer.hash

    @property
    def content(self) -> str:
        """One hash of everything."""
        return self.manifest["sha256"]


class Source(Protocol):
    """What tinydata's sources have in common."""

    name: str
    skipped: dict[str, int]

    def documents(self) -> Iterator[Document]: ...

    def description(self) -> dict[str, Any]: ...


def prepare(recipe: Recipe, console: Console) -> Prepared:
    """The data of `recipe`, made if it is not in the cache; any number of processes may call this at once.

    Raises SourceError, TokenizerError, ShardError or BadRequest, one line each.
    """
    config = recipe.data
    assert isinstance(config, TextData)
    sources = [source_of(source) for source in config.sources]
    descriptions = [_description(source, made) for source, made in zip(config.sources, sources, strict=True)]
    key = _key(config, descriptions)
    directory = Path(config.cache) / key
    if not (directory / MANIFEST).is_file():
        with _alone(directory, console):
            if not (directory / MANIFEST).is_file():
                _make(config, sources, descriptions, key, directory, console)
    return _open(recipe, config, key, directory)


def source_of(config: SourceConfig) -> Source:
    """What reads the documents of `config`."""
    if isinstance(config, EmbeddedSource):
        return EmbeddedCorpus(config.parts, synthetic_documents=config.documents, seed=config.seed)
    if isinstance(config, FilesSource):
        return Files(config.path, column=config.column, separator=config.separator)
    if isinstance(config, HubSource):
        return Hub(
            config.name,
            config=config.config,
            split=config.split,
            column=config.column,
            data_files=config.data_files,
            revision=config.revision,
        )
    if isinstance(config, CatalogSource):
        return catalog.source(config.name, revision=config.revision)
    if isinstance(config, SyntheticSource):
        return SyntheticText(
            config.generator, config.documents, config.seed, config.language, config.sizes, config.name
        )
    raise TypeError(f"no source of kind {config.kind}")


def key_of(config: TextData) -> str:
    """The name of the folder that the data of `config` is in. Raises SourceError for sources that cannot be read."""
    made = [source_of(source) for source in config.sources]
    return _key(config, [_description(source, one) for source, one in zip(config.sources, made, strict=True)])


def _description(config: SourceConfig, source: Source) -> dict[str, Any]:
    """What determines the source's documents; a limit on their number is ours, not the source's."""
    limit = _limit(config)
    return {**source.description(), **({} if limit is None else {"documents": limit})}


def _limit(config: SourceConfig) -> int | None:
    """How many documents are read at most of a source that has no number of its own."""
    return config.documents if isinstance(config, HubSource | CatalogSource) else None


def _key(config: TextData, descriptions: list[dict[str, Any]]) -> str:
    tokenizer = dump(config.tokenizer)
    if isinstance(config.tokenizer, TokenizerFile):
        tokenizer = {"kind": "file", "sha256": Tokenizer.load(config.tokenizer.path).hash}
    determines: list[Any] = [FORMAT, descriptions, tokenizer, config.validation, config.test]
    if config.mixed:
        determines.append(sorted(config.mixed_names) or ["*"])
    if config.deduplicate:
        determines.append("without duplicates")
    if config.decontaminate is not None:
        determines.append({"without": Files(config.decontaminate).description()})
    return hashlib.sha256(json.dumps(determines, sort_keys=True).encode()).hexdigest()[:16]


def _make(
    config: TextData,
    sources: list[Source],
    descriptions: list[dict[str, Any]],
    key: str,
    directory: Path,
    console: Console,
) -> None:
    start = time.monotonic()
    fractions = {"validation": config.validation, "test": config.test}
    unfinished = directory.with_name(f".unfinished-{key}")
    try:
        spool = _spooled(config, sources, unfinished, console)
        _require_splits(spool, config)
        mixed = _mixed_names(config, list(spool.parts({})))
        with files.new_directory(directory) as building:
            tokenizer = _tokenizer(config, spool, console)
            tokenizer.save(building / "tokenizer.json")
            splits: dict[str, dict[str, Any]] = {}
            for split in SPLITS:
                if spool.documents[split]:
                    with console.counting(f"packing {split}", spool.documents[split]) as counting:
                        if split == "train" and mixed:
                            splits[split] = _pack_sources(mixed, spool, tokenizer, building, counting)
                        else:
                            splits[split] = _packed(
                                pack(_counted(spool.read(split), counting), tokenizer, building / split)
                            )
            manifest = {
                "format": FORMAT,
                "key": key,
                "sha256": combined_hash({name: entry["sha256"] for name, entry in splits.items()}),
                "text_sha256": spool.sha256(),
                "sources": descriptions,
                "skipped": spool.facts["skipped"],
                "parts": spool.parts(_licences(descriptions)),
                "tokenizer": {
                    **dump(config.tokenizer),
                    "vocab_size": tokenizer.vocab_size,
                    "sha256": tokenizer.hash,
                },
                "split_shares": fractions,
                "splits": splits,
                **({"duplicates": spool.facts["duplicates"]} if config.deduplicate else {}),
            }
            files.write_json(building / MANIFEST, manifest)
    except Exception:
        shutil.rmtree(unfinished, ignore_errors=True)  # only who is killed or interrupted goes on where it was
        raise
    spool.remove()
    for name, reasons in spool.facts["skipped"].items():
        counts = ", ".join(f"{count:,} {reason}" for reason, count in sorted(reasons.items()))
        console.say(f"{name}: left out {counts}")
    for name, count in spool.facts["duplicates"].items():
        console.say(f"{name}: left out {count:,} documents that were there before")
    train = splits["train"]
    console.say(
        f"data prepared in {duration(time.monotonic() - start)}: {train['documents']:,} documents, "
        f"{short(train['tokens'])} tokens to train on, in {directory}"
    )


def _spooled(config: TextData, sources: list[Source], place: Path, console: Console) -> Spool:
    """All documents, read, or found where an earlier preparation was killed after it had read them."""
    spool = Spool.whole(place)
    if spool is not None:
        console.say(f"going on with {sum(spool.documents.values()):,} documents that were read before ({place})")
        return spool
    fractions = {"validation": config.validation, "test": config.test}
    spool = Spool(place)
    clean, once = _decontamination(config), Deduplication() if config.deduplicate else None
    with console.counting("reading documents") as counting:
        for source_config, source in zip(config.sources, sources, strict=True):
            found: Iterable[Document] = itertools.islice(source.documents(), _limit(source_config))
            found = found if clean is None else clean.clean(found)
            for document in found if once is None else once.unique(found):
                spool.add(document, split_of(document.text, fractions))
                counting.advance()
    skipped = {source.name: dict(source.skipped) for source in sources if source.skipped}
    for name, count in () if clean is None else clean.dropped.items():
        skipped.setdefault(name, {})[CONTAMINATED] = count
    spool.close(skipped=skipped, duplicates={} if once is None else once.dropped)
    return spool


def _decontamination(config: TextData) -> Decontamination | None:
    """Leaves out documents that have words in a row in common with the texts of `data.decontaminate`."""
    if config.decontaminate is None:
        return None
    ngrams = ngram_set(document.text for document in Files(config.decontaminate).documents())
    if not ngrams:
        raise BadRequest(f"data.decontaminate: {config.decontaminate} has no text that is long enough to be recognised")
    return Decontamination(ngrams)


def _mixed_names(config: TextData, names: list[str]) -> list[str]:
    """The sources that each have a folder; none where there is no mixture. Raises where it and the sources differ."""
    if not config.mixed:
        return []
    if not config.mixed_names:
        for name in config.max_epochs:
            if name not in names:
                raise unknown("data.max_epochs", "source", name, names)
        return names
    key = "data.stages" if config.stages else "data.mixture"
    for name in config.mixed_names:
        if name not in names:
            raise unknown(key, "source", name, names)
    if missing := [name for name in names if name not in config.mixed_names]:
        raise BadRequest(f"{key}: says nothing of source '{missing[0]}'; there are {', '.join(names)}")
    return list(config.mixed_names)


def _pack_sources(
    names: list[str], spool: Spool, tokenizer: Tokenizer, building: Path, counting: Counting
) -> dict[str, Any]:
    """The training documents of each source in a folder of its own."""
    found: dict[str, dict[str, Any]] = {}
    for index, name in enumerate(sorted(names)):
        own = (document for document in spool.read("train") if document.source == name)
        found[name] = _packed(pack(_counted(own, counting), tokenizer, building / _folder(index)))
        if not found[name]["documents"]:
            raise BadRequest(f"data.mixture: source '{name}' has no document to train on")
    return {
        **{key: sum(entry[key] for entry in found.values()) for key in ("documents", "tokens", "bytes")},
        "sha256": combined_hash({name: entry["sha256"] for name, entry in found.items()}),
        "sources": found,
    }


def _folder(index: int) -> str:
    return f"train-{index:03d}"


def _packed(shards: ShardSet) -> dict[str, Any]:
    return {
        "documents": shards.documents,
        "tokens": shards.tokens,
        "bytes": shards.bytes,
        "sha256": shards.content_key,
    }


def _require_splits(spool: Spool, config: TextData) -> None:
    total = sum(spool.documents.values())
    for split, share in (("train", 1 - config.validation - config.test), ("validation", config.validation)):
        if not spool.documents[split]:
            raise BadRequest(
                f"data: none of the {total:,} document{'s' if total != 1 else ''} fell into the {split} split "
                f"({share:g} of them, by hash of the text); give more documents (a text file is one: set its "
                f"separator) or raise data.validation"
            )


def _tokenizer(config: TextData, spool: Spool, console: Console) -> Tokenizer:
    wanted = config.tokenizer
    if isinstance(wanted, TokenizerFile):
        return Tokenizer.load(wanted.path)
    if isinstance(wanted, HubTokenizer):
        return Tokenizer.from_hub(wanted.name)
    if not isinstance(wanted, TrainedTokenizer):
        raise TypeError(f"no tokenizer of kind {wanted.kind}")
    with console.counting(
        f"training a tokenizer of {wanted.vocab_size:,} tokens", spool.documents["train"]
    ) as counting:
        tokenizer = train_tokenizer(_counted(spool.read("train"), counting), wanted.vocab_size)
    if tokenizer.vocab_size < wanted.vocab_size:
        console.warn(
            f"the text has pairs for {tokenizer.vocab_size:,} of the {wanted.vocab_size:,} tokens asked for; "
            "the model keeps a row for each of them"
        )
    return tokenizer


def _open(recipe: Recipe, config: TextData, key: str, directory: Path) -> Prepared:
    manifest = files.read_json(directory / MANIFEST)
    wanted = config.tokenizer
    # the ids of both are the same, a chat template only the recipe's own file is sure to have
    tokenizer = Tokenizer.load(wanted.path if isinstance(wanted, TokenizerFile) else directory / "tokenizer.json")
    if tokenizer.vocab_size > recipe.model.vocab_size:
        raise ConfigError(
            f"model.vocab_size: {recipe.model.vocab_size} has no row for every one of the tokenizer's "
            f"{tokenizer.vocab_size} tokens; leave it null to follow the tokenizer"
        )
    for source in recipe.expert_labels() or ():
        if source not in manifest.get("parts", {}):
            raise unknown("data.experts", "source", source, manifest.get("parts", {}))
    there = manifest.get("splits", {})
    mixed = {
        name: ShardSet.open(directory / _folder(index), tokenizer_hash=tokenizer.hash)
        for index, name in enumerate(sorted(there.get("train", {}).get("sources", {})))
    }
    shards = {
        split: ShardSet.open(directory / split, tokenizer_hash=tokenizer.hash)
        for split in SPLITS
        if split in there and not (split == "train" and mixed)
    }
    if "validation" not in shards or not ("train" in shards or mixed):
        raise BadRequest(f"{directory}: not the data this program prepares; remove it and start again")
    if config.experts and "source_runs" not in shards["train"].manifest:
        raise BadRequest(
            f"{directory}: prepared by an earlier version, without the order of its sources, which data.experts needs; "
            "remove it and start again"
        )
    return Prepared(
        tokenizer, shards.get("train"), mixed, shards["validation"], shards.get("test"), manifest, key, directory
    )


@contextlib.contextmanager
def _alone(directory: Path, console: Console) -> Generator[None]:
    """One process at a time for `directory`; the claim of a killed one is void."""
    place = directory.parent / ".locks" / directory.name
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadRequest(
            f"{directory.parent}: cannot hold data ({error.strerror}); choose another folder with --data.cache"
        ) from None
    said = False
    while True:
        try:
            lock = files.Lock(place)
            break
        except RunError:
            if not said:
                console.say(f"waiting for another process that prepares the same data ({directory})")
            said = True
            time.sleep(0.2)
    try:
        yield
    finally:
        lock.release()


def _licences(descriptions: list[dict[str, Any]]) -> dict[str, str]:
    """Licence by the name that documents carry: of the source, or of its part."""
    found: dict[str, str] = {}
    for description in descriptions:
        licence = description.get("licence", "unknown")
        found |= dict(licence) if isinstance(licence, Mapping) else {str(description["name"]): str(licence)}
    return found


def _counted(documents: Iterator[Document], counting: Counting) -> Iterator[Document]:
    for document in documents:
        counting.advance()
        yield document
