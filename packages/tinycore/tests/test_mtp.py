"""Several tokens ahead: losses written out, the curriculum, and decoding that guesses and checks."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import tinycore
from tinycore import ConfigError, objectives, testing
from tinycore.generation import speculative
from tinycore.testing.probes import awake, packed_rows, single_rows

ATTENTION = {"kind": "attention", "heads": 4, "kv_heads": 2}


def config(tokens: int = 3, **parts: object) -> tinycore.ModelConfig:
    return testing.stack(heads={"kind": "mtp", "tokens": tokens, "weight": 1.0, **parts})


def test_losses_equal_a_loop_over_tokens() -> None:
    """A float64 loop: head i at token t learns the token i + 1 places on, inside the document."""
    model = awake(config(4, weight=0.5)).train().requires_grad_(False)
    rows = packed_rows(model.config, 3, 24)
    targets = rows.targets()
    out = model(rows.tokens, targets=targets, doc_ids=rows.doc_ids)
    plain = awake(testing.stack())
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if "mtp" not in name})
    assert torch.equal(out.losses["lm"][0], plain(rows.tokens, targets=targets, doc_ids=rows.doc_ids).losses["lm"][0])
    for steps, head in enumerate(model.heads["mtp"].heads, 1):
        total, count = 0.0, 0
        for b in range(3):
            for t in range(24 - steps):
                label = int(targets[b, t + steps])
                if rows.doc_ids[b, t + steps] != rows.doc_ids[b, t] or label < 0:
                    continue
                a = head[0].weight @ out.hidden[b, t]
                state = [float(v) / math.sqrt(float(a.square().mean()) + head[1].eps) for v in a]
                h = torch.tensor(state, dtype=torch.float64) * head[1].weight
                scores = [float(row @ h) for row in model.embed.weight]
                total += math.log(sum(math.exp(s) for s in scores)) - scores[label]
                count += 1
        found, number = out.losses[f"mtp_{steps + 1}"]
        assert int(number) == count
        assert abs(float(found) - 0.5 * total) < 1e-9


def test_published_parameters() -> None:
    plain, more = testing.stack(), config(4)
    assert tinycore.count(more).parameters - tinycore.count(plain).parameters == 3 * (16**2 + 16)


def test_flops_of_the_heads_are_counted_with_targets() -> None:
    counts = tinycore.count(config(4))
    with torch.device("meta"):
        model = tinycore.build(config(4))
        tokens = torch.zeros(2, 12, dtype=torch.long)
        with FlopCounterMode(display=False) as counter:
            model(tokens, targets=tokens).loss.backward()
    assert counter.get_total_flops() == 24 * counts.flops_per_token(12)


@pytest.mark.parametrize("curriculum", ["none", "forward", "reverse"])
def test_the_curriculum_switches_at_even_steps_of_its_ramp(curriculum: str) -> None:
    model = awake(config(4, curriculum=curriculum)).train()
    rows = single_rows(model.config, 2, 12)
    found = []
    for step in range(15_000):
        if step % 1000 == 0:
            model.schedule(step / 15_000)
            found.append(len(model(rows.tokens, targets=rows.targets()).losses))
    forward = [1, 1, 2, 2, 3, 3, *[4] * 9]
    assert found == {"none": [4] * 15, "forward": forward, "reverse": [5 - n for n in forward]}[curriculum]


def test_with_one_token_the_step_is_that_of_the_plain_model_bit_for_bit() -> None:
    grown, plain = awake(config(4, curriculum="forward")).float().train(), awake(testing.stack()).float().train()
    plain.load_state_dict({name: value for name, value in grown.state_dict().items() if "mtp" not in name})
    rows = single_rows(grown.config, 2, 12)
    grown.schedule(0.0)
    for model in (grown, plain):
        losses, _ = next(objectives.next_token(model, rows.tokens, rows.targets()))
        assert list(losses) == ["lm"]
        (losses["lm"][0] / losses["lm"][1]).backward()
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter.grad, grown.get_parameter(name).grad)
    assert grown.dormant() == {name for name, p in grown.named_parameters() if p.grad is None}
    assert len(grown.dormant()) == 6


STACKS = {
    "fused": {},
    "windowed": {"mixer": {**ATTENTION, "window": 5}},
    "mamba": {"mixer": {"kind": "mamba", "state": 4}},
    "titans": {"mixer": {"kind": "titans", "heads": 2, "chunk": 5, "expansion": 2}},
    "shared": {"depth": {"kind": "shared", "times": 2}},
    "hourglass": {"depth": {"kind": "hourglass", "factors": [2], "outside": [1]}},
    "registers": {"embed": {"registers": 2}},
    "untied": {"embed": {"tied": False}},
}


def learned(**parts: object) -> tuple[tinycore.Decoder, list[int]]:
    """A model that has half learned a sequence of 24 tokens, so that some guesses are right and some are not."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = tinycore.build(testing.stack(heads={"kind": "mtp", "tokens": 4, "weight": 1.0}, **parts))
        sequence = torch.randint(32, (24,), generator=torch.Generator().manual_seed(3))
        row = sequence.repeat(2)[None]
        optimizer = tinycore.optim.adamw(model, 1e-2, weight_decay=0.0)
        for _ in range(40):
            optimizer.zero_grad()
            model(row[:, :-1], targets=row[:, 1:]).loss.backward()
            optimizer.step()
    return model.double().eval(), sequence.tolist()


@pytest.mark.parametrize("name", STACKS)
def test_speculative_text_is_the_greedy_text(name: str) -> None:
    model, sequence = learned(**STACKS[name])
    prompts = [sequence[:3], sequence[5:16], [1, 2, 3, 4], [31]]
    for new in (1, 40):
        plain = tinycore.generate(model, prompts, max_new_tokens=new, temperature=0.0, n=2)
        fast = tinycore.generate(model, prompts, max_new_tokens=new, temperature=0.0, n=2, speculative=True)
        for ours, theirs in zip(fast, plain, strict=True):
            for one, other in zip(ours, theirs, strict=True):
                assert (one.ids, one.finish) == (other.ids, other.finish)
                assert max(abs(a - b) for a, b in zip(one.logprobs, other.logprobs, strict=True)) < 1e-9


@pytest.mark.parametrize("name", ["fused", "mamba"])
def test_right_guesses_save_passes_and_wrong_ones_cost_no_text(name: str) -> None:
    model, sequence = learned(**STACKS[name])
    session = speculative.begin(model, 40)
    assert isinstance(session, speculative.FusedSpeculation) == (name == "fused")
    found = speculative.tokens_of(session, sequence[:6])
    ids = [next(found)[0] for _ in range(40)]
    assert ids == tinycore.generate(model, [sequence[:6]], max_new_tokens=40, temperature=0.0)[0][0].ids
    assert 11 <= session.passes < 40

    generous = speculative.begin(model, 40)
    lost = iter(range(1000))
    generous.guess = lambda: [next(lost) % 32 for _ in range(3)]  # whatever is guessed, the text is the same
    found = speculative.tokens_of(generous, sequence[:6])
    assert [next(found)[0] for _ in range(40)] == ids


def test_stops_and_strings_end_a_speculative_row_where_they_end_a_plain_one() -> None:
    model, sequence = learned()
    arguments = {"max_new_tokens": 30, "temperature": 0.0, "decode": lambda ids: "".join(chr(65 + i) for i in ids)}
    text = tinycore.generate(model, [sequence[:4]], **arguments)[0][0]
    for stop in ([text.ids[7]], [text.text[5:8]]):
        plain, fast = (
            tinycore.generate(model, [sequence[:4]], stop=stop, speculative=speculative, **arguments)
            for speculative in (False, True)
        )
        assert (fast[0][0].ids, fast[0][0].text, fast[0][0].finish) == (plain[0][0].ids, plain[0][0].text, "stop")


def test_what_cannot_be_speculated_is_refused_in_one_line() -> None:
    model = awake(config())
    for arguments, message in (
        ({"temperature": 1.0}, "set temperature=0"),
        ({"temperature": 0.0, "repetition_penalty": 1.2}, "repetition_penalty"),
        ({"temperature": 0.0, "hooks": [lambda rows: None]}, "hooks"),
    ):
        with pytest.raises(ValueError, match=rf"^speculative: .*{message}"):
            tinycore.generate(model, [[1]], max_new_tokens=4, speculative=True, **arguments)
    with pytest.raises(ValueError, match=r"^speculative: takes a model with an 'mtp' head"):
        tinycore.generate(awake(testing.stack()), [[1]], max_new_tokens=4, temperature=0.0, speculative=True)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"tokens": 1}, r"heads.mtp.tokens: 1 is not between 2 and 16"),
        ({"weight": 0.0}, r"heads.mtp.weight: 0.0 is not positive"),
        ({"ramp": 0.0}, r"heads.mtp.ramp: 0.0 is not above 0"),
        ({"curriculum": "sideways"}, r"heads.mtp.curriculum: unknown value"),
    ],
)
def test_impossible_settings_are_one_line(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**settings)


def test_a_model_that_predicts_in_place_has_nothing_ahead() -> None:
    with pytest.raises(ConfigError, match=r"heads.mtp.kind: mtp looks ahead"):
        testing.stack(heads={"kind": "mtp"}, mixer={**ATTENTION, "causal": False})
