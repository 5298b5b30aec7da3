"""One model of `apps/bench scratchpads`: it is trained on short problems in one form and asked for longer ones."""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import torch

import tinycore
from apps.common.errors import TrainingFailed
from apps.common.generator import ModelGenerator
from tinycore.optim.groups import adamw
from tinydata import Document, EncodedProblem, ProblemLoader, Tokenizer, encode_parts, encode_problems, train_tokenizer
from tinydata.special_tokens import SPECIAL_TOKENS
from tinydata.synthetic import noted_stories, scratchpads
from tinydata.synthetic.noted_stories import NotedStory
from tinydata.synthetic.scratchpads import Worked
from tinyreason import Generator, Spent
from tinyreason.test_time import Noted, Pad, Scratchpad, inductive_many, plain_many, self_notes_many

FORMS = {
    "addition": scratchpads.FORMS,
    "parity": scratchpads.FORMS,
    "sorting": scratchpads.FORMS,
    "notes": ("direct", "notes"),
}
LEARNED = {"addition": (1, 4), "parity": (1, 4), "sorting": (1, 4), "notes": (2, 6)}  # digits, bits, numbers, sentences
TIMES = (1, 2, 4, 6)  # the longest learned
POSITIONS = ("rope", "none", "mixed")

DIM, HEADS, HIDDEN, LAYERS = 64, 4, 176, 2
ROWS, LENGTH, CONTEXT = 8, 128, 2048
WARMUP, DECAY = 50, 0.3
WINDOW = 8
POOL = 10_000  # problems that are learned from
WORDS = 100  # tokens of the stories' tokenizer beyond bytes and special ones; the other tasks' has none
TEST_SEED = 1_000_000
PAD = Pad(mark=scratchpads.MARK, done=scratchpads.DONE)


class Trial:
    """`settings`: of the benchmark, see `scratchpads.main`."""

    def __init__(self, task: str, form: str, seed: int, settings: dict[str, Any]) -> None:
        self.task, self.form, self.seed, self.settings = task, form, seed, settings
        self.longest = LEARNED[task][1]

    def run(self) -> dict[str, Any]:
        """Train and ask; the cell's figures."""
        tests = {times: self._test(times * self.longest) for times in TIMES}
        held_out = {_key(problem) for problems in tests.values() for problem in problems}
        drawn = (problem for problem in self._draw(self.seed, LEARNED[self.task]) if _key(problem) not in held_out)
        problems = list(itertools.islice(drawn, POOL))
        texts = self._encoded(problems)
        config = config_of(self.tokenizer.vocab_size, self.settings["positions"])
        torch.manual_seed(self.seed)
        model = tinycore.build(config)
        trained = self._train(model, texts)
        generator = ModelGenerator(model, self.tokenizer, trusted=self.task == "notes")
        return {
            "parameters": tinycore.count(config).parameters,
            **trained,
            "asked": {str(times): self._asked(generator, tests[times], times) for times in TIMES},
        }

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The same for all forms and seeds of a task."""
        stories = itertools.islice(noted_stories.noted_stories(TEST_SEED + 1, LEARNED["notes"]), 500)
        documents = [
            Document("".join(text for text, _ in story.parts(True)), "notes", allow_special=True) for story in stories
        ]
        words = WORDS if self.task == "notes" else 0
        return train_tokenizer(documents, 256 + len(SPECIAL_TOKENS) + words)

    def _draw(self, seed: int, sizes: tuple[int, int]) -> Iterator[Any]:
        if self.task == "notes":
            return noted_stories.noted_stories(seed, sizes)
        return scratchpads.scratchpads(self.task, seed, sizes)

    def _test(self, size: int) -> list[Any]:
        """Different problems of one size."""
        found: dict[str, Any] = {}
        for problem in self._draw(TEST_SEED, (size, size)):
            found.setdefault(_key(problem), problem)
            if len(found) == self.settings["problems"]:
                break
        return list(found.values())

    def _encoded(self, problems: Sequence[Any]) -> list[EncodedProblem]:
        if self.task == "notes":
            return [encode_parts(problem.parts(self.form == "notes"), self.tokenizer) for problem in problems]
        pairs = [pair for problem in problems for pair in problem.pairs(self.form)]
        return encode_problems(pairs, self.tokenizer)

    def _train(self, model: tinycore.Decoder, texts: list[EncodedProblem]) -> dict[str, Any]:
        loader = ProblemLoader(texts, self.tokenizer, LENGTH, ROWS, seed=self.seed, prefetch=0, packed=True)
        rate, total = self.settings["rate"], self.settings["steps"]
        optimizer, objective = adamw(model, rate, (0.9, 0.98)), tinycore.objectives.of(model.config)
        loss, filled, learned, began = math.nan, 0, 0, time.monotonic()
        for step, batch in enumerate(itertools.islice(loader, total), 1):
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, step / WARMUP, max(0.02, (total - step) / (DECAY * total)))
            tokens, targets, documents = map(torch.from_numpy, (batch.tokens, batch.targets, batch.documents))
            losses, _ = next(objective(model, tokens, targets, documents))
            value, count = losses["lm"]
            mean = value / count
            optimizer.zero_grad()
            mean.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            loss = float(mean.detach())
            if not math.isfinite(loss):
                raise TrainingFailed(f"the loss at step {step} is {loss}")
            filled += int((batch.documents >= 0).sum())
            learned += batch.target_count
        return {
            "texts": len(texts),
            "rows_of_an_epoch": loader.rows,
            "tokens": total * ROWS * LENGTH,
            "tokens_not_padding": filled,
            "targets": learned,
            "loss": loss,
            "seconds": time.monotonic() - began,
        }

    def _asked(self, generator: Generator, problems: list[Any], times: int) -> dict[str, Any]:
        began = time.monotonic()
        ask: Callable[..., list[tuple[str | None, str, Spent]]] = _stories if self.task == "notes" else _pads
        found = ask(generator, problems, self.form)
        right = sum(answer == problem.answer for (answer, _, _), problem in zip(found, problems, strict=True))
        count = len(problems)
        share = right / count
        return {
            "size": times * self.longest,
            "n": count,
            "right": right,
            "accuracy": share,
            "standard_error": math.sqrt(share * (1 - share) / count),
            "ended": dict(sorted(Counter(ended for _, ended, _ in found).items())),
            "tokens_written": sum(spent.tokens for _, _, spent in found) / count,
            "seconds": time.monotonic() - began,
        }


def _key(problem: Worked | NotedStory) -> str:
    return problem.question if isinstance(problem, Worked) else "".join((*problem.sentences, problem.question))


def _pads(generator: Generator, problems: list[Worked], form: Any) -> list[tuple[str | None, str, Spent]]:
    # room for half as much again as is right: what is longer is wrong
    room = 8 + max(3 * len(written) // 2 for problem in problems for _, written in problem.pairs(form))
    found: list[Scratchpad]
    if form == "inductive":
        found = inductive_many(
            generator,
            [problem.question for problem in problems],
            [problem.states[0] for problem in problems],
            PAD,
            join=lambda question, state: f"{question}{state}{scratchpads.MARK}",
            max_steps=8 + max(3 * len(problem.states) // 2 for problem in problems),
            max_tokens=room,
        )
    else:
        found = plain_many(generator, [problem.prompt(form) for problem in problems], PAD, max_tokens=room)
    return [(pad.answer, pad.ended, pad.spent) for pad in found]


def _stories(generator: Generator, problems: list[NotedStory], form: str) -> list[tuple[str | None, str, Spent]]:
    most = max(len(problem.sentences) for problem in problems) if form == "notes" else 0
    texts = [(problem.sentences, problem.question) for problem in problems]
    found: list[Noted] = self_notes_many(
        generator, texts, tags=noted_stories.TAGS, behind="\n", note_tokens=24, max_notes=most, max_tokens=8
    )
    return [(noted.answer.text.strip(), noted.answer.finish, noted.spent) for noted in found]


def config_of(vocab_size: int, positions: str) -> tinycore.ModelConfig:
    """The one architecture. mixed: layers in turn see the last few tokens by RoPE, and all of them without positions, so that
    no distance is met that was not learned."""
    near = {"kind": "attention", "heads": HEADS, "qk_norm": True}
    far = {**near, "rotary": 0}
    mixers = {"rope": [near], "none": [far], "mixed": [{**near, "window": WINDOW}, far]}[positions]
    layers = [{"mixer": mixer, "ffn": {"kind": "swiglu", "hidden": HIDDEN}} for mixer in mixers]
    return tinycore.ModelConfig.from_dict(
        {
            "vocab_size": vocab_size,
            "dim": DIM,
            "max_seq_len": CONTEXT,
            "layers": [{"repeat": LAYERS // len(layers), "layers": layers}],
            "embed": {"scale": DIM**0.5},
        }
    )
