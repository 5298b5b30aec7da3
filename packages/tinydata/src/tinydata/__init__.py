"""tinydata: text to batches, without torch. Every public name is listed here; the README shows them at work."""

from tinydata import puzzles, sources, synthetic
from tinydata.answer_targets import answer_targets
from tinydata.batch import Batch, PuzzleBatch, VerdictBatch
from tinydata.conventions import Conventions
from tinydata.documents import Document, Source, SourceError, split_of
from tinydata.gsm8k import Gsm8k, WordProblem
from tinydata.loader import Loader
from tinydata.mixed_loader import MixedLoader
from tinydata.mixture import Mixture, MixtureError, temperature_weights
from tinydata.packing import pack
from tinydata.problem_loader import EncodedProblem, ProblemLoader, encode_parts, encode_problems
from tinydata.resumable import LoaderError
from tinydata.shards import ShardError, ShardSet
from tinydata.tokenizer import Tokenizer, TokenizerError
from tinydata.tokenizer_training import train_tokenizer
from tinydata.verdict_loader import EncodedVerdict, Verdict, VerdictLoader, encode_verdicts

__all__ = [
    "Batch",
    "Conventions",
    "Document",
    "EncodedProblem",
    "EncodedVerdict",
    "Gsm8k",
    "Loader",
    "LoaderError",
    "MixedLoader",
    "Mixture",
    "MixtureError",
    "ProblemLoader",
    "PuzzleBatch",
    "ShardError",
    "ShardSet",
    "Source",
    "SourceError",
    "Tokenizer",
    "TokenizerError",
    "Verdict",
    "VerdictBatch",
    "VerdictLoader",
    "WordProblem",
    "answer_targets",
    "encode_parts",
    "encode_problems",
    "encode_verdicts",
    "pack",
    "puzzles",
    "sources",
    "split_of",
    "synthetic",
    "temperature_weights",
    "train_tokenizer",
]
