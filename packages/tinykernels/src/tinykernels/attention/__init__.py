"""Causal attention: grouped heads, sliding window, packed documents, soft-capped scores, a cache before the queries."""

from tinykernels.attention.operation import attention

__all__ = ["attention"]
