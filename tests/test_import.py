"""Claim: a model that others trained becomes a run whose logits and ids are theirs, or one line says why it cannot.

Small random models are written by transformers and by the gguf package; transformers computes what is expected.

Run: uv run pytest tests/test_import.py
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from safetensors.torch import load_file, save_file

import tinycore
from apps.common import command_line, report, run_directory, run_record
from apps.common.errors import BadRequest, RunError
from apps.common.pretrained import source
from apps.common.pretrained.gguf_file import GGUFFile
from tinydata import Document, Tokenizer, TokenizerError, train_tokenizer

transformers = pytest.importorskip("transformers")

Sessions = Callable[[Sequence[dict[str, Any]]], list[Any]]
TEXTS = [
    "The year 1984 and 3.14159, 007!",
    "naïve café 🤖👩‍🚀 日本語 ½ ²",
    "def f(x):\n\treturn x  ** 2  # it's\r\n\n\n",
    "I'll, YOU'LL, we'd <|im_end|> and <tool> <|im_start|>user",
    "   leading, trailing   ",
    "",
]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VOCABULARY = 340
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
    "rms_norm_eps": 1e-5,
}
TOKENS = torch.randint(VOCABULARY, (2, 30), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    texts = ["the cat sat on 12 mats, naïve café", "def f(x): return x  # it's", "日本語 🤖 we'd, I'll"] * 9
    return train_tokenizer([Document(text, "test") for text in texts], vocab_size=VOCABULARY)


def theirs(tied: bool) -> Any:
    torch.manual_seed(2)
    config = transformers.LlamaConfig(**SIZES, tie_word_embeddings=tied, attn_implementation="eager")
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """A directory as transformers writes it, with a chat template."""
    directory = tmp_path_factory.mktemp("hub") / "small"
    theirs(tied=False).save_pretrained(directory)
    tokenizer.save(directory)
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    (directory / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    return directory


def copied(saved: Path, target: Path) -> Path:
    target.mkdir()
    for file in saved.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def run_app(monkeypatch: pytest.MonkeyPatch, *argv: str) -> int:
    monkeypatch.setattr(sys, "argv", ["import", *argv])
    return importlib.import_module("apps.import.__main__").run()


def refused(path: Path) -> str:
    with pytest.raises((BadRequest, TokenizerError)) as caught:
        source.read(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    return str(caught.value)


@torch.no_grad()
def gap(ours: tinycore.Decoder, model: Any) -> float:
    expected = model(TOKENS).logits
    assert expected.std() > 0.1
    return float((ours(TOKENS).logits - expected).abs().max())


def test_a_directory_becomes_a_run(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs" / "small"
    assert run_app(monkeypatch, str(saved), "--out", str(out), "--json") == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["run"] == str(out)
    assert f"uv run apps/chat {out}" in shown.err
    checkpoint = run_record.checkpoint_of(out)
    tinycore.checkpoint.verify(checkpoint)
    assert gap(tinycore.load(checkpoint).eval(), theirs(tied=False)) < 1e-4
    assert Tokenizer.load(checkpoint).conventions.chat_template == TEMPLATE
    status = run_directory.read_status(out)
    assert (status["status"], status["step"]) == ("done", 0)
    assert status["lineage"] == [{"event": "import", "source": str(saved), "format": "safetensors"}]
    record = run_record.read(out)
    assert record.recipe.model == tinycore.load(checkpoint).config
    report.write(out)
    assert run_app(monkeypatch, str(saved), "--out", str(out)) == 0  # nothing is overwritten
    assert run_record.checkpoint_of(tmp_path / "runs" / "small-2")
    assert f"goes to {out}-2" in capsys.readouterr().out


def test_weights_in_several_files(saved: Path, tmp_path: Path) -> None:
    tensors = load_file(saved / "model.safetensors")
    names = sorted(tensors)
    for indexed in (True, False):
        directory = copied(saved, tmp_path / f"indexed-{indexed}")
        (directory / "model.safetensors").unlink()
        shards = {"a.safetensors": names[:5], "b.safetensors": names[5:]}
        for name, part in shards.items():
            save_file({key: tensors[key] for key in part}, directory / name)
        if indexed:
            where = {key: name for name, part in shards.items() for key in part}
            (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
            (directory / "unlisted.safetensors").write_bytes(b"whatever")
        assert gap(source.read(directory).model, theirs(tied=False)) < 1e-4
    save_file({names[0]: tensors[names[0]]}, directory / "c.safetensors")
    assert f"{names[0]} is in a.safetensors too" in refused(directory)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_1"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_gguf_file_has_the_logits_of_its_weights(
    kind: str, tied: bool, tokenizer: Tokenizer, saved: Path, small_gguf: ModuleType, tmp_path: Path
) -> None:
    model = theirs(tied)
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items() if not (tied and "lm_head" in name)}
    small_gguf.write(
        tmp_path / "m.gguf",
        model.config.to_dict(),
        tensors,
        json.loads((saved / "tokenizer.json").read_text()),
        kind=kind,
    )
    rounded = {name: torch.from_numpy(small_gguf.rounded(values, kind)) for name, values in tensors.items()}
    model.load_state_dict(rounded, strict=not tied)
    imported = source.read(tmp_path / "m.gguf")
    assert gap(imported.model, model) < 1e-4
    assert imported.model.config.embed.tied == tied
    assert imported.model.config.norm == tinycore.llama.read_config(json.loads(model.config.to_json_string())).norm


def test_every_packed_type_is_read_as_the_library_reads_it(small_gguf: ModuleType, tmp_path: Path) -> None:
    """K- and I-quants too, which the library cannot write: random bytes, read by its own reader for comparison."""
    library = small_gguf.gguf
    packed = [kind for kind in library.GGMLQuantizationType if library.GGML_QUANT_SIZES[kind][0] > 1]
    chance = np.random.default_rng(0)
    writer = library.GGUFWriter(tmp_path / "types.gguf", "llama")
    for kind in packed:
        _block, size = library.GGML_QUANT_SIZES[kind]
        writer.add_tensor(kind.name, chance.integers(0, 256, (3, 2 * size), dtype=np.uint8), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file, compared = GGUFFile(tmp_path / "types.gguf"), []
    for tensor in library.GGUFReader(tmp_path / "types.gguf").tensors:
        try:
            with np.errstate(all="ignore"):
                expected = library.quants.dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError:
            with pytest.raises(BadRequest, match=rf"{tensor.name}: '{tensor.name}'"):
                file.require_readable([tensor.name])
            continue
        file.require_readable([tensor.name])
        np.testing.assert_array_equal(file.read(tensor.name), expected)
        compared.append(tensor.name)
    assert {"Q4_K", "Q6_K", "IQ4_XS", "TQ2_0", "Q5_0"} <= set(compared)


def split(pre: str) -> Any:
    """The pre-tokenizer of the published tokenizer.json of GPT-2, SmolLM2 and Llama 3."""
    pre_tokenizers = tokenizers.pre_tokenizers
    words = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    llama3 = words + r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    return {
        "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
        "smollm": pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        ),
        "llama-bpe": pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(tokenizers.Regex(llama3), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        ),
    }[pre]


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "llama-bpe"])
def test_a_gguf_files_tokenizer_has_the_ids_of_the_original(pre: str, small_gguf: ModuleType, tmp_path: Path) -> None:
    """A library tokenizer is trained with the published way of cutting words, written to GGUF, and rebuilt."""
    original = tokenizers.Tokenizer(tokenizers.models.BPE(ignore_merges=pre == "llama-bpe"))
    original.pre_tokenizer = split(pre)
    original.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY - 1,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    original.train_from_iterator([text + " 1984 1984 12345 the cat the café" for text in TEXTS * 20], trainer)
    original.add_tokens([tokenizers.AddedToken("user defined", normalized=False)])
    model = theirs(tied=True)
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items() if "lm_head" not in name}
    document = json.loads(original.to_str())
    path = tmp_path / "m.gguf"
    small_gguf.write(
        path, model.config.to_dict(), tensors, document, pre=pre, template=TEMPLATE, end_of_turn="<|im_end|>"
    )
    ours = source.read(path).tokenizer
    for text in [*TEXTS, "a user defined word", "1984 12345 cafés"]:
        assert ours.encode(text, allow_special=True) == original.encode(text, add_special_tokens=False).ids, text
        assert ours.decode(ours.encode(text)) == text
    assert ours.special["<|im_end|>"] not in ours.encode("<|im_end|>")
    assert ours.end_token == "<|endoftext|>"
    assert (ours.conventions.eos_token, ours.conventions.chat_template) == ("<|im_end|>", TEMPLATE)


@pytest.fixture
def gguf_bytes(saved: Path, small_gguf: ModuleType, tmp_path: Path) -> bytes:
    model = theirs(tied=True)
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items() if "lm_head" not in name}
    document = json.loads((saved / "tokenizer.json").read_text())
    small_gguf.write(tmp_path / "whole.gguf", model.config.to_dict(), tensors, document, kind="Q8_0")
    return (tmp_path / "whole.gguf").read_bytes()


def test_a_gguf_file_cut_off_anywhere_is_one_line(gguf_bytes: bytes, tmp_path: Path) -> None:
    for cut in [*range(0, 40, 3), *np.linspace(40, len(gguf_bytes) - 40, 25, dtype=int)]:
        (tmp_path / "cut.gguf").write_bytes(gguf_bytes[:cut])
        refused(tmp_path / "cut.gguf")


def test_no_byte_of_the_header_can_do_harm(gguf_bytes: bytes, tmp_path: Path) -> None:
    """Counts, lengths, types and offsets become anything: the file is refused or read, quickly, and nothing else."""
    chance = np.random.default_rng(0)
    header = gguf_bytes.index(b"blk.1.ffn_norm.weight") + 60
    messages = []
    for _ in range(300):
        harmed = bytearray(gguf_bytes)
        at = int(chance.integers(4, header))
        width = int(chance.choice([1, 4, 8]))
        harmed[at : at + width] = bytes(chance.integers(0, 256, width, dtype=np.uint8))
        (tmp_path / "harmed.gguf").write_bytes(harmed)
        try:
            source.read(tmp_path / "harmed.gguf")
        except (BadRequest, TokenizerError) as error:
            messages.append(str(error))
    assert len(messages) > 30
    assert not any("\n" in message for message in messages)


def put(content: bytes, name: bytes, skip: int, value: int, width: int) -> bytes:
    """`content` with the integer `skip` bytes after `name` replaced."""
    at = content.index(name) + len(name) + skip
    return content[:at] + value.to_bytes(width, "little") + content[at + width :]


def test_lying_gguf_files_are_one_line(gguf_bytes: bytes, tmp_path: Path) -> None:
    first, last = b"token_embd.weight", b"blk.1.attn_norm.weight"
    dimensions, kind, offset = 4, 4 + 16, 4 + 16 + 4  # of a matrix: rank, two sizes, type, offset
    cases = {
        "not a GGUF file": b"GGML" + gguf_bytes[4:],
        "version 9": gguf_bytes[:4] + (9).to_bytes(4, "little") + gguf_bytes[8:],
        "version 50331648": gguf_bytes[:4] + (3).to_bytes(4, "big") + gguf_bytes[8:],
        "claims 1,152,921,504,606,846,976 entries": gguf_bytes[:8] + (2**60).to_bytes(8, "little") + gguf_bytes[16:],
        "claims 4,611,686,018,427,387,904 entries": put(gguf_bytes, b"tokenizer.ggml.tokens", 8, 2**62, 8),
        "it was cut off": put(gguf_bytes, first, offset, 2**40, 8),
        "lies at 1 with": put(gguf_bytes, first, offset, 1, 8),
        "overlap": put(gguf_bytes, last, 4 + 8 + 4, 0, 8),
        "unknown tensor type 999": put(gguf_bytes, first, kind, 999, 4),
        "packs 256 at a time": put(gguf_bytes, first, kind, 12, 4),  # Q4_K
        "shape (340, 0)": put(gguf_bytes, first, dimensions, 0, 8),
        "has 4294967295 dimensions": put(gguf_bytes, first, 0, 2**32 - 1, 4),
        "unknown type 77": put(gguf_bytes, b"general.architecture", 0, 77, 4),
        "only `llama`": gguf_bytes.replace(b"llama", b"lemma", 1),
    }
    for words, content in cases.items():
        (tmp_path / "lie.gguf").write_bytes(content)
        assert words in refused(tmp_path / "lie.gguf"), words


def test_types_that_cannot_be_read_are_named_with_their_tensors(gguf_bytes: bytes, tmp_path: Path) -> None:
    """I8 takes fewer bytes than Q8_0, so that the file stays whole."""
    content = gguf_bytes
    for name in (b"blk.0.attn_q.weight", b"blk.1.ffn_up.weight"):
        content = put(content, name, 4 + 16, 24, 4)
    (tmp_path / "odd.gguf").write_bytes(content)
    assert "I8: 'blk.0.attn_q.weight', 'blk.1.ffn_up.weight'" in refused(tmp_path / "odd.gguf")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pre": "default"}, "'default'; known are gpt-2, smollm, llama-bpe"),
        ({"pre": "qwen2"}, "'qwen2'"),
        ({"extra": {"llama.rope.scaling.factor": 2.0}}, "llama.rope.scaling.factor=2.0"),
        ({"extra": {"llama.logit_scale": 0.5, "llama.attention.clamp_kqv": 8.0}}, "llama.attention.clamp_kqv=8.0"),
        ({"extra": {"llama.expert_count": 8.0}}, "llama.expert_count=8.0"),
        ({"config": {"head_dim": 8}}, "the config says"),
        ({"more": {"rope_freqs.weight": np.ones(8, np.float32)}}, "unexpected rope_freqs.weight"),
        ({"more": {"blk.0.attn_q.bias": np.ones(64, np.float32)}}, "unexpected blk.0.attn_q.bias"),
        ({"without": "model.layers.1.mlp.up_proj.weight"}, "lack model.layers.1.mlp.up_proj.weight"),
        ({"without": "model.embed_tokens.weight"}, "no token_embd.weight"),
        ({"end_of_turn": None, "types": 1}, "which special token ends a document"),
    ],
)
def test_gguf_models_that_cannot_be_had_are_refused_by_name(
    options: dict[str, Any], words: str, saved: Path, small_gguf: ModuleType, tmp_path: Path
) -> None:
    model = theirs(tied=True)
    options = dict(options)
    left_out = (options.pop("without", None), "lm_head.weight")
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items() if name not in left_out}
    document = json.loads((saved / "tokenizer.json").read_text())
    if options.pop("types", None):
        document["added_tokens"] = []
    config = {**model.config.to_dict(), **options.pop("config", {})}
    small_gguf.write(tmp_path / "m.gguf", config, tensors, document, **options)
    assert words in refused(tmp_path / "m.gguf")


def test_a_part_of_a_head_rotated_is_refused(
    saved: Path, small_gguf: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = theirs(tied=True)
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items() if "lm_head" not in name}
    add = small_gguf.gguf.GGUFWriter.add_rope_dimension_count
    monkeypatch.setattr(
        small_gguf.gguf.GGUFWriter, "add_rope_dimension_count", lambda self, count: add(self, count // 2)
    )
    document = json.loads((saved / "tokenizer.json").read_text())
    small_gguf.write(tmp_path / "m.gguf", model.config.to_dict(), tensors, document)
    assert "llama.rope.dimension_count=8" in refused(tmp_path / "m.gguf")


def edit(directory: Path, **settings: Any) -> None:
    document = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**document, **settings}))


def flip(directory: Path) -> None:
    file = directory / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[0:8] = (2**62).to_bytes(8, "little")
    file.write_bytes(content)


def shorten(directory: Path) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def pickled(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


def escape(directory: Path) -> None:
    (directory / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../model.safetensors"}}')


def no_map(directory: Path) -> None:
    (directory / "model.safetensors.index.json").write_text('{"weight_map": 7}')


def long_tokenizer(directory: Path) -> None:
    Tokenizer.load(directory).add_tokens([f"<{i}>" for i in range(VOCABULARY)]).save(directory)


HARMS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (lambda d: (d / "config.json").unlink(), "no config.json"),
    "config is a list": (lambda d: (d / "config.json").write_text("[]"), "holds list"),
    "config is nothing": (lambda d: (d / "config.json").write_text("{"), "not valid JSON"),
    "config is deep": (lambda d: (d / "config.json").write_text("[" * 10**5), "not valid JSON"),
    "bias": (lambda d: edit(d, attention_bias=True), "attention_bias=True"),
    "terabytes": (lambda d: edit(d, hidden_size=2**30), "the config says"),
    "layers": (lambda d: edit(d, num_hidden_layers=4000), "lack model.layers.10."),
    "another model": (lambda d: edit(d, model_type="bert"), "model_type 'bert'"),
    "a checkpoint": (lambda d: edit(d, format_version=1, model={}), "checkpoint of this program"),
    "weights flipped": (flip, "not a readable safetensors file"),
    "weights cut off": (shorten, "not a readable safetensors file"),
    "pickled": (pickled, "never read"),
    "escape": (escape, "no such file"),
    "no map": (no_map, "weight_map"),
    "no tokenizer": (lambda d: (d / "tokenizer.json").unlink(), "no tokenizer.json"),
    "bad tokenizer": (lambda d: (d / "tokenizer.json").write_text("{}"), "not a BPE tokenizer.json"),
    "long tokenizer": (long_tokenizer, "do not belong together"),
}


@pytest.mark.parametrize("harm", HARMS)
def test_hostile_directories_are_one_line(harm: str, saved: Path, tmp_path: Path) -> None:
    directory = copied(saved, tmp_path / "copy")
    change, words = HARMS[harm]
    change(directory)
    assert words in refused(directory)


def test_what_is_not_there_is_one_line(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no such file or directory" in refused(tmp_path / "nowhere")
    assert f"give the folder it is in, {saved}" in refused(saved / "config.json")
    for argv in ([], ["a", "b"]):
        with pytest.raises(BadRequest, match="one GGUF file or model directory"):
            run_app(monkeypatch, *argv)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(RunError, match="not a run"):
        run_app(monkeypatch, str(saved), "--out", str(tmp_path / "taken"))


def test_training_goes_on_from_an_imported_run(
    saved: Path, tmp_path: Path, sessions: Sessions, monkeypatch: pytest.MonkeyPatch, tiny_recipe: Path
) -> None:
    """With no recipe named it is the run's own, also after the run has moved; chat template and turn end go along."""
    out, moved, trained, other = (tmp_path / "runs" / name for name in ("imported", "moved", "trained", "other"))
    assert run_app(monkeypatch, str(saved), "--out", str(out)) == 0
    assert run_app(monkeypatch, str(saved), "--out", str(other)) == 0
    out.rename(moved)
    settings = {
        "data.sources": f"[{{kind: files, path: {tiny_recipe.parent / 'text.txt'}, separator: '###'}}]",
        "data.cache": str(tmp_path / "data"),
        "data.sequence_length": "64",
        "data.validation": "0.1",
        "train.steps": "4",
        "train.validate_every": "1",
        "optim.learning_rate": "1e-2",
        "optim.schedule.warmup": "1",
        "sample.max_new_tokens": "4",
    }
    short = [word for key, value in settings.items() for word in (f"--{key}", value)]
    argv = ["--init-from", str(moved), "--out", str(trained), *short]
    first, resumed = sessions([{"argv": argv}, {"argv": ["--resume", str(other)]}])
    assert first.codes == [0], first.err
    assert "since the recipe's is gone" in first.out
    losses = [row["val_loss"] for row in map(json.loads, (trained / "metrics.jsonl").open()) if "val_loss" in row]
    assert losses[-1] < losses[0]
    kept = Tokenizer.load(run_record.checkpoint_of(trained)).conventions
    assert (kept.chat_template, kept.eos_token) == (TEMPLATE, "<|im_end|>")
    assert json.loads((trained / "status.json").read_text())["lineage"][0]["event"] == "init-from"
    assert resumed.codes == [2]
    assert "start from them with --init-from" in resumed.err


def test_the_recipe_of_a_run_is_that_of_its_weights(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "runs" / "imported"
    run_app(monkeypatch, str(saved), "--out", str(out))
    for origin in (out, run_record.checkpoint_of(out)):
        request = command_line.parse("pretrain", ["--init-from", str(origin), "--train.steps", "7"])
        assert request.recipe_name == "imported-continued"
        assert request.recipe.model.dim == SIZES["hidden_size"]
        assert request.recipe.train.steps == 7
    request = command_line.parse("pretrain", ["--init-from", str(out), "--recipe", "demo"])
    assert request.recipe_name == "demo"
