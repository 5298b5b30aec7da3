"""The forward pass gives what it says: losses as sums over counted targets, logits and state only where they are asked
for, one line for shapes that do not agree, and bfloat16 autocast close to float32.
"""

from __future__ import annotations

import json
import pickle

import pytest
import torch
import torch.nn.functional as F

import tinycore
from tinycore import objectives, testing
from tinycore.testing.probes import awake

ROWS = testing.packed_rows(testing.stack(), 3, 20)


@pytest.fixture(scope="module")
def model() -> tinycore.Decoder:
    return awake(testing.stack(heads={"kind": "lm", "chunk": 7}))


def test_loss_is_the_mean_cross_entropy_of_the_targets(model: tinycore.Decoder) -> None:
    targets = ROWS.targets()
    out = model(ROWS.tokens, targets=targets, doc_ids=ROWS.doc_ids, return_logits=True)
    expected = F.cross_entropy(out.logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
    assert out.loss.item() == pytest.approx(expected.item(), abs=1e-12)
    total, count = out.losses["lm"]
    assert count.item() == int((targets != -100).sum())
    assert (total / count).item() == out.loss.item()
    right, seen = out.stats["correct"]
    assert right.item() == int((out.logits.argmax(-1) == targets).sum())
    assert seen.item() == count.item()


def test_logits_and_state_come_where_they_are_asked_for(model: tinycore.Decoder) -> None:
    tokens, targets = ROWS.tokens, ROWS.targets()
    generating, training = model(tokens), model(tokens, targets=targets)
    assert generating.logits.shape == (3, 20, 32)
    assert generating.loss is None
    assert generating.losses == {}
    assert generating.state
    assert training.logits is None
    assert training.state is None
    assert model(tokens, return_logits=False).logits is None
    assert model(tokens, targets=targets, state={}).state
    assert torch.equal(generating.hidden, training.hidden)
    assert torch.equal(F.linear(generating.hidden, model.embed.weight), generating.logits)


def test_state_has_an_entry_for_every_call(model: tinycore.Decoder) -> None:
    shared = awake(testing.stack(depth={"kind": "shared", "times": 2}))
    assert set(model(ROWS.tokens).state) == {"stream", "0/mixer/kv", "1/mixer/kv"}
    paths = {f"{layer}.{call}/mixer/kv" for layer in range(2) for call in range(2)}
    assert set(shared(ROWS.tokens).state) == {"stream", *paths}
    assert {site.path for site in shared.config.call_sites()} == {path.split("/")[0] for path in paths}


def test_nothing_to_learn_is_a_loss_of_zero(model: tinycore.Decoder) -> None:
    out = model(ROWS.tokens, targets=torch.full_like(ROWS.tokens, -100))
    assert out.loss.item() == 0.0
    assert out.losses["lm"][1].item() == 0


@pytest.mark.parametrize(
    "arguments, says",
    [
        (
            {"tokens": torch.zeros(3, dtype=torch.long)},
            r"tokens: expected shape \(B, T\) with T > 0, got \(3,\)",
        ),
        ({"tokens": torch.zeros(2, 0, dtype=torch.long)}, r"tokens: expected shape .*, got \(2, 0\)"),
        (
            {"targets": torch.zeros(2, 3, dtype=torch.long)},
            r"targets: expected shape \(2, 4\) as tokens, got \(2, 3\)",
        ),
        (
            {"doc_ids": torch.zeros(1, 4, dtype=torch.long)},
            r"doc_ids: expected shape \(2, 4\) as tokens, got \(1, 4\)",
        ),
    ],
)
def test_shapes_that_do_not_agree(model: tinycore.Decoder, arguments: dict[str, torch.Tensor], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        model(**{"tokens": torch.zeros(2, 4, dtype=torch.long), **arguments})


def test_bfloat16_autocast_is_close_to_float32() -> None:
    model = awake(testing.stack(), testing.SINGLE)
    targets = ROWS.targets()
    exact = model(ROWS.tokens, targets=targets, doc_ids=ROWS.doc_ids)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(ROWS.tokens, targets=targets, doc_ids=ROWS.doc_ids)
    low.loss.backward()
    assert low.loss.dtype == torch.float32
    assert low.loss.item() == pytest.approx(exact.loss.item(), rel=2e-2)
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())


def test_next_token_objective_is_one_backward_and_one_step(model: tinycore.Decoder) -> None:
    (item,) = list(objectives.next_token(model, ROWS.tokens, ROWS.targets(), ROWS.doc_ids))
    losses, step = item
    assert step is True
    expected = model(ROWS.tokens, targets=ROWS.targets(), doc_ids=ROWS.doc_ids).losses["lm"]
    assert [part.item() for part in losses["lm"]] == [part.item() for part in expected]


def test_states_are_plain_tuples_of_tensors(model: tinycore.Decoder) -> None:
    state = model(ROWS.tokens, doc_ids=ROWS.doc_ids).state
    assert tinycore.state.state_bytes(state) == sum(
        part.nbytes for entry in state.values() for part in entry if part is not None
    )
    doubled = tinycore.state.select(state, [0, 0, 2])
    for path, entry in state.items():
        for part, chosen in zip(entry, doubled[path], strict=True):
            assert part is None or torch.equal(chosen, part[[0, 0, 2]])


def test_configs_are_values() -> None:
    """Two processes that pass a config around, as JSON or through a pipe, have the same one."""
    config = testing.stack(depth={"kind": "shared"})
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301 (our own bytes)
    assert tinycore.ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(AttributeError):
        config.dim = 3
