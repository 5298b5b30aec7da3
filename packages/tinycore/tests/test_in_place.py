"""Models that predict in place: every position sees all others, rows and documents stay apart, and nothing is generated."""

from __future__ import annotations

import pytest
import torch

import tinycore
from tinycore import testing
from tinycore.context import begin
from tinycore.testing.probes import awake, single_rows

ATTENTION = {"kind": "attention", "heads": 4, "kv_heads": 2, "causal": False}
MIXERS = {
    "attention": ATTENTION,
    "capped": ATTENTION | {"soft_cap": 2.0, "qk_norm": True},
    "without positions": ATTENTION | {"rotary": 0},
    "token_mlp": {"kind": "token_mlp", "hidden": 24},
}
DEPTHS = {
    "plain": {"kind": "plain"},
    "recursive": {"kind": "recursive", "H_cycles": 2, "L_cycles": 2, "supervision": 2},
}
LENGTH = 64  # the stack's max_seq_len, which token_mlp mixes whole
CASES = pytest.mark.parametrize(
    "case", [pytest.param((mixer, depth), id=f"{mixer}, {depth}") for mixer in MIXERS for depth in DEPTHS]
)


def stack(case: tuple[str, str]) -> tinycore.ModelConfig:
    return testing.stack(mixer=MIXERS[case[0]], depth=DEPTHS[case[1]])


@CASES
def test_every_position_sees_every_other(case: tuple[str, str]) -> None:
    model = awake(stack(case))
    row = single_rows(model.config, 1, LENGTH).tokens
    with torch.no_grad():
        before = model(row).logits
        for place in (0, 31, LENGTH - 1):
            edited = row.clone()
            edited[0, place] = (row[0, place] + 7) % 32
            moved = (model(edited).logits - before).abs().amax(-1)[0]
            assert moved.min() > 1e-9, f"position {place} is not seen everywhere"


@CASES
def test_rows_stay_apart_and_no_state_is_kept(case: tuple[str, str]) -> None:
    model = awake(stack(case))
    rows = single_rows(model.config, 3, LENGTH).tokens
    with torch.no_grad():
        out = model(rows)
        assert out.state is None
        for index in range(3):
            alone = model(rows[index : index + 1]).logits
            assert (alone - out.logits[index]).abs().max() < 1e-9


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("mixer", ["attention", "token_mlp"])
def test_learns_what_comes_next(mixer: str, depth: str) -> None:
    """The answer at t is the token at t + 1."""
    torch.manual_seed(0)
    settings = testing.stack(mixer=MIXERS[mixer], depth=DEPTHS[depth]).to_dict()
    settings |= {"vocab_size": 4, "max_seq_len": 8, "norm": {"placement": "post"}, "embed": {"scale": 50.0}}
    model = tinycore.build(tinycore.ModelConfig.from_dict(settings))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    draw = torch.Generator().manual_seed(1)
    for _ in range(400):
        tokens = torch.randint(4, (32, 8), generator=draw)
        loss = model(tokens, targets=following(tokens)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.01:
            break
    tokens = torch.randint(4, (64, 8), generator=draw)
    assert (model(tokens).logits.argmax(-1)[:, :-1] == tokens[:, 1:]).double().mean() > 0.99


def following(tokens: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(tokens[:, 1:], (0, 1), value=-100)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("mixer", ["attention", "capped", "without positions"])
def test_documents_and_padding_stay_apart(mixer: str, depth: str) -> None:
    for check in (testing.isolated, testing.alone):
        check(stack((mixer, depth)))


@pytest.mark.parametrize("invariant", ["trainable", "alive", "counted", "flops", "round_trip", "compiled"])
@pytest.mark.parametrize("mixer", ["attention", "token_mlp"])
def test_holds_with_recursive_depth(mixer: str, invariant: str) -> None:
    testing.CHECKS[invariant](stack((mixer, "recursive")))


def test_token_mlp_is_the_loop_it_says() -> None:
    mixer = awake(testing.stack(mixer=MIXERS["token_mlp"])).layers[0].branches["mixer"]
    x = torch.randn(2, LENGTH, 16, dtype=torch.float64)
    ctx, _ = begin(torch.zeros(2, LENGTH, dtype=torch.long), None, None)
    y, _, _, _ = mixer(x, {}, ctx, None)
    for row in range(2):
        for channel in range(16):
            column = x[row, :, channel]
            gate, up = mixer.gate.weight @ column, mixer.up.weight @ column
            expected = mixer.down.weight @ (gate / (1 + (-gate).exp()) * up)
            assert (y[row, :, channel] - expected).abs().max() < 1e-12


def test_what_is_refused() -> None:
    model = awake(stack(("attention", "plain")))
    rows = single_rows(model.config, 1, 8).tokens
    with pytest.raises(ValueError, match="reads whole rows at once"):
        model(rows, state=awake(testing.stack())(rows).state)
    with pytest.raises(ValueError, match="generates nothing"):
        tinycore.generate(model, [[1, 2]], max_new_tokens=1)
    with pytest.raises(ValueError, match="mixes rows of 64 positions"):
        awake(stack(("token_mlp", "plain")))(rows)
    halt = {"kind": "halt"}
    for settings, reason in (
        ({"mixer": ATTENTION | {"window": 4}}, "a window is of earlier tokens"),
        ({"mixer": ATTENTION, "embed": {"registers": 2}}, "embed.registers: a model that predicts in place"),
        ({"heads": halt, "depth": {"kind": "plain"}}, "heads.halt.kind: halt is for depth recursive"),
        ({"heads": halt, "mixer": {"kind": "attention", "heads": 4}}, "heads.halt.kind: halt reads position 0"),
    ):
        with pytest.raises(tinycore.ConfigError, match=reason):
            testing.stack(**settings)
