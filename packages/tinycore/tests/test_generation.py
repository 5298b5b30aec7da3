"""Claims: cached, batched decoding is the model's own distribution; a row's text depends on its prompt and seed alone;
truncations, stops, hooks and streaming do what their papers and docstrings say.

Run: uv run pytest packages/tinycore/tests/test_generation.py
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch

import tinycore
from tinycore.generation.sampling import Sampling, choose, row_key, uniform

VOCAB = 97


@pytest.fixture(scope="module")
def model() -> tinycore.Decoder:
    torch.manual_seed(0)
    config = tinycore.ModelConfig.from_dict(
        {
            "vocab_size": VOCAB,
            "dim": 32,
            "max_seq_len": 64,
            "depth": {"kind": "shared", "times": 2},
            "layers": [
                {"mixer": {"kind": "attention", "heads": 4, "kv_heads": 2}, "ffn": {"kind": "swiglu"}},
                {"mixer": {"kind": "attention", "heads": 4, "window": 5}, "ffn": {"kind": "swiglu"}},
            ],
        }
    )
    model = tinycore.build(config).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)  # far from uniform, so that a wrong context shows
    return model


def greedy_by_hand(model: tinycore.Decoder, prompt: list[int], steps: int) -> list[int]:
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(steps):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def test_greedy_equals_recomputing_the_whole_prefix(model: tinycore.Decoder) -> None:
    prompts = [[1, 2, 3], [4, 5, 6, 7, 8, 9, 10, 11], [12]]
    rows = tinycore.generate(model, prompts, max_new_tokens=12, temperature=0)
    assert [row[0].ids for row in rows] == [greedy_by_hand(model, prompt, 12) for prompt in prompts]


def test_logprobs_are_the_models_own(model: tinycore.Decoder) -> None:
    prompt = [3, 1, 4]
    row = tinycore.generate(model, [prompt], max_new_tokens=10, temperature=0.7, top_k=20, seed=5)[0][0]
    with torch.no_grad():
        full = model(torch.tensor([prompt + row.ids])).logits[0].log_softmax(-1)
    expected = [full[len(prompt) - 1 + i, token].item() for i, token in enumerate(row.ids)]
    assert row.logprobs == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 1.0},
        {"temperature": 0.8, "top_k": 30, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.3},
    ],
)
def test_a_rows_text_does_not_depend_on_its_batch_mates(model: tinycore.Decoder, options: dict[str, float]) -> None:
    prompts = [[1, 2, 3], [9] * 20, [4, 5], [1, 2, 3]]
    together = tinycore.generate(model, prompts, max_new_tokens=25, n=2, seed=7, stop=[5], **options)
    for index in (0, 1, 2):
        alone = tinycore.generate(model, [prompts[index]], max_new_tokens=25, n=2, seed=7, stop=[5], **options)[0]
        assert [row.ids for row in alone] == [row.ids for row in together[index]]
    reordered = tinycore.generate(model, prompts[::-1], max_new_tokens=25, n=2, seed=7, stop=[5], **options)
    assert [row.ids for row in reordered[1]] == [row.ids for row in together[2]]
    assert together[0][0].ids != together[3][0].ids, "the same prompt twice in a batch gives two samples"
    assert together[0][0].ids != together[0][1].ids


def test_float32_rows_agree_wherever_the_margin_is_clear(model: tinycore.Decoder) -> None:
    single = tinycore.build(model.config)
    single.load_state_dict({name: tensor.float() for name, tensor in model.state_dict().items()})
    prompts = [[1, 2, 3], [9] * 20, [4, 5]]
    together = tinycore.generate(single, prompts, max_new_tokens=20, temperature=0)
    for prompt, rows in zip(prompts, together, strict=True):
        alone = tinycore.generate(single, [prompt], max_new_tokens=20, temperature=0)[0][0]
        with torch.no_grad():
            top = single(torch.tensor([prompt + alone.ids])).logits[0].topk(2, dim=-1).values
        margins = (top[:, 0] - top[:, 1])[len(prompt) - 1 : -1]
        clear = list(itertools.takewhile(lambda margin: margin > 1e-3, margins.tolist()))
        assert rows[0].ids[: len(clear)] == alone.ids[: len(clear)]


def test_sampling_frequencies_follow_the_probabilities() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]], dtype=torch.float64)
    draws = 20_000
    uniforms = [uniform(row_key(0, [1], 0, 0), step) for step in range(draws)]
    ids, _ = choose(logits.expand(draws, -1), None, Sampling(temperature=1.0), uniforms)
    observed = torch.bincount(ids, minlength=4) / draws
    expected = logits[0].softmax(-1)
    # five standard deviations of a binomial share
    assert ((observed - expected).abs() < 5 * (expected * (1 - expected) / draws).sqrt()).all()


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"top_k": 2}, {0, 1}),
        ({"top_k": 1}, {0}),
        ({"top_p": 0.5}, {0, 1}),  # 0.4 < 0.5 <= 0.4 + 0.3
        ({"top_p": 0.39}, {0}),
        ({"top_p": 0.0}, {0}),
        ({"top_p": 1.0}, {0, 1, 2, 3}),
        ({"min_p": 0.5}, {0, 1, 2}),  # at least 0.2
        ({"min_p": 1.0}, {0}),
        ({}, {0, 1, 2, 3}),
    ],
)
def test_truncations_keep_exactly_these_tokens(options: dict[str, float], kept: set[int]) -> None:
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]], dtype=torch.float64).log()
    levels = [i / 1000 for i in range(1000)]
    ids, _ = choose(logits.expand(1000, -1), None, Sampling(**options), levels)
    assert set(ids.tolist()) == kept


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits() -> None:
    logits = torch.tensor([[2.0, 1.5, -1.0, -1.2]])
    seen = torch.tensor([[True, False, True, False]])
    ids, _ = choose(logits, seen, Sampling(temperature=0, repetition_penalty=2.0), [0.0])
    assert ids.tolist() == [1]  # 2.0 / 2 < 1.5
    ids, _ = choose(logits[:, 2:], seen[:, 2:], Sampling(temperature=0, repetition_penalty=2.0), [0.0])
    assert ids.tolist() == [1]  # -1.0 * 2 < -1.2


def test_stops_and_lengths(model: tinycore.Decoder) -> None:
    prompt = [1, 2]
    free = greedy_by_hand(model, prompt, 30)

    def decode(ids: list[int]) -> str:
        return "".join(f"<{i}>" for i in ids)

    first = free.index(free[4])
    stopped = tinycore.generate(model, [prompt], max_new_tokens=30, temperature=0, stop=[free[4]])[0][0]
    assert (stopped.ids, stopped.finish) == (free[: first + 1], "stop")
    text = f"{free[2]}><{free[3]}"  # spans two tokens
    row = tinycore.generate(model, [prompt], max_new_tokens=30, temperature=0, stop=[text], decode=decode)[0][0]
    assert row.finish == "stop"
    assert row.text is not None
    assert row.text == decode(free)[: decode(free).index(text)]
    assert tinycore.generate(model, [prompt], max_new_tokens=3, temperature=0)[0][0].finish == "length"
    full = tinycore.generate(model, [prompt], max_new_tokens=10_000, temperature=0)[0][0]
    assert (len(full.ids), full.finish) == (model.config.max_seq_len - 2, "length")
    assert tinycore.generate(model, [prompt], max_new_tokens=0)[0][0].ids == []


def test_hooks_see_every_running_row_and_force_tokens(model: tinycore.Decoder) -> None:
    calls: list[list[tuple[int, int]]] = []

    def hook(rows: list[tinycore.generation.RowView]) -> dict[int, list[int]]:
        calls.append([(row.prompt, len(row.ids)) for row in rows])
        return {index: [7, 8, 9] for index, row in enumerate(rows) if row.prompt == 1 and len(row.ids) == 5}

    rows = tinycore.generate(model, [[1, 2], [3, 4, 5]], max_new_tokens=8, temperature=0, hooks=[hook])
    assert rows[0][0].ids == greedy_by_hand(model, [1, 2], 8), "the other row is not disturbed"
    assert rows[1][0].ids[2:5] == [7, 8, 9]
    assert rows[1][0].ids[5:] == greedy_by_hand(model, [3, 4, 5, *rows[1][0].ids[:5]], 3)
    assert calls[0] == [(0, 3), (1, 4)]
    assert len(calls) == 7
    tokens = tinycore.stream(model, [[3, 4, 5]], max_new_tokens=8, sampling=Sampling(temperature=0), hooks=[hook])
    assert [token.forced for token in tokens].count(True) == 0  # this prompt is number 0 here
    with pytest.raises(ValueError, match="forced ids"):
        tinycore.generate(model, [[1]], max_new_tokens=3, hooks=[lambda rows: {0: [VOCAB]}])


def test_stream_yields_as_it_goes_and_agrees_with_generate(model: tinycore.Decoder) -> None:
    prompts = [[1, 2], [3]]
    iterator = tinycore.stream(model, prompts, max_new_tokens=5, n=2, seed=3)
    tokens = list(iterator)
    assert [(token.prompt, token.sample) for token in tokens[:4]] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    rows = tinycore.generate(model, prompts, max_new_tokens=5, n=2, seed=3)
    for p, s in itertools.product(range(2), range(2)):
        assert [t.id for t in tokens if (t.prompt, t.sample) == (p, s)] == rows[p][s].ids


def test_training_mode_is_left_as_it_was(model: tinycore.Decoder) -> None:
    model.train()
    tinycore.generate(model, [[1]], max_new_tokens=2)
    assert model.training


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompts": [[]]}, "prompt 0: is empty"),
        ({"prompts": [[1], [2] * 64]}, "prompt 1: has 64 tokens, the context holds 64"),
        ({"prompts": [[VOCAB]]}, "ids outside"),
        ({"prompts": [[1]], "n": 0}, "n: 0"),
        ({"prompts": [[1]], "temperature": -1.0}, "temperature"),
        ({"prompts": [[1]], "temperature": math.nan}, "temperature"),
        ({"prompts": [[1]], "top_p": 1.5}, "top_p"),
        ({"prompts": [[1]], "top_k": 0}, "top_k"),
        ({"prompts": [[1]], "stop": ["x"]}, "need decode"),
        ({"prompts": [[1]], "max_new_tokens": -1}, "negative"),
    ],
)
def test_bad_arguments_are_one_line(model: tinycore.Decoder, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        tinycore.generate(model, **{"max_new_tokens": 4, **arguments})  # ty: ignore[invalid-argument-type]
    assert "\n" not in str(caught.value)
