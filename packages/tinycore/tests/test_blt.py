"""Bytes, their hashed n-grams and the judge: each against plain loops or a plain model, and what a patch may see."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import tinycore
from tinycore import ConfigError, testing
from tinycore.embed.blt import MULTIPLIER
from tinycore.testing.probes import awake, packed_rows, single_rows

EMBED = {"kind": "blt", "ngrams": [2, 3], "buckets": 7, "judge": {"dim": 8, "heads": 2, "window": 5}}
PATCHES = {
    "kind": "pooled",
    "boundaries": "judge",
    "outside": 1,
    "rate": 2.0,
    "shorten": "attention",
    "lengthen": "attention",
}


def bucket(gram: list[int], buckets: int) -> int:
    """The hash of an n-gram, newest token last, in Python's whole numbers."""
    code = len(gram)
    for token in reversed(gram):
        code = (code + token + 1) * MULTIPLIER % 2**64
        code ^= (code >> 29) % 2**35
    return code % 2**62 % buckets


def test_grams_equal_a_loop_over_documents() -> None:
    model = awake(testing.stack(embed=EMBED))
    rows = packed_rows(model.config, 3, 24)
    given: list[torch.Tensor] = []
    hook = model.embed.register_forward_hook(lambda module, inputs, output: given.append(output.x))
    model(rows.tokens, doc_ids=rows.doc_ids)
    hook.remove()
    grams, weight = model.embed.grams.detach(), model.embed.weight.detach()
    for b in range(3):
        for document in rows.doc_ids[b].unique().tolist():
            slots = [t for t in range(24) if rows.doc_ids[b, t] == document]
            tokens = [int(rows.tokens[b, t]) for t in slots]
            for place, t in enumerate(slots if document >= 0 else []):
                expected = weight[tokens[place]].clone()
                for index, n in enumerate((2, 3)):
                    if place >= n - 1:
                        expected += grams[7 * index + bucket(tokens[place - n + 1 : place + 1], 7)] / 2
                assert torch.allclose(given[0][b, t], expected, atol=1e-12)


def test_hashes_spread_evenly() -> None:
    counts = [0] * 64
    for number in range(20_000):
        counts[bucket([number % 251, number // 251 % 251, number % 7], 64)] += 1
    expected = 20_000 / 64
    chi_squared = sum((count - expected) ** 2 / expected for count in counts)
    assert chi_squared < 110  # of 63 degrees of freedom, whose deviation is 11


def test_the_judge_is_a_plain_language_model() -> None:
    model = awake(testing.stack(embed=EMBED))
    layer = {
        "mixer": {"kind": "attention", "heads": 2, "window": 5},
        "ffn": {"kind": "swiglu", "hidden": 16},
    }
    plain = awake(
        tinycore.ModelConfig.from_dict(
            {"vocab_size": 32, "dim": 8, "max_seq_len": 64, "layers": [layer], "embed": {"scale": math.sqrt(8)}}
        )
    )
    judge = {name.removeprefix("embed.judge."): value for name, value in model.state_dict().items() if "judge" in name}
    judge["embed.weight"] = judge.pop("weight")
    plain.load_state_dict(judge)
    rows = packed_rows(model.config, 3, 24)
    given: list[torch.Tensor] = []
    hook = model.embed.register_forward_hook(lambda module, inputs, output: given.append(output.carry["entropy"]))
    out = model(rows.tokens, targets=rows.targets(), doc_ids=rows.doc_ids)
    hook.remove()
    expected = plain(rows.tokens, targets=rows.targets(), doc_ids=rows.doc_ids, return_logits=True)
    p = expected.logits.softmax(-1)
    assert torch.allclose(given[0][rows.valid], torch.special.entr(p).sum(-1)[rows.valid], atol=1e-9)
    assert torch.allclose(out.losses["judge"][0], expected.losses["lm"][0], atol=1e-9)


def test_no_gradient_goes_between_the_judge_and_the_model() -> None:
    model = awake(testing.stack(embed=EMBED, depth=PATCHES)).train()
    rows = single_rows(model.config, 3, 20)
    out = model(rows.tokens, targets=rows.targets())
    inside = {name for name, _ in model.named_parameters() if "judge" in name}
    for loss, mine in (("judge", True), ("lm", False)):
        model.zero_grad()
        out.losses[loss][0].backward(retain_graph=True)
        reached = {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
        assert (reached <= inside) if mine else not (reached & inside)
        assert reached


def test_patches_end_where_the_judge_is_surprised() -> None:
    model = awake(testing.stack(embed=EMBED, depth=PATCHES))
    rows = single_rows(model.config, 3, 24)
    with torch.no_grad():
        for theta, share in (
            (-1e9, 1.0),
            (1e9, 0.25),
        ):  # every byte a patch; every fourth, the longest that there may be
            model.depth.theta.fill_(theta)
            total, number = model(rows.tokens).stats["depth/segments"]
            assert float(total / number) == share
    testing.causal(model.config)
    testing.streams(model.config)


def test_counts() -> None:
    config = testing.stack(embed=EMBED)
    counts = tinycore.count(config)
    assert sum(p.numel() for p in tinycore.build(config).parameters()) == counts.parameters
    with torch.device("meta"):
        model, tokens = tinycore.build(config), torch.zeros(2, 12, dtype=torch.long)
        with FlopCounterMode(display=False) as forward:
            model(tokens)
    loss = 24 * 2 * 8 * 32  # of the judge, which a pass without targets does not make
    assert forward.get_total_flops() == 24 * sum(counts.forward_flops(12).values()) - loss


@pytest.mark.parametrize(
    "parts, message",
    [
        ({"embed": {"kind": "blt", "ngrams": [1]}}, r"embed.ngrams: \[1\] are not different lengths from 2 to 16"),
        ({"embed": {"kind": "blt", "judge": {"dim": 10}}}, r"embed.judge.heads: 10 channels are not 4 heads"),
        ({"embed": {"kind": "table"}, "depth": PATCHES}, r"depth.boundaries: are where embed table finds"),
        (
            {"embed": EMBED, "mixer": {"kind": "attention", "heads": 4, "causal": False}},
            r"embed.kind: blt reads tokens so far",
        ),
    ],
)
def test_impossible_settings_are_one_line(parts: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        testing.stack(**parts)
