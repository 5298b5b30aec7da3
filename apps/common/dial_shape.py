"""The shape of a model of a given size: vocabulary, width, depth, heads, feed-forward. Nothing is built.

Rules, in the order in which they are applied (P: parameters outside the embedding table):

vocabulary    the largest power of two from 1,024 to 32,768 whose tied table is at most 22 % of the model: the share of
              brandon-226k (22 %) and SmolLM2-135M (21 %). It gives 8K below 30M and 32K from 110M. Below 1,024 bits per
              byte were measured worse (docs/EXPERIMENTS.md), so that the smallest sizes may pass the share.
width, depth  deep and narrow (MobileLLM, arXiv 2402.14905): of the widths on the ladder, the one whose depth comes
              nearest to 0.28 P^(1/4), which is within 17 % of MobileLLM's 30, 32, 40 and 54 layers at 125M, 350M, 600M, 1B.
head size     16 below width 128, 32 below 512, 64 from there; always at least three heads. The ladder has the widths
              whose number of heads is a multiple of 4 or of 3.
key/values    a fourth of the heads where it divides (GQA 4:1, arXiv 2305.13245), else a third.
feed-forward  SwiGLU of about 8/3 of the width (arXiv 2002.05202), in multiples of 64 (16 below width 512, 8 below 128);
              it takes up what whole layers leave, so that the size is met within 2 %.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import tinycore

VOCABULARIES = tuple(2**power for power in range(15, 9, -1))
TABLE_SHARE = 0.22
DEPTH_FACTOR = 0.28
HEAD_BANDS = ((16, 48, 128), (32, 128, 512), (64, 512, 1664))  # head size, from width, below width


@dataclass(frozen=True)
class Shape:
    """A model's shape. `hidden` are the channels of the feed-forward."""

    vocab_size: int
    dim: int
    layers: int
    heads: int
    kv_heads: int
    hidden: int

    def mapping(self, length: int) -> dict[str, Any]:
        """The `model` of a recipe, for `length` tokens of context; vocab_size null is the tokenizer's."""
        return {
            "vocab_size": None,
            "dim": self.dim,
            "max_seq_len": length,
            # the residual stream starts at the size of what layers add (docs/EXPERIMENTS.md)
            "embed": {"kind": "table", "scale": round(math.sqrt(self.dim), 1)},
            "layers": [
                {
                    "repeat": self.layers,
                    "mixer": {"kind": "attention", "heads": self.heads, "kv_heads": self.kv_heads},
                    "ffn": {"kind": "swiglu", "hidden": self.hidden},
                }
            ],
        }

    def parameters(self) -> int:
        """Parameters of the model, by tinycore's closed form."""
        mapping = {**self.mapping(length=2), "vocab_size": self.vocab_size}
        return tinycore.count(tinycore.ModelConfig.from_dict(mapping)).parameters

    def outside_table(self) -> int:
        """Parameters outside the embedding table."""
        return self.parameters() - self.vocab_size * self.dim


def shape(target: int) -> Shape:
    """The shape for `target` parameters, 200,000 to 1,000,000,000."""
    for vocab_size in VOCABULARIES:
        found = _nearest_depth(target, vocab_size)
        if found is not None and (found.vocab_size * found.dim <= TABLE_SHARE * target):
            break
    if found is None:
        raise ValueError(f"no model of {target} parameters")
    return _filled(found, target)


def key_value_heads(heads: int) -> int:
    """A fourth of `heads` where that is whole, else a third."""
    return heads // 4 if heads % 4 == 0 else heads // 3


def _ladder() -> list[tuple[int, int]]:
    """(width, heads), narrowest first."""
    return [
        (width, width // head)
        for head, start, stop in HEAD_BANDS
        for width in range(start, stop, head)
        if (width // head) % 4 == 0 or (width // head) % 3 == 0
    ]


def _nearest_depth(target: int, vocab_size: int) -> Shape | None:
    """The shape on the ladder whose depth is nearest to the rule's, feed-forward 8/3; None if no layer fits."""
    best: tuple[float, Shape] | None = None
    for width, heads in _ladder():
        rest = target - vocab_size * width
        kv_heads = key_value_heads(heads)
        # queries and outputs, keys and values, and three feed-forward matrices of 8/3 of the width
        layer = width**2 * (2 + 2 * kv_heads / heads + 8)
        if rest < layer:
            continue
        layers = rest / layer
        distance = abs(math.log(layers / (DEPTH_FACTOR * rest**0.25)))
        if best is None or distance < best[0]:
            best = distance, Shape(vocab_size, width, round(layers), heads, kv_heads, hidden=_step(width))
    return best[1] if best else None


def _step(width: int) -> int:
    return 8 if width < 128 else 16 if width < 512 else 64


def _filled(found: Shape, target: int) -> Shape:
    """`found` with the feed-forward that meets `target` best; the count is linear in it."""
    step = _step(found.dim)
    per_step = 3 * found.dim * step * found.layers
    more = round((target - found.parameters()) / per_step)
    return Shape(found.vocab_size, found.dim, found.layers, found.heads, found.kv_heads, step * max(1, 1 + more))
