"""What is measured on a model or on what it wrote, one number or table at a time."""

from tinyeval.metrics.calibration import Calibration, ReliabilityBin, calibration
from tinyeval.metrics.perplexity import Perplexity, perplexity, strided_loglikelihood
from tinyeval.metrics.repetition import Repetition, distinct_n, longest_loop, repetition
from tinyeval.metrics.spectrum import Spectrum, spectrum
from tinyeval.metrics.token_accuracy import token_accuracy

__all__ = [
    "Calibration",
    "Perplexity",
    "ReliabilityBin",
    "Repetition",
    "Spectrum",
    "calibration",
    "distinct_n",
    "longest_loop",
    "perplexity",
    "repetition",
    "spectrum",
    "strided_loglikelihood",
    "token_accuracy",
]
