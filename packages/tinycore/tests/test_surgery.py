"""Growing the vocabulary keeps what the model knows: old rows and logits unchanged, new rows the mean, ties kept."""

from __future__ import annotations

import pytest
import torch

import tinycore
from tinycore import testing
from tinycore.surgery import grow_vocabulary
from tinycore.testing.probes import awake


@pytest.mark.parametrize("tied", [True, False])
def test_old_rows_are_kept_and_new_ones_are_their_mean(tied: bool) -> None:
    model = awake(testing.stack(embed={"tied": tied}))
    grown = grow_vocabulary(model, 40)
    assert grown.config.vocab_size == 40
    assert tinycore.count(grown.config).parameters == sum(p.numel() for p in grown.parameters())
    tables = [(grown.embed.weight, model.embed.weight)]
    if tied:
        assert grown.heads["lm"].linear is None
    else:
        tables.append((grown.heads["lm"].linear.weight, model.heads["lm"].linear.weight))
    for new, old in tables:
        assert new.shape == (40, 16)
        assert torch.equal(new[:32], old)
        assert (new[32:] - old.mean(0)).abs().max() < 1e-12
    tokens = testing.single_rows(model.config, 2, 9).tokens
    with torch.no_grad():
        before, after = model(tokens).logits, grown(tokens).logits
    assert (after[..., :32] - before).abs().max() < 1e-12
    assert (after[..., 32:] - before.mean(-1, keepdim=True)).abs().max() < 1e-12, "a new token is an average one"


def test_everything_else_is_the_same() -> None:
    model = awake(testing.stack(), testing.SINGLE).train()
    model.layers[0].requires_grad_(False)
    grown = grow_vocabulary(model, 33)
    assert grown.training
    for name, tensor in model.state_dict().items():
        if name != "embed.weight":
            assert torch.equal(grown.state_dict()[name], tensor)
            assert grown.state_dict()[name].dtype == tensor.dtype


def test_the_grown_model_is_trained_alone() -> None:
    model = awake(testing.stack(), testing.SINGLE)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    grown = grow_vocabulary(model, 33)
    with torch.no_grad():
        for parameter in grown.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_growing_by_nothing_is_a_copy_and_shrinking_is_refused() -> None:
    model = tinycore.build(testing.stack())
    assert torch.equal(grow_vocabulary(model, 32).embed.weight, model.embed.weight)
    with pytest.raises(ValueError, match="vocab_size: 31 is smaller than the model's 32; a vocabulary only grows"):
        grow_vocabulary(model, 31)
