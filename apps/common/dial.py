"""One dial: from `--size 10M` to a whole recipe, each value with the rule that gave it. Closed forms; nothing is built.

The shape is apps.common.dial_shape's. The rest is scaled from one measured point, the demo recipe: 0.92M parameters,
width 128, 4 layers, 2.05M tokens in steps of 2,048, learning rate 8e-3, weight decay 0.1; the learning rate was
checked at 0.5M and 2M on short runs (docs/EXPERIMENTS.md). N: parameters, D: tokens of the run, B: tokens a step.

horizon        D = 20 N (Chinchilla, arXiv 2203.15556), or what --tokens or --minutes ask for
batch          B = 2,048 (D / 2.05M)^0.383 (exponent of arXiv 2505.13738), in rows of 2^k or 3 * 2^k, at least 4
learning rate  8e-3 sqrt(B / 2,048) (0.788M / P)^(2/3), P: parameters outside the embedding table. The square root of the
               batch is Adam's (arXiv 2205.10287). P grows as width^(8/3) here, so the rate falls as width^-1.8: muP's
               1 / width (2203.03466) is for width alone, with depth it falls faster; Step Law (2503.04715) fits
               P^-0.713 to 3,700 runs. At most 1e-2: at 0.5M three times that failed. One rate serves all parameters
weight decay   B / (learning rate * weight decay * D) = 1.25 run lengths: the time over which AdamW forgets, as a share of
               the run, stays the demo's (arXiv 2405.13698); brandon-10m has 0.83
length         the largest power of two up to three widths, 256 to 2,048 tokens: attention scores then cost at most 0.6
               of a layer's matrix products (as much as they at the narrowest, where 256 is the floor)
schedule       warmup 5 % of the steps, at most 2,000; decay over the last 30 % to zero: the demo's

The second anchor of this repository, brandon-10m, was not measured here. Width, depth (12 layers, called twice) and length
are the dial's at 10M; it takes 65,536 tokens a step for 0.98B tokens, where the rule gives 21,800, at a learning rate of
8e-4, a fifth of the dial's 4.2e-3 at 10M, from embeddings of another scale. Between the two the exponent of B would be
0.56; the smaller one is kept because one machine is filled by one micro-batch and gains no speed from more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apps.common import quantity
from apps.common.dial_shape import Shape, shape
from apps.common.errors import BadRequest
from apps.common.overrides import Override

SMALLEST, LARGEST = 200_000, 1_000_000_000
TOKENS_A_PARAMETER = 20
# the measured point that everything is scaled from: the demo recipe
ANCHOR_TOKENS = 2_048_000
ANCHOR_BATCH = 2_048  # tokens
ANCHOR_LEARNING_RATE = 8e-3
ANCHOR_PARAMETERS = 787_584  # outside the embedding table
ANCHOR_WIDTH = 128
TIMESCALE = 1.25  # B / (learning rate * weight decay * D)

BATCH_EXPONENT = 0.383
RATE_EXPONENT = 2 / 3
MOST_RATE = 1e-2
MOST_WARMUP = 2_000
MOST_STEPS_BETWEEN = 1_000  # of validations and checkpoints


@dataclass(frozen=True)
class Derived:
    """One value that was derived: its dotted key, and the rule as a short sentence with its source."""

    key: str
    value: Any
    rule: str


@dataclass(frozen=True)
class Dial:
    """A size as asked for: parameters, its name (`10M`), and what the command line overrides."""

    target: int
    name: str
    overrides: tuple[Override, ...] = ()

    def turn(self, tokens: int | None = None) -> tuple[dict[str, Any], tuple[Derived, ...]]:
        """The recipe's mapping with the overrides made, and every derived value, for a run of `tokens`."""
        from apps.common import recipes

        mapping, derived = derive(self.target, self.name, tokens)
        merged = recipes.merge(mapping, self.overrides)
        kept = (entry for entry in derived if at(merged, entry.key) is not None)
        return merged, tuple(_as_overridden(entry, merged) for entry in kept)


def read(text: str, overriding: Sequence[Override] = ()) -> Dial:
    """The dial that `--size text` asks for. Raises BadRequest for no number, or one that no rule here covers."""
    target = quantity.read(text, "size", "parameters")
    if not SMALLEST <= target <= LARGEST:
        raise BadRequest(
            f"--size: {text!r} is not between {quantity.name(SMALLEST)} and {quantity.name(LARGEST)} parameters; "
            "write a recipe of your own for it (--recipe my.yaml)"
        )
    return Dial(target, quantity.name(target, like=text), tuple(overriding))


def derive(target: int, name: str, tokens: int | None = None) -> tuple[dict[str, Any], tuple[Derived, ...]]:
    """The recipe for `target` parameters and `tokens` of training, and its values with their rules, in their order."""
    chosen = shape(target)
    horizon = tokens or TOKENS_A_PARAMETER * chosen.parameters()
    length = context(chosen.dim)
    rows = batch_rows(horizon, length)
    steps = max(1, math.ceil(horizon / (rows * length)))
    rate = learning_rate(rows * length, chosen.outside_table())
    decay = weight_decay(rate, steps)
    warmup = min(MOST_WARMUP, max(1, round(0.05 * steps)))
    every = between(steps)
    mapping = {
        "description": f"derived by --size {name}; docs/size.md has the rules",
        "model": chosen.mapping(length),
        "data": {
            "sources": [{"kind": "embedded", "documents": 20_000}],
            "tokenizer": {"kind": "train", "vocab_size": chosen.vocab_size},
            "sequence_length": length,
        },
        "optim": {
            "kind": "adamw",
            "learning_rate": rate,
            "betas": [0.9, 0.98],
            "weight_decay": decay,
            "clip": 1.0,
            "schedule": {"kind": "wsd", "warmup": warmup, "decay": 0.3, "final": 0.0},
        },
        "train": {
            "steps": steps,
            "batch_size": rows,
            "precision": "fp32" if chosen.dim <= ANCHOR_WIDTH else "auto",
            "validate_every": every,
            "validate_rows": 128,
            "save_every": min(2 * every, MOST_STEPS_BETWEEN),
        },
    }
    asked = "--tokens or --minutes" if tokens else f"{TOKENS_A_PARAMETER} tokens a parameter (arXiv 2203.15556)"
    return mapping, tuple(Derived(key, at(mapping, key), rule) for key, rule in _rules(chosen, asked).items())


def _rules(chosen: Shape, asked: str) -> dict[str, str]:
    """The rule of every derived key, as it reads for `chosen`."""
    ratio = chosen.heads // chosen.kv_heads
    return {
        "data.tokenizer.vocab_size": "largest power of two (1,024 to 32,768) with a table of at most 22 % of the model, "
        "as in brandon-226k and SmolLM2-135M",
        "model.dim": "deep and narrow: the width whose depth comes nearest to the rule (MobileLLM, arXiv 2402.14905)",
        "model.layers.0.repeat": "nearest to 0.28 x (parameters outside the table)^(1/4)",
        "model.layers.0.mixer.heads": f"heads of {chosen.dim // chosen.heads} channels: 16 below width 128, 32 below 512, "
        "else 64",
        "model.layers.0.mixer.kv_heads": f"grouped queries {ratio}:1, 4:1 where it divides (arXiv 2305.13245)",
        "model.layers.0.ffn.hidden": "8/3 of the width (arXiv 2002.05202), moved to meet the size",
        "model.max_seq_len": "the length that is trained on",
        "model.embed.scale": "square root of the width (docs/EXPERIMENTS.md)",
        "data.sequence_length": "largest power of two up to 3 widths, 256 to 2,048",
        "train.steps": f"{asked}, over the tokens of a step",
        "train.batch_size": "2,048 tokens x (tokens of the run / 2.05M)^0.383 (arXiv 2505.13738; anchor: demo), in rows of "
        "2^k or 3 x 2^k",
        "optim.learning_rate": "8e-3 x sqrt(tokens a step / 2,048) x (0.788M / parameters outside the table)^(2/3), "
        "at most 0.01 (arXiv 2205.10287, 2503.04715; anchor: demo)",
        "optim.weight_decay": "forgets over 1.25 runs: 1 / (1.25 x learning rate x steps) (arXiv 2405.13698; anchor: demo)",
        "optim.betas": "the demo's",
        "optim.schedule.warmup": "5 % of the steps, at most 2,000",
        "optim.schedule.decay": "the demo's, linear to zero (WSD, arXiv 2404.06395)",
        "train.precision": "float32 up to width 128, where casting costs more than bf16 saves (demo), then bf16 where fast",
        "train.validate_every": "5 to 10 times a run, rounded to 1, 2 or 5 x 10^k, at most 1,000 steps apart",
        "train.validate_rows": "the demo's",
        "train.save_every": "every second validation, at most 1,000 steps apart",
    }


def context(width: int) -> int:
    """Tokens of a row: the largest power of two up to three widths, 256 to 2,048."""
    return min(2_048, max(256, 2 ** int(math.log2(3 * width))))


def batch_rows(tokens: int, length: int) -> int:
    """Rows a step for a run of `tokens`: the nearest of 4, 6, 8, 12, 16, 24, ... by ratio."""
    rows = ANCHOR_BATCH * (tokens / ANCHOR_TOKENS) ** BATCH_EXPONENT / length
    allowed = sorted(factor * 2**power for factor in (4, 6) for power in range(32))
    return min(allowed, key=lambda number: abs(math.log(number / rows)))


def learning_rate(batch_tokens: int, outside_table: int) -> float:
    """The peak learning rate for a model of `outside_table` parameters besides its embeddings, two significant digits."""
    scaled = math.sqrt(batch_tokens / ANCHOR_BATCH) * (ANCHOR_PARAMETERS / outside_table) ** RATE_EXPONENT
    return _rounded(min(MOST_RATE, ANCHOR_LEARNING_RATE * scaled))


def weight_decay(rate: float, steps: int) -> float:
    """The weight decay that forgets over `TIMESCALE` run lengths, two significant digits."""
    return _rounded(1 / (TIMESCALE * rate * steps))


def between(steps: int) -> int:
    """Steps between validations."""
    rough = max(1.0, steps / 10)
    power = 10 ** math.floor(math.log10(rough))
    return min(MOST_STEPS_BETWEEN, next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough))


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")


def at(mapping: Mapping[str, Any], key: str) -> Any:
    """What `mapping` has under the dotted `key`, None where it has nothing."""
    found: Any = mapping
    for name in key.split("."):
        if isinstance(found, list) and name.isdigit() and int(name) < len(found):
            found = found[int(name)]
        elif isinstance(found, Mapping):
            found = found.get(name)
        else:
            return None
    return found


def _as_overridden(entry: Derived, merged: Mapping[str, Any]) -> Derived:
    """`entry` with the value that the recipe has in its place, if the command line gave another."""
    value = at(merged, entry.key)
    if value == entry.value:
        return entry
    return Derived(entry.key, value, f"yours; the rule gives {entry.value}")
