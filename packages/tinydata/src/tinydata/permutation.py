"""A keyed bijection on 0..n-1 that is computed, not stored: the order of the rows of an epoch.

The index is written x = l b + r with a = ceil(sqrt n), b = ceil(n / a), and goes through a Feistel network whose halves
are added modulo a and b in turn (Luby and Rackoff 1988; unbalanced moduli as in Black and Rogaway 2002, "Ciphers with
arbitrary finite domains"):
    l <- (l + F_k(r)) mod a,  r <- (r + F_k(l)) mod b.
Each round can be undone, so the network permutes 0..ab-1; an image of n or more is sent through again (cycle walking)
until it falls below n, which keeps it a bijection on 0..n-1. Since ab - n < a, that is rare.
"""

from __future__ import annotations

import hashlib

import numpy as np

ROUNDS = 8


class Permutation:
    """The order of epoch `epoch` under `seed`: `permutation(positions)` are the rows at these positions."""

    def __init__(self, size: int, seed: int, epoch: int) -> None:
        """Raises ValueError unless 1 <= size < 2^62."""
        if not 1 <= size < 2**62:
            raise ValueError(f"a permutation needs 1 <= size < 2^62, got {size}")
        self.size = size
        left = int(np.ceil(np.sqrt(size)))
        self._left = np.uint64(left)
        self._right = np.uint64(-(-size // left))
        digest = b"".join(
            hashlib.sha256(f"tinydata order {seed} {epoch} {block}".encode()).digest() for block in range(ROUNDS // 4)
        )
        self._keys = np.frombuffer(digest, dtype="<u8").astype(np.uint64)

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """(N,) integers in 0..size-1 -> (N,) int64, distinct for distinct positions."""
        images = self._network(np.asarray(positions).astype(np.uint64))
        outside = np.flatnonzero(images >= self.size)
        while outside.size:
            walked = self._network(images[outside])
            images[outside] = walked
            outside = outside[walked >= self.size]
        return images.astype(np.int64)

    def _network(self, values: np.ndarray) -> np.ndarray:
        left, right = np.divmod(values, self._right)
        for round_index in range(0, ROUNDS, 2):
            left = (left + _mix(right, self._keys[round_index]) % self._left) % self._left
            right = (right + _mix(left, self._keys[round_index + 1]) % self._right) % self._right
        return left * self._right + right


def shuffled(samples: np.ndarray, size: int, seed: int) -> np.ndarray:
    """(N,) samples, counted from 0 over all epochs of `size` rows -> (N,) their rows: each epoch in an order of its own."""
    epochs, positions = np.divmod(samples, size)
    rows = np.empty_like(positions)
    for epoch in np.unique(epochs).tolist():
        chosen = epochs == epoch
        rows[chosen] = Permutation(size, seed, epoch)(positions[chosen])
    return rows


def _mix(values: np.ndarray, key: np.uint64) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele et al. 2014) on `values` + key, modulo 2^64."""
    mixed = values + key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
