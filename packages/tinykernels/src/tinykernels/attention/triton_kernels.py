"""FlashAttention kernels (arXiv:2205.14135, 2307.08691): online softmax forward, two recomputing backward
kernels.

A query block visits only key blocks that some of its rows see: from the start of its first row's document,
or the window's edge, to its own diagonal; a key block likewise visits only queries up to the end of its
last document. So time follows the live blocks. Scores are kept in base 2. The key gradient loops over the
query heads of its group inside one program, so grouped gradients are written once. Every sum has a fixed
order: results are deterministic.
"""

import torch
import triton
import triton.language as tl

from tinykernels.attention import tiles
from tinykernels.devices import shared_memory
from tinykernels.products import dot_dtype

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def document_bounds(cu_pointer, documents, position):
    """First position of each position's document and the one after its last: the last n with cu[n] <= position."""
    low = tl.zeros_like(position)
    high = low + documents
    width = documents
    while width > 0:
        middle = (low + high) // 2
        before = tl.load(cu_pointer + middle) <= position
        low = tl.where(before, middle, low)
        high = tl.where(before, high, middle)
        width = width // 2
    return tl.load(cu_pointer + low), tl.load(cu_pointer + low + 1)


@triton.jit
def capped_score(product, scale, softcap, HAS_SOFTCAP: tl.constexpr):
    """The score in base 2, and the derivative of the soft cap."""
    if HAS_SOFTCAP:
        exponential = tl.exp2(product * (2.0 * LOG2E * scale / softcap))
        tangent = 1.0 - 2.0 / (exponential + 1.0)
        return tangent * (softcap * LOG2E), 1.0 - tangent * tangent
    return product * (scale * LOG2E), product


@triton.jit
def load_rows(pointer, row, stride, column, limit, HEAD: tl.constexpr, DOT: tl.constexpr):
    """Rows `row` below `limit` of a (rows, HEAD) tensor, zero elsewhere, in the dtype of the products."""
    mask = (row[:, None] < limit) & (column[None, :] < HEAD)
    offset = row[:, None].to(tl.int64) * stride + column[None, :]
    return tl.load(pointer + offset, mask=mask, other=0.0).to(DOT)


@triton.jit
def forward_steps(
    q,
    k_pointer,
    v_pointer,
    k_stride,
    v_stride,
    accumulator,
    largest,
    total,
    position,
    lowest,
    begin,
    end,
    keys,
    scale,
    softcap,
    MASKED: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HEAD: tl.constexpr,
    STEP: tl.constexpr,
    BLOCK_HEAD: tl.constexpr,
    DOT: tl.constexpr,
):
    column = tl.arange(0, BLOCK_HEAD)
    for start in range(begin, end, STEP):
        key = start + tl.arange(0, STEP)
        k = load_rows(k_pointer, key, k_stride, column, keys, HEAD, DOT)
        product = tl.dot(q, tl.trans(k), input_precision="tf32x3")
        score, _ = capped_score(product, scale, softcap, HAS_SOFTCAP)
        if MASKED:
            seen = (key[None, :] <= position[:, None]) & (key[None, :] >= lowest[:, None])
            score = tl.where(seen, score, float("-inf"))
        new_largest = tl.maximum(largest, tl.max(score, axis=1))
        # a row may see no key of its first block: keep -inf - -inf out of the exponent
        reference = tl.where(new_largest == float("-inf"), 0.0, new_largest)
        weight = tl.exp2(score - reference[:, None])
        shrink = tl.exp2(largest - reference)
        total = total * shrink + tl.sum(weight, axis=1)
        v = load_rows(v_pointer, key, v_stride, column, keys, HEAD, DOT)
        accumulator = tl.dot(weight.to(DOT), v, accumulator * shrink[:, None], input_precision="tf32x3")
        largest = new_largest
    return accumulator, largest, total


@triton.jit(do_not_specialize=["queries", "keys", "documents"])
def forward_kernel(
    q_pointer,
    k_pointer,
    v_pointer,
    cu_pointer,
    out_pointer,
    lse_pointer,
    q_batch,
    q_time,
    q_head,
    k_batch,
    k_time,
    k_head,
    v_batch,
    v_time,
    v_head,
    queries,
    keys,
    documents,
    scale,
    softcap,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD: tl.constexpr,
    WINDOW: tl.constexpr,
    HAS_DOCUMENTS: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    RESIDENT: tl.constexpr,
    STEP: tl.constexpr,
    BLOCK_HEAD: tl.constexpr,
    DOT: tl.constexpr,
):
    blocks = tl.cdiv(queries, RESIDENT)
    block = blocks - 1 - tl.program_id(0) % blocks  # longest rows first
    batch_head = (tl.program_id(0) // blocks).to(tl.int64)
    batch, head = batch_head // HEADS, batch_head % HEADS
    key_head = head // GROUP
    k_pointer += batch * k_batch + key_head * k_head
    v_pointer += batch * v_batch + key_head * v_head

    row = block * RESIDENT + tl.arange(0, RESIDENT)
    column = tl.arange(0, BLOCK_HEAD)
    q = load_rows(q_pointer + batch * q_batch + head * q_head, row, q_time, column, queries, HEAD, DOT)
    first = block * RESIDENT + keys - queries
    position = row + keys - queries
    lowest = tl.zeros_like(position)
    if HAS_DOCUMENTS:
        lowest, _ = document_bounds(cu_pointer, documents, tl.minimum(position, keys - 1))
    if WINDOW > 0:
        lowest = tl.maximum(lowest, position - WINDOW + 1)
    end = tl.minimum(first + RESIDENT, keys)
    begin = tl.min(lowest, axis=0) // STEP * STEP
    accumulator = tl.zeros((RESIDENT, BLOCK_HEAD), tl.float32)
    largest = tl.full((RESIDENT,), float("-inf"), tl.float32)
    total = tl.zeros((RESIDENT,), tl.float32)
    # before the diagonal every row sees every key, unless documents or a window cut the lower edge
    diagonal = begin
    if not HAS_DOCUMENTS and WINDOW == 0:
        diagonal = (first + 1) // STEP * STEP
        accumulator, largest, total = forward_steps(
            q, k_pointer, v_pointer, k_time, v_time, accumulator, largest, total, position, lowest,
            begin, diagonal, keys, scale, softcap, False, HAS_SOFTCAP, HEAD, STEP, BLOCK_HEAD, DOT,
        )  # fmt: skip
    accumulator, largest, total = forward_steps(
        q, k_pointer, v_pointer, k_time, v_time, accumulator, largest, total, position, lowest,
        diagonal, end, keys, scale, softcap, True, HAS_SOFTCAP, HEAD, STEP, BLOCK_HEAD, DOT,
    )  # fmt: skip

    total = tl.where(row < queries, total, 1.0)  # rows past the end may have seen no key
    out = accumulator / total[:, None]
    mask = (row[:, None] < queries) & (column[None, :] < HEAD)
    offset = ((batch * queries + row[:, None]) * HEADS + head) * HEAD + column[None, :]
    tl.store(out_pointer + offset, out.to(out_pointer.dtype.element_ty), mask=mask)
    tl.store(lse_pointer + batch_head * queries + row, largest + tl.log2(total), mask=row < queries)


@triton.jit(do_not_specialize=["queries", "keys", "documents"])
def query_gradient_kernel(
    q_pointer,
    k_pointer,
    v_pointer,
    cu_pointer,
    out_pointer,
    lse_pointer,
    grad_out_pointer,
    delta_pointer,
    grad_q_pointer,
    q_batch,
    q_time,
    q_head,
    k_batch,
    k_time,
    k_head,
    v_batch,
    v_time,
    v_head,
    queries,
    keys,
    documents,
    scale,
    softcap,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD: tl.constexpr,
    WINDOW: tl.constexpr,
    HAS_DOCUMENTS: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    RESIDENT: tl.constexpr,
    STEP: tl.constexpr,
    BLOCK_HEAD: tl.constexpr,
    DOT: tl.constexpr,
):
    blocks = tl.cdiv(queries, RESIDENT)
    block = blocks - 1 - tl.program_id(0) % blocks
    batch_head = (tl.program_id(0) // blocks).to(tl.int64)
    batch, head = batch_head // HEADS, batch_head % HEADS
    key_head = head // GROUP
    k_pointer += batch * k_batch + key_head * k_head
    v_pointer += batch * v_batch + key_head * v_head

    row = block * RESIDENT + tl.arange(0, RESIDENT)
    column = tl.arange(0, BLOCK_HEAD)
    q = load_rows(q_pointer + batch * q_batch + head * q_head, row, q_time, column, queries, HEAD, DOT)
    mask = (row[:, None] < queries) & (column[None, :] < HEAD)
    offset = ((batch * queries + row[:, None]) * HEADS + head) * HEAD + column[None, :]
    out = tl.load(out_pointer + offset, mask=mask, other=0.0).to(tl.float32)
    grad_out = tl.load(grad_out_pointer + offset, mask=mask, other=0.0)
    delta = tl.sum(out * grad_out.to(tl.float32), axis=1)
    grad_out = grad_out.to(DOT)
    tl.store(delta_pointer + batch_head * queries + row, delta, mask=row < queries)
    lse = tl.load(lse_pointer + batch_head * queries + row, mask=row < queries, other=0.0)

    position = row + keys - queries
    lowest = tl.zeros_like(position)
    if HAS_DOCUMENTS:
        lowest, _ = document_bounds(cu_pointer, documents, tl.minimum(position, keys - 1))
    if WINDOW > 0:
        lowest = tl.maximum(lowest, position - WINDOW + 1)
    end = tl.minimum(block * RESIDENT + keys - queries + RESIDENT, keys)
    grad_q = tl.zeros((RESIDENT, BLOCK_HEAD), tl.float32)
    for start in range(tl.min(lowest, axis=0) // STEP * STEP, end, STEP):
        key = start + tl.arange(0, STEP)
        k = load_rows(k_pointer, key, k_time, column, keys, HEAD, DOT)
        v = load_rows(v_pointer, key, v_time, column, keys, HEAD, DOT)
        product = tl.dot(q, tl.trans(k), input_precision="tf32x3")
        score, slope = capped_score(product, scale, softcap, HAS_SOFTCAP)
        seen = (key[None, :] <= position[:, None]) & (key[None, :] >= lowest[:, None])
        weight = tl.where(seen, tl.exp2(score - lse[:, None]), 0.0)
        grad_weight = tl.dot(grad_out, tl.trans(v), input_precision="tf32x3")
        grad_score = weight * (grad_weight - delta[:, None])
        if HAS_SOFTCAP:
            grad_score *= slope
        grad_q = tl.dot(grad_score.to(DOT), k, grad_q, input_precision="tf32x3")
    tl.store(grad_q_pointer + offset, (grad_q * scale).to(grad_q_pointer.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["queries", "keys", "documents"])
def key_gradient_kernel(
    q_pointer,
    k_pointer,
    v_pointer,
    cu_pointer,
    lse_pointer,
    grad_out_pointer,
    delta_pointer,
    grad_k_pointer,
    grad_v_pointer,
    q_batch,
    q_time,
    q_head,
    k_batch,
    k_time,
    k_head,
    v_batch,
    v_time,
    v_head,
    queries,
    keys,
    documents,
    scale,
    softcap,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD: tl.constexpr,
    WINDOW: tl.constexpr,
    HAS_DOCUMENTS: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    RESIDENT: tl.constexpr,
    STEP: tl.constexpr,
    BLOCK_HEAD: tl.constexpr,
    DOT: tl.constexpr,
):
    blocks = tl.cdiv(keys, RESIDENT)
    block = tl.program_id(0) % blocks  # the first keys are seen by most queries
    KEY_HEADS: tl.constexpr = HEADS // GROUP
    batch_head = (tl.program_id(0) // blocks).to(tl.int64)
    batch, key_head = batch_head // KEY_HEADS, batch_head % KEY_HEADS
    key = block * RESIDENT + tl.arange(0, RESIDENT)
    column = tl.arange(0, BLOCK_HEAD)
    k = load_rows(k_pointer + batch * k_batch + key_head * k_head, key, k_time, column, keys, HEAD, DOT)
    v = load_rows(v_pointer + batch * v_batch + key_head * v_head, key, v_time, column, keys, HEAD, DOT)

    shift = keys - queries
    stop = tl.full((RESIDENT,), 0, tl.int32) + keys  # the first position that no longer sees each key
    if HAS_DOCUMENTS:
        _, stop = document_bounds(cu_pointer, documents, tl.minimum(key, keys - 1))
    if WINDOW > 0:
        stop = tl.minimum(stop, key + WINDOW)
    begin = tl.maximum(block * RESIDENT - shift, 0) // STEP * STEP
    end = tl.minimum(tl.max(stop, axis=0) - shift, queries)
    grad_k = tl.zeros((RESIDENT, BLOCK_HEAD), tl.float32)
    grad_v = tl.zeros((RESIDENT, BLOCK_HEAD), tl.float32)
    for member in range(GROUP):
        head = key_head * GROUP + member
        q_base = q_pointer + batch * q_batch + head * q_head
        statistics = (batch * HEADS + head) * queries
        for start in range(begin, end, STEP):
            query = start + tl.arange(0, STEP)
            q = load_rows(q_base, query, q_time, column, queries, HEAD, DOT)
            offset = ((batch * queries + query[:, None]) * HEADS + head) * HEAD + column[None, :]
            mask = (query[:, None] < queries) & (column[None, :] < HEAD)
            grad_out = tl.load(grad_out_pointer + offset, mask=mask, other=0.0).to(DOT)
            lse = tl.load(lse_pointer + statistics + query, mask=query < queries, other=0.0)
            delta = tl.load(delta_pointer + statistics + query, mask=query < queries, other=0.0)
            product = tl.dot(k, tl.trans(q), input_precision="tf32x3")  # (keys, queries)
            score, slope = capped_score(product, scale, softcap, HAS_SOFTCAP)
            position = query + shift
            seen = (key[:, None] <= position[None, :]) & (position[None, :] < stop[:, None])
            seen = seen & (query[None, :] < queries)
            weight = tl.where(seen, tl.exp2(score - lse[None, :]), 0.0)
            grad_v = tl.dot(weight.to(DOT), grad_out, grad_v, input_precision="tf32x3")
            grad_weight = tl.dot(v, tl.trans(grad_out), input_precision="tf32x3")
            grad_score = weight * (grad_weight - delta[None, :])
            if HAS_SOFTCAP:
                grad_score *= slope
            grad_k = tl.dot(grad_score.to(DOT), q, grad_k, input_precision="tf32x3")
    mask = (key[:, None] < keys) & (column[None, :] < HEAD)
    offset = ((batch * keys + key[:, None]) * KEY_HEADS + key_head) * HEAD + column[None, :]
    tl.store(grad_k_pointer + offset, (grad_k * scale).to(grad_k_pointer.dtype.element_ty), mask=mask)
    tl.store(grad_v_pointer + offset, grad_v.to(grad_v_pointer.dtype.element_ty), mask=mask)


def forward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """q (B, T, H, D), k, v (B, S, G, D), unit stride in D -> out (B, T, H, D), base-2 log normaliser (B, H, T)."""
    batch, queries, heads, _ = q.shape
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = torch.empty(batch, heads, queries, dtype=torch.float32, device=q.device)
    tile = choose(tiles.FLOAT32_FORWARD if q.dtype == torch.float32 else tiles.FORWARD, 1, queries, q)
    if out.numel():
        forward_kernel[(triton.cdiv(queries, tile.resident) * batch * heads,)](
            q, k, v, cu_seqlens, out, lse, *common(q, k, v, cu_seqlens, scale, softcap),
            **constants(q, k, cu_seqlens, window, softcap, tile),
        )  # fmt: skip
    return out, lse


def backward(
    grad_out: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of q, k and v, contiguous; grad_out and out are contiguous (B, T, H, D)."""
    batch, queries, heads, _ = q.shape
    keys, key_heads = k.shape[1:3]
    grad_q, grad_k, grad_v = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (q, k, v))
    if not out.numel():
        return grad_q, grad_k.zero_(), grad_v.zero_()
    delta = torch.empty_like(lse)
    wide = q.dtype == torch.float32
    arguments = common(q, k, v, cu_seqlens, scale, softcap)
    tile = choose(tiles.FLOAT32_GRADIENT if wide else tiles.QUERY_GRADIENT, 2, queries, q)
    query_gradient_kernel[(triton.cdiv(queries, tile.resident) * batch * heads,)](
        q, k, v, cu_seqlens, out, lse, grad_out, delta, grad_q, *arguments,
        **constants(q, k, cu_seqlens, window, softcap, tile),
    )  # fmt: skip
    tile = choose(tiles.FLOAT32_GRADIENT if wide else tiles.KEY_GRADIENT, 2, keys, q)
    key_gradient_kernel[(triton.cdiv(keys, tile.resident) * batch * key_heads,)](
        q, k, v, cu_seqlens, lse, grad_out, delta, grad_k, grad_v, *arguments,
        **constants(q, k, cu_seqlens, window, softcap, tile),
    )  # fmt: skip
    return grad_q, grad_k, grad_v


def choose(table: tiles.Table, tensors: int, rows: int, q: torch.Tensor) -> tiles.Tile:
    """The tile for this call's head size, dtype and device."""
    return tiles.choose(
        table,
        tensors=tensors,
        rows=rows,
        head=max(16, triton.next_power_of_2(q.shape[3])),
        item=q.element_size(),
        shared=shared_memory(q.device),
    )


def common(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    softcap: float | None,
) -> tuple[int | float, ...]:
    """The run-time numbers that all three kernels take after their tensors."""
    strides = tuple(stride for tensor in (q, k, v) for stride in tensor.stride()[:3])
    documents = 1 if cu_seqlens is None else cu_seqlens.shape[0] - 1
    return *strides, q.shape[1], k.shape[1], documents, scale, 1.0 if softcap is None else softcap


def constants(
    q: torch.Tensor,
    k: torch.Tensor,
    cu_seqlens: torch.Tensor | None,
    window: int | None,
    softcap: float | None,
    tile: tiles.Tile,
) -> dict[str, object]:
    """The compile-time constants and launch options that all three kernels take."""
    return {
        "HEADS": q.shape[2],
        "GROUP": q.shape[2] // k.shape[2],
        "HEAD": q.shape[3],
        "WINDOW": 0 if window is None else window,
        "HAS_DOCUMENTS": cu_seqlens is not None,
        "HAS_SOFTCAP": softcap is not None,
        "RESIDENT": tile.resident,
        "STEP": tile.step,
        "BLOCK_HEAD": max(16, triton.next_power_of_2(q.shape[3])),
        "DOT": dot_dtype(q.dtype),
        "num_warps": tile.warps,
        "num_stages": tile.stages,
    }
