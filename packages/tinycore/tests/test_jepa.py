"""The joint embedding head: InfoNCE against loops, what may see the future, and that it learns without collapsing."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import tinycore
from tinycore import ConfigError, objectives, testing
from tinycore.losses import info_nce
from tinycore.testing.probes import awake, packed_rows, single_rows


def config(**parts: object) -> tinycore.ModelConfig:
    return testing.stack(heads={"kind": "jepa", "span": 2, "samples": 1000, **parts})


def unit(vector: list[float]) -> list[float]:
    length = math.sqrt(sum(v * v for v in vector))
    return [v / length for v in vector]


def test_info_nce_equals_loops() -> None:
    draw = torch.Generator().manual_seed(0)
    z, y = torch.randn(2, 7, 5, generator=draw, dtype=torch.float64)
    present = torch.tensor([True, True, False, True, True, True, True])
    document = [0, 0, 1, 1, 2, 2, 3]
    same = torch.tensor([[a == b for b in document] for a in document])
    total, hits = 0.0, 0
    for i in range(7):
        others = [j for j in range(7) if j == i or (present[j] and document[j] != document[i])]
        if not present[i]:
            continue
        forward = {j: math.exp(float(z[i] @ y[j]) / 0.3) for j in others}
        backward = [math.exp(float(z[j] @ y[i]) / 0.3) for j in others]
        total += -math.log(forward[i] / sum(forward.values())) / 2 - math.log(forward[i] / sum(backward)) / 2
        hits += max(forward, key=lambda j: forward[j]) == i
    loss, right, number = info_nce(z, y, 0.3, present, same)
    assert (int(number), int(right)) == (6, hits)
    assert abs(float(loss) - total) < 1e-12


def test_info_nce_of_nothing_known_is_ln_n() -> None:
    count = 64
    apart = torch.eye(count, dtype=torch.bool)
    everyone = torch.ones(count, dtype=torch.bool)
    equal = torch.nn.functional.normalize(torch.ones(count, 8), dim=-1)
    loss, _, number = info_nce(equal, equal, 0.07, everyone, apart)
    assert float(loss / number) == pytest.approx(math.log(count), abs=1e-6)
    draw = torch.Generator().manual_seed(1)
    z, y = torch.nn.functional.normalize(torch.randn(2, count, 4096, generator=draw), dim=-1)
    loss, hits, _ = info_nce(z, y, 1.0, everyone, apart)  # random directions: similarities of 1/64 either way
    assert float(loss / number) == pytest.approx(math.log(count), abs=0.01)
    assert int(hits) <= 4  # one is expected


def test_the_loss_equals_a_loop_over_tokens() -> None:
    model = awake(config()).train()
    rows = packed_rows(model.config, 3, 16)
    out = model(rows.tokens, targets=rows.targets(), doc_ids=rows.doc_ids)
    head, state = model.heads["jepa"], model.state_dict()
    anchors = []
    for b in range(3):
        for t in range(14):
            after = [(t + 1, int(rows.tokens[b, t + 1])), (t + 2, int(rows.tokens[b, t + 2]))]
            if rows.doc_ids[b, t] < 0 or any(rows.doc_ids[b, place] != rows.doc_ids[b, t] for place, _ in after):
                continue
            mean = sum(state["heads.jepa.target_table"][token] for _, token in after) / 2
            target = unit((state["heads.jepa.target_project"] @ mean).tolist())
            h = out.hidden[b, t].detach()
            h = head.project.weight @ (h / math.sqrt(float(h.square().mean()) + 1e-5))
            a = head.enter.weight @ h
            guess = unit((head.leave.weight @ (a * torch.sigmoid(a))).tolist())
            anchors.append(((b, int(rows.doc_ids[b, t])), guess, target))
    tau = float(head.log_temperature.detach().exp())
    total = 0.0
    for i, (document, guess, target) in enumerate(anchors):
        others = [j for j, (other, _, _) in enumerate(anchors) if j == i or other != document]
        forward = [math.exp(sum(p * q for p, q in zip(guess, anchors[j][2], strict=True)) / tau) for j in others]
        backward = [math.exp(sum(p * q for p, q in zip(anchors[j][1], target, strict=True)) / tau) for j in others]
        own = forward[others.index(i)]
        total -= math.log(own / sum(forward)) / 2 + math.log(own / sum(backward)) / 2
    found, number = out.losses["jepa"]
    assert int(number) == len(anchors) > 5
    assert abs(float(found.detach()) - 0.1 * total) < 1e-9


def test_logits_read_neither_the_target_nor_the_prediction() -> None:
    model = awake(config())
    rows = single_rows(model.config, 2, 12)
    before = model(rows.tokens)
    with torch.no_grad():
        for name in ("target_table", "target_project"):
            getattr(model.heads["jepa"], name).normal_()
    after = model(rows.tokens)
    assert torch.equal(before.logits, after.logits)
    assert torch.equal(before.values["jepa"], after.values["jepa"])


def test_a_prediction_sees_no_later_token() -> None:
    model = awake(config())
    rows = single_rows(model.config, 1, 12)
    edited = rows.tokens.clone()
    edited[:, 7:] = (edited[:, 7:] + 5) % 32
    with torch.no_grad():
        one, other = (model(tokens).values["jepa"] for tokens in (rows.tokens, edited))
    assert torch.equal(one[:, :7], other[:, :7])
    assert not torch.equal(one[:, 7], other[:, 7])


def test_no_gradient_reaches_the_target() -> None:
    model = awake(config(weight=1.0)).train()
    rows = single_rows(model.config, 4, 12)
    model(rows.tokens, targets=rows.targets()).losses["jepa"][0].backward()
    assert not model.heads["jepa"].target_table.requires_grad
    used = set(rows.tokens[:, :-3].unique().tolist())  # what predictions are made from
    reached = {int(i) for i in model.embed.weight.grad.abs().sum(1).nonzero()}
    assert reached <= used | set(rows.tokens.unique().tolist())
    last = [int(t) for t in rows.tokens[:, -1] if int(t) not in set(rows.tokens[:, :-1].unique().tolist())]
    assert not reached & set(last), "a token that only targets hold gets no gradient"


def test_the_target_follows_the_weights_with_a_rising_momentum() -> None:
    model = awake(config(momentum=0.9))
    head = model.heads["jepa"]
    before = head.target_table.clone()
    for progress, momentum in ((0.0, 0.9), (0.5, 0.95), (1.0, 1.0)):
        model.schedule(progress)
        assert head.momentum == pytest.approx(momentum)
    model.schedule(0.5)
    model.follow()
    expected = 0.95 * before + 0.05 * model.embed.weight
    assert torch.allclose(head.target_table, expected, atol=1e-12)


def test_weight_zero_is_a_run_without_the_head_bit_for_bit() -> None:
    with_head, plain = awake(config(weight=0.0)).float().train(), awake(testing.stack()).float().train()
    plain.load_state_dict({name: value for name, value in with_head.state_dict().items() if "jepa" not in name})
    rows = packed_rows(plain.config, 3, 16)
    for model in (with_head, plain):
        losses, _ = next(objectives.next_token(model, rows.tokens, rows.targets(), rows.doc_ids))
        assert list(losses) == ["lm"]
        (losses["lm"][0] / losses["lm"][1]).backward()
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter.grad, with_head.get_parameter(name).grad)


def test_beta_scales_the_cross_entropy_in_training_alone() -> None:
    settings = testing.stack().to_dict()
    settings["heads"]["lm"]["weight"] = 0.25
    scaled, plain = awake(tinycore.ModelConfig.from_dict(settings)), awake(testing.stack())
    rows = single_rows(plain.config, 2, 12)
    for training, factor in ((True, 0.25), (False, 1.0)):
        found, expected = (
            model.train(training)(rows.tokens, targets=rows.targets()).losses["lm"][0] for model in (scaled, plain)
        )
        assert torch.equal(found, factor * expected)


def test_it_learns_to_find_what_comes_next_and_does_not_collapse() -> None:
    """Rows are runs of one of 16 cycles of 8 tokens: from what stood so far, the next span can be known."""
    draw = torch.Generator().manual_seed(0)
    cycles = torch.randint(32, (16, 8), generator=draw)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = tinycore.build(config(span=4, momentum=0.9, weight=1.0, samples=256)).train()
        optimizer = tinycore.optim.adamw(model, 3e-3, weight_decay=0.0)
        found = []
        for _ in range(150):
            chosen = torch.randperm(16, generator=draw)
            row = cycles[chosen].repeat(1, 4)[:, :25]
            out = model(row[:, :-1], targets=row[:, 1:])
            found.append({name: float(total.detach() / n) for name, (total, n) in out.stats.items()})
            optimizer.zero_grad()
            out.loss.backward()
            optimizer.step()
            model.follow()
    chance = 1 / (1 + 15 * 16)  # of 256 anchors those of the other 15 rows
    assert found[0]["jepa/retrieval"] < 20 * chance
    assert found[-1]["jepa/retrieval"] > 0.15
    assert found[-1]["jepa/loss"] < found[0]["jepa/loss"] - 1
    assert all(step["jepa/target_std"] > 0.1 for step in found), "targets point apart all the while"


def test_flops_of_a_prediction_are_counted_and_training_makes_few() -> None:
    """Forward: three products a token. With targets: those of 8 anchors alone, and their backward passes."""
    few = config(samples=8)
    plain, counts = tinycore.count(testing.stack()), tinycore.count(few)
    with torch.device("meta"):
        model, tokens = tinycore.build(few), torch.zeros(2, 12, dtype=torch.long)
        with FlopCounterMode(display=False) as forward:
            model(tokens)
        with FlopCounterMode(display=False) as both:
            model(tokens, targets=tokens).loss.backward()
    assert forward.get_total_flops() == 24 * sum(counts.forward_flops(12).values())
    anchors = 8 * 3 * 2 * 3 * 16 * 16 + 8 * 2 * 16 * 16 + 2 * 2 * 8 * 8 * 16
    assert both.get_total_flops() == 24 * plain.flops_per_token(12) + anchors


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"consistency": 0.05}, r"heads.jepa.consistency: compares the report of an introspection head"),
        ({"span": 0}, r"heads.jepa.span: 0 is not positive"),
        ({"tap": "7"}, r"heads.jepa: unknown tap '7'"),
        ({"momentum": 1.0}, r"heads.jepa.momentum: 1.0"),
        ({"temperature": 0.001}, r"heads.jepa.temperature: 0.001 is below 0.01"),
        ({"weight": -1.0}, r"heads.jepa.weight: -1.0 is negative"),
    ],
)
def test_impossible_settings_are_one_line(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**settings)


def test_a_larger_vocabulary_keeps_the_targets_rows() -> None:
    model = awake(config())
    grown = tinycore.surgery.grow_vocabulary(model, 40)
    assert grown.heads["jepa"].target_table.shape == (40, 16)
    assert torch.equal(grown.heads["jepa"].target_table[:32], model.heads["jepa"].target_table)
