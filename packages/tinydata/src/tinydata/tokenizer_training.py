"""Trains a byte-level BPE tokenizer (arXiv 1508.07909) on a stream of documents, the same bytes every time.

The trainer holds one count per distinct word, never the text: memory grows with the vocabulary of the corpus, not with
its size. A weighted mix replays or leaves out whole documents so that each source has its share of the bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from .documents import Document
from .special_tokens import SPECIAL_TOKENS
from .tokenizer import Tokenizer, cut_text
from .tokenizer_file import TokenizerError, parse_tokenizer

# Upper bound on what one call of the library's iterator may hold: it reads ahead a few hundred pieces.
TRAINING_PIECE_CHARACTERS = 2**15


def train_tokenizer(
    documents: Iterable[Document],
    vocab_size: int,
    special_tokens: Sequence[str] = SPECIAL_TOKENS,
    weights: Mapping[str, float] | None = None,
) -> Tokenizer:
    """Trains on `documents` until there are `vocab_size` ids, special tokens (ids 0.., in order) and bytes included.

    The first special token separates documents. The result is smaller where the text has fewer pairs that occur
    twice. `weights` gives each source its share of the bytes the trainer sees: the total stays what it was, a source
    above its share loses documents, one below is read again. It reads `documents` twice, so they must be re-iterable.
    Raises TokenizerError.
    """
    smallest = len(special_tokens) + 256
    if vocab_size < smallest:
        raise TokenizerError(f"vocab_size {vocab_size} is too small: special tokens and bytes alone are {smallest}")
    if not special_tokens or len(set(special_tokens)) != len(special_tokens) or not all(special_tokens):
        raise TokenizerError("special_tokens must be distinct, non-empty names, the document separator first")
    copies = documents if weights is None else weighted_documents(documents, weights)
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(special_tokens),
        # All 256 bytes, whether or not the corpus has them: no text may ever need an unknown token.
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    pieces = _TrainingPieces(copies, special_tokens)
    library.train_from_iterator(iter(pieces), trainer)
    if pieces.documents == 0:
        raise TokenizerError("cannot train a tokenizer: there are no documents")
    data = parse_tokenizer(library.to_str(), "trained tokenizer")
    return Tokenizer(data, "trained tokenizer", special_tokens[0])


def weighted_documents(documents: Iterable[Document], weights: Mapping[str, float]) -> Iterator[Document]:
    """Yields documents so that each source has its share of the bytes, in the order they come; see train_tokenizer.

    Source s with n_s of N bytes and weight w_s is emitted w_s N / (n_s sum w) times: after every document the copies
    emitted are brought as close below that multiple of the bytes seen as whole documents allow.
    """
    if iter(documents) is documents:
        raise TokenizerError("a weighted mix reads the documents twice: pass something re-iterable, not an iterator")
    sizes: dict[str, int] = {}
    for document in documents:
        sizes[document.source] = sizes.get(document.source, 0) + _size(document)
    if sizes.keys() != weights.keys():
        wrong = min(sizes.keys() ^ weights.keys())
        raise TokenizerError(
            f"weights: source {wrong!r} has a weight or documents but not both; sources: {sorted(sizes)}"
        )
    if any(not weight >= 0.0 for weight in weights.values()) or not 0.0 < sum(weights.values()) < float("inf"):
        raise TokenizerError(f"weights must not be negative and must have a positive sum, got {dict(weights)}")
    total, total_weight = sum(sizes.values()), sum(weights.values())
    owed = dict.fromkeys(sizes, 0.0)
    for document in documents:
        name, size = document.source, _size(document)
        owed[name] += size * weights[name] / total_weight * total / max(sizes[name], 1)
        # Half a document of slack: rounding to nearest, so the shares are not short by a document on average.
        while size and owed[name] >= size / 2:
            owed[name] -= size
            yield document


class _TrainingPieces:
    """Iterates over bounded pieces of text and counts the documents it has seen."""

    def __init__(self, documents: Iterable[Document], special_tokens: Sequence[str]) -> None:
        self.documents = 0
        self._source = documents
        longest_first = sorted(special_tokens, key=len, reverse=True)
        self._special = re.compile("|".join(re.escape(name) for name in longest_first))

    def __iter__(self) -> Iterator[str]:
        for document in self._source:
            try:
                document.text.encode()
            except UnicodeEncodeError:
                continue  # packing skips and counts it
            self.documents += 1
            # A tag that will be one id must not spend merges on its letters.
            texts = self._special.split(document.text) if document.allow_special else [document.text]
            for text in texts:
                for piece in cut_text(text, TRAINING_PIECE_CHARACTERS):
                    if piece:
                        yield piece


def _size(document: Document) -> int:
    return len(document.text.encode(errors="surrogatepass"))
