"""A task: which questions, how they are asked, how the answers are scored. Read from YAML, strictly.

    name: arc_easy                       unique; results of different versions are never compared
    version: 1
    description: ...                     one line
    source: arXiv 1803.05457             where it comes from
    licence: CC BY-SA 4.0                of its data
    dataset: {kind: hub, path: allenai/ai2_arc, config: ARC-Easy, split: test, format: arc}
    scoring: multiple_choice             | continuation | greedy_answer | perplexity | needle | code | rules | grid
    prompt: "Question: {prompt}\\nAnswer:"
    choice: " {choice}"                  how a choice, or the answer of an example, goes on behind the prompt
    shots: 2                             how many of `examples` stand before each question
    examples: [{prompt: ..., answer: ...}, ...]
    scorer: number                       greedy_answer only: how an answer is found in the text and compared
    until: ["\\n"]                        what ends a generation
    max_tokens: 64                       and how long it may be
    window: 512                          perplexity only: texts are cut into windows of so many tokens that begin blind
    most_tokens: 100000                  with window: and no more tokens of a text than these are read
    metric: acc_norm                     the one that is compared
    direction: up                        | down: which way is better
    chance: 0.25                         what a model that knows nothing gets; left out: one over the choices
    group_by: [digits, operation]        the `meta` by which results are grouped

Datasets: {kind: generated, generator, items, ...options}, {kind: file, format}, {kind: wheel, distribution, path, format},
{kind: hub, path, config (a name, several, or "*"), split, revision, format}. What a format is, `formats` says. Of a file and of
the hub one may ask {only: {key of meta: [values]}}, then {first: so many items}, then {joined: true}, all texts as one.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from tinyeval import strict_yaml
from tinyeval.strict_yaml import TaskError
from tinyeval.template import Template

Scoring = Literal["multiple_choice", "continuation", "greedy_answer", "perplexity", "needle", "code", "rules", "grid"]
METRICS: Mapping[Scoring, tuple[str, ...]] = MappingProxyType(
    {
        "multiple_choice": ("acc", "acc_norm", "acc_token"),
        "continuation": ("acc", "nats", "acc_first"),
        "greedy_answer": ("exact",),
        "perplexity": ("bits_per_byte",),
        "needle": ("exact",),
        "code": ("passed",),
        "rules": ("all_rules", "rules"),
        "grid": ("exact", "cells"),
    }
)
PER_TOKEN = ("acc_token", "acc_first")  # metrics for which a model must say what its tokens are
CHOSEN = ("only", "first", "joined")
SCORERS = ("exact", "number", "first_number", "word")
DATASETS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = MappingProxyType(  # kind -> needed and other keys
    {
        "generated": (("generator", "items"), ()),  # and whatever options its generator has
        "file": (("format",), ("path", *CHOSEN)),
        "wheel": (("distribution", "path", "format"), ()),
        "hub": (("path", "split", "format"), ("config", "revision", *CHOSEN)),
    }
)
_TYPES: Mapping[str, tuple[type, ...]] = MappingProxyType(
    {
        "name": (str,),
        "version": (int,),
        "description": (str,),
        "source": (str,),
        "licence": (str,),
        "dataset": (dict,),
        "scoring": (str,),
        "prompt": (str,),
        "choice": (str,),
        "shots": (int,),
        "examples": (list,),
        "scorer": (str,),
        "until": (list,),
        "max_tokens": (int,),
        "window": (int,),
        "most_tokens": (int,),
        "metric": (str,),
        "direction": (str,),
        "chance": (int, float),
        "group_by": (list,),
    }
)
_NEEDED = ("name", "version", "description", "source", "licence", "dataset", "scoring", "prompt", "metric", "direction")


@dataclass(frozen=True)
class Task:
    """See the module. `identity` is a hash of everything that could change a score: it is stored with every result."""

    name: str
    version: int
    description: str
    source: str
    licence: str
    dataset: Mapping[str, Any]
    scoring: Scoring
    prompt: Template
    choice: Template
    examples: tuple[Mapping[str, str], ...]
    scorer: str
    until: tuple[str, ...]
    max_tokens: int
    metric: str
    higher_is_better: bool
    chance: float | None
    group_by: tuple[str, ...]
    identity: str
    window: int | None = None
    most_tokens: int | None = None

    @property
    def counts_tokens(self) -> bool:
        """Whether its score depends on what a token is."""
        return self.metric in PER_TOKEN or self.window is not None

    def asked(self, fields: Mapping[str, str]) -> str:
        """The prompt of a question with its examples before it. Raises ValueError for a field that is not there."""
        shown = [
            self.prompt.render(example) + self.choice.render({"choice": example["answer"]}) for example in self.examples
        ]
        return "\n\n".join([*shown, self.prompt.render(fields)])


def load(path: Path) -> Task:
    """The task in a YAML file. Raises TaskError, one line, for anything that is not one."""
    return from_dict(strict_yaml.read(path), str(path))


def from_dict(mapping: Mapping[str, Any], origin: str = "task") -> Task:
    """The task that plain data says; ``origin`` begins the line of the TaskError it raises."""
    _require_keys(mapping, origin)
    written = dict(mapping)
    scoring = _one_of(written, "scoring", tuple(METRICS), origin)
    examples = _examples(written, origin)
    shots = written.get("shots", len(examples))
    if not 0 <= shots <= len(examples):
        raise TaskError(f"{origin}: shots: {shots} of {len(examples)} examples")
    chance = written.get("chance")
    if chance is not None and not 0 <= chance <= 1:
        raise TaskError(f"{origin}: chance: {chance} is not between 0 and 1")
    for key in ("version", "max_tokens", "window", "most_tokens"):
        if written.get(key, 1) < 1:
            raise TaskError(f"{origin}: version, max_tokens, window and most_tokens start at 1")
    for key, needed in (("window", scoring == "perplexity"), ("most_tokens", "window" in written)):
        if key in written and not needed:
            raise TaskError(f"{origin}: {key}: is for the windows of perplexity alone")
    for key in ("until", "group_by"):
        if not all(isinstance(one, str) and one for one in written.get(key, [])):
            raise TaskError(f"{origin}: {key}: needs texts that are not empty")
    kept = {key: value for key, value in written.items() if key not in ("description", "source", "licence", "group_by")}
    try:
        prompt, choice = Template(written["prompt"]), Template(written.get("choice", " {choice}"))
    except ValueError as error:
        raise TaskError(f"{origin}: {error}") from None
    if choice.fields != ("choice",):
        raise TaskError(f"{origin}: choice: {choice.text!r} does not have the field {{choice}} and no other")
    return Task(
        name=written["name"],
        version=written["version"],
        description=written["description"],
        source=written["source"],
        licence=written["licence"],
        dataset=MappingProxyType(_dataset(written["dataset"], origin)),
        scoring=scoring,
        prompt=prompt,
        choice=choice,
        examples=tuple(examples[:shots]),
        scorer=_one_of({"scorer": written.get("scorer", "exact")}, "scorer", SCORERS, origin),
        until=tuple(written.get("until", ("\n",))),
        max_tokens=written.get("max_tokens", 64),
        metric=_one_of(written, "metric", METRICS[scoring], origin),
        higher_is_better=_one_of(written, "direction", ("up", "down"), origin) == "up",
        chance=None if chance is None else float(chance),
        group_by=tuple(written.get("group_by", ())),
        identity=hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16],
        window=written.get("window"),
        most_tokens=written.get("most_tokens"),
    )


def with_dataset(task: Task, **options: Any) -> Task:
    """The same task with other values in its dataset: fewer items, longer texts. Its identity is another."""
    dataset = {**task.dataset, **options}
    digest = hashlib.sha256(json.dumps([task.identity, dataset], sort_keys=True, default=str).encode()).hexdigest()
    return replace(task, dataset=MappingProxyType(dataset), identity=digest[:16])


def without_examples(task: Task) -> Task:
    """The same questions with nothing shown before them, for a model that learned the form. Its identity is another."""
    if not task.examples:
        return task
    digest = hashlib.sha256(json.dumps([task.identity, "no examples"]).encode()).hexdigest()
    return replace(task, examples=(), identity=digest[:16])


def nearest(name: str, names: Sequence[str]) -> str:
    """What to say behind an unknown name: those that are like it, or all."""
    like = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(like)}?" if like else f"there are {', '.join(sorted(names))}"


def _require_keys(mapping: Mapping[str, Any], origin: str) -> None:
    unknown = next((key for key in mapping if key not in _TYPES), None)
    if unknown is not None:
        raise TaskError(f"{origin}: unknown key {unknown!r}; {nearest(str(unknown), list(_TYPES))}")
    missing = next((key for key in _NEEDED if key not in mapping), None)
    if missing is not None:
        raise TaskError(f"{origin}: the key {missing!r} is missing")
    for key, value in mapping.items():
        if not isinstance(value, _TYPES[key]) or isinstance(value, bool):
            wanted = " or ".join(kind.__name__ for kind in _TYPES[key])
            raise TaskError(f"{origin}: {key}: {value!r} is no {wanted}")


def _one_of(mapping: Mapping[str, Any], key: str, names: Sequence[str], origin: str) -> Any:
    if mapping[key] not in names:
        raise TaskError(f"{origin}: {key}: unknown {mapping[key]!r}; {nearest(mapping[key], names)}")
    return mapping[key]


def _examples(mapping: Mapping[str, Any], origin: str) -> list[Mapping[str, str]]:
    found = mapping.get("examples", [])
    for index, example in enumerate(found):
        texts = isinstance(example, dict) and all(isinstance(one, str) for one in example.values())
        if not texts or "answer" not in example:
            raise TaskError(f"{origin}: examples.{index}: an example is a mapping of texts with an answer")
    return found


def _dataset(mapping: Mapping[str, Any], origin: str) -> dict[str, Any]:
    if "kind" not in mapping:
        raise TaskError(f"{origin}: dataset: the key 'kind' is missing")
    kind = _one_of(mapping, "kind", tuple(DATASETS), f"{origin}: dataset")
    needed, others = DATASETS[kind]
    missing = next((key for key in needed if key not in mapping), None)
    if missing is not None:
        raise TaskError(f"{origin}: dataset: the key {missing!r} is missing, which kind {kind} needs")
    unknown = next((key for key in mapping if key not in ("kind", *needed, *others)), None)
    if unknown is not None and kind != "generated":
        raise TaskError(f"{origin}: dataset: unknown key {unknown!r}; {nearest(str(unknown), [*needed, *others])}")
    if kind in ("file", "hub"):
        _require_choice(mapping, origin)
    return dict(mapping)


def _require_choice(mapping: Mapping[str, Any], origin: str) -> None:
    """Raises TaskError for items chosen in a way that no dataset has."""
    only, first = mapping.get("only", {}), mapping.get("first", 1)
    if not isinstance(only, dict) or not all(isinstance(values, list) for values in only.values()):
        raise TaskError(f"{origin}: dataset: only: is a mapping of keys to lists of values")
    if not isinstance(first, int) or isinstance(first, bool) or first < 1:
        raise TaskError(f"{origin}: dataset: first: {first!r} is no whole number above 0")
    if not isinstance(mapping.get("joined", False), bool):
        raise TaskError(f"{origin}: dataset: joined: is true or false")
