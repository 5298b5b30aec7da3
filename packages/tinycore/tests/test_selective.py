"""Selective decoding: threshold 0 is plain decoding, and what is skipped is chosen among the kept tokens."""

from __future__ import annotations

import pytest
import torch

import tinycore
from tinycore import Selective, testing
from tinycore.testing.probes import awake

HEAD = {"kind": "jepa", "span": 2, "width": 6}
STACKS = {
    "tied": {},
    "untied": {"embed": {"tied": False}},
    "factorised": {"embed": {"kind": "factorised", "channels": 6}},
    "mamba": {"mixer": {"kind": "mamba", "state": 4}},
}
PROMPTS = [[1, 2, 3], [4, 5, 6, 7, 8], [9]]


@pytest.mark.parametrize("name", STACKS)
def test_threshold_zero_is_plain_decoding(name: str) -> None:
    model = awake(testing.stack(heads=HEAD, **STACKS[name]))
    for temperature in (0.0, 1.0):
        settings = {"max_new_tokens": 20, "temperature": temperature, "n": 2, "seed": 3}
        plain = tinycore.generate(model, PROMPTS, **settings)
        found = tinycore.generate(model, PROMPTS, selective=Selective(0.0, 4), **settings)
        for ours, theirs in zip(found, plain, strict=True):
            assert [one.ids for one in ours] == [one.ids for one in theirs]
            assert [one.skipped for one in ours] == [0, 0]


@pytest.mark.parametrize("name", STACKS)
def test_steps_equal_a_loop(name: str) -> None:
    """Written out for one row: the anchor moves with each full step, and candidates are those of the last one."""
    model = awake(testing.stack(heads=HEAD, **STACKS[name]))
    threshold, count, ids = 0.4 if name != "factorised" else 0.1, 5, [1, 2, 3]
    out = model(torch.tensor([ids]))
    anchor, logits = out.values["jepa"][0, -1], out.logits[0, -1]
    kept, skipped = logits.topk(count).indices.tolist(), 0
    for _ in range(25):
        ids.append(int(logits.argmax()))
        out = model(torch.tensor([ids]))
        z, every = out.values["jepa"][0, -1], out.logits[0, -1]
        if 1 - float((z @ anchor).detach()) >= threshold:
            anchor, logits, kept = z, every, every.topk(count).indices.tolist()
        else:
            logits = torch.full_like(every, -torch.inf)
            logits[kept] = every[kept]
            skipped += 1
    settings = {"max_new_tokens": 26, "temperature": 0.0, "selective": Selective(threshold, count)}
    found = tinycore.generate(model, [[1, 2, 3]], **settings)[0][0]
    assert found.ids[:25] == ids[3:]
    assert found.skipped == skipped
    assert 0 < skipped < 25


@pytest.mark.parametrize("name", ["tied", "untied"])
def test_kept_logits_are_scaled_as_all_of_them_are(name: str) -> None:
    """With every token among the candidates a step that is skipped has the logits of one that is not, so draws are the same."""
    mapping = testing.stack(heads=HEAD, **STACKS[name]).to_dict()
    mapping["heads"]["lm"]["scale"] = 0.2
    config = tinycore.ModelConfig.from_dict(mapping)
    settings = {"max_new_tokens": 20, "temperature": 1.0, "n": 2, "seed": 3}
    plain = tinycore.generate(awake(config), PROMPTS, **settings)
    found = tinycore.generate(awake(config), PROMPTS, selective=Selective(2.0, config.vocab_size), **settings)
    for ours, theirs in zip(found, plain, strict=True):
        assert [one.ids for one in ours] == [one.ids for one in theirs]
        assert all(one.skipped for one in ours)


def test_rows_of_a_batch_decode_as_they_do_alone() -> None:
    model = awake(testing.stack(heads=HEAD))
    settings = {"max_new_tokens": 20, "temperature": 0.0, "selective": Selective(0.3, 5), "stop": [7]}
    together = tinycore.generate(model, PROMPTS, **settings)
    for prompt, (found,) in zip(PROMPTS, together, strict=True):
        alone = tinycore.generate(model, [prompt], **settings)[0][0]
        assert (found.ids, found.skipped) == (alone.ids, alone.skipped)


def test_what_cannot_be_selective_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"^selective: takes a model with a 'jepa' head"):
        tinycore.generate(awake(testing.stack()), [[1]], max_new_tokens=2, selective=Selective())
    for settings, message in (({"threshold": -0.1}, "threshold -0.1"), ({"candidates": 0}, "candidates 0")):
        with pytest.raises(ValueError, match=message):
            Selective(**settings)
