"""Which tokens of a question with its answer are learned: the answer, and the first token that ends it ("smart masking").

Tokenizers such as GPT-2's have no token for padding, so rows are filled up with the one that ends a text. Learned as it
stands, most of such a batch would teach to repeat the end; with every end masked, nothing would teach to stop. So the first
end after the question is a target, and nothing behind it. As everywhere in tinydata targets are shifted already:
targets[t] is tokens[t + 1] or -100.
"""

from __future__ import annotations

import numpy as np

from tinydata.loader import NO_TARGET


def answer_targets(
    tokens: np.ndarray, prompt_lengths: np.ndarray, end_id: int, pad_id: int | None = None
) -> np.ndarray:
    """tokens (B, T) integers, prompt_lengths (B,): how many tokens of each row are question -> targets (B, T) int64.

    A row that was cut has no end: its answer is learned to its last token. pad_id: the padding, where it is not `end_id`;
    an end inside the question counts for nothing. Raises ValueError for other shapes or types and for lengths not in 0..T.
    """
    tokens, prompt_lengths = np.asarray(tokens), np.asarray(prompt_lengths)
    if tokens.ndim != 2 or tokens.dtype.kind not in "iu":
        raise ValueError(f"tokens must be integers of shape (B, T), got {tokens.dtype} {tokens.shape}")
    rows, length = tokens.shape
    if prompt_lengths.shape != (rows,) or prompt_lengths.dtype.kind not in "iu":
        raise ValueError(f"prompt_lengths must be {rows} integers, got {prompt_lengths.dtype} {prompt_lengths.shape}")
    if rows and not 0 <= prompt_lengths.min() <= prompt_lengths.max() <= length:
        raise ValueError(f"prompt_lengths must be 0 to {length}, got {prompt_lengths.tolist()}")
    answered = np.arange(length) >= prompt_lengths[:, None]  # (B, T)
    ends = answered & (tokens == end_id)
    # Ends before a token, itself not counted: 0 up to and including the first.
    learned = answered & (np.cumsum(ends, axis=1) - ends == 0)
    if pad_id is not None and pad_id != end_id:
        learned &= np.cumsum(answered & (tokens == pad_id), axis=1) == 0
    targets = np.full((rows, length), NO_TARGET, dtype=np.int64)
    targets[:, :-1] = np.where(learned, tokens, NO_TARGET)[:, 1:]
    return targets
