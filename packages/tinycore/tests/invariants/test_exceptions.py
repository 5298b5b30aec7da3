"""The exceptions from the invariants are exactly these. An exception is added here on purpose, with its reason."""

from __future__ import annotations

from tinycore.depth.feedback import Feedback
from tinycore.depth.pooled import DATA as POOLED
from tinycore.families import IN_PLACE
from tinycore.heads.value import UNTAUGHT, ValueHead
from tinycore.mixers.token_mlp import WHOLE
from tinycore.routing.mod import DATA as MOD
from tinycore.testing.invariants import CHECKS, IDENTITY, STATEMENTS
from tinycore.testing.members import FAMILIES
from tinycore.testing.table import exceptions, table

AHEAD = ("learns", "mixes", "causal", "streams", "float32")

EXCEPTIONS = {
    (
        "linear",
        "bit",
        "float32",
        "rounds to integers: a difference in the last bit of an activation moves it by a whole step",
    ),
    ("ffn", "experts", "float32", "top1 is a hard decision that rounding flips; soft holds it, in test_experts"),
    (
        "ffn",
        "experts",
        "flops",
        "top1 routes by the values of tokens, of which the meta device has none; both are counted in test_experts",
    ),
    (
        "ffn",
        "experts",
        "compiled",
        "top1: the number of an expert's tokens depends on the data; soft holds it, in test_experts",
    ),
    ("ffn", "moe", "float32", "top-k is a hard decision: rounding flips it where two experts are nearly equal"),
    (
        "ffn",
        "moe",
        "flops",
        "routed by the values of tokens, of which the meta device has none; counted on real ones in test_moe",
    ),
    ("ffn", "moe", "compiled", "the number of an expert's tokens depends on the data"),
    ("ffn", "relu2", "identity", "takes the place of the plain feed-forward and adds nothing to it"),
    ("mixer", "mlgru", "identity", "is a mixer of its own, no add-on to another"),
    ("ffn", "swiglu", "identity", "is the plain stack itself"),
    *(
        ("norm", kind, "identity", "another order of the same parts, no add-on to the plain stack")
        for kind in ("post", "hybrid", "hybrid_star")
    ),
    ("residual", "plain", "identity", "is the plain stack itself"),
    ("depth", "plain", "identity", "is the plain stack itself"),
    (
        "depth",
        "recursive",
        "identity",
        "starts from latents of its own and applies the stack twice at least, so it never is the plain one",
    ),
    *(("depth", "feedback", name, reason) for name, reason in Feedback.Config.exempt.items()),
    ("depth", "pooled", "flops", POOLED),
    ("depth", "pooled", "counted", POOLED),
    ("depth", "pooled", "float32", "ends segments at a threshold: a hard decision that rounding flips"),
    ("mixer", "memory_attention", "identity", "is a mixer of its own, no add-on to another"),
    *(("mixer", "token_mlp", name, IN_PLACE) for name in AHEAD),
    *(("mixer", "token_mlp", name, WHOLE) for name in ("isolated", "alone")),
    ("mixer", "token_mlp", "identity", "is a mixer of its own, no add-on to another"),
    *(("heads", "halt", name, IN_PLACE) for name in AHEAD),
    (
        "heads",
        "halt",
        "compiled",
        "has no loss in the model itself, so its gradient is none there, and zero in a compiled graph",
    ),
    ("heads", "halt", "flops", "makes one product a row, which is no share of a token's"),
    ("heads", "halt", "identity", "adds an output and changes none"),
    ("heads", "mtp", "flops", "with targets it multiplies what a pass without them does not: counted in test_mtp"),
    ("heads", "jepa", "flops", "in training it predicts a sample of the tokens: counted in test_jepa"),
    *(("heads", "value", name, UNTAUGHT) for name in ("trainable", "alive")),
    *(
        ("heads", "value", name, reason)
        for name, reason in ValueHead.Config.exempt.items()
        if name in ("compiled", "flops")
    ),
    ("routing", "mod", "float32", "picks tokens by a threshold: a hard decision that rounding flips"),
    *(("routing", "mod", name, f"{MOD}: counted at the capacity, in test_mod") for name in ("counted", "flops")),
    ("routing", "early_exit", "float32", "leaves at a threshold: a hard decision that rounding flips"),
    (
        "embed",
        "blt",
        "flops",
        "reads the judge's entropies where no graph is built, and its loss where one is: counted in test_blt",
    ),
    ("embed", "factorised", "identity", "has other parameters than a table, no setting in common"),
    ("embed", "table", "identity", "is the plain stack itself"),
}


def test_exceptions_are_these() -> None:
    assert set(exceptions()) == EXCEPTIONS


def test_exceptions_name_invariants() -> None:
    for cls in FAMILIES.values():
        for member in cls.members.values():
            assert set(member.exempt) <= set(STATEMENTS), member
            assert all(reason.strip() for reason in member.exempt.values()), member


def test_every_statement_has_a_check() -> None:
    assert set(STATEMENTS) == {*CHECKS, IDENTITY}


def test_table_has_a_row_for_every_member_and_a_note_for_every_exception() -> None:
    lines = table().splitlines()
    rows = [line for line in lines if line.startswith("| ") and line.count("|") == len(STATEMENTS) + 3][1:]
    assert len(rows) == sum(len(cls.members) for cls in FAMILIES.values())
    cells = " ".join(rows).split()
    for number, (family, kind, name, reason) in enumerate(exceptions(), 1):
        assert f"{number}. {family} {kind}, {name}: {reason}" in lines
        assert cells.count(str(number)) == 1
