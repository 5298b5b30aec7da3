"""Claim: every command of the README works as written.

The commands run in the order of the page, from the root of the tree, shortened by documented options and with their runs
and data in a temporary folder. `uv run pytest -n 2` is what runs this test, and is left out.

Run: uv run pytest tests/test_readme.py
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tinydata import Document, train_tokenizer

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# a few steps of a smaller model on a small part of the embedded corpus
SHORT = shlex.split(
    "--data.sources '[{kind: embedded, parts: [stories], documents: 200}]' --train.steps 3 --train.batch_size 4 "
    "--train.validate_rows 8 --sample.max_new_tokens 8 --model.dim 16 --model.layers.0.mixer.heads 2 "
    "--model.layers.0.mixer.kv_heads 1 --model.layers.0.ffn.hidden 32"
)
BRIEF = {
    "train": shlex.split("--recipe brandon-226k --batch 1 --rounds 1 --skip-compiled --skip-memory"),
    "generate": shlex.split("--recipe brandon-226k --rounds 1 --tokens 16"),
}
FEW = shlex.split(
    "--data.problems 300 --data.exact 2 --data.answer_tokens 4 --train.steps 2 --train.batch_size 2 --train.validate_rows 4 "
    "--sample.max_new_tokens 2"
)
OWN_TEXT = [option for option in SHORT if "embedded" not in option and option != "--data.sources"]


def commands() -> list[str]:
    """The lines of the README's bash blocks, comments removed."""
    blocks = re.findall(r"^```bash\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def shortened(command: str, folder: Path) -> list[str]:
    """The command with this test's interpreter instead of `uv run`, its paths in `folder`, and the options above."""
    words = shlex.split(command)
    assert words[:2] == ["uv", "run"], command
    words = [word.replace("runs/", f"{folder}/runs/") if word.startswith("runs/") else word for word in words[2:]]
    words = [word.replace("my_texts", f"{folder}/my_texts").replace("path/to", str(folder)) for word in words]
    if words[0] == "torchrun":
        words = ["-m", "torch.distributed.run", *words[1:]]
    if "apps/bench" in command:
        return [sys.executable, *words, *BRIEF[words[1]]]
    if "apps/pipeline" in command:
        return [
            sys.executable,
            *words,
            "--recipe",
            str(folder / "pipeline.yaml"),
            "--out",
            f"{folder}/runs/arithmetic-1m",
        ]
    if "apps/evaluate" in command:
        return [sys.executable, *words[:-1], "4", "--max-tokens", "4"]
    if "apps/reason" in command:
        return [sys.executable, *words, "--max-tokens", "4"]
    if "apps/finetune" in command:
        return [sys.executable, *words, *FEW]
    if "--dry-run" in words:
        return [sys.executable, *words]
    if "--minutes" in words:
        words[words.index("--minutes") + 1] = "0.7"
        words[words.index("--size") + 1] = "0.2M"
        small = [*SHORT[:2], "--train.validate_rows", "8", "--sample.max_new_tokens", "8"]
        return [
            sys.executable,
            *words,
            *small,
            "--data.cache",
            str(folder / "data"),
            "--out",
            str(folder / "runs" / "timed"),
        ]
    if "pretrain" in command:
        words += ["--data.cache", str(folder / "data")]
        if "--resume" not in words:
            words += OWN_TEXT if "--data.sources" in words else SHORT
        if "--init-from" in words:  # the model is small already, and has its shape from its weights
            words = words[: words.index("--model.dim")]
        if "--out" not in words and "--resume" not in words:
            words += ["--out", str(folder / "runs" / "demo")]
    return [sys.executable, *words]


def write_model(path: Path, small_gguf: ModuleType) -> None:
    """A random llama with a tokenizer, as a GGUF file."""
    tokenizer = train_tokenizer([Document("what is the capital of France?", "test")] * 3, vocab_size=300)
    tokenizer.save(path.parent / "tokenizer.json")
    document = json.loads((path.parent / "tokenizer.json").read_text())
    config = {
        "num_hidden_layers": 1,
        "max_position_embeddings": 256,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_theta": 10000.0},
        "vocab_size": tokenizer.vocab_size,
    }
    shapes = {"q": (32, 32), "k": (16, 32), "v": (16, 32), "o": (32, 32)}
    parts: dict[str, tuple[int, ...]] = {f"self_attn.{name}_proj": shape for name, shape in shapes.items()}
    parts |= {"mlp.gate_proj": (64, 32), "mlp.up_proj": (64, 32), "mlp.down_proj": (32, 64)}
    parts |= {"input_layernorm": (32,), "post_attention_layernorm": (32,)}
    named = {f"model.layers.0.{name}.weight": shape for name, shape in parts.items()}
    named |= {"model.embed_tokens.weight": (tokenizer.vocab_size, 32), "model.norm.weight": (32,)}
    chance = np.random.default_rng(0)
    tensors = {name: chance.normal(0, 0.1, shape).astype(np.float32) for name, shape in named.items()}
    small_gguf.write(path, config, tensors, document, kind="Q8_0")


def test_the_two_first_commands_are_the_main_job_and_the_tests() -> None:
    assert commands()[:2] == ["uv run apps/pretrain", "uv run pytest -n 2"]


@pytest.mark.timeout(600)
def test_every_command_works_as_written(tmp_path: Path, small_gguf: ModuleType) -> None:
    write_model(tmp_path / "model.gguf", small_gguf)
    (tmp_path / "my_texts").mkdir()
    for index in range(200):
        (tmp_path / "my_texts" / f"{index}.txt").write_text(f"Text number {index}: {'la ' * (index % 7)}end.\n")
    pipeline = (ROOT / "tests" / "drivers" / "tiny_pipeline.yaml").read_text()
    (tmp_path / "pipeline.yaml").write_text(pipeline.replace("CACHE", str(tmp_path / "data")))
    ran = []
    for command in commands():
        if command == "uv run pytest -n 2":
            continue
        words = shortened(command, tmp_path)
        result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=240)
        # a run that is finished says so in one line instead of training again
        finished = "--resume" in command and result.returncode == 2 and "is finished" in result.stderr
        assert result.returncode == 0 or finished, f"{command}\n{result.stdout}\n{result.stderr}"
        ran.append(command)
    assert len(ran) >= 7
    assert (tmp_path / "runs" / "demo" / "report.md").is_file()
    assert (tmp_path / "runs" / "mine" / "recipe.yaml").is_file()
    assert (tmp_path / "runs" / "two" / "metrics.jsonl").is_file()
    assert (tmp_path / "runs" / "smollm2-on" / "report.md").is_file()
    assert (tmp_path / "runs" / "arithmetic-1m" / "report.md").is_file()


def test_every_recipe_and_app_is_in_the_readme() -> None:
    for recipe in (ROOT / "apps" / "recipes").glob("*.yaml"):
        assert f"`{recipe.stem}`" in README, recipe.stem
    for app in (ROOT / "apps").glob("*/__main__.py"):
        assert f"`apps/{app.parent.name}`" in README, app.parent.name
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
