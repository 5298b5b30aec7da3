"""streams: a sequence in one piece, in random chunks, or token by token gives the same output.

Held for single documents and for packed, padded rows; also that states are values: a stream may be continued twice from
the same state, and rows of a state may be selected, repeated and reordered.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tinycore.model import Decoder
from tinycore.model_config import ModelConfig
from tinycore.state import State, select, snapshot
from tinycore.testing.probes import (
    DOUBLE,
    Precision,
    Rows,
    awake,
    generator,
    packed_rows,
    require,
    require_equal,
    single_rows,
)

LENGTH = 26


def streams(config: ModelConfig, precision: Precision = DOUBLE) -> None:
    """Whole == random chunks == token by token, on single documents and on packed, padded rows."""
    model = awake(config, precision)
    for seed in (0, 1):
        for rows in (single_rows(config, 3, LENGTH, seed), packed_rows(config, 3, LENGTH, seed)):
            for cuts in (range(1, LENGTH), random_cuts(seed), random_cuts(seed + 10)):
                streams_at(model, rows, list(cuts), precision)
            _continues(model, rows, random_cuts(seed + 20)[0], precision)
    _continues_without_ids(model, packed_rows(config, 3, LENGTH, 2), precision)


def streams_at(model: Decoder, rows: Rows, cuts: list[int], precision: Precision = DOUBLE) -> None:
    """Logits and loss of `rows` cut into chunks at `cuts` equal those of the rows as a whole."""
    ends = [*cuts, rows.tokens.shape[1]]
    targets = rows.targets()
    with torch.no_grad():
        whole = model(rows.tokens, targets=targets, doc_ids=rows.doc_ids, return_logits=True)
        require(whole.state is None, "streams: targets were given and no state, yet a state is returned")
        state: State = {}
        pieces, loss, start = [], torch.zeros((), dtype=precision.dtype), 0
        for end in ends:
            ids = None if rows.doc_ids is None else rows.doc_ids[:, start:end]
            out = model(rows.tokens[:, start:end], targets[:, start:end], ids, state, return_logits=True)
            state, start = out.state, end
            pieces.append(out.logits)
            loss = loss + out.losses["lm"][0]
    at = f"cut at {cuts}"
    _equal(f"streams: logits {at}", torch.cat(pieces, 1), whole.logits, rows.valid, precision)
    total, count = whole.losses["lm"]
    learned = count.clamp(min=1)
    require_equal(f"streams: loss {at}", loss / learned, total / learned, precision)


def random_cuts(seed: int) -> list[int]:
    """Up to five increasing chunk boundaries inside LENGTH."""
    return sorted((torch.randperm(LENGTH - 1, generator=generator(seed))[:5] + 1).tolist())


def _continues(model: Decoder, rows: Rows, cut: int, precision: Precision) -> None:
    """A state is a value: it is not written into, and its rows can be selected."""
    order = [2, 0, 2]
    tail_ids = None if rows.doc_ids is None else rows.doc_ids[:, cut:]
    other = rows.edited(torch.ones_like(rows.valid), model.config.vocab_size).tokens[:, cut:]
    with torch.no_grad():
        whole = model(rows.tokens, doc_ids=rows.doc_ids).logits[:, cut:]
        state = model(rows.tokens[:, :cut], doc_ids=None if rows.doc_ids is None else rows.doc_ids[:, :cut]).state
        saved = snapshot(state)
        model(other, doc_ids=tail_ids, state=state)
        again = model(rows.tokens[:, cut:], doc_ids=tail_ids, state=saved).logits
        chosen_ids = None if tail_ids is None else tail_ids[order]
        chosen = model(rows.tokens[order, cut:], doc_ids=chosen_ids, state=select(state, order)).logits
    _equal(f"streams: second continuation from the state at {cut}", again, whole, rows.valid[:, cut:], precision)
    _equal(f"streams: selected rows at {cut}", chosen, whole[order], rows.valid[order, cut:], precision)


def _continues_without_ids(model: Decoder, rows: Rows, precision: Precision) -> None:
    """After packed rows, tokens without document ids belong to the document in which each row stands.

    That is how generation goes on after prompts of different lengths.
    """
    doc_ids = rows.doc_ids
    assert doc_ids is not None
    newest = [int(row[row >= 0][-1]) for row in doc_ids]
    fresh = torch.randint(model.config.vocab_size, (len(newest), 4), generator=generator(3))
    ids = torch.tensor(newest)[:, None].expand(-1, fresh.shape[1])
    with torch.no_grad():
        whole = model(torch.cat([rows.tokens, fresh], 1), doc_ids=torch.cat([doc_ids, ids], 1)).logits
        state = model(rows.tokens, doc_ids=doc_ids).state
        for step in range(fresh.shape[1]):
            out = model(fresh[:, step : step + 1], state=state)
            state = out.state
            expected = whole[:, rows.tokens.shape[1] + step]
            require_equal(f"streams: token {step} without document ids", out.logits[:, 0], expected, precision)


def _equal(what: str, found: Tensor, expected: Tensor, valid: Tensor, precision: Precision) -> None:
    require_equal(what, found[valid], expected[valid], precision)
