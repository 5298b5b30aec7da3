"""Triton pieces that every scan kernel shares: which positions a program's sequence owns."""

import triton
import triton.language as tl


@triton.jit
def bounds(cu_seqlens, sequence, length, VARLEN: tl.constexpr):
    """First position and the one after the last, in the flat stream (B * L): row `sequence` of a batch, or
    with
    VARLEN document `sequence`. int64, so that offsets of large tensors do not overflow."""
    if VARLEN:
        begin = tl.load(cu_seqlens + sequence).to(tl.int64)
        end = tl.load(cu_seqlens + sequence + 1).to(tl.int64)
    else:
        begin = sequence.to(tl.int64) * length
        end = begin + length
    return begin, end
