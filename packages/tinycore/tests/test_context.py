"""Positions count the valid tokens of a document, whatever chunk, row or padding they stand in: held to a loop."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycore.context import PADDING, Context, begin
from tinycore.state import STREAM


def counted(row: list[int]) -> list[int]:
    """The position of every token of a row, one at a time; 0 at padding."""
    positions, current, seen = [], None, 0
    for document in row:
        if document == PADDING:
            positions.append(0)
            continue
        if document != current:
            current, seen = document, 0
        positions.append(seen)
        seen += 1
    return positions


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    rows=st.integers(1, 12).flatmap(
        lambda length: st.lists(st.lists(st.integers(-1, 2), min_size=length, max_size=length), min_size=1, max_size=3)
    ),
    cuts=st.sets(st.integers(1, 11)),
)
def test_positions_equal_the_loop_however_the_rows_are_cut(rows: list[list[int]], cuts: set[int]) -> None:
    doc_ids = torch.tensor(rows)
    ends = [*sorted(cut for cut in cuts if cut < doc_ids.shape[1]), doc_ids.shape[1]]
    state, start, found = None, 0, []
    for end in ends:
        chunk = doc_ids[:, start:end]
        ctx, stream = begin(torch.zeros_like(chunk), chunk, state)
        found.append(ctx.positions)
        assert torch.equal(ctx.valid, chunk != PADDING)
        state, start = {STREAM: stream}, end
    assert torch.cat(found, 1).tolist() == [counted(row) for row in rows]


def test_rows_without_documents_share_their_positions() -> None:
    tokens = torch.zeros(3, 4, dtype=torch.long)
    ctx, stream = begin(tokens, None, None)
    assert ctx.positions.tolist() == [[0, 1, 2, 3]]
    assert ctx.documents is None
    assert ctx.valid is None
    assert stream.documents is None
    ctx, stream = begin(tokens, None, {STREAM: stream})
    assert ctx.positions.tolist() == [[4, 5, 6, 7]] * 3
    assert stream.positions.tolist() == [8, 8, 8]


def test_tokens_without_ids_continue_the_document_in_which_their_row_stands() -> None:
    doc_ids = torch.tensor([[5, 5, 7], [-1, 5, -1], [5, 5, 5]])
    _, stream = begin(torch.zeros_like(doc_ids), doc_ids, None)
    ctx, stream = begin(torch.zeros(3, 2, dtype=torch.long), None, {STREAM: stream})
    assert ctx.positions.tolist() == [[1, 2], [1, 2], [3, 4]]
    assert ctx.documents is not None
    assert ctx.documents.tolist() == [[7, 7], [5, 5], [5, 5]]
    assert stream.positions.tolist() == [3, 3, 5]


def test_a_stream_without_ids_stands_in_document_zero() -> None:
    _, stream = begin(torch.zeros(2, 3, dtype=torch.long), None, None)
    ctx, _ = begin(torch.zeros(2, 2, dtype=torch.long), torch.tensor([[0, 0], [1, 1]]), {STREAM: stream})
    assert ctx.positions.tolist() == [[3, 4], [0, 1]]


def test_gather_keeps_positions_and_documents_and_shares_nothing_derived() -> None:
    ctx = Context(torch.arange(4)[None], torch.tensor([[0, 0, 1, 1], [2, 2, 2, -1]]), {"mask": "of the parent"})
    child = ctx.gather(torch.tensor([[0, 3], [1, 2]]))
    assert child.positions.tolist() == [[0, 3], [1, 2]]
    assert child.documents is not None
    assert child.documents.tolist() == [[0, 1], [2, 2]]
    assert child.memo == {}


@pytest.mark.parametrize("size, ends", [(1, [0, 1, 2, 3, 4]), (2, [1, 3]), (3, [2]), (6, [])])
def test_pool_stands_where_the_last_token_of_a_group_stands(size: int, ends: list[int]) -> None:
    pooled = Context(torch.arange(5)[None], torch.arange(5)[None]).pool(size)
    assert pooled.positions.tolist() == [ends]
    assert pooled.documents is not None
    assert pooled.documents.tolist() == [ends]
