"""Metrics, tasks, baselines and comparisons for tiny language models. No torch."""

from tinyeval import tasks
from tinyeval.byte_ngram import ByteNgram
from tinyeval.comparison import Incomparable, TaskComparison, compare, compare_task
from tinyeval.contamination import Contamination, contamination
from tinyeval.items import DataError, Item, Unavailable
from tinyeval.likelihood import bits_per_byte
from tinyeval.model import LanguageModel, Tokenized
from tinyeval.ngram import NgramModel
from tinyeval.paired import PairedDifference, paired_difference
from tinyeval.ranking import roc_auc
from tinyeval.reference_models import CopyingOracle, RandomModel, Scripted
from tinyeval.result import Record, Result, ResultError, Results, Score
from tinyeval.run import evaluate
from tinyeval.strict_yaml import TaskError
from tinyeval.task import Task
from tinyeval.words import WordCoverage, vocabulary, word_coverage, words

__all__ = [
    "ByteNgram",
    "Contamination",
    "CopyingOracle",
    "DataError",
    "Incomparable",
    "Item",
    "LanguageModel",
    "NgramModel",
    "PairedDifference",
    "RandomModel",
    "Record",
    "Result",
    "ResultError",
    "Results",
    "Score",
    "Scripted",
    "Task",
    "TaskComparison",
    "TaskError",
    "Tokenized",
    "Unavailable",
    "WordCoverage",
    "bits_per_byte",
    "compare",
    "compare_task",
    "contamination",
    "evaluate",
    "paired_difference",
    "roc_auc",
    "tasks",
    "vocabulary",
    "word_coverage",
    "words",
]
