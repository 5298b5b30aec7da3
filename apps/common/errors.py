"""The three ways a run ends early, each told in one line.

Apps print the message on stderr without a traceback and exit with `status`: 2 where the request was wrong or cannot be
met (nothing was lost), 1 where the work itself failed. Every other exception is a defect and keeps its traceback.
"""

from __future__ import annotations

from typing import ClassVar


class BadRequest(ValueError):
    """What was asked for cannot be done; the message is one line that names the remedy."""

    status: ClassVar[int] = 2


class RunError(BadRequest):
    """A run directory or a checkpoint that cannot be read, written or continued."""


class TrainingFailed(RuntimeError):
    """Training itself went wrong (a loss that is not finite, a process that died); one line, no traceback."""

    status: ClassVar[int] = 1
