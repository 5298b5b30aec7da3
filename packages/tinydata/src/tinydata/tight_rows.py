"""Fuller rows than best fit leaves, of whole items: each row is the largest item that is left and the others that fill it best.

Best-fit decreasing leaves 3 % of the slots empty where most items are between a fifth and a half of a row, because the small
ones that could fill the gaps are spread before the gaps are known. Here the others of a row are a subset sum: the sums that can
be reached within its room are the bits of one integer, items of the next smaller size are added one by one, and the search ends
when the room can be filled to the last slot, mostly after a few dozen sizes. What is small is kept for last.
"""

from __future__ import annotations

from collections.abc import Sequence


def tight_rows(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of `sizes` in groups whose sum is at most `capacity`; groups and members in ascending order.

    A function of the sizes. Raises ValueError for one that is not 1 to the capacity.
    """
    left: dict[int, list[int]] = {}  # size -> indices, the first to be taken last
    for index in reversed(range(len(sizes))):
        if not 1 <= sizes[index] <= capacity:
            raise ValueError(f"tight_rows: {sizes[index]} is not 1 to {capacity}")
        left.setdefault(sizes[index], []).append(index)
    order = sorted(left, reverse=True)
    groups = []
    while order:
        first = order[0]
        group = [left[first].pop()]
        group += [left[size].pop() for size in _filling(order, left, capacity - first)]
        groups.append(sorted(group))
        order = [size for size in order if left[size]]
    return sorted(groups)


def _filling(order: Sequence[int], left: dict[int, list[int]], room: int) -> list[int]:
    """Sizes of items that are left whose sum is as close to `room` as can be, from below."""
    within = (1 << room + 1) - 1
    stages: list[tuple[int, int]] = []  # (size of the item, bits of the sums without it)
    sums = 1
    for size in order:
        if size > room:
            continue
        for _ in range(min(len(left[size]), room // size)):
            more = (sums | sums << size) & within
            if more == sums:
                break
            stages.append((size, sums))
            sums = more
        if sums >> room:
            break
    at = sums.bit_length() - 1
    chosen = []
    for size, without in reversed(stages):
        if not without >> at & 1:
            chosen.append(size)
            at -= size
    return chosen
