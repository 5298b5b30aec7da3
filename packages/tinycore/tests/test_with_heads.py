"""Claim: a model with more heads is the same model, bit for bit, and each new head begins as a fresh one on it would."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tinycore
from tinycore import Decoder, ModelConfig, surgery, testing
from tinycore.surgery import with_heads
from tinycore.testing.probes import SINGLE, Precision, awake

HEADS: dict[str, Mapping[str, Any]] = {
    "value": {},
    "mtp": {"tokens": 3},
    "jepa": {"span": 2, "samples": 40},
}
NEW: list[tuple[str, ...]] = [("value",), ("mtp",), ("mtp", "value", "jepa")]
PARTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "untied": {"embed": {"tied": False, "registers": 2}},
    "shared depth": {"depth": {"kind": "shared", "times": 2}},
    "memory": {"memory": {"kind": "slots", "slots": 3, "chunk": 5}},
}


def more(config: ModelConfig, *names: str) -> ModelConfig:
    """`config` with further heads."""
    mapping = config.to_dict()
    return ModelConfig.from_dict(mapping | {"heads": mapping["heads"] | {name: HEADS[name] for name in names}})


def grown(model: Decoder, *names: str, seed: int = 1) -> Decoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return with_heads(model, more(model.config, *names))


def logits(model: Decoder) -> torch.Tensor:
    rows = testing.packed_rows(model.config, 3, 24)
    with torch.no_grad():
        return model(rows.tokens, doc_ids=rows.doc_ids).logits


@pytest.mark.parametrize("precision", [testing.DOUBLE, SINGLE], ids=["float64", "float32"])
@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("names", NEW, ids="+".join)
def test_what_was_there_is_the_same_bit_for_bit(names: tuple[str, ...], parts: str, precision: Precision) -> None:
    model = awake(testing.stack(**PARTS[parts]), precision)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = grown(model, *names)
    after = found.state_dict()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        assert torch.equal(after[name], tensor), name
    assert {name.split(".")[1] for name in after.keys() - before.keys()} == set(names)
    assert all(name.startswith("heads.") for name in after.keys() - before.keys())
    assert {parameter.dtype for parameter in found.parameters()} == {precision.dtype}
    assert torch.equal(logits(found), logits(model))
    assert found.config == more(model.config, *names)
    assert list(found.heads) == list(found.config.heads)
    assert tinycore.count(found.config).parameters == sum(parameter.numel() for parameter in found.parameters())


def test_the_loss_of_a_text_is_the_same_and_learning_moves_one_of_them_only() -> None:
    model = awake(testing.stack())
    found = grown(model, "value")
    rows = testing.single_rows(model.config, 2, 12)
    assert torch.equal(found(rows.tokens, rows.targets()).loss, model(rows.tokens, rows.targets()).loss)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items()), "nothing is shared"


def test_a_value_head_begins_without_an_opinion() -> None:
    found = grown(awake(testing.stack()), "value")
    assert not any(parameter.any() for parameter in found.heads["value"].parameters())
    out = found(torch.arange(10)[None])
    assert out.values["value"].shape == (1, 10)
    assert not out.values["value"].any()


def test_further_tokens_begin_from_the_seed() -> None:
    model = awake(testing.stack())
    first, again, other = (grown(model, "mtp", seed=seed).heads["mtp"].state_dict() for seed in (1, 1, 2))
    weights = [name for name in first if first[name].ndim == 2]
    assert len(weights) == 2, "of the second and the third token"
    for name in weights:
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], other[name])
        assert 0.1 < first[name].std() < 0.5, "about 1/sqrt(16)"
    assert not torch.equal(first[weights[0]], first[weights[1]])


def test_a_head_that_starts_as_a_copy_copies_the_model() -> None:
    """JEPA's targets are an average of the embeddings, and the first one is what the model has, not random numbers."""
    model = awake(testing.stack())
    head: Any = grown(model, "jepa").heads["jepa"]
    assert torch.equal(head.target_table, model.embed.weight)
    assert torch.equal(head.target_project, head.project.weight)


@pytest.mark.parametrize("names", [("value",), ("mtp",), ("value", "mtp")], ids="+".join)
def test_it_is_saved_and_loaded(tmp_path: Path, names: tuple[str, ...]) -> None:
    found = grown(awake(testing.stack(), SINGLE), *names)
    tinycore.save(found, tmp_path / "model")
    loaded = tinycore.load(tmp_path / "model").eval()
    assert loaded.config == found.config
    assert loaded.state_dict().keys() == found.state_dict().keys()
    assert all(torch.equal(tensor, found.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    assert torch.equal(logits(loaded), logits(found))


def test_heads_can_be_added_one_after_another() -> None:
    model = awake(testing.stack())
    first = grown(model, "value")
    with torch.no_grad():
        for parameter in first.heads["value"].parameters():
            parameter.fill_(0.5)
    both = with_heads(first, more(first.config, "mtp"))
    assert all((parameter == 0.5).all() for parameter in both.heads["value"].parameters()), (
        "a head that is there is kept"
    )
    assert torch.equal(logits(both), logits(model))


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_kept(training: bool) -> None:
    found = grown(awake(testing.stack()).train(training), "value", "mtp")
    assert all(module.training == training for module in found.modules())


def test_without_new_heads_it_is_a_copy() -> None:
    model = awake(testing.stack(heads={"kind": "mtp", "tokens": 3}))
    same = with_heads(model, model.config)
    assert same is not model
    assert all(torch.equal(tensor, same.state_dict()[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    "change",
    [
        {"dim": 32},
        {"vocab_size": 33},
        {"max_seq_len": 65},
        {"embed": {"tied": False}},
        {"depth": {"kind": "shared", "times": 2}},
        {"norm": {"placement": "post"}},
        {
            "layers": [
                {"mixer": {"kind": "attention", "heads": 4, "kv_heads": 2}, "ffn": {"kind": "swiglu", "hidden": 24}}
            ]
        },
        {"heads": {"lm": {"chunk": 7}, "value": {}}},
        {"heads": {"lm": {}, "value": {}}},
        {"heads": {"lm": {}, "mtp": {"tokens": 4}, "value": {}}},
    ],
    ids=lambda change: "+".join(f"{key} {value}"[:40] for key, value in change.items()),
)
def test_whatever_else_differs_is_refused(change: dict[str, Any]) -> None:
    """A dimension, a part, a removed head (mtp), a head of another size."""
    model = awake(testing.stack(heads={"kind": "mtp", "tokens": 3}))
    wanted = ModelConfig.from_dict(more(model.config, "value").to_dict() | change)
    with pytest.raises(ValueError, match="with_heads: the models differ in more than additional heads") as refused:
        with_heads(model, wanted)
    assert "\n" not in str(refused.value)


def test_fewer_heads_and_packed_weights_are_refused() -> None:
    model = awake(testing.stack(heads={"kind": "mtp", "tokens": 3}))
    fewer = replace(model.config, heads={"lm": model.config.heads["lm"]})
    with pytest.raises(ValueError, match="more than additional heads"):
        with_heads(model, fewer)
    ternary = surgery.pack(awake(testing.stack(linear={"kind": "bit"}), SINGLE))
    with pytest.raises(ValueError, match="is no part of an added head"):
        with_heads(ternary, more(ternary.config, "value"))
