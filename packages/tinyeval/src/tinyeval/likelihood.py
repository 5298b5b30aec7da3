"""Bits per byte: the unit in which models with different tokenizers can be compared."""

from __future__ import annotations


def bits_per_byte(bits: float, utf8_bytes: int) -> float:
    """``bits`` of all targets (end tokens included) over the UTF-8 bytes of the text without special tokens.

    A loss in nats becomes bits through division by ln 2. Raises ValueError when there is no text to divide
    by.
    """
    if utf8_bytes <= 0:
        raise ValueError(f"bits per byte needs text: got {utf8_bytes} bytes")
    return bits / utf8_bytes
