"""Finding and reading recipes: a name or a file, overrides, one strictly loaded `Recipe`.

`load("demo")` reads `apps/recipes/demo.yaml`, `load("my.yaml")` a file of yours; overrides are merged into the mapping
before the strict loader, so that a key that is misspelt, misplaced or of the wrong type is one line naming the dotted
key and the nearest valid name.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

from apps.common import overrides as overriding
from apps.common import strict_yaml
from apps.common.data_config import (
    DataConfig,
    HubTokenizer,
    TextData,
    TokenizerConfig,
    TokenizerFile,
    TrainedTokenizer,
)
from apps.common.errors import BadRequest
from apps.common.overrides import Override
from apps.common.problem_config import AnsweredData
from apps.common.puzzle_config import PuzzleData
from apps.common.recipe import Recipe, SampleConfig
from apps.common.verdict_config import VerdictData
from tinycore.config import dump, field_types
from tinycore.config import load as load_strictly

__all__ = [
    "DEFAULT",
    "DIRECTORY",
    "Recipe",
    "SampleConfig",
    "from_dict",
    "load",
    "merge",
    "names",
    "read",
    "to_dict",
    "to_yaml",
]

DIRECTORY = Path(__file__).parents[1] / "recipes"
DEFAULT = "demo"


def names() -> list[str]:
    """The recipes that come with the project, `demo` first, then by the size in the name."""

    def order(name: str) -> tuple[bool, int, str]:
        size = re.search(r"-(\d+)([km])\b", name)
        return name != DEFAULT, int(size[1]) * {"k": 1, "m": 1000}[size[2]] if size else 0, name

    return sorted((path.stem for path in DIRECTORY.glob("*.yaml")), key=order)


def read(name_or_path: str | Path) -> dict[str, Any]:
    """The mapping that a recipe's file writes. Raises `BadRequest` for an unknown name or an unusable file."""
    text = str(name_or_path)
    path = Path(text)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return strict_yaml.read(path)
    if text not in names():
        near = difflib.get_close_matches(text, names(), n=2, cutoff=0.4)
        hint = (
            f"did you mean {' or '.join(repr(name) for name in near)}?" if near else f"there are {', '.join(names())}"
        )
        raise BadRequest(f"unknown recipe {text!r}; {hint}")
    return strict_yaml.read(DIRECTORY / f"{text}.yaml")


def merge(mapping: Mapping[str, Any], overrides: Iterable[Override]) -> dict[str, Any]:
    """`mapping` with the overrides made; keys that it does not write start from their default."""
    return overriding.apply(mapping, overrides, _default)


def load(name_or_path: str | Path, overrides: Iterable[Override] = ()) -> Recipe:
    """The recipe of that name or file with the overrides made; ConfigError or BadRequest, one line, otherwise."""
    return from_dict(merge(read(name_or_path), overrides))


def from_dict(mapping: Mapping[str, Any]) -> Recipe:
    """The recipe that the mapping writes, strictly; null becomes the data's own for `model.vocab_size` and, of puzzles,
    `model.max_seq_len`."""
    resolved = dict(mapping)
    model, data = resolved.get("model"), resolved.get("data", {})
    if isinstance(model, Mapping) and isinstance(data, Mapping):
        resolved["model"] = _transferred({**model, **_sizes(model, data)}, resolved.get("optim"))
    return load_strictly(Recipe, resolved, "")


def _transferred(model: dict[str, Any], optim: object) -> dict[str, Any]:
    """The model with the factor on its logits that `optim.base_width` asks for, where its head is its own and has none."""
    base = optim.get("base_width") if isinstance(optim, Mapping) else None
    width, heads, embed = model.get("dim"), model.get("heads", {"lm": {}}), model.get("embed", {})
    lm = heads.get("lm") if isinstance(heads, Mapping) else None
    tied = not isinstance(embed, Mapping) or embed.get("tied", True)
    if not (isinstance(base, int) and isinstance(width, int) and base > 0 and width > 0 and isinstance(lm, Mapping)):
        return model  # what is wrong with it is told by the loader
    if tied or base == width or lm.get("scale") is not None:
        return model
    return {**model, "heads": {**heads, "lm": {**lm, "scale": base / width}}}


def _sizes(model: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, int]:
    """What the model leaves for the data to say."""
    left = [name for name in ("vocab_size", "max_seq_len") if model.get(name) is None]
    kind = DataConfig.members.get(data.get("kind") or "text")
    if not left or kind is None:
        return {}
    described = load_strictly(DataConfig, data, "data")
    if isinstance(described, PuzzleData):
        found = {"vocab_size": described.vocabulary, "max_seq_len": described.positions}
        return {name: found[name] for name in left}
    assert isinstance(described, TextData | AnsweredData | VerdictData)
    return {"vocab_size": _vocabulary(described.tokenizer)} if "vocab_size" in left else {}


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """Plain data of JSON types, every value written out; `from_dict` gives an equal recipe."""
    return dump(recipe)


def to_yaml(recipe: Recipe) -> str:
    """The recipe as a file that `load` reads back equal."""
    return strict_yaml.dump(to_dict(recipe))


def _vocabulary(tokenizer: TokenizerConfig) -> int:
    if isinstance(tokenizer, TrainedTokenizer):
        return tokenizer.vocab_size
    import tinydata  # only a tokenizer that exists already is read here

    if isinstance(tokenizer, TokenizerFile):
        return tinydata.Tokenizer.load(tokenizer.path).vocab_size
    if isinstance(tokenizer, HubTokenizer):
        return tinydata.Tokenizer.from_hub(tokenizer.name).vocab_size
    raise TypeError(f"a tokenizer of kind {tokenizer.kind} has no vocabulary size")


def _default(path: tuple[str, ...]) -> Any:
    """Plain data of the default of the field that `path` leads to, None where it has none."""
    owner: Any = Recipe
    for depth, name in enumerate(path, start=1):
        entry = next((entry for entry in fields(owner) if entry.name == name), None) if is_dataclass(owner) else None
        if entry is None:
            return None
        if entry.default_factory is not MISSING:
            value = entry.default_factory()
        else:
            value = None if entry.default is MISSING else entry.default
        owner = type(value) if is_dataclass(value) else field_types(owner)[name]
        if depth == len(path):
            return dump(value)
    return None
