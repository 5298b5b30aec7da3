"""Any two choices compose: a pairwise covering array of the families passes causal, streams, isolated and alone, or the
combination is refused in one line.
"""

from __future__ import annotations

import re
from itertools import combinations, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tinycore
from tinycore import ConfigError, testing
from tinycore.ops import bit_linear
from tinycore.testing.members import EXAMPLES, FAMILIES
from tinycore.testing.probes import awake

CROSSED = ("depth", "mixer", "ffn", "norm", "residual", "linear", "embed")
OPTIONAL = ("routing", "memory")  # stand between the calls of a fixed stack: crossed with the depths that are one
FIXED = [kind for kind, depth in FAMILIES["depth"].members.items() if depth.runs_stream]
NONE = "none"


def values(family: str) -> list[str]:
    found = [
        f"{kind}/{example}"
        for kind in sorted(FAMILIES[family].members)
        for example in EXAMPLES.get(family, {}).get(kind, {"default": {}})
    ]
    return [NONE, *found] if family in OPTIONAL else found


ROWS = testing.covering_array({family: values(family) for family in CROSSED})
PLAIN = {
    "depth": "plain/plain",
    "routing": NONE,
    "memory": NONE,
    "mixer": "attention/grouped",
    "norm": "pre/affine",
    "residual": "plain/default",
    "embed": "table/tied",
}


def placed(family: str, value: str) -> dict[str, object]:
    """The settings of a value of a factor, nothing where it is none."""
    if value == NONE:
        return {}
    kind, example = value.split("/", 1)
    return {FAMILIES[family].tag: kind, **EXAMPLES.get(family, {}).get(kind, {}).get(example, {})}


def works(row: dict[str, str]) -> bool:
    """Whether the combination is not refused."""
    try:
        testing.stack(**{family: setting for family, value in row.items() if (setting := placed(family, value))})
    except ConfigError:
        return False
    return True


def standing() -> list[dict[str, str]]:
    """What stands between calls, crossed with what it stands beside; pairs that only refused rows hold are tried alone."""
    factors = {family: values(family) for family in PLAIN}
    factors["depth"] = [value for value in factors["depth"] if value.split("/")[0] in FIXED]
    rows = [row for row in testing.covering_array(factors) if any(row[family] != NONE for family in OPTIONAL)]
    met = {pair for row in rows if works(row) for pair in combinations(row.items(), 2)}
    for first, other in combinations(factors, 2):
        if first in OPTIONAL or other in OPTIONAL:
            for pair in product(factors[first], factors[other]):
                alone = {**PLAIN, first: pair[0], other: pair[1]}
                if ((first, pair[0]), (other, pair[1])) not in met and NONE not in pair:
                    rows.append(alone)
    return rows


STANDING = standing()


@pytest.mark.parametrize("row", [*ROWS, *STANDING], ids=lambda row: " ".join(v for v in row.values() if v != NONE))
def test_composes(row: dict[str, str]) -> None:
    parts = {family: setting for family, value in row.items() if (setting := placed(family, value))}
    refused = ""
    try:
        config = testing.stack(**parts)
    except ConfigError as error:
        refused = str(error)
    if refused:
        assert re.fullmatch(r"model\..+", refused), "one line that names the key"
        return
    exempt = testing.exemptions(config)
    for invariant in ("causal", "streams", "isolated", "alone", "round_trip", "counted"):
        if invariant not in exempt:
            try:
                testing.CHECKS[invariant](config)
            except testing.Violation:
                if invariant != "streams" or not has_a_tie(config):
                    raise
                testing.streams(config, WITHIN_A_STEP)


@pytest.mark.parametrize("family", OPTIONAL)
def test_what_stands_between_calls_needs_a_fixed_stack(family: str) -> None:
    for kind in FAMILIES[family].members:
        settings = next(iter(EXAMPLES[family][kind].values()))
        for depth in sorted(FAMILIES["depth"].members.keys() - FIXED):
            example = next(iter(EXAMPLES["depth"][depth].values()))
            with pytest.raises(
                ConfigError, match=rf"^model\.{family}\.kind: {kind} stands between calls .* depth {depth}"
            ):
                testing.stack(depth={"kind": depth, **example}, **{family: {"kind": kind, **settings}})


def test_most_combinations_work() -> None:
    """The array would be worth nothing if all were refused."""
    assert sum(map(works, STANDING)) > len(STANDING) / 2


# One step of an 8-bit activation moves a logit of these models by .002.
WITHIN_A_STEP = testing.Precision(torch.float64, 0.01)


def has_a_tie(config: tinycore.ModelConfig) -> bool:
    """Whether a ternary linear rounds an activation that lies, to the last bits, between two integers.

    A token that sees itself alone hands on integers n of 8 bits times one scale; rounded again, 127 n / max n is a tie
    wherever n is half the largest, and the last bit of another batch shape decides it.
    """
    distances: list[float] = []
    whole = bit_linear.codes_of

    def watched(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        codes, step = whole(x)
        exact = (x / step).abs()
        distances.append(float((exact - exact.floor() - 0.5).abs().min()))
        return codes, step

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(bit_linear, "codes_of", watched)
        model = awake(config)
        for seed in (0, 1):
            for rows in (testing.single_rows(config, 3, 26, seed), testing.packed_rows(config, 3, 26, seed)):
                model(rows.tokens, doc_ids=rows.doc_ids)
    return any(distance < 1e-12 for distance in distances)


def pairs(factors: dict[str, list[str]]) -> set[tuple[str, str, str, str]]:
    return {(a, x, b, y) for a, b in combinations(factors, 2) for x, y in product(factors[a], factors[b])}


@settings(deadline=None, derandomize=True, max_examples=60)
@given(sizes=st.lists(st.integers(1, 5), min_size=2, max_size=6))
def test_covering_array_covers_every_pair_with_few_rows(sizes: list[int]) -> None:
    factors = {f"f{i}": [f"v{j}" for j in range(size)] for i, size in enumerate(sizes)}
    rows = testing.covering_array(factors)
    assert all(list(row) == list(factors) and all(row[f] in factors[f] for f in row) for row in rows)
    assert {(a, row[a], b, row[b]) for row in rows for a, b in combinations(factors, 2)} == pairs(factors)
    largest = sorted(sizes)[-2:]
    assert largest[0] * largest[1] <= len(rows) <= 2 * largest[0] * largest[1]
    assert rows == testing.covering_array(factors)


def test_covering_array_is_far_smaller_than_the_product() -> None:
    factors = {f"f{i}": list("abcd") for i in range(8)}
    assert len(testing.covering_array(factors)) <= 50  # of 65,536 combinations


def test_covering_array_of_one_factor_and_of_none() -> None:
    assert testing.covering_array({"a": ["x", "y"]}) == [{"a": "x"}, {"a": "y"}]
    with pytest.raises(ValueError, match="b: a factor needs at least one value"):
        testing.covering_array({"a": ["x"], "b": []})
