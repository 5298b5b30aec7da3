"""causal: a token influences no output before it, by value and by gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from tinycore.model_config import ModelConfig
from tinycore.testing.probes import (
    DOUBLE,
    Precision,
    Rows,
    awake,
    embedding_of,
    generator,
    largest,
    require,
    require_equal,
    single_rows,
)

LENGTH = 19


def causal(config: ModelConfig, precision: Precision = DOUBLE) -> None:
    """Editing token j changes no logit before j, and d logits[< j] / d embedding[>= j] is exactly zero, for every j.

    The controls, without which a model that ignores its input would pass: logits[j] do change, and the gradient with
    respect to embedding[j - 1] is not zero.
    """
    model = awake(config, precision)
    row = single_rows(config, 1, LENGTH).tokens
    with torch.no_grad():
        expected = model(row).logits
        for j in range(LENGTH):
            edit = torch.zeros_like(row, dtype=torch.bool)
            edit[:, j] = True
            found = model(Rows(row, None).edited(edit, config.vocab_size).tokens).logits
            require_equal(f"causal: logits before the edited token {j}", found[:, :j], expected[:, :j], precision)
            gap = largest(found[:, j:] - expected[:, j:])
            require(gap > precision.tolerance, f"causal: editing token {j} changes nothing at all")

    kept: list[Tensor] = []
    hook = model.embed.register_forward_hook(lambda module, inputs, output: kept.append(embedding_of(output)))
    logits = model(row).logits
    hook.remove()
    weights = torch.randn(logits.shape, generator=generator(1), dtype=logits.dtype)
    for j in range(1, LENGTH):
        (gradient,) = torch.autograd.grad((logits * weights)[:, :j].sum(), kept[0], retain_graph=True)
        leak = largest(gradient[:, j:])
        require(
            leak == 0,
            f"causal: the gradient of the logits before {j} reaches embedding {j} or later ({leak:.2e})",
        )
        require(
            largest(gradient[:, j - 1]) > 0,
            f"causal: the logits before {j} do not depend on embedding {j - 1}",
        )
