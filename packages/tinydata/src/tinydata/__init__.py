"""tinydata: text to batches, without torch. Every public name is listed here; the README shows them at work."""

from tinydata import puzzles, sources, synthetic, teachers
from tinydata.answer_targets import answer_targets
from tinydata.batch import Batch, PuzzleBatch, VerdictBatch
from tinydata.chat import ChatMessage, ConversationError, check_conversation, share_think, shows_think
from tinydata.chat_files import Conversations
from tinydata.chat_format import CHAT_FORMATS, ChatFormat
from tinydata.conventions import Conventions
from tinydata.curriculum import Choices, Curriculum, Stage, depth_histogram, levels_by, within_reach
from tinydata.curriculum_loader import CurriculumLoader
from tinydata.decontamination import Decontamination, ngram_set
from tinydata.deduplication import Deduplication
from tinydata.documents import Document, Source, SourceError, split_of
from tinydata.gsm8k import Gsm8k, WordProblem
from tinydata.loader import Loader
from tinydata.mixed_loader import MixedLoader
from tinydata.mixture import Mixture, MixtureError, temperature_weights
from tinydata.packing import pack
from tinydata.preference import EncodedPreference, PreferencePair, encode_preferences, preference_pairs
from tinydata.problem_loader import EncodedProblem, Part, ProblemLoader, encode_parts, encode_problems
from tinydata.resumable import LoaderError
from tinydata.shards import ShardError, ShardSet
from tinydata.tokenizer import Tokenizer, TokenizerError
from tinydata.tokenizer_training import train_tokenizer
from tinydata.verdict_loader import EncodedVerdict, Verdict, VerdictLoader, encode_verdicts
from tinydata.windows import Window, split_long, windows

__all__ = [
    "CHAT_FORMATS",
    "Batch",
    "ChatFormat",
    "ChatMessage",
    "Choices",
    "Conventions",
    "ConversationError",
    "Conversations",
    "Curriculum",
    "CurriculumLoader",
    "Decontamination",
    "Deduplication",
    "Document",
    "EncodedPreference",
    "EncodedProblem",
    "EncodedVerdict",
    "Gsm8k",
    "Loader",
    "LoaderError",
    "MixedLoader",
    "Mixture",
    "MixtureError",
    "Part",
    "PreferencePair",
    "ProblemLoader",
    "PuzzleBatch",
    "ShardError",
    "ShardSet",
    "Source",
    "SourceError",
    "Stage",
    "Tokenizer",
    "TokenizerError",
    "Verdict",
    "VerdictBatch",
    "VerdictLoader",
    "Window",
    "WordProblem",
    "answer_targets",
    "check_conversation",
    "depth_histogram",
    "encode_parts",
    "encode_preferences",
    "encode_problems",
    "encode_verdicts",
    "levels_by",
    "ngram_set",
    "pack",
    "preference_pairs",
    "puzzles",
    "share_think",
    "shows_think",
    "sources",
    "split_long",
    "split_of",
    "synthetic",
    "teachers",
    "temperature_weights",
    "train_tokenizer",
    "windows",
    "within_reach",
]
