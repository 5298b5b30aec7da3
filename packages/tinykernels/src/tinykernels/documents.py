"""Packed documents, described the same way in every operation that mixes positions.

With `cu_seqlens` (N + 1,) int32 the tensors have batch size 1 and one long time axis of L positions;
document n owns positions cu_seqlens[n] .. cu_seqlens[n + 1] - 1, and nothing passes from one document to
another. Initial and final states are then per document (N, ...). Two equal neighbours are an empty
document, whose final state is its initial state; a tail of empty documents pads cu_seqlens to a fixed size,
which is what a CUDA graph needs.
"""

import torch

from tinykernels import validation


def cu_seqlens_of(document_ids: torch.Tensor, max_documents: int | None = None) -> torch.Tensor:
    """Boundaries (N + 1,) int32 of the rows (B, T) laid end to end: a document begins where a row begins or
    the id changes. Padding (any id, such as -1) is a document of its own.

    With `max_documents` the result always has that many documents, the last ones empty, and nothing is read
    back to the host. If there are more (B * T is always enough) a CPU tensor raises RuntimeError at once, a
    GPU tensor at the next synchronisation.
    """
    validation.shapes("cu_seqlens_of", document_ids=(document_ids, "B T"))
    batch, length = document_ids.shape
    begins = torch.ones_like(document_ids, dtype=torch.bool)
    begins[:, 1:] = document_ids[:, 1:] != document_ids[:, :-1]
    flat = begins.flatten()
    total = batch * length
    if max_documents is None:
        starts = flat.nonzero().flatten()
    else:
        message = f"cu_seqlens_of: there are more than max_documents = {max_documents} documents"
        torch._assert_async(flat.sum() <= max_documents, message)
        positions = torch.where(flat, torch.arange(total, device=flat.device), total)
        missing = max(0, max_documents - total)
        starts = torch.nn.functional.pad(positions.sort().values, (0, missing), value=total)[:max_documents]
    boundaries = torch.nn.functional.pad(starts, (0, 1), value=total).to(torch.int32)
    if not torch.compiler.is_compiling():
        validation.remember(boundaries, f"boundaries of {total}")
    return boundaries


def segment_of(cu_seqlens: torch.Tensor, length: int) -> torch.Tensor:
    """The document (L,) int64 that each of `length` positions belongs to."""
    positions = torch.arange(length, device=cu_seqlens.device, dtype=cu_seqlens.dtype)
    return torch.searchsorted(cu_seqlens[1:].contiguous(), positions, right=True)
