"""compiled: torch.compile takes the whole model as one graph and gives the same numbers."""

from __future__ import annotations

import torch

from tinycore.model_config import ModelConfig
from tinycore.testing.probes import (
    Precision,
    awake,
    reached_gradients,
    require,
    require_equal,
    rows_for,
)

CLOSE = Precision(torch.float64, 1e-9)


def compiled(config: ModelConfig, backend: str = "aot_eager") -> None:
    """`torch.compile(fullgraph=True)` gives the logits, loss and gradients of the model itself, on packed rows.

    `aot_eager` traces forward and backward whole and runs them uncompiled (a second or two); `inductor` also compiles
    (a minute on two cores).
    """
    rows = rows_for(config, 2, 16)
    eager, traced = awake(config), awake(config)
    torch.compiler.reset()
    run = torch.compile(traced, fullgraph=True, backend=backend)
    outputs = []
    for model, call in ((eager, eager), (traced, run)):
        out = call(rows.tokens, targets=rows.targets(), doc_ids=rows.doc_ids, return_logits=True)
        out.loss.backward()
        outputs.append((out.logits.detach(), out.loss.detach(), reached_gradients(model)))
    torch.compiler.reset()
    (logits, loss, gradients), (traced_logits, traced_loss, traced_gradients) = outputs
    require_equal("compiled: logits", traced_logits, logits, CLOSE)
    require_equal("compiled: loss", traced_loss, loss, CLOSE)
    require(gradients.keys() == traced_gradients.keys(), "compiled: gradients reach other parameters")
    for name, gradient in gradients.items():
        require_equal(f"compiled: gradient of '{name}'", traced_gradients[name], gradient, CLOSE)
