"""The layers of a model at a glance, where they are of several kinds: `MMMMAMMM MMMM`, a letter a layer, in eights.

A letter stands for one combination of mixer and feed-forward; where two differ in a setting alone, the legend names it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import gcd
from typing import Any

from tinycore import LayerConfig, ModelConfig
from tinycore.config import dump

GROUP = 8  # letters between blanks
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class LayerMap:
    """`text`: a letter a layer in the order of the stack; `legend`: what each letter stands for, in order of appearance;
    `ratio`: their numbers, the most frequent first, as small as they divide."""

    text: str
    legend: dict[str, str]
    ratio: str


def layer_map(model: ModelConfig) -> LayerMap | None:
    """The map of `model`, None where all layers are alike (or there are more kinds than letters)."""
    kinds: list[LayerConfig] = []
    order: list[int] = []
    for layer in model.flat_layers():
        if layer not in kinds:
            kinds.append(layer)
        order.append(kinds.index(layer))
    if not 1 < len(kinds) <= len(ALPHABET):
        return None
    letters: list[str] = []
    for layer in kinds:
        letters.append(_letter(_words(layer), letters))
    text = "".join(letters[index] for index in order)
    counts = [number for _, number in Counter(text).most_common()]
    return LayerMap(
        text=" ".join(text[start : start + GROUP] for start in range(0, len(text), GROUP)),
        legend={letter: _description(layer, kinds) for letter, layer in zip(letters, kinds, strict=True)},
        ratio=":".join(str(number // gcd(*counts)) for number in counts),
    )


def _words(layer: LayerConfig) -> str:
    return " + ".join(branch.kind for branch in (layer.mixer, layer.ffn) if branch is not None)


def _letter(words: str, taken: list[str]) -> str:
    """The first free letter of the words, else of the alphabet."""
    return next(letter for letter in words.upper() + ALPHABET if letter in ALPHABET and letter not in taken)


def _description(layer: LayerConfig, kinds: list[LayerConfig]) -> str:
    """The kinds of a layer's branches, and the settings in which it differs from other layers of these kinds."""
    own = _settings(layer)
    alike = [_settings(other) for other in kinds if other != layer and _words(other) == _words(layer)]
    differing = [key for key in own if any(other.get(key) != own[key] for other in alike)]
    words = _words(layer)
    return words + (f" ({', '.join(f'{key} {_shown(own[key])}' for key in differing)})" if differing else "")


def _settings(layer: LayerConfig) -> dict[str, Any]:
    branches = {"mixer": layer.mixer, "ffn": layer.ffn}
    return {
        f"{name}.{key}": value
        for name, branch in branches.items()
        if branch is not None
        for key, value in dump(branch).items()
    }


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)
