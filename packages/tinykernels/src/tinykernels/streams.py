"""How many sequences a call holds, checked: one for each row of the batch, or one for each packed document."""

import torch

from tinykernels import validation


def count(
    operation: str,
    batch: int,
    length: int,
    cu_seqlens: torch.Tensor | None,
    initial_state: torch.Tensor | None,
) -> int:
    """The number of sequences N. Raises ValueError if there is no position, if `cu_seqlens` is not a valid
    (N + 1,) for `length` positions of one row, or if `initial_state` does not begin with N."""
    if batch < 1 or length < 1:
        raise ValueError(f"{operation}: needs at least one sequence of one position, got {batch} x {length}")
    sequences = batch
    if cu_seqlens is not None:
        if batch != 1:
            raise ValueError(
                f"{operation}: with cu_seqlens the batch size must be 1 (rows laid end to end), got {batch}"
            )
        validation.cu_seqlens(operation, cu_seqlens, length)
        sequences = cu_seqlens.shape[0] - 1
    if initial_state is not None and initial_state.shape[0] != sequences:
        raise ValueError(
            f"{operation}: initial_state must hold one state for each of {sequences} sequences, "
            f"got shape {tuple(initial_state.shape)}"
        )
    return sequences
