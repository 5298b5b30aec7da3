"""Metrics and baselines for tiny language models, on NumPy alone."""

from tinyeval.likelihood import bits_per_byte
from tinyeval.ngram import NgramModel
from tinyeval.words import WordCoverage, vocabulary, word_coverage, words

__all__ = ["NgramModel", "WordCoverage", "bits_per_byte", "vocabulary", "word_coverage", "words"]
