"""Multiple choice by log-likelihood, lm-eval's two rules: the likeliest choice, as a whole or per byte; and a third, per token.

    acc         argmax_i ln p(choice_i | context)
    acc_norm    argmax_i ln p(choice_i | context) / UTF-8 bytes of choice_i (without the space before it)
    acc_token   argmax_i ln p(choice_i | context) / tokens of choice_i: of one tokenizer only

lm-eval divides by characters, which is the same for ASCII. It takes the first of equal choices, which rewards a model that
knows nothing wherever the right one tends to stand first; here equal choices share the point.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_EQUAL = 1e-9  # relative: the same sums in another order


def accuracies(
    nats: Sequence[float], choices: Sequence[str], right: int, tokens: Sequence[int] | None = None
) -> dict[str, float]:
    """acc and acc_norm of one item, each 0 to 1, and acc_token where the choices' ``tokens`` are counted.

    Raises ValueError for a score that is not a number.
    """
    if any(math.isnan(one) for one in nats):
        raise ValueError("the model scored a choice with nan")
    per_byte = [one / max(1, len(choice.encode())) for one, choice in zip(nats, choices, strict=True)]
    found = {"acc": _point(nats, right), "acc_norm": _point(per_byte, right)}
    if tokens is not None:
        per_token = [one / max(1, count) for one, count in zip(nats, tokens, strict=True)]
        found["acc_token"] = _point(per_token, right)
    return found


def _point(scores: Sequence[float], right: int) -> float:
    best = max(scores)
    if math.isinf(best):
        winners = [index for index, score in enumerate(scores) if score == best]
    else:
        near = _EQUAL * max(1.0, abs(best))
        winners = [index for index, score in enumerate(scores) if score >= best - near]
    return 1 / len(winners) if right in winners else 0.0
