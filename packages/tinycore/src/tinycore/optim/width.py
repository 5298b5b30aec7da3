"""Width transfer: learning rates found on a narrow model, used on a wide one (mu-P, arXiv 2203.03466).

Let m be a model's width over that of the model the rate was found on, with every inner size (feed-forward, heads of the same
size, ranks, states) grown alike. A step must change what a layer gives to its neighbours as much at every width, and so must
the logits. What a step of one matrix does to a hidden state is bounded by its spectral norm times that of the state, which
asks for steps of norm sqrt(rows / columns) (arXiv 2310.17813), the same at every m where both grow alike:

    rule                  a step of an n x n matrix                                  its norm      rate
    adam                  entries of the rate, aligned with one direction            rate n        1 / m
    orthogonalised        Muon, M3, deep momentum: rate .2 sqrt(n) U                 rate sqrt(n)  1 / sqrt(m)
    gradient              delta rule: g = d x^T, |x| as sqrt(n), |d| as 1 / sqrt(n)  rate          1

`adam` is AdamW's and Adam-atan2's. Matrices of gates and of heads beside the next-token one, whose outputs do not grow, need
1 / m as well. Embeddings, norms, biases, tables: 1, since each entry works by itself. The next-token head:

    of its own    1, and its logits times 1 / m (`heads.lm.scale`), by which d is as small as the table says
    tied          1 / m for the embedding that it is, and logits as they are. (The paper has the factor on the logits here too:
                  the embedding then moves m times as far for the same logits, which measured much worse, docs/width.md.) d is
                  not small then: the delta rule needs 1 / m

Initial weights need nothing: matrices here have a variance of 1 / columns and embeddings one that is the same at every width.
Attention needs nothing while heads keep their size.

Weight decay acts as rate times decay: it is multiplied by what the rate is divided by, so that a step forgets the same share
(arXiv 2405.13698).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from tinycore.optim.roles import Role, roles

Rule = Literal["adam", "orthogonalised", "gradient"]
EXPONENTS: dict[Rule, float] = {"adam": 1.0, "orthogonalised": 0.5, "gradient": 0.0}
NEXT_TOKEN = "heads.lm."  # the names of the next-token head's own parameters


def rate(role: Role, rule: Rule, ratio: float, tied: bool) -> float:
    """The factor on the learning rate of a parameter that moves by `rule`, in a model `ratio` times as wide whose next-token
    head is `tied` to the embedding or not."""
    widens = role.kind in ("hidden", "gate") or (role.kind == "head" and not role.name.startswith(NEXT_TOKEN))
    if widens:
        return ratio ** -(1.0 if tied and rule == "gradient" else EXPONENTS[rule])
    return 1 / ratio if tied and role.kind == "embedding" else 1.0


def widened(optimizer: torch.optim.Optimizer, model: nn.Module, ratio: float) -> None:
    """Have `optimizer`, which took no step yet, move the parameters of `model`, `ratio` times as wide as the one its rate was
    found on, as much as that one's: its groups are split by what their rates become. A ratio of 1 changes nothing.

    Raises ValueError for a ratio that is not positive.
    """
    if not ratio > 0:
        raise ValueError(f"ratio: {ratio} is not positive")
    if ratio == 1:
        return
    known = {id(role.parameter): role for role in roles(model)}
    tied = not any(name.startswith(NEXT_TOKEN) for name, _ in model.named_parameters())
    groups: list[dict[str, Any]] = []
    for group in optimizer.param_groups:
        factors = [rate(known[id(p)], rule(optimizer, group, p), ratio, tied) for p in group["params"]]
        for factor in sorted(set(factors), reverse=True):
            chosen = [index for index, found in enumerate(factors) if found == factor]
            lists = {name: [group[name][index] for index in chosen] for name in ("params", "parts") if name in group}
            changed = {"lr": group["lr"] * factor, "weight_decay": group["weight_decay"] / factor}
            groups.append({**group, **lists, **changed})
    optimizer.param_groups = groups


def rule(optimizer: torch.optim.Optimizer, group: dict[str, Any], parameter: nn.Parameter) -> Rule:
    """By which rule `optimizer` moves a parameter of one of its groups."""
    if group.get("matrices"):
        return "orthogonalised"
    return "gradient" if parameter in getattr(optimizer, "met", {}) else "adam"
