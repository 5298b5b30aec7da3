"""Decoding: batched, cached, reproducible row by row."""

from tinycore.generation.generate import Generation, Hook, generate, stream
from tinycore.generation.rows import RowView, Token
from tinycore.generation.sampling import Sampling

__all__ = ["Generation", "Hook", "RowView", "Sampling", "Token", "generate", "stream"]
