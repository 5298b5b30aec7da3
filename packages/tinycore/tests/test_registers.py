"""Claims: registers are vectors prepended to every document as if they were tokens, whatever the mixer; they are neither
scored nor predicted; streams, truncation and generation count tokens, not them; they cost what is stated.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import tinycore
from tinycore import llama, testing
from tinycore.context import PADDING, Context, begin
from tinycore.generation.fused import can_fuse
from tinycore.heads.head import HeadOutput, Question
from tinycore.model_config import ModelConfig
from tinycore.optim.groups import decay_groups
from tinycore.registers import UNKNOWN, Registers, widths
from tinycore.state import STREAM, select, truncate
from tinycore.testing.probes import awake

REGISTERS = 3
VOCABULARY = 32
EMBED: dict[str, Any] = {"kind": "table", "registers": REGISTERS, "scale": 2.0}
STACKS: dict[str, dict[str, Any]] = {
    "attention": {},
    "window": {"mixer": {"kind": "attention", "heads": 4, "kv_heads": 1, "window": 5}},
    "mamba": {"mixer": {"kind": "mamba", "state": 3}},
    "titans": {"mixer": {"kind": "titans", "heads": 2, "chunk": 4}},
    "mlgru": {"mixer": {"kind": "mlgru"}},
    "averages over depth": {"residual": {"kind": "denseformer"}, "depth": {"kind": "shared"}},
    "experts": {"ffn": {"kind": "moe", "experts": 3, "hidden": 8}},
}


def registered(**parts: Any) -> tinycore.Decoder:
    return awake(testing.stack(embed=EMBED, **parts))


def with_extra_tokens(model: tinycore.Decoder) -> tinycore.Decoder:
    """The model without registers whose vocabulary ends with them: token VOCABULARY + r is register r."""
    plain = model.config.to_dict()
    plain["embed"]["registers"] = 0
    plain["vocab_size"] += REGISTERS
    other = tinycore.build(ModelConfig.from_dict(plain)).double().eval()
    weights = model.state_dict()
    vectors = weights.pop("embed.registers.weight")
    weights["embed.weight"] = torch.cat([weights["embed.weight"], vectors])
    other.load_state_dict(weights)
    return other


def prepended(rows: testing.Rows) -> tuple[Tensor, Tensor, list[list[int]]]:
    """Tokens and document ids with the registers' ids written before each document, and where the tokens then stand."""
    assert rows.doc_ids is not None
    tokens, documents, places = [], [], []
    for row, ids in zip(rows.tokens.tolist(), rows.doc_ids.tolist(), strict=True):
        written: list[int] = []
        owners: list[int] = []
        stands: list[int] = []
        known: set[int] = set()
        for token, document in zip(row, ids, strict=True):
            if document != PADDING and document not in known:
                known.add(document)
                written += range(VOCABULARY, VOCABULARY + REGISTERS)
                owners += [document] * REGISTERS
            stands.append(len(written))
            written.append(token)
            owners.append(document)
        tokens.append(written)
        documents.append(owners)
        places.append(stands)
    width = max(map(len, tokens))
    padded = [row + [0] * (width - len(row)) for row in tokens]
    owned = [row + [PADDING] * (width - len(row)) for row in documents]
    return torch.tensor(padded), torch.tensor(owned), places


@pytest.mark.parametrize("name", STACKS)
def test_registers_are_extra_tokens_prepended_by_hand(name: str) -> None:
    model = registered(**STACKS[name])
    plain = with_extra_tokens(model)
    rows = testing.packed_rows(model.config, 4, 30)
    tokens, documents, places = prepended(rows)
    by_hand = plain(tokens, doc_ids=documents).logits
    expected = torch.stack([row[stands] for row, stands in zip(by_hand, places, strict=True)])[..., :VOCABULARY]
    found = model(rows.tokens, doc_ids=rows.doc_ids).logits
    valid = rows.valid
    assert (found - expected)[valid].abs().max() < 1e-9

    weights = torch.randn(int(valid.sum()), VOCABULARY, dtype=torch.float64)
    for logits in (found, expected):
        (logits[valid] * weights).sum().backward()
    gradients = plain.embed.weight.grad.split([VOCABULARY, REGISTERS])
    assert (model.embed.weight.grad - gradients[0]).abs().max() < 1e-9
    assert (model.embed.registers.weight.grad - gradients[1]).abs().max() < 1e-9
    assert gradients[1].abs().min() > 0

    single = testing.single_rows(model.config, 2, 20).tokens
    marks = torch.arange(VOCABULARY, VOCABULARY + REGISTERS).expand(2, -1)
    with torch.no_grad():
        written = plain(torch.cat([marks, single], 1)).logits[:, REGISTERS:, :VOCABULARY]
        assert (model(single).logits - written).abs().max() < 1e-9


@pytest.mark.parametrize("name", STACKS)
@torch.no_grad()
def test_documents_begin_and_go_on_in_a_stream(name: str) -> None:
    """Only padding at first, a document begun in an earlier chunk, one that begins in a later one, padding inside."""
    model = registered(**STACKS[name])
    ids = [[-1, -1, -1, 5, 5, -1, 5, 7, 7, 7, -1], [4, 4, -1, 4, 9, 9, -1, -1, 9, 2, 2]]
    documents = torch.tensor(ids)
    tokens = torch.randint(VOCABULARY, documents.shape, generator=torch.Generator().manual_seed(1))
    written, owners, places = prepended(testing.Rows(tokens, documents))
    by_hand = with_extra_tokens(model)(written, doc_ids=owners).logits
    expected = torch.stack([row[stands] for row, stands in zip(by_hand, places, strict=True)])[..., :VOCABULARY]
    for size in (1, 2, 3, 4):
        state: Any = {}
        found = []
        for chunk, own in zip(tokens.split(size, 1), documents.split(size, 1), strict=True):
            out = model(chunk, doc_ids=own, state=state)
            state = out.state
            found.append(out.logits)
        assert (torch.cat(found, 1) - expected)[documents != PADDING].abs().max() < 1e-9, size
        assert state[STREAM].positions.tolist() == [3, 2], "tokens are counted, not registers"


class Slot(tuple[float, int, int, int]):
    """What stands in a slot: vector, position, document, route."""


def laid_out(documents: list[int], positions: list[int], row: int) -> list[Slot]:
    """A row, slot by slot, where the vector of token t is 100 row + t + 1 and that of register r is -(r + 1)."""
    slots: list[Slot] = []
    for t, (document, position) in enumerate(zip(documents, positions, strict=True)):
        if document == PADDING:
            slots.append(Slot((100.0 * row + t + 1, 0, PADDING, t)))
            continue
        if position == 0:
            slots += [Slot((-r - 1.0, r, document, UNKNOWN)) for r in range(REGISTERS)]
        slots.append(Slot((100.0 * row + t + 1, position + REGISTERS, document, t)))
    return slots


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    rows=st.integers(1, 12).flatmap(
        lambda length: st.lists(st.lists(st.integers(-1, 2), min_size=length, max_size=length), min_size=1, max_size=3)
    ),
    cuts=st.sets(st.integers(1, 11)),
)
def test_slots_equal_a_loop_however_rows_are_cut(rows: list[list[int]], cuts: set[int]) -> None:
    documents = torch.tensor(rows)
    length = documents.shape[1]
    module = Registers(REGISTERS, 1, 1.0).double()
    with torch.no_grad():
        module.weight.copy_(-torch.arange(1, REGISTERS + 1)[:, None])
    edges = [0, *sorted(cut for cut in cuts if cut < length), length]
    state: Any = None
    for start, end in itertools.pairwise(edges):
        chunk = documents[:, start:end]
        count = end - start
        ctx, stream = begin(torch.zeros_like(chunk), chunk, state)
        routes = torch.arange(count).expand(len(rows), -1)
        ctx = Context(ctx.positions, ctx.documents, ctx.contiguous, ctx.starts, routes)
        x = (100.0 * torch.arange(len(rows))[:, None] + torch.arange(count) + 1).double()[..., None]
        found = module(x, ctx, begins=True)
        inner = found.context
        assert torch.equal(found.narrowed(found.x), x)
        assert inner.contiguous == ctx.contiguous
        expected = [laid_out(chunk[row].tolist(), ctx.positions[row].tolist(), row) for row in range(len(rows))]
        for row, slots in enumerate(expected):
            fields = (found.x[row, :, 0], inner.positions[row], inner.documents[row], inner.routes[row])
            got = [Slot(slot) for slot in zip(*(field.tolist() for field in fields), strict=True)]
            assert got[: len(slots)] == slots
            assert all(slot[2] == PADDING for slot in got[len(slots) :])
            if ctx.contiguous:
                starts = inner.starts[row].tolist()
                for slot, (_, position, document, _) in enumerate(slots):
                    assert document == PADDING or starts[slot] == slot - position
        most = max(sum(slot[3] == UNKNOWN for slot in slots) for slots in expected) // REGISTERS
        room = (found.x.shape[1] - count) // REGISTERS
        assert most <= room <= max(most, 2 * most - 1)
        assert room == count or room & (room - 1) == 0, "powers of two, or a document at every token"
        state = {STREAM: stream}


def test_registers_are_neither_scored_nor_predicted() -> None:
    model = registered()
    rows = testing.packed_rows(model.config, 3, 20)
    targets = rows.targets()
    out = model(rows.tokens, targets=targets, doc_ids=rows.doc_ids, return_logits=True)
    assert out.logits.shape == (3, 20, VOCABULARY)
    assert out.hidden.shape == (3, 20, 16)
    total, count = out.losses["lm"]
    assert count.item() == int((targets != -100).sum())
    expected = F.cross_entropy(out.logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
    assert (total / count).item() == pytest.approx(expected.item(), abs=1e-12)


def test_every_tap_and_the_heads_context_are_those_of_the_tokens() -> None:
    model = registered()
    seen: dict[str, Any] = {}

    class Watching(nn.Module):
        def forward(self, question: Question) -> HeadOutput:
            seen.update(question.tapped, ctx=question.ctx)
            return HeadOutput({}, {})

    model.heads["watching"] = Watching()
    model.taps = frozenset({"0"})
    rows = testing.packed_rows(model.config, 3, 20)
    outputs: list[Tensor] = []
    model.layers[0].register_forward_hook(lambda *call: outputs.append(call[2][0]))
    model(rows.tokens, doc_ids=rows.doc_ids)
    assert {name: tuple(seen[name].shape) for name in ("0", "final")} == {"0": (3, 20, 16), "final": (3, 20, 16)}
    assert torch.equal(seen["ctx"].documents, rows.doc_ids)
    _, _, places = prepended(rows)
    for row, stands in enumerate(places):
        assert torch.equal(seen["0"][row], outputs[0][row][stands])


@functools.cache
def kept_model() -> tinycore.Decoder:
    return registered()


@settings(deadline=None, derandomize=True, max_examples=25)
@given(first=st.integers(1, 10), rest=st.integers(0, 5), length=st.integers(0, 10))
def test_truncate_counts_tokens(first: int, rest: int, length: int) -> None:
    """A stream cut back to `length` tokens, after rows were selected, goes on as if it had seen no more."""
    decoder = kept_model()
    tokens = testing.single_rows(decoder.config, 2, 16).tokens
    with torch.no_grad():
        state = decoder(tokens[:, :first]).state
        if rest:
            state = decoder(tokens[:, first : first + rest], state=state).state
        state = truncate(select(state, [1, 0]), length)
        length = min(length, first + rest)
        found = decoder(tokens.flip(0)[:, 12:], state=state).logits
        whole = decoder(torch.cat([tokens[:, :length], tokens[:, 12:]], 1).flip(0)).logits[:, length:]
    assert (found - whole).abs().max() < 1e-9
    if length:
        assert state["0/mixer/kv"].keys.shape[2] == length + REGISTERS
        assert state[STREAM].positions.tolist() == [length, length]


@pytest.mark.parametrize("name", ["attention", "window", "mamba"])
def test_generation_is_recomputation(name: str) -> None:
    """Ragged prompts, more new tokens than pay for packed weights, up to the end of the context."""
    model = registered(**STACKS[name])
    prompts = [[1, 2, 3], [9, 4, 9, 4, 9, 4, 7], [5], [1, 2, 3]]
    rows = tinycore.generate(model, prompts, max_new_tokens=100, temperature=0)
    for prompt, (row,) in zip(prompts, rows, strict=True):
        assert len(prompt) + len(row.ids) == model.config.max_seq_len
        with torch.no_grad():
            full = model(torch.tensor([prompt + row.ids])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        assert row.ids == full.argmax(-1).tolist()
        assert row.logprobs == pytest.approx(full.max(-1).values.tolist(), abs=1e-9)


def test_models_with_registers_are_neither_fused_nor_llamas() -> None:
    layer = {"repeat": 2, "mixer": {"kind": "attention", "heads": 4}, "ffn": {"kind": "swiglu"}}
    plain = {"vocab_size": 97, "dim": 32, "max_seq_len": 64, "layers": [layer]}
    model, other = (tinycore.build(ModelConfig.from_dict({**plain, "embed": {"registers": count}})) for count in (0, 4))
    assert can_fuse(model)
    assert not can_fuse(other)
    assert llama.tensor_names(model.config)
    with pytest.raises(llama.LlamaError, match=r"^embed\.registers: 4 vectors .*; Llama has none$"):
        llama.tensor_names(other.config)


def test_none_is_the_model_without_them() -> None:
    with pytest.raises(tinycore.ConfigError, match=r"^model\.embed\.registers: -1 is negative"):
        testing.stack(embed={"registers": -1})
    assert testing.stack(embed={"registers": 0}) == testing.stack()
    model = tinycore.build(testing.stack())
    assert not any("registers" in name for name in model.state_dict())
    assert model(torch.zeros(1, 2, dtype=torch.long)).state[STREAM].registers is None


def test_they_are_drawn_as_embeddings_and_do_not_decay() -> None:
    model = tinycore.build(testing.stack(dim=512, embed={"registers": 64}))
    vectors = model.embed.registers.weight
    assert vectors.std().item() == pytest.approx(0.02, rel=0.05)
    decayed, rest = decay_groups(model, 0.1)
    assert any(parameter is vectors for parameter in rest["params"])
    assert all(parameter is not vectors for parameter in decayed["params"])


def test_they_cost_what_they_are_and_what_layers_do_for_them() -> None:
    plain, more = (tinycore.count(testing.stack(embed={"registers": count})) for count in (0, 4))
    assert more.parameters - plain.parameters == more.embedding_parameters - plain.embedding_parameters == 4 * 16
    length = 20
    before, after = plain.forward_flops(length + 4), more.forward_flops(length)
    assert after["head"] == before["head"]
    for name in before.keys() - {"head"}:
        assert after[name] * length == pytest.approx(before[name] * (length + 4), rel=1e-12)
    assert more.state_bytes(length) == plain.state_bytes(length + 4)


def test_compiled_layers_see_few_shapes() -> None:
    """Each layer compiled for the shapes it meets, as the trainer does: the model's numbers, whatever begins in the rows."""
    eager, compiled = (registered().float() for _ in range(2))
    torch.compiler.reset()
    for layer in compiled.layers:
        layer.compile(dynamic=False, backend="aot_eager")
    seen = set()
    compiled.layers[0].register_forward_pre_hook(lambda module, given: seen.add(given[0].shape[1]))
    tokens = testing.single_rows(eager.config, 2, 16).tokens
    for documents in range(1, 9):
        ids = (torch.arange(16) * documents // 16).expand(2, -1).contiguous()
        with torch.no_grad():
            found, expected = (model(tokens, doc_ids=ids).logits for model in (compiled, eager))
        assert (found - expected).abs().max() < 1e-4
    torch.compiler.reset()
    assert seen == {16 + REGISTERS * room for room in (1, 2, 4, 8)}
    assert widths(16) == len({16, 16 + REGISTERS * 16} | seen)
