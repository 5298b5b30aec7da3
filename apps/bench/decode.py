"""`uv run apps/bench decode RUN`: what a trained model saves in decoding, and whether its text stays the same.

Prompts are the beginnings of held-out rows of the run's data, continued greedily one at a time, each way in turns with plain
decoding; ratios are taken within a round. Measured is what the model has: guesses of an `mtp` head, checked in one pass; tokens
that leave early (`routing: early_exit`) at several thresholds; the vocabulary skipped while a `jepa` head's prediction
stands still, at several thresholds. `as plain` is the share of the new tokens that plain decoding would have said after the
same text, `same texts` the share of prompts whose whole continuation is plain decoding's.
"""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import tinycore
import tinydata
from apps.bench import results
from apps.bench.rounds import alternate, ratio, spread
from apps.common import allocator, checkpoints, command_help, recipes, recursion, run_record, tasks
from apps.common.command_line import HELP, Grammar, Option, take_apart
from apps.common.console import Console
from apps.common.data import Prepared
from apps.common.data_config import TextData
from apps.common.errors import BadRequest
from apps.common.markdown import table
from apps.common.overrides import Override
from tinycore import Decoder, Selective
from tinycore.generation import speculative

OPTIONS = {
    "prompts": Option("held-out rows whose beginning is continued (default: 16)", "N"),
    "prompt": Option("continue this text instead", "TEXT"),
    "tokens": Option("new tokens of each (default: 96)", "N"),
    "rounds": Option("rounds that are timed (default: 5)", "N"),
    "json": Option("write the figures to a file", "FILE"),
    "help": HELP,
}
EXAMPLES = (
    ("a run with an mtp head", "uv run apps/bench decode runs/mtp --json decode.json"),
    ("on text that it can foresee", 'uv run apps/bench decode runs/mtp --prompt "Once upon a time"'),
)
PROMPT = 32  # tokens
LEAVING = (0.3, 0.5, 0.7, 0.9, 0.97, 0.99)
STANDING = (0.0, 0.1, 0.3, 0.6)
PLAIN = "plain"


@dataclass(frozen=True)
class Way:
    """One way of decoding: prompt -> new ids; `saved` says what of the work was not done for these prompts and texts."""

    decode: Callable[[list[int]], list[int]]
    saved: Callable[[list[list[int]], list[list[int]]], str] = lambda prompts, texts: ""


def main(argv: Sequence[str]) -> int:
    """Measure what `argv` asks for, print it and write it down; the exit status."""
    arguments = take_apart(argv, Grammar(OPTIONS, words="RUN"))
    if "help" in arguments.options:
        command_help.print_app_help("bench", __doc__ or "", "decode", OPTIONS, EXAMPLES)
        return 0
    if len(arguments.words) != 1:
        raise BadRequest("give one run or checkpoint, such as runs/demo")
    count, tokens = arguments.whole("prompts", 16), arguments.whole("tokens", 96)
    repeats, console = arguments.whole("rounds", 5), Console()
    model, prompts = load(Path(arguments.words[0]), count, tokens, arguments.options.get("prompt"), console)
    allocator.keep_freed_memory()
    ways = ways_of(model, tokens)
    if len(ways) == 1:
        raise BadRequest(
            f"{arguments.words[0]}: has no mtp or jepa head and no early exit; all there is to measure is apps/bench generate"
        )
    found = measure(model, ways, prompts, repeats)
    settings = {
        "prompts": [len(prompt) for prompt in prompts],
        "tokens": tokens,
        "rounds": repeats,
        "threads": torch.get_num_threads(),
    }
    console.say("\n" + markdown(found, settings))
    target = arguments.path("json")
    if target is not None:
        results.write(target, shlex.join(["uv", "run", "apps/bench", "decode", *argv]), {**settings, "ways": found})
    return 0


def load(
    run: Path, count: int, tokens: int, text: str | bool | None, console: Console
) -> tuple[Decoder, list[list[int]]]:
    """The run's model, and `text`, or else the beginnings of `count` rows that it was not trained on."""
    checkpoint = run_record.checkpoint_of(run)
    progress, _ = checkpoints.read_progress(checkpoint)
    recipe = recipes.from_dict(progress.recipe)
    if not isinstance(recipe.data, TextData):
        raise BadRequest(f"{checkpoint}: was not trained on text")
    if PROMPT + tokens > recipe.model.max_seq_len:
        raise BadRequest(
            f"--tokens: {tokens} and a prompt of {PROMPT} exceed the context of {recipe.model.max_seq_len} tokens"
        )
    model = checkpoints.load_model(checkpoint).eval()
    if isinstance(text, str):
        tokenizer = tinydata.Tokenizer.load(checkpoint / "tokenizer.json")
        return model, [[tokenizer.end_id, *tokenizer.encode(text)][:PROMPT]]
    prepared = tasks.prepare(recipe, console)
    assert isinstance(prepared, Prepared)
    loader = tinydata.Loader(prepared.validation, sequence_length=recipe.data.positions, batch_size=count)
    rows = next(iter(loader.epoch_batches(count))).tokens[:, :PROMPT]
    return model, [row.tolist() for row in rows]


def ways_of(model: Decoder, tokens: int) -> dict[str, Way]:
    """Every way in which `model` can be decoded, plain first."""
    routing, heads = model.config.routing, model.config.heads
    leaves = routing is not None and "threshold" in routing.adjustable
    plain = _at(model, 1.0) if leaves else model
    found = {PLAIN: Way(_greedy(plain, tokens))}
    if "mtp" in heads:
        found["speculative"] = _speculative(plain, tokens)
    for threshold in LEAVING if leaves else ():
        found[f"early exit at {threshold:g}"] = _leaving(_at(model, threshold), tokens)
    for threshold in STANDING if "jepa" in heads else ():
        found[f"selective at {threshold:g}"] = _selective(plain, threshold, tokens)
    return found


def measure(model: Decoder, ways: dict[str, Way], prompts: list[list[int]], repeats: int) -> dict[str, Any]:
    """Speed of each way, and how its texts stand to plain ones."""
    texts = {name: [way.decode(prompt) for prompt in prompts] for name, way in ways.items()}
    saved = {name: way.saved(prompts, texts[name]) for name, way in ways.items()}
    seconds = alternate(
        {name: lambda way=way: [way.decode(prompt) for prompt in prompts] for name, way in ways.items()}, repeats
    )
    leaves = model.config.routing is not None and "threshold" in model.config.routing.adjustable
    judge = _at(model, 1.0) if leaves else model
    found = {}
    for name in ways:
        made = sum(map(len, texts[name]))
        agreeing = sum(_as_plain(judge, prompt, text) for prompt, text in zip(prompts, texts[name], strict=True))
        found[name] = {
            "tokens_per_second": spread([made / each for each in seconds[name]]).to_dict(),
            "ratio": ratio(seconds[PLAIN], seconds[name]).to_dict(),
            "as_plain": agreeing / made,
            "same_texts": statistics.fmean(a == b for a, b in zip(texts[name], texts[PLAIN], strict=True)),
            "saved": saved[name],
        }
    return found


@torch.inference_mode()
def _as_plain(model: Decoder, prompt: list[int], text: list[int]) -> int:
    """How many tokens of `text` are the likeliest after those before them."""
    logits = model(torch.tensor([[*prompt, *text[:-1]]])).logits[0, len(prompt) - 1 :]
    return int((logits.argmax(-1) == torch.tensor(text)).sum())


def _at(model: Decoder, threshold: float) -> Decoder:
    return recursion.at(model, [Override(("model", "routing", "threshold"), threshold)])


def _greedy(model: Decoder, tokens: int, **settings: Any) -> Callable[[list[int]], list[int]]:
    def decode(prompt: list[int]) -> list[int]:
        return tinycore.generate(model, [prompt], max_new_tokens=tokens, temperature=0.0, **settings)[0][0].ids

    return decode


def _speculative(model: Decoder, tokens: int) -> Way:
    spent = [0, 0]  # passes, tokens

    def decode(prompt: list[int]) -> list[int]:
        session = speculative.begin(model, tokens)
        found = speculative.tokens_of(session, prompt)
        ids = [next(found)[0] for _ in range(tokens)]
        spent[0], spent[1] = spent[0] + session.passes, spent[1] + tokens
        return ids

    return Way(decode, lambda prompts, texts: f"{spent[1] / spent[0]:.2f} tokens a pass")


def _leaving(model: Decoder, tokens: int) -> Way:
    calls = len(model.config.call_sites())

    @torch.inference_mode()
    def saved(prompts: list[list[int]], texts: list[list[int]]) -> str:
        """From whole rows, which is the same: a token's calls follow from the tokens before it."""
        shares = []
        for prompt, text in zip(prompts, texts, strict=True):
            steps = model(torch.tensor([[*prompt, *text[:-1]]])).values["steps"][0, len(prompt) - 1 :]
            shares += (steps / calls).tolist()
        return f"{100 * (1 - statistics.fmean(shares)):.0f} % of the calls"

    return Way(_greedy(model, tokens), saved)


def _selective(model: Decoder, threshold: float, tokens: int) -> Way:
    spent = [0, 0]  # skipped, tokens

    def decode(prompt: list[int]) -> list[int]:
        ((row,),) = tinycore.generate(
            model, [prompt], max_new_tokens=tokens, temperature=0.0, selective=Selective(threshold)
        )
        spent[0], spent[1] = spent[0] + row.skipped, spent[1] + len(row.ids)
        return row.ids

    return Way(decode, lambda prompts, texts: f"{100 * spent[0] / spent[1]:.0f} % of the products with the vocabulary")


def markdown(found: dict[str, Any], settings: dict[str, Any]) -> str:
    """One row for each way."""
    rows = []
    for name, entry in found.items():
        times = entry["ratio"]
        rows.append(
            [
                name,
                f"{entry['tokens_per_second']['median']:,.0f}",
                f"{times['median']:.2f} ({times['least']:.2f} to {times['most']:.2f})",
                f"{100 * entry['as_plain']:.1f} %",
                f"{100 * entry['same_texts']:.0f} %",
                entry["saved"],
            ]
        )
    text = (
        f"Prompts: {len(settings['prompts'])}, each continued by {settings['tokens']} tokens, one at a time, greedily, "
        f"float32, {settings['threads']} threads; median (least to most) of {settings['rounds']} rounds."
    )
    return f"{text}\n\n{table(['way', 'tok/s', 'x plain', 'as plain', 'same texts', 'saved'], rows)}"
