"""Claim: text round-trips and never becomes special ids, and training repeats exactly whatever the process.

uv run pytest packages/tinydata/tests/test_tokenizer.py
"""

from __future__ import annotations

import argparse
import inspect
import os
import random
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tinydata import tokenizer as tokenizer_module
from tinydata.documents import Document
from tinydata.special_tokens import SPECIAL_TOKENS
from tinydata.tokenizer import cut_text
from tinydata.tokenizer_file import TokenizerError
from tinydata.tokenizer_training import TRAINING_PIECE_CHARACTERS, train_tokenizer, weighted_documents

TEXT = "the cat sat on a mat while seven dogs ran past 1234 houses and nobody said: why not? naïve café"
WORDS = TEXT.split()


def corpus(documents: int = 60, seed: int = 0) -> list[Document]:
    draw = random.Random(seed)
    return [Document(" ".join(draw.choices(WORDS, k=40)) + "\n", "made up") for _ in range(documents)]


TRAINED = train_tokenizer(corpus(), 400)
SPECIAL_IDS = set(TRAINED.special.values())
# The same examples on every machine, however busy it is.
STEADY = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


# --- text in, ids out ---------------------------------------------------------------------------------------------


def test_special_tokens_are_single_ids_in_order() -> None:
    assert list(TRAINED.special.items()) == [(name, index) for index, name in enumerate(SPECIAL_TOKENS)]
    assert TRAINED.end_id == 0
    for name, index in TRAINED.special.items():
        assert TRAINED.encode(name, allow_special=True) == [index]


def test_digits_are_split_singly() -> None:
    ids = TRAINED.encode("1234 1234")
    assert [TRAINED.decode([value]) for value in ids] == ["1", "2", "3", "4", " ", "1", "2", "3", "4"]


@STEADY
@given(st.text())
@example("\x00\r\n \t\u00a0\u2028\ufeff\U0001f469\u200d\U0001f4bb e\u0301")
def test_any_text_round_trips_and_its_bytes_are_counted(text: str) -> None:
    ids = TRAINED.encode(text)
    assert TRAINED.decode(ids) == text
    assert TRAINED.token_bytes()[ids].sum() == len(text.encode())


NAME_PIECES = [
    *SPECIAL_TOKENS,
    "<",
    ">",
    "</",
    "<|",
    "|>",
    "calc",
    "endoftext",
    " ",
    "\n",
    "<calc >",
    "< calc>",
]
NAME_PIECES += ["<CALC>", "<<calc>>", "<ca\u200blc>", "\uff1ccalc\uff1e", "&lt;calc&gt;", "<calc/>", "7", "é"]


@STEADY
@given(st.lists(st.one_of(st.sampled_from(NAME_PIECES), st.text(max_size=3)), max_size=12).map("".join))
@example("".join(SPECIAL_TOKENS))
def test_document_text_never_becomes_a_special_id(text: str) -> None:
    ids = TRAINED.encode(text)
    assert SPECIAL_IDS.isdisjoint(ids)
    assert TRAINED.decode(ids) == text
    assert TRAINED.encode_batch([text, "x"]) == [ids, TRAINED.encode("x")]


def test_allowed_special_tokens_surround_ordinary_text() -> None:
    special = TRAINED.special
    ids = TRAINED.encode("a<calc>1</calc>", allow_special=True)
    assert ids == [*TRAINED.encode("a"), special["<calc>"], *TRAINED.encode("1"), special["</calc>"]]
    assert TRAINED.decode(ids) == "a<calc>1</calc>"
    assert TRAINED.decode(ids, skip_special=True) == "a1"
    assert TRAINED.token_bytes()[ids].sum() == 2
    # The instance that allows them leaves no trace in the one that does not.
    assert SPECIAL_IDS.isdisjoint(TRAINED.encode("a<calc>1</calc>"))


def test_lone_surrogate_and_unknown_id_are_one_line_errors() -> None:
    with pytest.raises(TokenizerError, match="lone surrogate at character 1"):
        TRAINED.encode("a\ud800")
    with pytest.raises(TokenizerError, match=r"cannot decode id 400: the vocabulary has \d+ ids"):
        TRAINED.decode([1, 400])


@STEADY
@given(st.text(alphabet="ab \n", max_size=60), st.integers(1, 10))
def test_cut_pieces_are_bounded_and_join_to_the_text(text: str, limit: int) -> None:
    pieces = list(cut_text(text, limit))
    assert "".join(pieces) == text
    assert all(len(piece) <= limit for piece in pieces)
    assert all(pieces) or pieces == [""]


def test_a_long_text_encodes_in_pieces_as_if_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    text = inspect.getsource(argparse)
    whole = TRAINED.encode(text)
    monkeypatch.setattr(tokenizer_module, "PIECE_CHARACTERS", 500)
    monkeypatch.setattr(tokenizer_module, "GROUP_CHARACTERS", 1100)
    assert TRAINED.encode_batch(["x", text, ""]) == [TRAINED.encode("x"), whole, []]


# --- training -----------------------------------------------------------------------------------------------------


def test_training_twice_gives_the_same_tokenizer() -> None:
    again = train_tokenizer(iter(corpus()), 400)
    assert again.hash == TRAINED.hash
    assert train_tokenizer(corpus(seed=1), 400).hash != TRAINED.hash


def test_training_in_other_processes_gives_the_same_tokenizer() -> None:
    program = textwrap.dedent(
        """
        import random
        from tinydata.documents import Document
        from tinydata.tokenizer_training import train_tokenizer
        draw = random.Random(0)
        words = %r
        documents = [Document(" ".join(draw.choices(words, k=40)) + chr(10), "made up") for _ in range(60)]
        print(train_tokenizer(documents, 400).hash)
        """
    )
    for hash_seed, threads in (("1", "1"), ("2", "3")):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "RAYON_NUM_THREADS": threads}
        command = [sys.executable, "-c", program % WORDS]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
        assert done.stdout.strip() == TRAINED.hash


def test_every_byte_has_an_id_whatever_the_corpus() -> None:
    tiny = train_tokenizer([Document("ab", "s")], 300)
    assert tiny.vocab_size == len(SPECIAL_TOKENS) + 256  # no pair occurs twice: smaller than asked
    assert tiny.token_bytes().tolist() == [0] * len(SPECIAL_TOKENS) + [1] * 256


def test_tags_of_our_own_documents_are_not_learned_as_text() -> None:
    text = "<calc>" * 50
    learned = train_tokenizer([Document(text, "s")], 300)
    spared = train_tokenizer([Document(text, "s", allow_special=True)], 300)
    assert len(learned.encode("calc")) == 1
    assert len(spared.encode("calc")) == 4


def test_training_text_reaches_the_library_in_bounded_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "word and word\n" * 20_000  # one document of 280 kB must not be handed over whole
    pieces: list[str] = []

    def record(iterator: Iterator[str], trainer: object) -> None:
        pieces.extend(iterator)

    stand_in = SimpleNamespace(train_from_iterator=record, to_str=TRAINED._plain.to_str)
    monkeypatch.setattr("tinydata.tokenizer_training.tokenizers", SimpleNamespace(Tokenizer=lambda model: stand_in))
    train_tokenizer([Document(text, "s")], 400)
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= TRAINING_PIECE_CHARACTERS


@pytest.mark.parametrize("shares", [{"a": 1, "b": 1}, {"a": 1, "b": 9}, {"a": 5, "b": 1}, {"a": 1, "b": 0}])
def test_weighted_mix_has_the_asked_shares_of_bytes(shares: dict[str, float]) -> None:
    draw = random.Random(0)
    documents = [Document("é" * draw.randint(1, 100), "a" if draw.random() < 0.7 else "b") for _ in range(2000)]
    sizes = dict.fromkeys("ab", 0)
    for document in weighted_documents(documents, shares):
        sizes[document.source] += len(document.text.encode())
    total = sum(len(document.text.encode()) for document in documents)
    for name, share in shares.items():
        assert sizes[name] == pytest.approx(total * share / sum(shares.values()), abs=200)  # one document


def test_weighted_training_follows_the_weights() -> None:
    documents = [Document("qqqq zzzz " * 3, "a")] * 50 + [Document("wwww kkkk " * 3, "b")] * 50
    favoured = train_tokenizer(documents, 280, weights={"a": 1, "b": 0})
    assert len(favoured.encode("qqqq")) < len(favoured.encode("wwww")) == 4


def test_bad_training_requests_are_one_line_errors() -> None:
    documents = corpus(3)
    with pytest.raises(TokenizerError, match="vocab_size 271 is too small: special tokens and bytes alone are 272"):
        train_tokenizer(documents, 271)
    with pytest.raises(TokenizerError, match="there are no documents"):
        train_tokenizer([], 400)
    with pytest.raises(TokenizerError, match="distinct"):
        train_tokenizer(documents, 400, special_tokens=["<a>", "<a>"])
    with pytest.raises(TokenizerError, match="ordinary text can spell the special token '##'"):
        train_tokenizer([Document("## " * 9, "s")], 400, special_tokens=["<|endoftext|>", "##"])
    with pytest.raises(TokenizerError, match="not an iterator"):
        train_tokenizer(iter(documents), 400, weights={"made up": 1.0})
    with pytest.raises(TokenizerError, match="source 'other' has a weight or documents but not both"):
        train_tokenizer(documents, 400, weights={"made up": 1.0, "other": 1.0})
    with pytest.raises(TokenizerError, match="positive sum"):
        train_tokenizer(documents, 400, weights={"made up": 0.0})


def test_an_error_of_the_source_arrives_unchanged() -> None:
    class Broken(RuntimeError):
        pass

    def documents() -> Any:
        yield from corpus(3)
        raise Broken("disk")

    with pytest.raises(Broken, match="disk"):
        train_tokenizer(documents(), 400)
