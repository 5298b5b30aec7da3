"""Claim: document ids become boundaries and boundaries become segments, with the same result at a fixed size.

uv run pytest packages/tinykernels/tests/test_documents.py
"""

import pytest
import torch

from tinykernels import cu_seqlens_of, segment_of, validation

IDS = torch.tensor([[0, 0, 1, 2, 2, -1], [2, 2, 2, 0, 0, 0]])
BOUNDARIES = [0, 2, 3, 5, 6, 9, 12]


def test_boundaries_of_rows_laid_end_to_end() -> None:
    boundaries = cu_seqlens_of(IDS)
    assert boundaries.dtype == torch.int32
    assert boundaries.tolist() == BOUNDARIES


@pytest.mark.parametrize("most", [6, 9, 12, 20])
def test_fixed_size_ends_in_empty_documents(most) -> None:
    assert cu_seqlens_of(IDS, max_documents=most).tolist() == BOUNDARIES + [12] * (most - 6)


def test_too_many_documents() -> None:
    with pytest.raises(RuntimeError, match="more than max_documents = 5 documents"):
        cu_seqlens_of(IDS, max_documents=5)


def test_segments_skip_empty_documents() -> None:
    boundaries = torch.tensor([0, 0, 2, 2, 5, 5], dtype=torch.int32)
    assert segment_of(boundaries, 5).tolist() == [1, 1, 3, 3, 3]


def test_ids_must_be_rows() -> None:
    with pytest.raises(ValueError, match=r"document_ids must have shape \(B T\), got \(6,\)"):
        cu_seqlens_of(IDS[0])


def test_tensors_of_inference_mode_are_taken() -> None:
    """They count no changes: what was looked at once is remembered all the same (on a GPU every look is a wait)."""
    with torch.inference_mode():
        boundaries = cu_seqlens_of(IDS)
        assert boundaries.is_inference()
        validation.cu_seqlens("scan", boundaries, 12)
