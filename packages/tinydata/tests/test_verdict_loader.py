"""Claim: a verdict's labels stand at exactly the tokens of its parts and nowhere else, and a loader of verdicts goes on where
it was, on any number of ranks.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from tinydata import (
    Document,
    EncodedVerdict,
    LoaderError,
    Tokenizer,
    Verdict,
    VerdictBatch,
    VerdictLoader,
    encode_verdicts,
    train_tokenizer,
)

UNKNOWN = -1

# two lines and the answer: the second line is wrong; nobody knows about the first
MIXED = Verdict(
    "What is 2 + 3 times 4? <calc>1+1</calc>\n",
    "Add: <calc>2+3</calc><result>5</result>\nso ñandú 5*4=21\nAnswer: 21",
    ((40, None), (56, 0), (66, 1)),
    False,
)


def sums(count: int) -> list[Verdict]:
    """Verdicts of different lengths, each with a prompt of its own, right ones and wrong ones."""
    found = []
    for index in range(count):
        first = "so " * (index % 5) + f"{index} and {index}:\n"
        answer = f"{first}Answer: {2 * index + index % 2}"
        right = index % 2 == 0
        found.append(
            Verdict(f"What is {index} plus {index}?\n", answer, ((len(first), 1), (len(answer), right)), right)
        )
    return found


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer((Document(one.prompt + one.answer, "x") for one in sums(40)), 320)


@pytest.fixture(scope="module")
def verdicts(tokenizer: Tokenizer) -> list[EncodedVerdict]:
    return encode_verdicts(sums(23), tokenizer)


def walked(tokenizer: Tokenizer, verdict: Verdict, ids: list[int]) -> list[int]:
    """The label of each id, found by counting the bytes that the tokens spell, one after another."""
    sizes = tokenizer.token_bytes()
    names = {value: name for name, value in tokenizer.special.items()}
    prompt, before = len(verdict.prompt.encode()), 0
    ends = [len(verdict.answer[:end].encode()) for end, _ in verdict.parts]
    labels = [UNKNOWN]
    assert ids[0] == tokenizer.end_id
    for token in ids[1:]:
        size = len(names[token]) if token in names else int(sizes[token])
        if before >= prompt:
            part = next(index for index, end in enumerate(ends) if before - prompt < end)
            assert before + size - prompt <= ends[part], "no token is in two parts"
            label = verdict.parts[part][1]
            labels.append(UNKNOWN if label is None else label)
        else:
            assert before + size <= prompt, "no token is in both"
            labels.append(UNKNOWN)
        before += size
    assert before == prompt + ends[-1], "the tokens spell all of it"
    return labels


@pytest.mark.parametrize("verdict", [MIXED, *sums(6)], ids=lambda verdict: verdict.answer[-6:])
def test_labels_stand_at_the_tokens_of_their_part(tokenizer: Tokenizer, verdict: Verdict) -> None:
    (encoded,) = encode_verdicts([verdict], tokenizer)
    ids = encoded.ids.tolist()
    assert encoded.labels.tolist() == walked(tokenizer, verdict, ids)
    assert tokenizer.decode(ids[1:]) == verdict.prompt + verdict.answer
    assert encoded.right == verdict.right
    assert len(encoded.ids) == len(encoded.labels)
    assert tokenizer.end_id not in ids[1:], "what ends an answer is not judged"
    # the text of each label, read token by token
    texts: dict[int, str] = {}
    for label in (0, 1):
        texts[label] = tokenizer.decode(
            [token for token, found in zip(ids, encoded.labels, strict=True) if found == label]
        )
    pieces = list(itertools.pairwise([0, *(end for end, _ in verdict.parts)]))
    for label, text in texts.items():
        expected = [
            verdict.answer[slice(*piece)]
            for piece, (_, told) in zip(pieces, verdict.parts, strict=True)
            if told == label
        ]
        assert text == "".join(expected)


def test_a_part_nobody_knows_and_the_question_have_no_label(tokenizer: Tokenizer) -> None:
    (encoded,) = encode_verdicts([MIXED], tokenizer)
    known = encoded.labels != UNKNOWN
    text = tokenizer.decode(encoded.ids[known].tolist())
    assert text == "so ñandú 5*4=21\nAnswer: 21"
    assert known.tolist() == sorted(known.tolist()), "what is before it is unknown"
    (silent,) = encode_verdicts([Verdict("Q\n", "abc", ((3, None),), True)], tokenizer)
    assert (silent.labels == UNKNOWN).all()


def test_tags_are_tokens_in_answers_and_characters_in_questions(tokenizer: Tokenizer) -> None:
    (encoded,) = encode_verdicts([MIXED], tokenizer)
    prompt = 1 + len(tokenizer.encode(MIXED.prompt))
    assert tokenizer.decode(encoded.ids[1:prompt].tolist()) == MIXED.prompt
    special = [token for token in encoded.ids.tolist() if token in tokenizer.special.values()]
    names = ["<calc>", "</calc>", "<result>", "</result>"]
    assert special == [tokenizer.end_id, *(tokenizer.special[name] for name in names)], "each once, in the answer"
    assert not set(encoded.ids[1:prompt].tolist()) & set(tokenizer.special.values())
    assert tokenizer.special["<calc>"] in encoded.ids[prompt:].tolist()


def test_cut_into_lines_an_answer_has_the_same_tokens_as_whole(tokenizer: Tokenizer) -> None:
    """A verifier scores answers as a whole and is trained on them in parts."""
    for verdict in [MIXED, *sums(12)]:
        whole = Verdict(verdict.prompt, verdict.answer, ((len(verdict.answer), 1),), True)
        assert (
            encode_verdicts([whole], tokenizer)[0].ids.tolist() == encode_verdicts([verdict], tokenizer)[0].ids.tolist()
        )


def test_empty_parts_and_answers_have_no_tokens(tokenizer: Tokenizer) -> None:
    (cut,) = encode_verdicts([Verdict("Q\n", "ab", ((0, 1), (2, 0), (2, 1)), False)], tokenizer)
    assert set(cut.labels.tolist()) == {UNKNOWN, 0}
    empty, none = encode_verdicts([Verdict("Q\n", "", ((0, 1),), True), Verdict("Q\n", "", (), False)], tokenizer)
    assert empty.ids.tolist() == none.ids.tolist() == [tokenizer.end_id, *tokenizer.encode("Q\n")]
    assert (empty.labels == UNKNOWN).all()


@pytest.mark.parametrize(
    "parts", [(), ((2, 1),), ((4, 1),), ((2, 1), (1, 0), (3, 1)), ((3, 1), (2, 1)), ((-1, 0), (3, 1)), ((1, 1), (4, 0))]
)
def test_parts_cover_the_answer_in_order(tokenizer: Tokenizer, parts: tuple[tuple[int, int | None], ...]) -> None:
    with pytest.raises(ValueError, match=r"parts end at \[.*\], the answer at 3") as refused:
        encode_verdicts([Verdict("Q\n", "abc", parts, True)], tokenizer)
    assert "\n" not in str(refused.value)


# --- rows ----------------------------------------------------------------------------------------------------------------


def test_rows_are_the_verdicts_and_padding(tokenizer: Tokenizer, verdicts: list[EncodedVerdict]) -> None:
    length = max(len(verdict.ids) for verdict in verdicts)
    (batch,) = VerdictLoader(verdicts, tokenizer, length + 9, len(verdicts)).epoch_batches()
    assert batch.tokens.shape == batch.labels.shape == batch.documents.shape == (len(verdicts), length)
    for part in (batch.tokens, batch.labels, batch.documents, batch.lengths, batch.right):
        assert part.dtype == np.int64
    for row, verdict in enumerate(verdicts):
        size = len(verdict.ids)
        assert batch.lengths[row] == size
        assert batch.tokens[row, :size].tolist() == verdict.ids.tolist()
        assert batch.labels[row, :size].tolist() == verdict.labels.tolist()
        assert (batch.tokens[row, size:] == tokenizer.end_id).all()
        assert (batch.labels[row, size:] == UNKNOWN).all()
        assert (batch.documents[row] == np.where(np.arange(length) < size, 0, -1)).all()
    assert batch.right.tolist() == [1 if index % 2 == 0 else 0 for index in range(len(verdicts))]
    assert len(set(batch.lengths.tolist())) > 3
    # what is to be learned: all tokens of all answers, each of whose parts somebody knows
    assert batch.target_count == sum(
        len(tokenizer.encode(one.answer, allow_special=True)) for one in sums(len(verdicts))
    )
    (mixed,) = VerdictLoader(encode_verdicts([MIXED], tokenizer), tokenizer, 120, 1).epoch_batches()
    assert mixed.target_count == len(tokenizer.encode("so ñandú 5*4=21\n")) + len(tokenizer.encode("Answer: 21"))


def test_an_epoch_for_scoring_is_in_order_and_moves_nothing(
    tokenizer: Tokenizer, verdicts: list[EncodedVerdict]
) -> None:
    loader = VerdictLoader(verdicts, tokenizer, 80, 5)
    before = loader.state_dict()
    sizes = [batch.lengths.tolist() for batch in loader.epoch_batches()]
    assert [len(size) for size in sizes] == [5, 5, 5, 5, 3]
    assert list(itertools.chain(*sizes)) == [len(verdict.ids) for verdict in verdicts]
    assert [len(batch.lengths) for batch in loader.epoch_batches(7)] == [5, 2]
    assert [len(batch.lengths) for batch in loader.epoch_batches(99)] == [5, 5, 5, 5, 3]
    assert loader.state_dict() == before
    assert loader.rows == len(verdicts)
    halves = [
        [batch.lengths.tolist() for batch in VerdictLoader(verdicts, tokenizer, 80, 5, rank, 2).epoch_batches(9)]
        for rank in (0, 1)
    ]
    assert list(itertools.chain(*halves[0])) == [len(verdict.ids) for verdict in verdicts[0:9:2]]
    assert list(itertools.chain(*halves[1])) == [len(verdict.ids) for verdict in verdicts[1:9:2]]


def plain(batch: VerdictBatch) -> list[Any]:
    """All of a batch, to compare."""
    parts = (batch.tokens, batch.labels, batch.documents, batch.lengths, batch.right)
    return [*(part.tolist() for part in parts), batch.target_count]


def rows(batch: VerdictBatch) -> list[tuple[Any, ...]]:
    """Its rows without padding, to compare with those of a batch that is padded to another length."""
    return [
        (batch.tokens[row, :size].tolist(), batch.labels[row, :size].tolist(), int(batch.right[row]))
        for row, size in enumerate(batch.lengths.tolist())
    ]


def taken(loader: VerdictLoader, count: int) -> list[list[Any]]:
    return [plain(batch) for batch in itertools.islice(loader, count)]


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("seen", [0, 1, 5, 7])
def test_a_loader_goes_on_where_it_was(
    tokenizer: Tokenizer, verdicts: list[EncodedVerdict], seen: int, prefetch: int
) -> None:
    """Across the end of an epoch: 23 verdicts are not quite six batches of four."""
    settings: dict[str, Any] = {"seed": 1, "prefetch": prefetch}
    whole = taken(VerdictLoader(verdicts, tokenizer, 80, 4, **settings), 13)
    first = VerdictLoader(verdicts, tokenizer, 80, 4, **settings)
    assert taken(first, seen) == whole[:seen]
    state = first.state_dict()
    assert state["position"] == 4 * seen, "what was made ahead does not count"
    then = VerdictLoader(verdicts, tokenizer, 80, 4, **settings)
    then.load_state_dict(state)
    assert taken(then, 13 - seen) == whole[seen:]


def test_two_ranks_are_one_with_twice_the_batch(tokenizer: Tokenizer, verdicts: list[EncodedVerdict]) -> None:
    def drawn(loader: VerdictLoader, count: int) -> list[list[tuple[Any, ...]]]:
        return [rows(batch) for batch in itertools.islice(loader, count)]

    whole = drawn(VerdictLoader(verdicts, tokenizer, 80, 6, seed=3), 9)
    ranks = [drawn(VerdictLoader(verdicts, tokenizer, 80, 3, rank, 2, seed=3), 9) for rank in (0, 1)]
    assert [first + second for first, second in zip(*ranks, strict=True)] == whole
    one = VerdictLoader(verdicts, tokenizer, 80, 3, 0, 2, seed=3)
    drawn(one, 4)
    alone = VerdictLoader(verdicts, tokenizer, 80, 6, seed=3)
    alone.load_state_dict(one.state_dict())  # with another number of ranks
    assert drawn(alone, 5) == whole[4:]


def test_a_batch_is_as_long_as_its_longest_answer(tokenizer: Tokenizer, verdicts: list[EncodedVerdict]) -> None:
    widths = set()
    for batch in itertools.islice(VerdictLoader(verdicts, tokenizer, 80, 2), 20):
        assert batch.tokens.shape == batch.labels.shape == batch.documents.shape == (2, batch.lengths.max())
        widths.add(batch.tokens.shape[1])
    assert len(widths) > 1


@pytest.mark.parametrize("seed", [0, 5])
def test_every_epoch_has_every_verdict_once_in_another_order(
    tokenizer: Tokenizer, verdicts: list[EncodedVerdict], seed: int
) -> None:
    drawn = [
        str(row)
        for batch in itertools.islice(VerdictLoader(verdicts, tokenizer, 80, 1, seed=seed), 46)
        for row in rows(batch)
    ]
    everything = [
        str(row) for batch in VerdictLoader(verdicts, tokenizer, 80, 23).epoch_batches() for row in rows(batch)
    ]
    assert sorted(drawn[:23]) == sorted(drawn[23:]) == sorted(everything)
    assert len(set(everything)) == 23
    assert drawn[:23] != drawn[23:]
    assert everything not in (drawn[:23], drawn[23:])
    other = next(iter(VerdictLoader(verdicts, tokenizer, 80, 23, seed=seed + 1)))
    assert [str(row) for row in rows(other)] != drawn[:23]


# --- what is refused -----------------------------------------------------------------------------------------------------


def test_a_place_is_one_in_the_same_verdicts(tokenizer: Tokenizer, verdicts: list[EncodedVerdict]) -> None:
    state = VerdictLoader(verdicts, tokenizer, 80, 4, seed=1).state_dict()
    turned = EncodedVerdict(verdicts[0].ids, verdicts[0].labels, not verdicts[0].right)
    labels = verdicts[0].labels.copy()
    labels[-1] = 1 - labels[-1]
    relabelled = EncodedVerdict(verdicts[0].ids, labels, verdicts[0].right)
    for loader, what in (
        (VerdictLoader([turned, *verdicts[1:]], tokenizer, 80, 4, seed=1), "dataset was"),
        (VerdictLoader([relabelled, *verdicts[1:]], tokenizer, 80, 4, seed=1), "dataset was"),
        (VerdictLoader(verdicts[::-1], tokenizer, 80, 4, seed=1), "dataset was"),
        (VerdictLoader(verdicts, tokenizer, 81, 4, seed=1), "sequence_length was 80"),
        (VerdictLoader(verdicts, tokenizer, 80, 4, seed=2), "seed was 1"),
    ):
        with pytest.raises(LoaderError, match=what):
            loader.load_state_dict(state)
    loader = VerdictLoader(verdicts, tokenizer, 80, 4, seed=1)
    for position in (-1, 1.5, True, None, 2**62):
        with pytest.raises(LoaderError, match="is not a count of samples"):
            loader.load_state_dict(state | {"position": position})


def test_sizes_that_make_no_sense_are_refused(tokenizer: Tokenizer, verdicts: list[EncodedVerdict]) -> None:
    longest = max(len(verdict.ids) for verdict in verdicts)
    with pytest.raises(ValueError, match="verdicts: there are none"):
        VerdictLoader([], tokenizer, 80, 4)
    with pytest.raises(ValueError, match=rf"one has {longest} tokens, a row {longest - 1}"):
        VerdictLoader(verdicts, tokenizer, longest - 1, 4)
    assert VerdictLoader(verdicts, tokenizer, longest, 4).rows == len(verdicts), "just long enough"
    for sizes in ((0,), (4, 2, 2), (4, -1, 2), (4, 0, 0)):
        with pytest.raises(ValueError, match="out of range"):
            VerdictLoader(verdicts, tokenizer, 80, *sizes)
