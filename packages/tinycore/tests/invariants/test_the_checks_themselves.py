"""A check is worth what it catches: a correct mixer passes every invariant, and with one flaw it fails the named one.

The mixer is a token shift, y[t] = W x[previous token of the same document], a recurrence with a state and hence the
kind of member that the attention of the plain stack cannot stand for. Each flaw is one that has been made somewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import tinycore
from tinycore import testing
from tinycore.context import PADDING, Context
from tinycore.count import Cost
from tinycore.families import Aux, Carry, LinearConfig, LocalState, MixerConfig, Scope
from tinycore.heads.head import Question
from tinycore.heads.lm import LanguageModelHead

FLAWS = {
    "peeks at the next token": "causal",
    "averages over the sequence": "causal",
    "ignores documents": "isolated",
    "mixes rows": "isolated",
    "lets padding stand between tokens": "alone",
    "counts slots of the row as positions": "alone",
    "keeps no state": "streams",
    "writes into its state": "streams",
    "keeps the wrong rows apart": "streams",
    "has a parameter nobody reads": "trainable",
    "reads half of a parameter": "alive",
    "gives gradients that are not finite at padding": "isolated",
    "does not count its matrix": "counted",
    "does not count its state": "counted",
    "does not count its products": "flops",
    "keeps a constant out of the checkpoint": "round_trip",
    "asks for the value of a tensor": "compiled",
    "does not fetch anything": "mixes",
}


class ShiftState(NamedTuple):
    last: Tensor  # (B, D), the newest token that is not padding
    document: Tensor  # (B,), its document


class TokenShift(nn.Module):
    def __init__(self, dim: int, flaw: str) -> None:
        super().__init__()
        self.flaw = flaw
        self.linear = nn.Linear(dim, dim, bias=False)
        if flaw == "has a parameter nobody reads":
            self.unread = nn.Parameter(torch.ones(dim))
        if flaw == "reads half of a parameter":
            self.gain = nn.Parameter(torch.ones(dim))
        if flaw == "keeps a constant out of the checkpoint":
            self.register_buffer("constant", torch.linspace(1, 2, dim), persistent=False)

    def forward(
        self, x: Tensor, carry: Carry, ctx: Context, state: LocalState | None
    ) -> tuple[Tensor, Carry, LocalState | None, Aux]:
        rows, length, dim = x.shape
        documents = torch.zeros(rows, length, dtype=torch.long, device=x.device)
        if ctx.documents is not None:
            documents = ctx.documents
        past = state.get("shift") if state else None
        if past is None:
            past = ShiftState(x.new_zeros(rows, dim), documents.new_full((rows,), PADDING))

        steps = torch.arange(length, device=x.device).expand(rows, -1)
        newest = steps.where(documents != PADDING, -1).cummax(1).values  # the last valid token up to t
        if self.flaw == "lets padding stand between tokens":
            newest = steps
        before = torch.cat([torch.full_like(newest[:, :1], -1), newest[:, :-1]], 1)
        previous, its = self._fetch(x, documents, before, past)
        same = torch.ones_like(its, dtype=torch.bool) if self.flaw == "ignores documents" else its == documents
        y = self._spoiled(previous * same[..., None], x, documents, steps)
        if state is None:
            return y, carry, None, {}
        last, document = self._fetch(x, documents, newest[:, -1:], past)
        if self.flaw == "writes into its state":
            past.last.copy_(last[:, 0])
            last = past.last[:, None]
        if self.flaw == "keeps the wrong rows apart":
            last = last.flip(0)
        after = {} if self.flaw == "keeps no state" else {"shift": ShiftState(last[:, 0], document[:, 0])}
        return y, carry, after, {}

    @staticmethod
    def _fetch(x: Tensor, documents: Tensor, at: Tensor, past: ShiftState) -> tuple[Tensor, Tensor]:
        """Token and document at slots (B, K), where -1 is the newest token of the chunk before."""
        inside = at.clamp(min=0)
        tokens = x.gather(1, inside[..., None].expand(-1, -1, x.shape[-1]))
        return (
            torch.where(at[..., None] >= 0, tokens, past.last[:, None]),
            torch.where(at >= 0, documents.gather(1, inside), past.document[:, None]),
        )

    def _spoiled(self, y: Tensor, x: Tensor, documents: Tensor, steps: Tensor) -> Tensor:
        match self.flaw:
            case "peeks at the next token":
                y = y + torch.cat([x[:, 1:], x[:, :1]], 1)
            case "averages over the sequence":
                y = y + x.mean(1, keepdim=True)
            case "mixes rows":
                y = y + x.mean(0, keepdim=True)
            case "counts slots of the row as positions":
                y = y * (1 + steps[..., None])
            case "reads half of a parameter":
                half = y.shape[-1] // 2
                y = torch.cat([y[..., :half] * self.gain[:half], y[..., half:]], -1)
            case "keeps a constant out of the checkpoint":
                y = y * self.constant
            case "asks for the value of a tensor":
                y = y if bool(x.sum() > 0) else y * 2
            case "does not fetch anything":
                y = x
            case "gives gradients that are not finite at padding":
                valid = (documents != PADDING).to(x.dtype)
                y = y + 0 * (valid[..., None] * self.linear.weight.sum()).sqrt()
        return self.linear(y)


@pytest.fixture
def shift(request: pytest.FixtureRequest) -> Iterator[tinycore.ModelConfig]:
    """A stack whose mixers are token shifts with the flaw asked for, registered for this test alone."""
    flaw = request.param

    @dataclass(frozen=True, kw_only=True)
    class Config(MixerConfig, kind="token shift"):
        linear: dict[str, LinearConfig] = field(default_factory=dict)

        def build(self, scope: Scope) -> TokenShift:
            return TokenShift(scope.dim, flaw)

        def cost(self, scope: Scope, length: int) -> Cost:
            vectors = ("has a parameter nobody reads", "reads half of a parameter")
            return Cost(
                parameters=0 if flaw == "does not count its matrix" else scope.dim**2 + scope.dim * (flaw in vectors),
                flops={} if flaw == "does not count its products" else {"shift": 2.0 * scope.dim**2},
                state=0 if flaw in ("does not count its state", "keeps no state") else scope.dim,
            )

    try:
        yield testing.stack(mixer={"kind": "token shift"})
    finally:
        del MixerConfig.members["token shift"]


@pytest.mark.parametrize("shift", [""], indirect=True)
def test_correct_recurrence_holds_every_invariant(shift: tinycore.ModelConfig) -> None:
    assert testing.check(shift) == {}


@pytest.mark.parametrize("shift, invariant", FLAWS.items(), indirect=["shift"])
def test_flaw_is_caught(shift: tinycore.ModelConfig, invariant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testing.learning, "STEPS", 200)
    torch_says = RuntimeError if invariant in ("compiled", "round_trip") else testing.Violation
    with pytest.raises((testing.Violation, torch_says)) as caught:
        testing.CHECKS[invariant](shift)
    if isinstance(caught.value, testing.Violation):
        assert str(caught.value).startswith(f"{invariant}: ")


def test_labels_shifted_twice_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model learns token t + 2, with a loss that falls as it should."""
    correct = LanguageModelHead.forward

    def shifted_again(self: Any, question: Question) -> Any:
        if (targets := question.targets) is not None:
            targets = torch.cat([targets[:, 1:], torch.full_like(targets[:, :1], -100)], 1)
        return correct(self, question._replace(targets=targets))

    monkeypatch.setattr(LanguageModelHead, "forward", shifted_again)
    monkeypatch.setattr(testing.learning, "STEPS", 60)
    with pytest.raises(testing.Violation, match=r"learns: .*% of next tokens"):
        testing.learns(testing.stack())


def test_an_add_on_that_is_not_the_plain_stack_is_caught() -> None:
    with pytest.raises(testing.Violation, match="identity: logits"):
        testing.identity(testing.stack(depth={"kind": "shared", "times": 2}), testing.stack())
    with pytest.raises(testing.Violation, match="identity: the model lacks"):
        testing.identity(testing.stack(), testing.stack(embed={"kind": "table", "tied": False}))


def test_a_token_that_sees_only_itself_does_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testing.learning, "STEPS", 200)
    config = testing.stack(mixer={"kind": "attention", "heads": 2, "window": 1})
    with pytest.raises(testing.Violation, match="mixes"):
        testing.mixes(config)


@pytest.mark.parametrize("shift", [""], indirect=True)
def test_an_exemption_leaves_out_one_check_and_is_reported(
    shift: tinycore.ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in testing.CHECKS:
        monkeypatch.setitem(testing.CHECKS, name, lambda config, name=name: calls.append(name))
    monkeypatch.setattr(MixerConfig.members["token shift"], "exempt", {"compiled": "it must not be"})
    assert testing.check(shift) == {"compiled": "it must not be"}
    assert calls == [name for name in testing.CHECKS if name != "compiled"]
