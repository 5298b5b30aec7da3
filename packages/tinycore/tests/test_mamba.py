"""Mamba against the mixer of the transformers library with the same weights; its counts, initial values, decay and state."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tinycore
from tinycore import testing
from tinycore.context import Context
from tinycore.mixers.mamba import Mamba
from tinycore.optim.groups import decay_groups
from tinycore.testing.probes import awake

DIM, RANK = 12, 3


def mixer(dim: int = DIM, **settings: Any) -> Mamba:
    config = tinycore.ModelConfig.from_dict(
        {"vocab_size": 8, "dim": dim, "max_seq_len": 64, "layers": [{"mixer": {"kind": "mamba", **settings}}]}
    )
    layer: Any = tinycore.build(config).layers[0]
    return layer.branches["mixer"]


def noisy(module: Any) -> Any:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def run(ours: Mamba, x: Tensor) -> Tensor:
    return ours(x, {}, Context(torch.arange(x.shape[1])[None], contiguous=True), None)[0]


@pytest.mark.parametrize("length", [1, 3, 70])
@pytest.mark.parametrize("norms", [False, True])
def test_equals_the_mixer_of_transformers(length: int, norms: bool) -> None:
    """Its output and every gradient; float32 is theirs inside whatever the weights are, so this is no tighter than that."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if norms:
        modeling = pytest.importorskip("transformers.models.jamba.modeling_jamba")
        config = transformers.JambaConfig(
            hidden_size=DIM, mamba_d_state=5, mamba_dt_rank=RANK, mamba_expand=2, mamba_d_conv=4, rms_norm_eps=1e-5
        )
        theirs = noisy(modeling.JambaMambaMixer(config, layer_idx=0))
    else:
        modeling = pytest.importorskip("transformers.models.mamba.modeling_mamba")
        config = transformers.MambaConfig(hidden_size=DIM, state_size=5, time_step_rank=RANK, expand=2, conv_kernel=4)
        theirs = noisy(modeling.MambaMixer(config, layer_idx=0))
    ours = mixer(state=5, dt_rank=RANK, norms=norms)
    names = {
        "conv_weight": "conv1d.weight",
        "conv_bias": "conv1d.bias",
        "dt_bias": "dt_proj.bias",
        "norms.0.weight": "dt_layernorm.weight",
        "norms.1.weight": "b_layernorm.weight",
        "norms.2.weight": "c_layernorm.weight",
    }
    pairs = {name: names.get(name, name) for name, _ in ours.named_parameters()}
    assert sorted(pairs.values()) == sorted(name for name, _ in theirs.named_parameters())
    weights = dict(theirs.named_parameters())
    own = dict(ours.named_parameters())
    with torch.no_grad():
        for name, other in pairs.items():
            own[name].copy_(weights[other].view_as(own[name]))
    x = torch.randn(2, length, DIM, requires_grad=True)
    expected, found = theirs(x), run(ours, x)
    assert (found - expected).abs().max() < 1e-5 * max(1, float(expected.detach().abs().max()))
    upstream = torch.randn_like(expected)
    of_input = [torch.autograd.grad((y * upstream).sum(), x, retain_graph=True)[0] for y in (found, expected)]
    assert (of_input[0] - of_input[1]).abs().max() < 1e-4
    (expected * upstream).sum().backward()
    (found * upstream).sum().backward()
    for name, other in pairs.items():
        gradient, reference = own[name].grad, weights[other].grad
        assert gradient is not None
        assert reference is not None
        assert (gradient - reference.view_as(gradient)).abs().max() < 1e-4 * max(1, float(reference.abs().max())), name


def test_equals_the_formula() -> None:
    """In float64, one token after the other."""
    torch.manual_seed(0)
    ours = noisy(mixer(state=5, dt_rank=RANK, conv=3).double())
    x = torch.randn(40, DIM, dtype=torch.float64)
    raw, gate = (x @ ours.in_proj.weight.t()).chunk(2, -1)
    state, expected = torch.zeros(2 * DIM, 5, dtype=torch.float64), []
    for t in range(40):
        taps = [ours.conv_weight[:, -1 - j] * raw[t - j] for j in range(min(3, t + 1))]
        u = F.silu(ours.conv_bias + torch.stack(taps).sum(0))
        dt, b, c = (ours.x_proj.weight @ u).split([RANK, 5, 5])
        step = (1 + (ours.dt_proj.weight @ dt + ours.dt_bias).exp()).log()
        state = (-step[:, None] * ours.A_log.exp()).exp() * state + (step * u)[:, None] * b
        expected.append(ours.out_proj.weight @ ((state @ c + ours.D * u) * F.silu(gate[t])))
    assert (run(ours, x[None])[0] - torch.stack(expected)).abs().max() < 1e-11


@pytest.mark.parametrize("dim, published", [(512, 1_694_720), (768, 3_770_880), (1024, 6_666_240)])
def test_parameters_are_the_published_ones(dim: int, published: int) -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in mixer(dim).parameters()) == published


def test_steps_and_rates_start_where_the_paper_has_them() -> None:
    torch.manual_seed(0)
    start = mixer(256)
    steps = F.softplus(start.dt_bias.detach())
    assert 1e-3 * 0.999 < float(steps.min()) < 1.1e-3
    assert 0.09 < float(steps.max()) < 0.1 * 1.001
    assert float(steps.log().mean()) == pytest.approx(-4.605, abs=0.2)  # of a log-uniform draw: log(.01)
    assert torch.allclose(start.A_log.exp(), torch.arange(1.0, 17).expand(512, 16))
    assert torch.equal(start.D, torch.ones(512))


def test_recurrence_is_not_decayed() -> None:
    model = tinycore.build(testing.stack(mixer={"kind": "mamba", "state": 4}))
    decayed, kept = (group["params"] for group in decay_groups(model, 0.1))
    names = {id(parameter): name.rpartition("mixer.")[2] for name, parameter in model.named_parameters()}
    assert {names[id(p)] for p in decayed} & {"A_log", "D", "conv_weight", "dt_bias"} == set()
    assert {names[id(p)] for p in kept} >= {"A_log", "D", "conv_weight", "conv_bias", "dt_bias"}
    assert {names[id(p)] for p in decayed} >= {"in_proj.weight", "x_proj.weight", "dt_proj.weight", "out_proj.weight"}


def test_state_does_not_grow() -> None:
    counts = tinycore.count(testing.stack(mixer={"kind": "mamba"}))
    assert counts.state_bytes(1) == counts.state_bytes(1_000_000) == 2 * 4 * 32 * (16 + 3)


def stream(model: tinycore.Decoder, length: int, piece: int) -> tuple[set[int], Tensor]:
    """Sizes of the state along a stream of `length` tokens read in pieces, and its last logits."""
    draw, state, sizes = torch.Generator().manual_seed(0), {}, set()
    logits = torch.zeros(0)
    with torch.no_grad():
        for _ in range(length // piece):
            out = model(torch.randint(32, (1, piece), generator=draw), state=state)
            state, logits = out.state, out.logits[:, -1]
            sizes.add(tinycore.state.state_bytes(state))
    return sizes, logits


@pytest.mark.parametrize("length", [4096, pytest.param(262_144, marks=pytest.mark.slow)])
def test_a_long_stream_holds_a_constant_state(length: int) -> None:
    config = testing.stack(mixer={"kind": "mamba"})
    sizes, logits = stream(tinycore.build(config).eval(), length, 1024)
    assert len(sizes) == 1
    assert logits.isfinite().all()


def test_step_by_step_equals_the_whole_after_many_tokens() -> None:
    model = awake(testing.stack(mixer={"kind": "mamba"}))
    tokens = testing.single_rows(model.config, 2, 300).tokens
    with torch.no_grad():
        whole = model(tokens).logits[:, 250:]
        state = model(tokens[:, :250]).state
        for t in range(250, 300):
            out = model(tokens[:, t : t + 1], state=state)
            state = out.state
            assert (out.logits[:, 0] - whole[:, t - 250]).abs().max() < 1e-9


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"state": 0}, "state: 0 is less than 1"),
        ({"conv": 1}, "conv: 1 is less than 2"),
        ({"expand": 0}, "expand: 0 is less than 1"),
        ({"dt_rank": 0}, "dt_rank: 0 is less than 1"),
        ({"linear": {"q": {}}}, "unknown projection 'q'; valid: in, x, dt, out"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(tinycore.ConfigError, match=message):
        mixer(**settings)


def test_prompts_of_different_lengths_go_on_as_they_do_alone() -> None:
    """Rows of padding at different places keep different states."""
    model = awake(testing.stack(mixer={"kind": "mamba", "state": 4}))
    prompts = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10]]
    together = tinycore.generate(model, prompts, max_new_tokens=12, temperature=0.0)
    for prompt, (found,) in zip(prompts, together, strict=True):
        ((alone,),) = tinycore.generate(model, [prompt], max_new_tokens=12, temperature=0.0)
        assert found.ids == alone.ids
        assert found.logprobs == pytest.approx(alone.logprobs, abs=1e-9)
