"""Claim: over an epoch every token is a target exactly once, documents stay apart, and the order of samples is the same
after any resume and for any number of ranks.

    uv run pytest packages/tinydata/tests/test_loader.py
"""

from __future__ import annotations

import gc
import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinydata.batch import Batch
from tinydata.documents import Document
from tinydata.loader import Loader
from tinydata.packing import pack
from tinydata.permutation import Permutation
from tinydata.prefetch import prefetched
from tinydata.resumable import LoaderError
from tinydata.row_plan import plan_rows
from tinydata.shards import ShardError, ShardSet
from tinydata.tokenizer_training import train_tokenizer

T = 32


def documents(seed: int = 0) -> list[Document]:
    """Distinct documents from two tokens to several rows long, exact multiples of a row among them, some with tags."""
    draw = random.Random(seed)
    lengths = [draw.choice([0, 5, 20, 27, 28, 29, 60, 61, 92, 150]) for _ in range(90)]
    texts = [f"{index:03d}" + "".join(draw.choices("abcdefgh", k=length)) for index, length in enumerate(lengths)]
    return [Document(text + "<calc>1é</calc>" * (index % 3), "s", index % 2 == 0) for index, text in enumerate(texts)]


# Nothing is merged, so that lengths in characters are lengths in tokens and all remainders occur.
TOKENIZER = train_tokenizer([Document("0123456789", "s")], 272)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return pack(documents(), TOKENIZER, tmp_path_factory.mktemp("loader") / "data", shard_tokens=900)


def rows_of(batches: list[Batch]) -> list[bytes]:
    """One value for each row, to compare rows with."""
    return [
        b"".join(array[row].tobytes() for array in (batch.tokens, batch.targets, batch.documents))
        for batch in batches
        for row in range(len(batch.tokens))
    ]


def take(loader: Loader, count: int) -> list[Batch]:
    return list(itertools.islice(loader, count))


def segments(batch: Batch) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(tokens, targets) of every piece of a document in the batch, checking how rows are laid out."""
    for tokens, targets, ids in zip(batch.tokens, batch.targets, batch.documents, strict=True):
        previous = -1
        slot = 0
        for document, group in itertools.groupby(ids.tolist()):
            size = len(list(group))
            part = slice(slot, slot + size)
            slot += size
            if document == -1:
                assert slot == len(ids), "padding is at the end of a row"
                assert set(tokens[part].tolist()) == {TOKENIZER.end_id}
                assert set(targets[part].tolist()) == {-100}
            else:
                assert document == previous + 1
                previous = document
                yield tuple(tokens[part].tolist()), tuple(targets[part].tolist())


def pairs(stored: ShardSet) -> Counter[tuple[int, int]]:
    """(input, target) of every target there is, from the documents one by one."""
    found: Counter[tuple[int, int]] = Counter()
    for index in range(stored.documents):
        found.update(itertools.pairwise(stored.read(index).tolist()))
    return found


# --- what a batch holds -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("length", [1, 2, 7, T, 1000])
def test_every_token_is_a_target_exactly_once(shards: ShardSet, length: int, shuffle: bool) -> None:
    loader = Loader(shards, length, batch_size=3, shuffle=shuffle)
    batches = list(loader.epoch_batches())
    stored = ["," + ",".join(map(str, shards.read(index).tolist())) + "," for index in range(shards.documents)]
    found: Counter[tuple[int, int]] = Counter()
    for piece, targets in (segment for batch in batches for segment in segments(batch)):
        # a segment is a stretch of one document, its targets the same stretch one token on
        stretch = piece if targets[-1] == -100 else (*piece, targets[-1])
        assert targets[: len(stretch) - 1] == stretch[1:]
        assert any("," + ",".join(map(str, stretch)) + "," in text for text in stored)
        assert targets[-1] != -100 or piece[-1] == TOKENIZER.end_id
        found.update(itertools.pairwise(stretch))
    assert found == pairs(shards)

    learned = Counter(target for batch in batches for target in batch.targets.ravel().tolist() if target != -100)
    expected: Counter[int] = Counter()
    for document in documents():
        expected.update([*TOKENIZER.encode(document.text, document.allow_special), TOKENIZER.end_id])
    assert learned == expected


def test_counts_and_bytes_are_those_of_the_targets(shards: ShardSet) -> None:
    sizes = TOKENIZER.token_bytes().tolist()
    batches = list(Loader(shards, T, batch_size=4).epoch_batches())
    for batch in batches:
        learned = [target for target in batch.targets.ravel().tolist() if target != -100]
        assert batch.target_count == len(learned)
        assert batch.bytes == sum(sizes[target] for target in learned)
        for array in (batch.tokens, batch.targets, batch.documents):
            assert (array.shape, array.dtype, array.flags.c_contiguous) == ((4, T), np.dtype(np.int64), True)
    assert sum(batch.bytes for batch in batches) == shards.bytes
    assert sum(batch.target_count for batch in batches) == shards.tokens - shards.documents


def test_shard_borders_do_not_show(shards: ShardSet, tmp_path: Path) -> None:
    assert len(shards.shards) > 3
    one = pack(documents(), TOKENIZER, tmp_path / "one")
    assert len(one.shards) == 1
    batches = [list(Loader(each, T, batch_size=5).epoch_batches()) for each in (shards, one)]
    assert rows_of(batches[0]) == rows_of(batches[1])


def test_plan_does_not_overfill_and_reports_what_it_fills(shards: ShardSet) -> None:
    loader = Loader(shards, T, batch_size=1)
    batches = list(loader.epoch_batches())
    assert len(batches) == loader.rows
    slots = np.concatenate([batch.documents for batch in batches])
    assert loader.filled == pytest.approx((slots >= 0).mean())
    plan = plan_rows(shards, T)
    assert np.add.reduceat(plan.length, plan.row_start[:-1]).max() <= T


# --- order --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [*range(1, 70), 97, 1000, 4096, 99_991])
def test_permutation_is_a_bijection(size: int) -> None:
    for seed, epoch in ((0, 0), (0, 1), (7, 3)):
        images = Permutation(size, seed, epoch)(np.arange(size))
        assert images.dtype == np.int64
        assert np.array_equal(np.sort(images), np.arange(size))


def test_permutation_is_evaluated_anywhere_without_the_rest() -> None:
    permutation = Permutation(2**40 + 7, seed=1, epoch=2)
    positions = np.array([0, 1, 2**40 + 6, 12345678901, 5])
    images = permutation(positions)
    assert [int(permutation(positions[i : i + 1])[0]) for i in range(5)] == images.tolist()
    assert ((images >= 0) & (images < 2**40 + 7)).all()
    with pytest.raises(ValueError, match="size"):
        Permutation(0, 0, 0)


@pytest.mark.parametrize("size", [5, 12, 31])
def test_every_value_is_equally_often_at_every_place(size: int) -> None:
    """Chi-square over the epochs of one seed, at every place; the draws are fixed, so this cannot flicker."""
    epochs = 2000
    orders = np.stack([Permutation(size, 0, epoch)(np.arange(size)) for epoch in range(epochs)])
    expected = epochs / size
    for place in range(size):
        counts = np.bincount(orders[:, place], minlength=size)
        chi_square = float(((counts - expected) ** 2 / expected).sum())
        freedom = size - 1
        assert chi_square < freedom + 5 * (2 * freedom) ** 0.5


def test_epochs_and_seeds_are_independent_orders() -> None:
    size = 10_000
    first, second, other = (Permutation(size, *key)(np.arange(size)) for key in ((0, 0), (0, 1), (1, 0)))
    for a, b in ((first, second), (first, other), (first, np.arange(size))):
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.05
        assert (a == b).sum() < 10  # 1 is expected
    # Neighbours go to unrelated places.
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.05


def test_an_epoch_shows_every_row_once_and_the_next_in_another_order(shards: ShardSet) -> None:
    loader = Loader(shards, T, batch_size=1)
    rows = rows_of(take(loader, 2 * loader.rows))
    first, second = rows[: loader.rows], rows[loader.rows :]
    plan = rows_of(list(Loader(shards, T, batch_size=1, shuffle=False).epoch_batches()))
    assert sorted(first) == sorted(second) == sorted(plan)
    assert first != second
    assert loader.epoch == 2


def test_batches_run_across_the_end_of_an_epoch(shards: ShardSet) -> None:
    single = Loader(shards, T, batch_size=1)
    rows = rows_of(take(single, 3 * single.rows))
    loader = Loader(shards, T, batch_size=7)
    assert loader.rows % 7
    assert rows_of(take(loader, 2 * loader.rows // 7)) == rows[: 2 * loader.rows // 7 * 7]
    large = Loader(shards, T, batch_size=2 * single.rows + 3)  # more rows than an epoch has
    assert rows_of(take(large, 1)) == rows[: 2 * single.rows + 3]


def test_unshuffled_order_is_the_plan_in_every_epoch(shards: ShardSet) -> None:
    loader = Loader(shards, T, batch_size=1, shuffle=False)
    rows = rows_of(take(loader, 2 * loader.rows))
    assert rows[: loader.rows] == rows[loader.rows :] == rows_of(list(loader.epoch_batches()))


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_together_see_what_one_rank_sees(shards: ShardSet, world: int) -> None:
    steps = 40
    alone = rows_of(take(Loader(shards, T, batch_size=4), steps * world))
    ranks = [take(Loader(shards, T, batch_size=4, rank=rank, world=world), steps) for rank in range(world)]
    together = [row for step in zip(*ranks, strict=True) for row in rows_of(list(step))]
    assert together == alone


# --- resuming -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rank", "world"), [(0, 1), (0, 2), (1, 2), (2, 3)])
@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_resume_at_every_position_continues_exactly(shards: ShardSet, rank: int, world: int, prefetch: int) -> None:
    settings: dict[str, Any] = {
        "batch_size": 5,
        "rank": rank,
        "world": world,
        "seed": 3,
        "prefetch": prefetch,
    }
    loader = Loader(shards, T, **settings)
    steps = 2 * loader.rows // (5 * world) + 2  # over two epoch borders
    states, rows = [loader.state_dict()], []
    for batch in itertools.islice(loader, steps):
        rows.append(rows_of([batch]))
        states.append(json.loads(json.dumps(loader.state_dict())))
    again = Loader(shards, T, **settings)
    for step, state in enumerate(states):
        assert all(type(value) is int for value in state.values())
        again.load_state_dict(state)
        assert again.epoch == step * 5 * world // loader.rows
        for offset, batch in enumerate(itertools.islice(again, 2)):
            if step + offset < steps:
                assert rows_of([batch]) == rows[step + offset]


def test_another_world_size_keeps_the_order(shards: ShardSet) -> None:
    alone = rows_of(take(Loader(shards, T, batch_size=2), 60))
    two = [Loader(shards, T, batch_size=2, rank=rank, world=2) for rank in range(2)]
    begun = [take(loader, 10) for loader in two]
    assert two[0].state_dict() == two[1].state_dict()
    four = [Loader(shards, T, batch_size=1, rank=rank, world=4) for rank in range(4)]
    for loader in four:
        loader.load_state_dict(two[0].state_dict())
    continued = [take(loader, 20) for loader in four]
    seen = [row for ranks in (begun, continued) for step in zip(*ranks, strict=True) for row in rows_of(list(step))]
    assert seen == alone


def test_a_state_of_something_else_is_refused_in_one_line(shards: ShardSet, tmp_path: Path) -> None:
    state = Loader(shards, T, batch_size=2).state_dict()
    other = pack(documents(seed=1), TOKENIZER, tmp_path / "other")
    for name, loader in (
        ("dataset", Loader(other, T, batch_size=2)),
        ("sequence_length", Loader(shards, T + 1, batch_size=2)),
        ("seed", Loader(shards, T, batch_size=2, seed=1)),
        ("shuffle", Loader(shards, T, batch_size=2, shuffle=False)),
    ):
        with pytest.raises(LoaderError, match=f"data position: {name} was") as caught:
            loader.load_state_dict(state)
        assert "\n" not in str(caught.value)
        assert loader.state_dict()["position"] == 0
    for position in (-1, True, "3", None, 2**70):
        with pytest.raises(LoaderError, match="not a count of samples"):
            Loader(shards, T, batch_size=2).load_state_dict(state | {"position": position})  # type: ignore[operator]
    with pytest.raises(LoaderError, match="dataset was None"):
        Loader(shards, T, batch_size=2).load_state_dict({})


def test_an_overtaken_iterator_says_so(shards: ShardSet) -> None:
    loader = Loader(shards, T, batch_size=2)
    old = iter(loader)
    next(old)
    state = loader.state_dict()
    new = iter(loader)
    with pytest.raises(RuntimeError, match="lost its place"):
        next(old)
    next(new)
    loader.load_state_dict(state)
    with pytest.raises(RuntimeError, match="lost its place"):
        next(new)
    assert loader.state_dict() == state


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"rank": 2, "world": 2}, {"world": 0}, {"prefetch": -1}])
def test_impossible_sizes_are_refused(shards: ShardSet, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="out of range"):
        Loader(shards, T, **({"batch_size": 1} | wrong))
    with pytest.raises(ValueError, match="sequence_length must be positive"):
        Loader(shards, 0, batch_size=1)


# --- one pass -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [1, 2, 3])
def test_one_pass_ends_and_every_rank_has_as_many_batches(shards: ShardSet, world: int) -> None:
    passes = []
    for rank in range(world):
        loader = Loader(shards, T, batch_size=7, rank=rank, world=world, shuffle=False)
        passes.append(list(loader.epoch_batches()))
        assert loader.state_dict()["position"] == 0
    assert {len(batches) for batches in passes} == {-(-loader.rows // (7 * world))}
    together = [row for step in zip(*passes, strict=True) for row in rows_of(list(step))]
    expected = rows_of(list(Loader(shards, T, batch_size=1, shuffle=False).epoch_batches()))
    assert together[: loader.rows] == expected
    for batch in (batches[-1] for batches in passes):
        empty = batch.documents[:, 0] == -1
        assert (batch.documents[empty] == -1).all()
        assert (batch.tokens[empty] == TOKENIZER.end_id).all()
    assert sum(batch.target_count for batches in passes for batch in batches) == shards.tokens - shards.documents


def test_one_pass_over_the_first_rows(shards: ShardSet) -> None:
    loader = Loader(shards, T, batch_size=4)
    assert rows_of(list(loader.epoch_batches(rows=8))) == rows_of(list(loader.epoch_batches()))[:8]
    partial = list(loader.epoch_batches(rows=5))
    assert (len(partial), int((partial[1].documents[:, 0] >= 0).sum())) == (2, 1)
    assert len(list(loader.epoch_batches(rows=10**9))) == -(-loader.rows // 4)


# --- prefetching --------------------------------------------------------------------------------------------------


def prefetch_threads() -> int:
    return sum(thread.name == "tinydata-prefetch" for thread in threading.enumerate())


def test_prefetching_keeps_order_and_bound() -> None:
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(50):
            made.append(number)
            yield number

    ahead = prefetched(numbers(), depth=3)
    for number in range(20):
        assert next(ahead) == number
    time.sleep(0.2)
    assert len(made) <= 20 + 3 + 1  # the queue and the one that waits for a place
    assert list(ahead) == list(range(20, 50))


def test_an_error_arrives_after_the_items_before_it() -> None:
    def failing() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("disk")

    for depth in (0, 1, 4):
        ahead = prefetched(failing(), depth)
        assert [next(ahead), next(ahead)] == [1, 2]
        with pytest.raises(OSError, match="disk"):
            next(ahead)


def test_threads_end_with_their_iterators(shards: ShardSet) -> None:
    gc.collect()
    before = prefetch_threads()
    loader = Loader(shards, T, batch_size=2)
    closed = iter(loader)
    next(closed)
    assert prefetch_threads() == before + 1
    closed.close()  # type: ignore[attr-defined]
    assert prefetch_threads() == before
    forgotten = iter(loader)
    next(forgotten)
    del forgotten
    gc.collect()
    assert prefetch_threads() == before
    list(loader.epoch_batches())
    assert prefetch_threads() == before


def test_the_state_counts_batches_handed_out_not_those_made_ahead(shards: ShardSet) -> None:
    loader = Loader(shards, T, batch_size=2, prefetch=4)
    batches = iter(loader)
    for step in range(1, 4):
        next(batches)
        time.sleep(0.02)
        assert loader.state_dict()["position"] == 2 * step


def test_labels_follow_the_source_of_every_token(tmp_path: Path) -> None:
    """Each piece of a document has its source's label, whatever the order of sources; padding has none."""
    draw = random.Random(3)
    sources = [draw.choice(["code", "prose", "sums"]) for _ in documents()]
    sourced = [Document(d.text, name, d.allow_special) for d, name in zip(documents(), sources, strict=True)]
    shards = pack(sourced, TOKENIZER, tmp_path / "data", shard_tokens=900)
    assert len(shards.shards) > 2
    label = {"code": 1, "sums": 0}
    expected = {int(d.text[:3]): label.get(d.source, -1) for d in sourced}
    starts = {}  # the first tokens of a document are its number
    for number in range(shards.documents):
        starts[tuple(shards.read(number)[1:4].tolist())] = number
    loader = Loader(shards, T, batch_size=4, labels=label, prefetch=0)
    seen: Counter[int] = Counter()
    for batch in loader.epoch_batches():
        assert batch.labels is not None
        assert batch.labels.shape == batch.tokens.shape
        assert batch.labels.dtype == np.int64
        assert (batch.labels[batch.documents == -1] == -1).all()
        for row in range(4):
            for piece in range(int(batch.documents[row].max()) + 1):
                inside = batch.documents[row] == piece
                assert len(set(batch.labels[row][inside].tolist())) == 1
                number = starts.get(tuple(batch.tokens[row][inside][1:4].tolist()))
                if number is not None and batch.tokens[row][inside][0] == TOKENIZER.end_id:
                    assert batch.labels[row][inside][0] == expected[number]
                    seen[expected[number]] += 1
    assert set(seen) == {-1, 0, 1}
    unlabelled = take(Loader(shards, T, batch_size=4, prefetch=0), 3)
    assert unlabelled[0].labels is None
    assert rows_of(unlabelled) == rows_of(take(loader, 3))


def test_a_set_without_the_order_of_sources_has_no_labels(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    pack(documents(), TOKENIZER, directory)
    manifest = json.loads((directory / "manifest.json").read_bytes())
    del manifest["source_runs"]
    (directory / "manifest.json").write_text(json.dumps(manifest))
    old = ShardSet.open(directory)
    assert len(take(Loader(old, T, batch_size=2), 2)) == 2
    with pytest.raises(ShardError, match="packed before the order of sources was kept: delete the folder"):
        Loader(old, T, batch_size=2, labels={"s": 0})
