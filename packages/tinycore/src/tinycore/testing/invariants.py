"""The invariants by name: what each states, and the check that holds a model's config to it."""

from __future__ import annotations

from collections.abc import Callable

from tinycore.model_config import ModelConfig
from tinycore.testing.causality import causal
from tinycore.testing.compilation import compiled
from tinycore.testing.counting import counted, flops
from tinycore.testing.gradients import alive, trainable
from tinycore.testing.isolation import alone, isolated
from tinycore.testing.learning import learns, mixes
from tinycore.testing.members import exemptions
from tinycore.testing.persistence import round_trip
from tinycore.testing.probes import SINGLE
from tinycore.testing.streaming import streams

IDENTITY = "identity"

STATEMENTS: dict[str, str] = {
    "learns": "x[t+1] = perm[x[t]] reaches 100 % next-token accuracy",
    "mixes": "x[t+1] = perm[x[t-1]] reaches 100 % next-token accuracy",
    "causal": "editing token j changes no logit before j; d logits[< j] / d embedding[>= j] is exactly 0",
    "streams": "whole = random chunks = token by token, packed and padded rows included; states are values",
    "isolated": "editing a document, a row or padding changes nothing elsewhere, by value and by gradient",
    "alone": "a packed document gives the logits it gives in a row of its own",
    "float32": "causal, streams, isolated and alone in float32 within 1e-4",
    IDENTITY: "an add-on has a setting that equals the stack without it, gradients included",
    "trainable": "every tensor receives a finite gradient that is not zero in at least one of 8 batches",
    "alive": "so does every single entry of every tensor, but for those that its module lists as dead",
    "counted": "parameters and decoding state equal their closed form",
    "flops": "matrix-product FLOPs, forward and backward, equal FlopCounterMode on the meta device",
    "round_trip": "config to dict and back is equal; save and load give the same bits, shared weights stored once",
    "compiled": "torch.compile(fullgraph=True) gives the same logits, loss and gradients",
}


def float32(config: ModelConfig) -> None:
    """causal, streams, isolated and alone in float32 within 1e-4, as far as they apply."""
    for name in ("causal", "streams", "isolated", "alone"):
        if name not in exemptions(config):
            CHECKS[name](config, SINGLE)


# every invariant of one config; identity compares two and is `tinycore.testing.identity`
CHECKS: dict[str, Callable[..., None]] = {
    check.__name__: check
    for check in (
        learns,
        mixes,
        causal,
        streams,
        isolated,
        alone,
        float32,
        trainable,
        alive,
        counted,
        flops,
        round_trip,
        compiled,
    )
}


def check(config: ModelConfig) -> dict[str, str]:
    """Hold `config` to every invariant its components do not declare themselves exempt from.

    Returns {invariant: reason} for those that were left out. Raises Violation at the first that does not hold.
    """
    exempt = {name: reason for name, reason in exemptions(config).items() if name in CHECKS}
    for name, verify in CHECKS.items():
        if name not in exempt:
            verify(config)
    return exempt
