"""How evenly a router spreads tokens over its experts: the balance loss and what is reported.

    f_e = share of the assignments that went to expert e,  P_e = mean probability of expert e
    loss = E sum_e f_e P_e        (Switch 2101.03961, GShard 2006.16668)

over the tokens that are not padding; 1 when both are uniform, E when one expert takes all. With k experts a token f sums
to 1 (transformers' sums to k). The gradient goes through P alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tinycore.families import LOSS, Aux


def balance(probabilities: Tensor, chosen: Tensor, counted: Tensor | None, names: Sequence[str], weight: float) -> Aux:
    """Aux of one router: probabilities (N, E), chosen (N, k) int64, counted (N,) bool or None for all.

    loss/balance, `weight` times the loss above; experts/usage/<name>, the share f of each; experts/usage/largest; and
    experts/entropy, of a token's probabilities in nats. As aux of several routers adds up, each is a mean over routers.
    """
    experts, ranks = probabilities.shape[-1], chosen.shape[-1]
    if counted is None:
        counted = torch.ones_like(chosen[:, 0], dtype=torch.bool)
    mask = counted.to(probabilities.dtype)
    tokens = mask.sum()
    mean = tokens.clamp(min=1)
    with torch.no_grad():
        assigned = probabilities.new_zeros(experts)
        assigned = assigned.index_add(0, chosen.flatten(), mask.repeat_interleave(ranks)) / (mean * ranks)
        entropy = (torch.special.entr(probabilities).sum(-1) * mask).sum()
        aux: Aux = {f"experts/usage/{name}": (assigned[i] * tokens, tokens) for i, name in enumerate(names)}
        aux["experts/usage/largest"] = (assigned.max() * tokens, tokens)
        aux["experts/entropy"] = (entropy, tokens)
    if weight:
        loss = experts * (assigned * (probabilities * mask[:, None]).sum(0) / mean).sum()
        aux[LOSS + "balance"] = (weight * loss * tokens, tokens)
    return aux
