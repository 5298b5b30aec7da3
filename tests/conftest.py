"""Fixtures of the run tests: a recipe that trains in a second, and a runner of whole pretraining sessions."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DRIVER = Path(__file__).parent / "drivers" / "pretrain.py"
SMALL_GGUF = Path(__file__).parent / "drivers" / "small_gguf.py"
WORDS = [
    "the",
    "cat",
    "dog",
    "sat",
    "on",
    "a",
    "mat",
    "and",
    "ran",
    "to",
    "its",
    "red",
    "house",
    "while",
    "bird",
    "song",
    "rose",
    "over",
    "green",
    "hills",
    "by",
    "an",
    "old",
    "river",
]

RECIPE = """
description: a model of 28,832 parameters
model:
  vocab_size: null
  dim: 32
  max_seq_len: 64
  layers:
    - repeat: 2
      mixer: {{kind: attention, heads: 2, kv_heads: 1}}
      ffn: {{kind: swiglu, hidden: 64}}
data:
  sources: [{{kind: files, path: {text}, separator: "###"}}]
  tokenizer: {{kind: train, vocab_size: 320}}
  sequence_length: 64
  validation: 0.1
  test: 0.0
  cache: {cache}
optim: {{kind: adamw, learning_rate: 1.0e-2, schedule: {{kind: wsd, warmup: 2}}}}
train: {{steps: 12, batch_size: 8, micro_batch: 4, precision: fp32, log_every: 1, validate_every: 3, validate_rows: 8,
        save_every: 4, sample_every: 6}}
sample: {{prompts: ["the "], max_new_tokens: 5}}
"""


@dataclass(frozen=True)
class Result:
    """How a session ended: the exit code of each process (negative: killed by that signal), and what it printed."""

    codes: list[int]
    out: str
    err: str
    seconds: float

    @property
    def json(self) -> dict[str, Any]:
        """The object that --json makes the last line of stdout."""
        return json.loads(self.out.splitlines()[-1])


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe file; its data is prepared once and shared by all tests of the session."""
    folder = tmp_path_factory.mktemp("tiny")
    chance = random.Random(0)
    documents = [" ".join(chance.choices(WORDS, k=chance.randrange(4, 40))) + "." for _ in range(600)]
    (folder / "text.txt").write_text("\n###\n".join(documents))
    recipe = folder / "tiny.yaml"
    recipe.write_text(RECIPE.format(text=folder / "text.txt", cache=folder / "data"))
    return recipe


@pytest.fixture(scope="session")
def sessions() -> Iterator[Callable[[Sequence[dict[str, Any]]], list[Result]]]:
    """Runs jobs (see drivers/pretrain.py) one after another, each in processes of its own."""
    driver: subprocess.Popen[str] | None = None

    def run(jobs: Sequence[dict[str, Any]]) -> list[Result]:
        nonlocal driver
        if driver is None:  # torch is imported once, by the first test that needs it
            driver = subprocess.Popen(
                [sys.executable, str(DRIVER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                text=True,
            )
        results = []
        for job in jobs:
            print(json.dumps(job), file=driver.stdin, flush=True)
            results.append(Result(**json.loads(driver.stdout.readline())))  # ty: ignore[missing-union-attribute]
        return results

    yield run
    if driver is not None:
        driver.communicate()


@pytest.fixture(scope="session")
def small_gguf() -> ModuleType:
    """The module that writes GGUF files."""
    spec = importlib.util.spec_from_file_location("small_gguf", SMALL_GGUF)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
