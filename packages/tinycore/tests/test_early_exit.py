"""Early exit: who leaves, what stays of them, what the exits learn, and that nothing changes at threshold 1."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

import tinycore
from tinycore import ConfigError, testing
from tinycore.context import Context
from tinycore.generation.fused import can_fuse
from tinycore.generation.session import WORTH_PACKING
from tinycore.testing.probes import awake, packed_rows, single_rows


def config(**parts: object) -> tinycore.ModelConfig:
    return testing.stack(routing={"kind": "early_exit", **parts}, depth={"kind": "shared", "times": 2})


def at(model: tinycore.Decoder, **settings: object) -> tinycore.Decoder:
    other = tinycore.build(replace(model.config, routing=replace(model.config.routing, **settings))).double()
    other.load_state_dict(model.state_dict())
    return other.eval()


def test_equals_a_loop_over_tokens_and_calls() -> None:
    model = at(awake(config()), after=(1, 3), threshold=0.06)
    tokens = single_rows(model.config, 1, 9).tokens
    context = Context(torch.arange(9)[None])
    with torch.no_grad():
        out = model(tokens)
        x, there, paid = model.embed(tokens)[0], [True] * 9, [0] * 9
        for index, layer in enumerate((0, 0, 1, 1), 1):
            y = model.layers[layer](x[None], {}, context, None)[0][0]
            x = torch.stack([y[t] if there[t] else x[t] for t in range(9)])
            paid = [p + s for p, s in zip(paid, there, strict=True)]
            if index in (1, 3):
                for t in range(9):
                    logits = [float(v) for v in model.norm(x[t]) @ model.embed.weight.t()]
                    certain = math.exp(max(logits)) / sum(map(math.exp, logits))
                    there[t] = there[t] and certain <= 0.06
        assert float((model.norm(x) - out.hidden[0]).abs().max()) < 1e-9
    assert out.values["steps"][0].tolist() == paid
    assert len(set(paid)) > 1, "some leave and some stay"


def test_threshold_one_is_the_plain_stack_bit_for_bit() -> None:
    model, plain = at(awake(config()), threshold=1.0), awake(testing.stack(depth={"kind": "shared", "times": 2}))
    plain.load_state_dict(model.state_dict())
    rows = packed_rows(model.config, 3, 16)
    with torch.no_grad():
        found, expected = (each(rows.tokens, doc_ids=rows.doc_ids).logits for each in (model, plain))
    assert torch.equal(found, expected)


def test_exits_learn_from_their_own_streams() -> None:
    model = awake(config(after=[1, 2], weight=0.25)).train()
    rows = packed_rows(model.config, 3, 16)
    out = model(rows.tokens, targets=rows.targets(), doc_ids=rows.doc_ids)
    plain = awake(testing.stack(depth={"kind": "shared", "times": 2}))
    plain.load_state_dict(model.state_dict())
    assert torch.equal(
        out.losses["lm"][0], plain(rows.tokens, targets=rows.targets(), doc_ids=rows.doc_ids).losses["lm"][0]
    )
    total, number = 0.0, 0
    for calls in (1, 2):
        plain.depth.sites = model.depth.sites[:calls]
        with torch.no_grad():
            loss, count = plain(rows.tokens, targets=rows.targets(), doc_ids=rows.doc_ids).losses["lm"]
        total, number = total + float(loss), number + int(count)
    loss, count = out.losses["early"]
    assert int(count) == number
    assert abs(float(loss.detach()) - 0.25 * total) < 1e-9


def test_a_chunk_that_left_computes_keys_and_values_only_and_decodes_on() -> None:
    model = at(awake(config()), threshold=0.0)  # everyone leaves at the first exit
    calls: list[int] = []
    for layer in model.layers:
        layer.register_forward_hook(lambda module, given, out: calls.append(1))
    with torch.no_grad():
        out = model(single_rows(model.config, 2, 10).tokens)
    assert len(calls) == 2
    assert out.state["1.1/mixer/kv"].keys.shape[2] == 10
    testing.streams(model.config)


def test_the_fused_session_leaves_where_the_model_does() -> None:
    model = at(awake(config()), after=(1, 3), threshold=0.06)
    assert can_fuse(model)
    prompts = [[1, 2, 3], [4, 5, 6, 7, 8], [9]]
    fused = tinycore.generate(model, prompts, max_new_tokens=30, temperature=0.0, n=2)
    steps: list[torch.Tensor] = []
    hook = model.register_forward_hook(lambda module, given, out: steps.append(out.values["steps"]))
    plain = tinycore.generate(model, prompts, max_new_tokens=WORTH_PACKING - 1, temperature=0.0, n=2)
    hook.remove()
    for ours, theirs in zip(fused, plain, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert one.ids[: WORTH_PACKING - 1] == other.ids
            assert max(abs(a - b) for a, b in zip(one.logprobs, other.logprobs, strict=False)) < 1e-9
    assert len({int(count) for each in steps for count in each.flatten()}) > 1, "some leave and some stay"


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"after": [4]}, r"routing.after: \[4\]: there are calls 1 to 4"),
        ({"after": []}, r"routing.after: \[\] is not a list of calls in rising order"),
        ({"threshold": 1.5}, r"routing.threshold: 1.5 is not between 0 and 1"),
        ({"weight": 0.0}, r"routing.weight: 0.0 is not positive"),
    ],
)
def test_impossible_settings_are_one_line(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**settings)


@pytest.mark.parametrize("part", [{"residual": {"kind": "denseformer"}}, {"memory": {"kind": "slots"}}])
def test_what_would_change_a_token_that_left_is_refused(part: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"routing.kind: with early_exit tokens stay as they are"):
        testing.stack(routing={"kind": "early_exit"}, **part)
