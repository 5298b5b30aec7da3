"""Attention, whose state is ragged, and Mamba, whose state is reset: any layout of documents and padding, cut anywhere,
equals the whole.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tinycore
from tinycore import testing
from tinycore.testing.probes import awake

LENGTH = 14
ATTENTION = {"kind": "attention", "heads": 4, "kv_heads": 2}
MIXERS: dict[str, dict[str, Any]] = {
    "attention": ATTENTION,
    "window 1": {**ATTENTION, "window": 1},
    "window 2": {**ATTENTION, "window": 2},
    "window 4": {**ATTENTION, "window": 4},
    "mamba": {"kind": "mamba", "state": 3},
    "mamba, two taps": {"kind": "mamba", "state": 3, "conv": 2},
}


@functools.cache
def model(mixer: str) -> tinycore.Decoder:
    return awake(testing.stack(mixer=MIXERS[mixer]))


@st.composite
def layouts(draw: st.DrawFn) -> testing.Rows:
    """Rows whose documents are contiguous but for padding, in any order of ids; rows may be nothing but padding."""
    ids = []
    for _ in range(draw(st.integers(1, 3))):
        order = draw(st.permutations(range(LENGTH)))
        steps = draw(st.lists(st.sampled_from(["same", "next", "padding"]), min_size=LENGTH, max_size=LENGTH))
        row, document = [], 0
        for step in steps:
            document += step == "next" and document < LENGTH - 1
            row.append(-1 if step == "padding" else order[document])
        ids.append(row)
    tokens = torch.randint(32, (len(ids), LENGTH), generator=torch.Generator().manual_seed(draw(st.integers(0, 9))))
    return testing.Rows(tokens, torch.tensor(ids))


@settings(deadline=None, derandomize=True, max_examples=60)
@given(rows=layouts(), cuts=st.sets(st.integers(1, LENGTH - 1)), mixer=st.sampled_from(list(MIXERS)))
def test_any_layout_cut_anywhere(rows: testing.Rows, cuts: set[int], mixer: str) -> None:
    testing.streams_at(model(mixer), rows, sorted(cuts))


@settings(deadline=None, derandomize=True, max_examples=40)
@given(rows=layouts(), mixer=st.sampled_from(list(MIXERS)))
def test_any_document_is_as_alone(rows: testing.Rows, mixer: str) -> None:
    with torch.no_grad():
        packed = model(mixer)(rows.tokens, doc_ids=rows.doc_ids).logits
        for document in rows.documents():
            alone = model(mixer)(rows.tokens[document][None]).logits[0]
            assert (packed[document] - alone).abs().max() < 1e-9


@settings(deadline=None, derandomize=True, max_examples=25)
@given(first=st.integers(1, 10), rest=st.integers(0, 5), length=st.integers(0, 10))
def test_truncate_forgets_exactly_the_newest_tokens(first: int, rest: int, length: int) -> None:
    """A stream cut back to `length` tokens goes on as if it had seen no more."""
    decoder, tokens = model("attention"), testing.single_rows(model("attention").config, 2, 16).tokens
    with torch.no_grad():
        state = decoder(tokens[:, :first]).state
        if rest:
            state = decoder(tokens[:, first : first + rest], state=state).state
        kept = min(length, first + rest)
        found = decoder(tokens[:, 12:], state=tinycore.state.truncate(state, length)).logits
        expected = decoder(torch.cat([tokens[:, :kept], tokens[:, 12:]], 1)).logits[:, kept:]
    assert (found - expected).abs().max() < 1e-9
