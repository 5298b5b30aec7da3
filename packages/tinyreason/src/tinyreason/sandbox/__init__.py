"""Runs Python that a model wrote. Nothing falls back to a bare subprocess: without an engine there is no run."""

from tinyreason.sandbox.choice import CodeSandbox
from tinyreason.sandbox.runner import CodeResult, CodeRunner, SandboxUnavailable

__all__ = ["CodeResult", "CodeRunner", "CodeSandbox", "SandboxUnavailable"]
