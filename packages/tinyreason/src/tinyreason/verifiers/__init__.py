"""Judges of completions: by execution, by the answer, step by step, and together."""

from tinyreason.verifiers.answer import AnswerVerifier, PlausibleVerifier
from tinyreason.verifiers.combined import AllOf
from tinyreason.verifiers.execution import ExecutionVerifier, Step
from tinyreason.verifiers.process import StepLabel, step_labels

__all__ = ["AllOf", "AnswerVerifier", "ExecutionVerifier", "PlausibleVerifier", "Step", "StepLabel", "step_labels"]
