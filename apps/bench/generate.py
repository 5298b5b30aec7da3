"""`uv run apps/bench generate`: decoded tokens per second beside `generate` of transformers, same weights, one process.

Three tasks: one prompt; 16 prompts of different lengths; 16 samples of one prompt at temperature 1. Before any time is
taken, both must decode the same ids greedily. Times hold everything a call does: packing, prompts, decoding.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

import tinycore
from apps.bench import peer, results, rounds
from apps.common import recipes
from apps.common.command_line import HELP, Grammar, Option, take_apart
from apps.common.errors import BadRequest, TrainingFailed
from apps.common.markdown import table

OPTIONS = {
    "recipe": Option("model to decode with, freshly initialised (default: brandon-10m)", "NAME|FILE"),
    "tokens": Option("new tokens of each row (default: 128)", "N"),
    "rounds": Option("rounds to time (default: 7)", "N"),
    "json": Option("also write the figures there", "FILE"),
    "help": HELP,
}
ROWS = 16
PROMPT = 32  # tokens of the longest prompt


class Task(NamedTuple):
    """Prompts, samples of each, and the temperature of what is timed."""

    name: str
    prompts: list[list[int]]
    n: int
    temperature: float


def main(argv: Sequence[str]) -> int:
    """Compare the texts, then the times; the exit status."""
    arguments = take_apart(argv, Grammar(OPTIONS))
    if "help" in arguments.options:
        sys.stdout.writelines(f"  --{name:<8} {option.help}\n" for name, option in OPTIONS.items())
        return 0
    name = arguments.text("recipe", "brandon-10m")
    count, repeats = arguments.whole("tokens", 128), arguments.whole("rounds", 7)
    config = recipes.load(name).model
    if count + PROMPT > config.max_seq_len:
        raise BadRequest(f"--tokens: {count} and a prompt of {PROMPT} exceed the context of {config.max_seq_len}")
    torch.manual_seed(0)
    ours = tinycore.build(config).eval()
    theirs = peer.build(ours).eval()
    figures: dict[str, Any] = {}
    rows = []
    for task in tasks(config.vocab_size):
        same_texts(ours, theirs, task, count)
        calls: dict[str, Callable[[], object]] = {
            "transformers": lambda task=task: decode_theirs(theirs, task, task.temperature, count),
            "tinycore": lambda task=task: decode_ours(ours, task, task.temperature, count),
        }
        seconds = rounds.alternate(calls, repeats)
        decoded = len(task.prompts) * task.n * count
        speed = {key: rounds.spread([decoded / second for second in times]) for key, times in seconds.items()}
        times = rounds.ratio(seconds["transformers"], seconds["tinycore"])
        figures[task.name] = {
            **{key: found.to_dict() for key, found in speed.items()},
            "ratio": times.to_dict(),
            "seconds": seconds,
        }
        rows.append([task.name, speed["tinycore"].shown(".0f"), speed["transformers"].shown(".0f"), times.shown()])
    head = ("decoded tokens/s, float32", "tinycore", "transformers (sdpa, dynamic cache)", "ratio")
    sys.stdout.write(table(head, rows) + "\n")
    path = arguments.path("json")
    if path is not None:
        command = f"uv run apps/bench generate --recipe {name} --tokens {count} --rounds {repeats}"
        results.write(Path(path), command, {"recipe": name, "new_tokens": count, "tasks": figures})
    return 0


def tasks(vocab_size: int) -> list[Task]:
    """What is decoded; the prompts are random ids, always the same."""
    generator = torch.Generator().manual_seed(1)

    def prompt(length: int) -> list[int]:
        return torch.randint(vocab_size, (length,), generator=generator).tolist()

    many = [prompt(PROMPT - row) for row in range(ROWS)]
    return [
        Task("1 prompt, greedy", [prompt(PROMPT)], 1, 0.0),
        Task(f"{ROWS} prompts, greedy", many, 1, 0.0),
        Task(f"{ROWS} samples of 1 prompt", [prompt(PROMPT)], ROWS, 1.0),
    ]


def decode_ours(model: tinycore.Decoder, task: Task, temperature: float, count: int) -> list[list[int]]:
    """New ids of every row."""
    found = tinycore.generate(model, task.prompts, max_new_tokens=count, temperature=temperature, n=task.n)
    return [row.ids for samples in found for row in samples]


def decode_theirs(model: Any, task: Task, temperature: float, count: int) -> list[list[int]]:
    """New ids of every row, from prompts padded on the left."""
    longest = max(map(len, task.prompts))
    tokens = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in task.prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in task.prompts])
    sampling: dict[str, Any] = {"do_sample": False}  # greedily there is one text of a prompt, and they refuse more
    if temperature:
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "num_return_sequences": task.n}
    found = model.generate(
        tokens,
        attention_mask=mask,
        max_new_tokens=count,
        min_new_tokens=count,
        pad_token_id=0,
        use_cache=True,
        **sampling,
    )
    return found[:, longest:].tolist()


def same_texts(ours: tinycore.Decoder, theirs: Any, task: Task, count: int) -> None:
    """TrainingFailed unless both decode the same ids greedily, once for each prompt."""
    task = task._replace(n=1)
    pairs = zip(decode_ours(ours, task, 0.0, count), decode_theirs(theirs, task, 0.0, count), strict=True)
    for row, (own, other) in enumerate(pairs):
        if own != other:
            at = next(
                (i for i, (a, b) in enumerate(zip(own, other, strict=False)) if a != b), min(len(own), len(other))
            )
            raise TrainingFailed(f"{task.name}: greedy ids of row {row} differ from transformers' at new token {at}")
