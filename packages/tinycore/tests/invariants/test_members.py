"""Every registered member, under each of its examples, holds every invariant it does not declare itself exempt from.

A new component is covered by being registered: this file names none.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any, get_args

import pytest

import tinycore
from tinycore import families, testing
from tinycore.config import Family, field_types
from tinycore.testing.members import EXAMPLES, FAMILIES, IDENTITIES, without_example

MEMBERS = testing.members()


@functools.cache
def held(invariant: str, plain: str) -> None:
    """Several members are parts of the same plain stack: hold a config to an invariant once."""
    testing.CHECKS[invariant](tinycore.ModelConfig.from_dict(json.loads(plain)))


def cases() -> Iterator[Any]:
    """Every member with every invariant. Compiling takes the longest: of a member's examples the first is compiled each time,
    the others where slow tests are asked for."""
    seen: set[tuple[str, str]] = set()
    for member in MEMBERS:
        again = (member.family, member.kind) in seen
        seen.add((member.family, member.kind))
        for invariant in testing.CHECKS:
            marks = [pytest.mark.slow] if again and invariant == "compiled" else []
            yield pytest.param(member, invariant, marks=marks, id=f"{member}-{invariant}")


@pytest.mark.parametrize(("member", "invariant"), cases())
def test_invariant(member: testing.Member, invariant: str) -> None:
    if invariant not in testing.exemptions(member.config):
        held(invariant, json.dumps(member.config.to_dict(), sort_keys=True))


@pytest.mark.parametrize(
    "config, plain, renamed",
    [pair[1:] for pair in testing.identities()],
    ids=[pair[0] for pair in testing.identities()],
)
def test_identity(config: tinycore.ModelConfig, plain: tinycore.ModelConfig, renamed: dict[str, str]) -> None:
    assert config != plain
    testing.identity(config, plain, renamed)


@pytest.mark.slow
@pytest.mark.parametrize("member", MEMBERS, ids=str)
def test_compiled_by_inductor(member: testing.Member) -> None:
    if "compiled" not in testing.exemptions(member.config):
        testing.compiled(member.config, backend="inductor")


def test_every_member_can_be_placed() -> None:
    assert without_example() == [], "give these members settings in tinycore.testing.members.EXAMPLES"


def test_every_member_has_an_identity_or_says_why_not() -> None:
    for family, cls in FAMILIES.items():
        for kind, member in cls.members.items():
            declared = kind in IDENTITIES.get(family, {})
            assert declared != ("identity" in member.exempt), f"{family} {kind}"


@pytest.mark.parametrize("table", [EXAMPLES, IDENTITIES])
def test_tables_name_only_registered_members(table: dict[str, dict[str, object]]) -> None:
    for family, kinds in table.items():
        assert set(kinds) <= set(FAMILIES[family].members), family


def test_every_family_of_the_model_is_covered() -> None:
    declared = {
        item
        for item in vars(families).values()
        if isinstance(item, type) and issubclass(item, Family) and Family in item.__bases__
    }
    assert set(FAMILIES.values()) == declared


def test_every_component_key_of_the_model_config_has_a_family() -> None:
    """A family that `ModelConfig` gains must be added to the suite's."""

    def inside(annotation: object) -> list[object]:
        return [annotation, *(found for item in get_args(annotation) for found in inside(item))]

    types = {**field_types(tinycore.ModelConfig), **field_types(tinycore.LayerConfig)}
    found = {
        item
        for annotation in types.values()
        for item in inside(annotation)
        if isinstance(item, type) and issubclass(item, Family)
    }
    assert found == set(FAMILIES.values())
