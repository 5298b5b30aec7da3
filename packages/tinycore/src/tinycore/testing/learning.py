"""learns and mixes: the model is trained on the token that comes next, and positions talk to each other.

Both sequences are deterministic, so that the only right answer is 100 % of next tokens. Accuracy is taken from the
logits against the rule itself, never from the model's own statistics: a model that shifts its labels a second time
predicts the token after the next one, reports a fine loss, and fails here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tinycore import objectives
from tinycore.model import build
from tinycore.model_config import ModelConfig
from tinycore.optim.groups import adamw
from tinycore.testing.probes import Violation, generator

ROWS, LENGTH = 32, 12
SYMBOLS = 8  # tokens that occur: fetching is what `mixes` is about, not how many rows a table has
STEPS, EVERY = 600, 20
LEARNING_RATE = 1e-2


def learns(config: ModelConfig) -> None:
    """x[t + 1] = perm[x[t]] reaches 100 % next-token accuracy."""
    _reaches(config, lag=1)


def mixes(config: ModelConfig) -> None:
    """x[t + 1] = perm[x[t - 1]] reaches 100 %: the answer stands one position back, where only a mixer can fetch it."""
    _reaches(config, lag=2)


def _reaches(config: ModelConfig, lag: int) -> None:
    draw = generator(lag)
    permutation = torch.randperm(min(SYMBOLS, config.vocab_size), generator=draw)
    accuracy = 0.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build(config)
        optimizer, objective = adamw(model, LEARNING_RATE, weight_decay=0.0), objectives.of(config)
        for step in range(1, STEPS + 1):
            row = _rows(permutation, lag, draw)
            # the label contract: targets[t] is the token after tokens[t]; here the data shifts, the model does not
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * min(1.0, step / EVERY)
            for losses, _ in objective(model, row[:, :-1], _learnable(row[:, 1:], lag)):
                optimizer.zero_grad()
                torch.stack([total / count.clamp(min=1) for total, count in losses.values()]).sum().backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
            if step % EVERY == 0:
                accuracy = _accuracy(model.eval(), permutation, lag, draw)
                if accuracy == 1.0:
                    return
                model.train()
    name = "learns" if lag == 1 else "mixes"
    raise Violation(f"{name}: {accuracy:.1%} of next tokens are right after {STEPS} steps, not 100 %")


def _rows(permutation: Tensor, lag: int, draw: torch.Generator) -> Tensor:
    """(ROWS, LENGTH + 1) tokens that follow the rule after their first `lag`."""
    row = torch.randint(len(permutation), (ROWS, LENGTH + 1), generator=draw)
    for t in range(lag, LENGTH + 1):
        row[:, t] = permutation[row[:, t - lag]]
    return row


def _learnable(targets: Tensor, lag: int) -> Tensor:
    """Targets without the first ones, which are random."""
    targets = targets.clone()
    targets[:, : lag - 1] = -100
    return targets


@torch.no_grad()
def _accuracy(model: torch.nn.Module, permutation: Tensor, lag: int, draw: torch.Generator) -> float:
    row = _rows(permutation, lag, draw)[:, :-1]
    predicted = model(row).logits.argmax(-1)
    expected = permutation[row[:, : LENGTH - lag + 1]]  # the token after position t is perm[x[t + 1 - lag]]
    return float((predicted[:, lag - 1 :] == expected).double().mean())
