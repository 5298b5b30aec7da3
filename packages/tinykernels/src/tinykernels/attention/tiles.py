"""Block sizes of the attention kernels, shipped instead of tuned at a user's first step.

Chosen by what fits: the largest tile of a short list whose shared memory - the resident rows plus the
pipelined ones - stays below the card's. A 24 GB consumer card has 99 KB where an H100 has 227, so the same
head size gets smaller tiles there instead of a failed launch.
"""

from typing import NamedTuple


class Tile(NamedTuple):
    """Rows a program keeps, rows a step of its loop loads, warps, and loop iterations in flight."""

    resident: int
    step: int
    warps: int
    stages: int


Table = dict[int, tuple[Tile, ...]]

# by bytes of a padded head (128 for 64 elements of 2 bytes); the smallest entry serves smaller heads too
FORWARD = {
    64: (Tile(64, 64, 4, 2),),
    128: (Tile(128, 64, 8, 3), Tile(128, 64, 8, 2), Tile(64, 32, 4, 2)),
    256: (Tile(128, 32, 8, 3), Tile(128, 32, 8, 2)),
}
QUERY_GRADIENT = {
    128: (Tile(64, 64, 4, 2), Tile(64, 32, 4, 2)),
    256: (Tile(64, 64, 8, 2), Tile(64, 32, 8, 2)),
}
KEY_GRADIENT = {
    128: (Tile(64, 32, 4, 2),),
    256: (Tile(64, 32, 8, 2),),
}
# float32 products are three TF32 products each: more registers a tile
FLOAT32_FORWARD = {
    256: (Tile(32, 32, 4, 1),),
    512: (Tile(32, 16, 8, 1),),
}
FLOAT32_GRADIENT = {
    256: (Tile(32, 16, 4, 1),),
    512: (Tile(16, 16, 4, 1),),
}


def choose(table: Table, *, tensors: int, rows: int, head: int, item: int, shared: int) -> Tile:
    """The first tile of the head size that fits `shared` bytes, its resident rows cut to what the call has.

    tensors: how many (resident, head) tensors stay beside the two that are streamed; rows: length of the
    resident axis; head: padded head size; item: bytes of an element.
    """
    size = max(min(table), head * item)
    longest = max(16, 1 << (rows - 1).bit_length())
    for tile in table[size]:
        if item * head * (tensors * tile.resident + 2 * tile.stages * tile.step) <= shared:
            break
    return tile if tile.resident <= longest else tile._replace(resident=longest, warps=4)
