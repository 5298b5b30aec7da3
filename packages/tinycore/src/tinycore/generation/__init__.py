"""Decoding: batched, cached, reproducible row by row."""

from tinycore.generation.generate import Generation, Hook, generate, stream
from tinycore.generation.rows import RowView, Token
from tinycore.generation.sampling import Sampling
from tinycore.generation.selective import Selective

__all__ = ["Generation", "Hook", "RowView", "Sampling", "Selective", "Token", "generate", "stream"]
