"""isolated and alone: documents, rows and padding do not reach each other."""

from __future__ import annotations

import torch
from torch import Tensor

from tinycore.context import PADDING
from tinycore.model_config import ModelConfig
from tinycore.testing.probes import (
    DOUBLE,
    Precision,
    Rows,
    awake,
    embedding_of,
    generator,
    largest,
    packed_rows,
    require,
    require_equal,
)

LENGTH = 26


def isolated(config: ModelConfig, precision: Precision = DOUBLE) -> None:
    """Editing one document, row or padding changes nothing elsewhere, by value and by gradient.

    Rows that are nothing but padding give finite outputs and gradients.
    """
    model = awake(config, precision)
    rows = packed_rows(config, 3, LENGTH)
    targets = rows.targets()

    with torch.no_grad():
        base = model(rows.tokens, targets=targets, doc_ids=rows.doc_ids, return_logits=True)
        for index, document in enumerate(rows.documents()):
            edited = rows.edited(document, config.vocab_size)
            found = model(edited.tokens, doc_ids=rows.doc_ids).logits
            others = rows.valid & ~document
            require_equal(
                f"isolated: others after editing document {index}",
                found[others],
                base.logits[others],
                precision,
            )
            gap = largest(found[document] - base.logits[document])
            require(gap > precision.tolerance, f"isolated: editing document {index} changes nothing at all")
        edited = rows.edited(~rows.valid, config.vocab_size)
        found = model(edited.tokens, targets=targets, doc_ids=rows.doc_ids, return_logits=True)
        require_equal(
            "isolated: logits after editing padding",
            found.logits[rows.valid],
            base.logits[rows.valid],
            precision,
        )
        for name, (total, count) in base.losses.items():
            mean = found.losses[name][0] / count
            require_equal(f"isolated: loss '{name}' after editing padding", mean, total / count, precision)

    kept: list[Tensor] = []
    hook = model.embed.register_forward_hook(lambda module, inputs, output: kept.append(embedding_of(output)))
    logits = model(rows.tokens, doc_ids=rows.doc_ids).logits
    hook.remove()
    weights = torch.randn(logits.shape, generator=generator(1), dtype=logits.dtype)
    for index, document in enumerate(rows.documents()):
        (gradient,) = torch.autograd.grad((logits * weights)[document].sum(), kept[0], retain_graph=True)
        leak = largest(gradient[~document])
        require(leak == 0, f"isolated: the gradient of document {index} reaches outside of it ({leak:.2e})")
    _padding_only(config, rows, precision)


def _padding_only(config: ModelConfig, rows: Rows, precision: Precision) -> None:
    model = awake(config, precision)
    assert rows.doc_ids is not None
    doc_ids = rows.doc_ids.clone()
    doc_ids[1] = PADDING
    out = model(rows.tokens, targets=Rows(rows.tokens, doc_ids).targets(), doc_ids=doc_ids, return_logits=True)
    out.loss.backward()
    require(bool(out.logits.isfinite().all()), "isolated: a row of padding gives logits that are not finite")
    for name, parameter in model.named_parameters():
        finite = parameter.grad is None or bool(parameter.grad.isfinite().all())
        require(finite, f"isolated: a row of padding gives '{name}' a gradient that is not finite")


def alone(config: ModelConfig, precision: Precision = DOUBLE) -> None:
    """A packed document gives the logits it gives in a row of its own, without document ids or padding."""
    model = awake(config, precision)
    for seed in (0, 1):
        rows = packed_rows(config, 3, LENGTH, seed)
        with torch.no_grad():
            packed = model(rows.tokens, doc_ids=rows.doc_ids).logits
            for index, document in enumerate(rows.documents()):
                single = model(rows.tokens[document][None]).logits[0]
                require_equal(f"alone: document {index} (rows {seed})", packed[document], single, precision)
