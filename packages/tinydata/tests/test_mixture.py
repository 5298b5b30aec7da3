"""Shares follow their formulas, realised tokens follow the shares' integral within 1 %, and a place is a place anywhere."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinydata import Document, LoaderError, MixedLoader, Mixture, MixtureError, ShardSet, pack, temperature_weights
from tinydata.mixture import Constant, Early, Linear, Piecewise
from tinydata.tokenizer_training import train_tokenizer

TOKENIZER = train_tokenizer([Document("0123456789", "s")], 272)
T = 32
STEPS = 2000


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ShardSet]:
    """Three sources whose rows are filled to different degrees; every text begins with its source's letter."""
    found = {}
    for letter, lengths in (("a", [27]), ("b", [5, 20, 60]), ("c", [18])):
        draw = random.Random(letter)
        texts = [letter * 2 + f"{index:03d}" + "x" * draw.choice(lengths) for index in range(60)]
        folder = tmp_path_factory.mktemp("mixed") / letter
        found[letter] = pack([Document(text, letter) for text in texts], TOKENIZER, folder)
    return found


def integral(mixture: Mixture, name: str, until: float = 1.0) -> float:
    points = [(step + 0.5) / STEPS * until for step in range(STEPS)]
    return sum(mixture.shares(point)[name] for point in points) / STEPS * until


@pytest.mark.parametrize(
    ("weight", "values"),
    [
        (Constant(2.0), {0.0: 2.0, 0.7: 2.0}),
        (Linear(1.0, 3.0), {0.0: 1.0, 0.25: 1.5, 1.0: 3.0}),
        (Piecewise(((0.2, 1.0), (0.4, 3.0), (0.4, 0.5))), {0.0: 1.0, 0.3: 2.0, 0.4: 0.5, 1.0: 0.5}),
        (Early(0.2), {0.0: 0.3, 0.5: 0.2, 1.0: 0.1}),
    ],
)
def test_weights(weight: Constant | Linear | Piecewise | Early, values: dict[float, float]) -> None:
    for progress, value in values.items():
        assert weight(progress) == pytest.approx(value)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(base=st.floats(0.01, 0.6), others=st.lists(st.floats(0.1, 9.0), min_size=1, max_size=4))
def test_an_early_source_has_its_base_on_average_and_the_others_their_part_of_the_rest(
    base: float, others: list[float]
) -> None:
    mixture = Mixture({"code": Early(base), **{str(index): weight for index, weight in enumerate(others)}})
    for progress in (0.0, 0.3, 1.0):
        shares = mixture.shares(progress)
        assert sum(shares.values()) == pytest.approx(1.0)
        assert shares["code"] == pytest.approx(base * (1.5 - progress))
    assert integral(mixture, "code") == pytest.approx(base)
    for index, weight in enumerate(others):
        assert integral(mixture, str(index)) == pytest.approx((1 - base) * weight / sum(others))


def test_temperature() -> None:
    tokens = {"large": 8000, "small": 1000}
    assert temperature_weights(tokens, 1.0) == pytest.approx({"large": 8 / 9, "small": 1 / 9})
    assert temperature_weights(tokens, 3.0) == pytest.approx({"large": 2 / 3, "small": 1 / 3})
    assert temperature_weights(tokens, 1e9)["small"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    "mixture",
    [
        {"a": 45, "b": 18, "c": 13},
        {"a": 0.01, "b": 1.0, "c": 0.3},
        {"a": Early(0.3), "b": 2, "c": 1},
        {"a": Linear(0, 1), "b": Linear(1, 0), "c": Piecewise(((0.5, 0.0), (0.5, 2.0)))},
    ],
    ids=["constant", "rare", "early", "phases"],
)
def test_realised_tokens_are_the_schedules_integral(sources: dict[str, ShardSet], mixture: dict[str, float]) -> None:
    total = 3000
    mixed = Mixture(mixture)
    loader = MixedLoader(sources, mixed, total, T, 4, prefetch=0)
    letters: Counter[str] = Counter()
    middle: dict[str, int] = {}
    for number, batch in enumerate(itertools.islice(loader, total // 4), 1):
        for row in range(4):
            used = batch.documents[row] >= 0
            text = TOKENIZER.decode(batch.tokens[row][used].tolist(), skip_special=True)
            letters[text.strip("0123456789x")[:1] or "?"] += int(used.sum())
        if number == total // 8:
            middle = loader.tokens
    whole = sum(loader.tokens.values())
    for name in mixture:
        assert loader.tokens[name] == pytest.approx(integral(mixed, name) * whole, abs=0.01 * whole + 2 * T)
        assert loader.tokens[name] == pytest.approx(loader.due[name], abs=3 * T)
        half = integral(mixed, name, 0.5) / 0.5 * sum(middle.values())
        assert middle[name] == pytest.approx(half, abs=0.01 * whole + 2 * T)
    # what the rows themselves say; rows that begin inside a document do not tell whose they are
    known = {name: letters[name] for name in "abc"}
    assert all(known[name] <= loader.tokens[name] for name in known)
    assert sum(known.values()) > 0.5 * whole


def test_goes_on_in_the_middle_and_ranks_share(sources: dict[str, ShardSet]) -> None:
    def made(**options: int) -> MixedLoader:
        mixture = Mixture({"a": Linear(0, 1), "b": Linear(1, 0), "c": 0.5})
        return MixedLoader(sources, mixture, 60, T, **{"batch_size": 4, **options})

    def rows(count: int, loader: MixedLoader) -> list[list[list[int]]]:
        return [np.concatenate([b.tokens, b.targets], 1).tolist() for b in itertools.islice(loader, count)]

    whole = rows(12, made())
    loader = made()
    first = rows(5, loader)
    saved = json.loads(json.dumps(loader.state_dict()))
    again = made()
    again.load_state_dict(saved)
    assert first + rows(7, again) == whole
    ranks = [rows(6, made(batch_size=2, rank=rank, world=2)) for rank in (0, 1)]
    assert [a + b for a, b in zip(*ranks, strict=True)] == whole[:6]
    with pytest.raises(LoaderError, match="seed was 0"):
        made(seed=1).load_state_dict(saved)
    for damage in ({"given": {"a": 1}}, {"samples": -1}, {"position": {"a": 1.5, "b": 0, "c": 0}}):
        with pytest.raises(LoaderError, match="data position"):
            made().load_state_dict(saved | damage)


def test_a_source_that_is_spent_leaves_its_due_to_the_others(sources: dict[str, ShardSet]) -> None:
    loader = MixedLoader(sources, Mixture({"a": 1, "b": 1, "c": 1}), 10_000, T, 1, max_epochs={"a": 1.5}, prefetch=0)
    for _ in itertools.islice(loader, 600):
        pass
    assert loader.spent == ("a",)
    assert loader.epochs["a"] == 1.5
    ratio = loader.tokens["b"] / loader.tokens["c"]
    assert ratio == pytest.approx(1.0, abs=0.02)
    all_spent = MixedLoader(sources, Mixture({"a": 1, "b": 0, "c": 0}), 100, T, 1, max_epochs={"a": 0.1}, prefetch=0)
    with pytest.raises(MixtureError, match="every source that has a share"):
        for _ in itertools.islice(all_spent, 100):
            pass


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ({}, "no sources"),
        ({"a": -1}, "a: a weight is negative"),
        ({"a": float("nan")}, "a: a weight is negative or not a number"),
        ({"a": 0, "b": 0}, "the weights sum to zero at 0% of the run"),
        ({"a": Linear(1, 0), "b": 0}, "the weights sum to zero at 100% of the run"),
        ({"a": Piecewise(((0.5, 1), (0.2, 1)))}, "a: points are not in order"),
        ({"a": Piecewise(())}, "a: no points"),
        ({"a": Early(0.7), "b": 1}, "a would have 1.05 of the tokens at the start"),
        ({"a": Early(0.5)}, "need another source beside them"),
    ],
)
def test_mixtures_that_cannot_be(weights: dict[str, float], reason: str) -> None:
    with pytest.raises(MixtureError, match=reason):
        Mixture(weights)


def test_sources_and_mixture_must_name_the_same(sources: dict[str, ShardSet], tmp_path: Path) -> None:
    with pytest.raises(MixtureError, match="c: is not both"):
        MixedLoader(sources, Mixture({"a": 1, "b": 1}), 10, T, 1)
    with pytest.raises(MixtureError, match="d: is not both"):
        MixedLoader(sources, Mixture(dict.fromkeys("abc", 1.0)), 10, T, 1, max_epochs={"d": 1})
    with pytest.raises(MixtureError, match="temperature: 0"):
        temperature_weights({"a": 1}, 0)
    with pytest.raises(MixtureError, match="a: has no tokens"):
        temperature_weights({"a": 0}, 1)
