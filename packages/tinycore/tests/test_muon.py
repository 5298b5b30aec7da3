"""Muon against torch.optim.Muon, its orthogonalisation against singular values, and which parameter goes which way, by name."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tinycore
from tinycore import testing
from tinycore.optim import audit, muon
from tinycore.optim.newton_schulz import POLAR_EXPRESS, orthogonalised
from tinycore.optim.roles import roles


def matrices(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(3, 64, 256), (2, 256, 64), (1, 32, 512)])
def test_singular_values_of_oblong_matrices_come_near_one(shape: tuple[int, ...]) -> None:
    values = torch.linalg.svdvals(orthogonalised(matrices(*shape)))
    assert values.min() > 0.68
    assert values.max() < 1.21  # the quintic overshoots a little
    spaces = torch.linalg.svd(matrices(*shape), full_matrices=False)
    nearest = spaces[0] @ spaces[2]
    assert torch.cosine_similarity(orthogonalised(matrices(*shape)).flatten(1), nearest.flatten(1)).min() > 0.98


def test_polar_express_brings_all_singular_values_nearer() -> None:
    """All above a thousandth of the norm: within .124 after five steps, .0012 after six."""
    bases = torch.linalg.qr(matrices(2, 48, 48).double())[0]
    values = torch.logspace(-2.2, 0, 48, dtype=torch.float64)
    matrix = (bases[0] * values @ bases[1])[None]
    assert values.min() / values.norm() > 1.01e-3
    for steps, error in ((5, 0.124), (6, 0.0012), (7, 1e-5)):
        found = torch.linalg.svdvals(orthogonalised(matrix, steps, coefficients="polar_express"))
        assert (found - 1).abs().max() < error
        if steps == 5:
            assert (torch.linalg.svdvals(orthogonalised(matrix, steps)) - 1).abs().max() > 2 * error
    in_half = orthogonalised(matrix, 5, torch.bfloat16, "polar_express").double()
    assert (torch.linalg.svdvals(in_half) - 1).abs().max() < 0.2


def test_each_step_of_polar_express_has_the_least_largest_error() -> None:
    """Its error is as large, with signs in turn, at four points of its interval: no odd quintic does better (Chebyshev)."""
    low, high = 1e-3, 1.0
    for a, b, c in POLAR_EXPRESS[:-1]:
        x = torch.logspace(math.log10(low), math.log10(high), 400_001, dtype=torch.float64)
        value = a * x + b * x**3 + c * x**5
        inner = x[1:-1][(value[1:-1] - value[:-2]).sign() != (value[2:] - value[1:-1]).sign()]
        ends = torch.stack(
            [torch.tensor(max(low, high / 41.54), dtype=torch.float64), *inner, torch.tensor(high).double()]
        )
        there = a * ends + b * ends**3 + c * ends**5
        scale = 2 / (there.min() + there.max())
        errors = there * scale - 1
        if low * 41.54 > high:  # else the interval was cut, and the whole scaled up to its true ends
            assert (errors.abs() - errors.abs().max()).abs().max() < 1e-4
        assert errors.sign().tolist() == [-1, 1, -1, 1]
        low, high = float(value.min()), float(value.max())
        assert abs(low + high - 2) < 1e-4


def test_square_matrices_do_not_pass_the_bound_and_steps_have_adamws_size() -> None:
    for side in (64, 200):
        found = orthogonalised(matrices(4, side, side))
        assert torch.linalg.svdvals(found).max() < 1.21
    for rows, columns in ((64, 256), (256, 64), (128, 512)):
        step = 0.2 * max(rows, columns) ** 0.5 * orthogonalised(matrices(1, rows, columns))
        assert 0.17 < step.square().mean().sqrt() < 0.2  # rms of a semi-orthogonal matrix: 1 / sqrt(longer side)


def test_a_stack_is_its_matrices_one_by_one_and_zero_stays_zero() -> None:
    stack = matrices(3, 24, 40)
    one = torch.cat([orthogonalised(matrix[None]) for matrix in stack])
    assert (orthogonalised(stack) - one).abs().max() < 1e-6
    assert torch.equal(orthogonalised(torch.zeros(2, 4, 3)), torch.zeros(2, 4, 3))
    assert (orthogonalised(stack.mT) - orthogonalised(stack).mT).abs().max() < 1e-6


class Plain(nn.Module):
    """Three matrices of two shapes, one of them the other's transpose, and a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(12, 20), nn.Linear(20, 12), nn.Linear(12, 20))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).square().mean()


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_the_trajectory_is_that_of_torch(nesterov: bool, decay: float) -> None:
    """torch.optim.Muon orthogonalises in bfloat16, so ours does here too."""
    torch.manual_seed(0)
    ours = Plain()
    theirs = copy.deepcopy(ours)
    options: dict[str, Any] = {"momentum": 0.9, "nesterov": nesterov, "weight_decay": decay}
    mine = muon(ours, 0.02, ns_dtype=torch.bfloat16, eps=1e-8, betas=(0.9, 0.95), **options)
    hidden = [p for p in theirs.parameters() if p.ndim == 2]
    vectors = [p for p in theirs.parameters() if p.ndim == 1]
    other = torch.optim.Muon(hidden, lr=0.02, adjust_lr_fn="match_rms_adamw", **options)
    rest = torch.optim.AdamW(vectors, lr=0.02, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(8):
        x = torch.randn(16, 12, generator=torch.Generator().manual_seed(step))
        for model, optimizers in ((ours, [mine]), (theirs, [other, rest])):
            model(x).backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            model.zero_grad()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        # eight steps of about .02 each; bfloat16 knows three digits of a step
        assert (a - b).abs().max() < (1e-6 if a.ndim == 1 else 2e-3), name


def rules(model: nn.Module) -> dict[str, str]:
    return {line.split()[-1]: line.split()[0] for line in audit(model).splitlines()}


@pytest.mark.parametrize("tied", [True, False])
def test_hidden_matrices_and_nothing_else(tied: bool) -> None:
    mixer = {"kind": "attention", "heads": 4, "qk_norm": True}
    model = tinycore.build(testing.stack(mixer=mixer, linear={"bias": True}, embed={"tied": tied}))
    found = {name for name, rule in rules(model).items() if rule == "muon"}
    names = [f"branches.mixer.{name}.weight" for name in "qkvo"]
    names += [f"branches.ffn.{name}.weight" for name in ("gate", "up", "down")]
    assert found == {f"layers.{layer}.{name}" for layer in range(2) for name in names}
    kinds = {role.name: role.kind for role in roles(model)}
    assert kinds["embed.weight"] == "embedding"
    assert ("heads.lm.linear.weight" in kinds) is not tied
    assert tied or kinds["heads.lm.linear.weight"] == "head"
    assert len(kinds) == len(list(model.parameters()))


@pytest.mark.parametrize(
    ("parts", "kinds"),
    [
        ({"ffn": {"kind": "moe", "experts": 4, "hidden": 12}}, {"branches.ffn.router.weight": "gate"}),
        (
            {"ffn": {"kind": "experts", "hidden": 12}},
            {"branches.ffn.router_in.weight": "gate", "branches.ffn.router_out.weight": "gate"},
        ),
        (
            {"ffn": {"kind": "cms", "mode": "branches", "periods": [1, 8], "hidden": 12}},
            {"branches.ffn.gate.weight": "gate", "branches.ffn.levels.1.mlp.up.weight": "hidden"},
        ),
        (
            {"mixer": {"kind": "mamba", "state": 4}},
            {
                "branches.mixer.A_log": "table",
                "branches.mixer.conv_weight": "table",
                "branches.mixer.in_proj.weight": "hidden",
            },
        ),
        (
            {"mixer": {"kind": "titans", "heads": 2, "chunk": 5}},
            {
                "branches.mixer.memory": "table",
                "branches.mixer.rates.weight": "gate",
                "branches.mixer.q.weight": "hidden",
            },
        ),
        ({"linear": {"kind": "cola", "rank": 4}}, {"branches.mixer.q.a": "hidden", "branches.mixer.q.b": "hidden"}),
        ({"linear": {"kind": "bit"}}, {"branches.ffn.up.weight": "hidden"}),
    ],
    ids=lambda value: str(next(iter(value.values()))) if isinstance(value, dict) else None,
)
def test_what_each_block_says_of_its_matrices(parts: dict[str, Any], kinds: dict[str, str]) -> None:
    found = {role.name: role.kind for role in roles(tinycore.build(testing.stack(**parts)))}
    assert {f"layers.0.{name}": kind for name, kind in kinds.items()}.items() <= found.items()


def test_matrices_in_one_parameter_are_orthogonalised_apart() -> None:
    torch.manual_seed(0)
    model = tinycore.build(testing.stack(mixer={"kind": "mamba", "state": 4}))
    joined = model.layers[0].branches["mixer"].in_proj.weight
    before = joined.detach().clone()
    joined.grad = torch.randn_like(joined)
    optimizer = muon(model, 1.0, weight_decay=0.0, nesterov=False, momentum=0.0)
    optimizer.step()
    step = before - joined.detach()
    for half, gradient in zip(step.split(32), joined.grad.split(32), strict=True):
        expected = 0.2 * 32**0.5 * orthogonalised(gradient[None])[0]
        assert (half - expected).abs().max() < 1e-5


def test_cautious_decay_spares_what_the_step_makes_larger() -> None:
    model = nn.Sequential(nn.Linear(6, 6, bias=False))
    weight = model[0].weight
    gradient, before = matrices(6, 6), weight.detach().clone()
    steps = {}
    for cautious in (False, True):
        with torch.no_grad():
            weight.copy_(before)
        weight.grad = gradient.clone()
        muon(model, 0.1, weight_decay=0.5, cautious=cautious).step()
        steps[cautious] = weight.detach().clone()
    step = 0.1 * 0.2 * 6**0.5 * orthogonalised(gradient[None])[0]
    decayed = before - 0.05 * before
    torch.testing.assert_close(steps[False], decayed - step)
    torch.testing.assert_close(steps[True], torch.where(step * before > 0, decayed, before) - step)


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_saved_state_goes_on_bit_for_bit(stop: int) -> None:
    """With a level that is updated once in two steps, stopped inside its window and at its end."""
    ffn = {"kind": "cms", "periods": [1, 2], "hidden": 12}

    def run(model: tinycore.Decoder, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
        for step in range(first, last):
            tokens = torch.randint(32, (2, 9), generator=torch.Generator().manual_seed(step))
            model(tokens, targets=tokens.roll(-1, 1)).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    torch.manual_seed(0)
    whole = tinycore.build(testing.stack(ffn=ffn))
    cut = copy.deepcopy(whole)
    run(whole, muon(whole, 1e-2), 0, 5)
    first = muon(cut, 1e-2)
    run(cut, first, 0, stop)
    second = muon(cut, 1e-2)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    run(cut, second, stop, 5)
    for (name, a), b in zip(whole.named_parameters(), cut.parameters(), strict=True):
        assert torch.equal(a, b), name
