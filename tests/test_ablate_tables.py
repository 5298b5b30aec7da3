"""The tables that come with the project: each can be made, and says of the registry and of the seeds what it promises."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tinycore
from apps.ablate import matching, search
from apps.common import recipes, variants
from apps.common.errors import BadRequest
from apps.common.variants import PLAIN
from tinycore.config import Family

TABLES = variants.names()


def purposes(name: str) -> list[variants.Purpose]:
    table = variants.read(variants.find(name))
    return [purpose for purpose in ("train", "small", "speed") if getattr(table, purpose) is not None]


def test_names_are_found() -> None:
    assert TABLES[0] == variants.DEFAULT
    wanted = {
        "smoke",
        "components",
        "depth",
        "optim",
        "kitsun",
        "vocab",
        "size",
        "blocks",
        "calls",
        "routing",
        "systems",
        "bytes",
    }
    assert wanted == {name.removeprefix("ablate-") for name in TABLES}
    with pytest.raises(BadRequest, match="did you mean 'ablate-depth'"):
        variants.find("ablate-dept")
    with pytest.raises(BadRequest, match="has no base called speed"):
        variants.arms(variants.find("ablate-smoke"), "speed")


@pytest.mark.parametrize("name", TABLES)
def test_every_table_can_be_made(name: str) -> None:
    for purpose in purposes(name):
        found = variants.arms(variants.find(name), purpose)
        plain = found[PLAIN].recipe
        assert all((arm.recipe == plain) == (each == PLAIN) for each, arm in found.items())
        assert all(tinycore.count(arm.recipe.model).parameters > 0 and arm.note for arm in found.values())


def used(value: Any) -> Iterator[tuple[str, str]]:
    """(family, kind) of every member in a recipe."""
    if isinstance(value, Family):
        family = next(each for each in type(value).__mro__ if Family in each.__bases__)
        yield family.__name__.removesuffix("Config").lower(), type(value).kind
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from used(getattr(value, field.name))
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from used(each)
    elif isinstance(value, dict):
        yield from used(list(value.values()))


def test_no_registered_member_is_missing_from_the_components() -> None:
    path = variants.find("ablate-components")
    there = {member for arm in variants.arms(path, "train").values() for member in used(arm.recipe)}
    left_out = variants.read(path).left_out
    ours = ("tinycore.", "apps.")
    families = {
        each.__name__.removesuffix("Config").lower(): set(each.members)
        for each in Family.__subclasses__()
        if each.__module__.startswith(ours)
    }
    registered = {(family, kind) for family, kinds in families.items() for kind in kinds}
    unnamed = {
        f"{family}.{kind}"
        for family, kind in registered - there
        if not {f"{family}.{kind}", f"{family}.*"} & left_out.keys()
    }
    assert unnamed == set(), "add a variant to apps/ablate/components.yaml, or the reason to left_out"
    assert all(reason for reason in left_out.values())
    for key in left_out:
        family, kind = key.split(".")
        assert kind == "*" or (family, kind) in registered, key


def test_components_have_about_a_million_parameters() -> None:
    arms = variants.arms(variants.find("ablate-components"), "train")
    counts = {name: tinycore.count(arm.recipe.model).parameters for name, arm in arms.items()}
    # experts have more, low rank and shared layers fewer
    odd = {name for name, count in counts.items() if not 750_000 < count < 1_400_000}
    assert odd == {"moe", "cola", "shared", "looped", "universal"}
    assert max(counts.values()) < 3_000_000


def test_depth_reinvests_what_sharing_saves() -> None:
    arms = variants.arms(variants.find("ablate-depth"), "train")
    plain = arms[PLAIN]
    target = tinycore.count(plain.recipe.model).parameters
    widths = []
    for name in (PLAIN, "shared_12x2", "shared_4x6", "shared_1x24"):
        found = matching.turned(arms[name], plain).recipe.model
        assert tinycore.count(found).parameters == pytest.approx(target, rel=0.01)
        assert len(found.flat_layers()) * getattr(found.depth, "times", 1) == 24
        widths.append(found.dim)
    assert widths == sorted(set(widths))


def test_vocabularies_are_equal_outside_the_embedding_and_in_all() -> None:
    arms = variants.arms(variants.find("ablate-vocab"), "train")
    counts = {name: tinycore.count(matching.turned(arm, arms[PLAIN]).recipe.model) for name, arm in arms.items()}
    plain = counts[PLAIN]
    for name in ("bytes", "v16k", "v32k"):
        outside = counts[name].parameters - counts[name].embedding_parameters
        assert outside == plain.parameters - plain.embedding_parameters
        assert counts[f"{name}_total"].parameters == pytest.approx(plain.parameters, rel=0.01)
    assert [arms[name].recipe.model.vocab_size for name in ("bytes", PLAIN, "v16k", "v32k")] == [
        272,
        8192,
        16384,
        32768,
    ]


def test_kitsun_rows_are_the_recipes_of_its_report() -> None:
    arms = variants.arms(variants.find("ablate-kitsun"), "train")
    assert len(arms) == 8
    assert arms[PLAIN].recipe.model == recipes.load("kitsun-base").model
    assert arms["fan_dropout"].recipe.model == recipes.load("kitsun-92m").model
    without = dataclasses.replace(recipes.load("kitsun-87m").model, dropout=arms["cola_tokens"].recipe.model.dropout)
    linears = arms["cola_tokens"].recipe.model
    assert linears == without
    assert {name for name, arm in arms.items() if arm.recipe.optim.kind == "muon"} == {
        "cola_muon",
        "fan_muon",
        "fan_dropout_muon",
    }
    small = variants.arms(variants.find("ablate-kitsun"), "small")
    for name, arm in small.items():
        ours, theirs = set(used(arm.recipe.model)), set(used(arms[name].recipe.model))
        assert ours == theirs, name
        assert tinycore.count(arm.recipe.model).parameters < 1_300_000


def test_sizes_grow_from_a_fifth_of_a_million_to_ten() -> None:
    arms = variants.arms(variants.find("ablate-size"), "train")
    counts = [tinycore.count(arm.recipe.model).parameters for arm in arms.values()]
    assert counts == pytest.approx([0.2e6, 0.5e6, 1e6, 2e6, 5e6, 10e6], rel=0.02)
    assert {arm.recipe.train.validate_rows for arm in arms.values()} == {1_000_000}


def test_the_search_that_comes_along_can_be_made() -> None:
    path = Path(search.__file__).parent / "searches" / "smoke.yaml"
    wanted = search.read(path)
    assert len(search.arms(path, wanted)) == 1 + wanted.trials == 10
