"""identity: an add-on has a setting under which the model is the plain stack."""

from __future__ import annotations

import torch

from tinycore.model import build
from tinycore.model_config import ModelConfig
from tinycore.testing.probes import Precision, awake, packed_rows, reached_gradients, require, require_equal

EXACT = Precision(torch.float64, 1e-12)


def identity(config: ModelConfig, plain: ModelConfig) -> None:
    """`config` computes what `plain` computes: logits, loss, and the gradients of the parameters that both have.

    Parameters of the same name get the same noisy values; those that only `config` has keep the values they are
    initialised with, which is where an add-on must do nothing.
    """
    reference = awake(plain, EXACT)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build(config).to(EXACT.dtype).eval()
    known = reference.state_dict()
    missing = [name for name in known if name not in model.state_dict()]
    require(not missing, f"identity: the model lacks {missing} of the plain stack")
    model.load_state_dict(known, strict=False)

    rows = packed_rows(config, 3, 20)
    results = []
    for candidate in (reference, model):
        out = candidate(rows.tokens, targets=rows.targets(), doc_ids=rows.doc_ids, return_logits=True)
        total, count = out.losses["lm"]
        (total / count).backward()
        results.append((out, reached_gradients(candidate)))
    (expected, plain_gradients), (found, gradients) = results
    valid = rows.valid
    require_equal("identity: logits", found.logits[valid], expected.logits[valid], EXACT)
    require_equal("identity: loss", found.losses["lm"][0], expected.losses["lm"][0], EXACT)
    for name, gradient in plain_gradients.items():
        require(name in gradients, f"identity: '{name}' receives no gradient")
        require_equal(f"identity: gradient of '{name}'", gradients[name], gradient, EXACT)
