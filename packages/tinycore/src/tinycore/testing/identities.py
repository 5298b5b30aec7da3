"""identity: an add-on has a setting under which the model is the plain stack."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch

from tinycore.model import build
from tinycore.model_config import ModelConfig
from tinycore.testing.probes import Precision, awake, packed_rows, reached_gradients, require, require_equal

EXACT = Precision(torch.float64, 1e-12)


def identity(config: ModelConfig, plain: ModelConfig, renamed: Mapping[str, str] = MappingProxyType({})) -> None:
    """`config` computes what `plain` computes: logits, loss, and the gradients of the parameters that both have.

    Parameters of the same name get the same noisy values (`renamed` gives parts of plain's names and what stands there in
    `config`'s); those that only `config` has keep the values they are
    initialised with, which is where an add-on must do nothing.
    """
    reference = awake(plain, EXACT)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build(config).to(EXACT.dtype).eval()
    known = {_named(name, renamed): value for name, value in reference.state_dict().items()}
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
        name = _named(name, renamed)
        require(name in gradients, f"identity: '{name}' receives no gradient")
        require_equal(f"identity: gradient of '{name}'", gradients[name], gradient, EXACT)


def _named(name: str, renamed: Mapping[str, str]) -> str:
    for part, instead in renamed.items():
        name = name.replace(part, instead)
    return name
