"""Metrics, baselines and comparisons for tiny language models, on NumPy alone."""

from tinyeval.likelihood import bits_per_byte
from tinyeval.ngram import NgramModel
from tinyeval.paired import PairedDifference, paired_difference
from tinyeval.ranking import roc_auc
from tinyeval.words import WordCoverage, vocabulary, word_coverage, words

__all__ = [
    "NgramModel",
    "PairedDifference",
    "WordCoverage",
    "bits_per_byte",
    "paired_difference",
    "roc_auc",
    "vocabulary",
    "word_coverage",
    "words",
]
