"""The table member x invariant, as Markdown."""

from __future__ import annotations

from tinycore.testing.invariants import STATEMENTS
from tinycore.testing.members import FAMILIES

COMMAND = "uv run python -m tinycore.testing"


def exceptions() -> list[tuple[str, str, str, str]]:
    """(family, kind, invariant, reason) of every invariant that a member declares not to hold."""
    return [
        (family, kind, name, cls.members[kind].exempt[name])
        for family, cls in FAMILIES.items()
        for kind in sorted(cls.members)
        for name in STATEMENTS
        if name in cls.members[kind].exempt
    ]


def table() -> str:
    """The page docs/invariants.md: what each invariant states, which member holds it, and every exception's reason."""
    notes = exceptions()
    lines = [
        "# Invariants",
        "",
        f"Printed by `{COMMAND}`; a test holds this page to what it prints. Every registered member is",
        "placed in a small stack and tested, in float64 to 1e-9, by `packages/tinycore/tests/invariants`; the same",
        "checks run over every recipe, shrunk, in `tests/test_recipe_invariants.py`.",
        "",
        "| invariant | statement |",
        "|---|---|",
        *(f"| {name} | {statement} |" for name, statement in STATEMENTS.items()),
        "",
        "`+` is tested; a number is an exception, explained below.",
        "",
        f"| family | member | {' | '.join(STATEMENTS)} |",
        f"|---|---|{':-:|' * len(STATEMENTS)}",
    ]
    for family, cls in FAMILIES.items():
        for kind in sorted(cls.members):
            cells = [
                next((str(i + 1) for i, note in enumerate(notes) if note[:3] == (family, kind, name)), "+")
                for name in STATEMENTS
            ]
            lines.append(f"| {family} | {kind} | {' | '.join(cells)} |")
    lines += ["", "Exceptions:", ""]
    lines += [f"{i + 1}. {family} {kind}, {name}: {reason}" for i, (family, kind, name, reason) in enumerate(notes)]
    return "\n".join(lines) + "\n"
