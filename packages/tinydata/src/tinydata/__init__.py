"""tinydata: text to batches, without torch. Every public name is listed here; the README shows them at work."""

from tinydata import puzzles, sources, synthetic
from tinydata.batch import Batch
from tinydata.conventions import Conventions
from tinydata.documents import Document, Source, SourceError, split_of
from tinydata.loader import Loader, LoaderError
from tinydata.packing import pack
from tinydata.shards import ShardError, ShardSet
from tinydata.tokenizer import Tokenizer, TokenizerError
from tinydata.tokenizer_training import train_tokenizer

__all__ = [
    "Batch",
    "Conventions",
    "Document",
    "Loader",
    "LoaderError",
    "ShardError",
    "ShardSet",
    "Source",
    "SourceError",
    "Tokenizer",
    "TokenizerError",
    "pack",
    "puzzles",
    "sources",
    "split_of",
    "synthetic",
    "train_tokenizer",
]
