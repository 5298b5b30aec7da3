"""Batched, cached generation.

Prompts of different lengths run as one batch, padded on the left with padding that influences nothing; each distinct
prompt is prefilled once however many samples are drawn from it; rows leave the batch when they finish. A row's text is
a function of the model, its prompt, the seed and the sampling alone (up to the rounding of batched products).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tinycore.generation.rows import Decode, Ending, Finish, Row, RowView, Token
from tinycore.generation.sampling import Sampling, choose, row_key, uniform
from tinycore.generation.selective import Selective
from tinycore.generation.session import Session, begin
from tinycore.generation.speculative import speculate
from tinycore.model import Decoder

# Called once a step with every running row; may return, by index into that list, ids the row must take next.
Hook = Callable[[Sequence[RowView]], Mapping[int, Sequence[int]] | None]


@dataclass(frozen=True)
class Generation:
    """A finished row: new ids (a stop id included), the model's log-probability of each, and why it ended.

    `text` is the decoded new text, cut before the stop string that ended it; None without `decode`. `skipped`: the
    tokens that were chosen among candidates only (`Selective`). `forced`: of each id, whether a hook's and no choice.
    """

    ids: list[int]
    logprobs: list[float]
    finish: Finish
    text: str | None = None
    skipped: int = 0
    forced: list[bool] = field(default_factory=list)


def generate(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    n: int = 1,
    stop: Sequence[int | str] = (),
    decode: Decode | None = None,
    seed: int = 0,
    hooks: Sequence[Hook] = (),
    speculative: bool = False,
    selective: Selective | None = None,
) -> list[list[Generation]]:
    """`n` generations for each prompt (lists of token ids); see `stream` for the arguments and errors."""
    prompts = [list(prompt) for prompt in prompts]
    sampling = Sampling(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=repetition_penalty
    )
    tokens: dict[tuple[int, int], list[Token]] = {(p, s): [] for p in range(len(prompts)) for s in range(n)}
    for token in stream(
        model,
        prompts,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        n=n,
        stop=stop,
        decode=decode,
        seed=seed,
        hooks=hooks,
        speculative=speculative,
        selective=selective,
    ):
        tokens[token.prompt, token.sample].append(token)
    strings = [text for text in stop if isinstance(text, str)]
    return [[_finished(tokens[p, s], strings, decode) for s in range(n)] for p in range(len(prompts))]


def stream(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    n: int = 1,
    stop: Sequence[int | str] = (),
    decode: Decode | None = None,
    seed: int = 0,
    hooks: Sequence[Hook] = (),
    speculative: bool = False,
    selective: Selective | None = None,
) -> Iterator[Token]:
    """Yield tokens as they are made: each step, one per running row, in the rows' order.

    stop: ids that end a row, and strings that end it when its new text contains them (these need `decode`).
    A row also ends after `max_new_tokens` (forced ones included) and at the model's `max_seq_len`.
    hooks: see `Hook`; forced ids are taken one a step, before anything is sampled.
    speculative: a model with an `mtp` head guesses several tokens and checks them in one pass; at temperature 0 only. The
    text is that of plain decoding, up to rounding; rows are decoded one after another.
    selective: a model with a `jepa` head chooses among few tokens while what it predicts stands still; see `Selective`.
    Raises ValueError for an empty prompt, ids outside the vocabulary, a prompt that leaves no room in the context, and
    arguments out of range; nothing is computed then.
    """
    sampling = sampling or Sampling()
    prompts = [list(prompt) for prompt in prompts]
    ids = frozenset(item for item in stop if not isinstance(item, str))
    strings = tuple(item for item in stop if isinstance(item, str))
    ending = Ending(ids, strings, decode, max_new_tokens, model.config.max_seq_len)
    _check(model, prompts, n, ending)
    if speculative:
        _check_speculative(model, sampling, hooks, selective)
        return speculate(model, prompts, n, ending)
    return _run(model, prompts, n, ending, sampling, seed, hooks, selective)


def _run(
    model: Decoder,
    prompts: list[list[int]],
    n: int,
    ending: Ending,
    sampling: Sampling,
    seed: int,
    hooks: Sequence[Hook],
    selective: Selective | None,
) -> Iterator[Token]:
    if not prompts or ending.max_new_tokens == 0:
        return
    training = model.training
    model.eval()
    try:
        occurrences: Counter[tuple[int, ...]] = Counter()
        rows: list[Row] = []
        for p, prompt in enumerate(prompts):
            occurrence = occurrences[tuple(prompt)]
            occurrences[tuple(prompt)] += 1
            rows.extend(Row(p, s, row_key(seed, prompt, occurrence, s), list(prompt), len(prompt)) for s in range(n))
        session = begin(model, len(rows), ending.max_new_tokens, selective)
        logits = _prefill(model, session, prompts, n)
        seen = _seen(rows, logits) if sampling.repetition_penalty != 1.0 else None
        while rows:
            ids, logprobs = _step(logits, seen, sampling, rows)
            running, full = [], session.full
            for index, (row, token, logprob) in enumerate(zip(rows, ids, logprobs, strict=True)):
                forced = bool(row.queue)
                if forced:
                    row.queue.popleft()
                row.ids.append(token)
                ended = ending.of(row)
                if ended is None:
                    running.append(index)
                yield Token(row.prompt, row.sample, token, logprob, forced, ended, full is None or full[index])
            if not running:
                return
            if len(running) < len(rows):
                kept = torch.tensor(running, device=logits.device)
                session.select(kept)
                seen = None if seen is None else seen[kept]
                rows = [rows[index] for index in running]
            _call_hooks(hooks, rows, model.config.vocab_size)
            chosen = torch.tensor([row.ids[-1] for row in rows], device=logits.device)
            if seen is not None:
                seen.scatter_(1, chosen[:, None], True)
            logits = session.step(chosen)
    finally:
        model.train(training)


@torch.inference_mode()
def _prefill(model: Decoder, session: Session, prompts: list[list[int]], n: int) -> Tensor:
    """Run each distinct prompt once, then repeat its logits and state for every row that begins with it."""
    device = next(model.parameters()).device
    distinct = {tuple(prompt): index for index, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
    longest = max(map(len, distinct))
    tokens = torch.zeros(len(distinct), longest, dtype=torch.long)
    valid = torch.zeros(len(distinct), longest, dtype=torch.bool)
    for prompt, index in distinct.items():
        tokens[index, longest - len(prompt) :] = torch.tensor(prompt)
        valid[index, longest - len(prompt) :] = True
    logits = session.prefill(tokens.to(device), None if valid.all() else valid.to(device))
    rows = [distinct[tuple(prompt)] for prompt in prompts for _ in range(n)]
    if rows == list(range(len(distinct))):
        return logits
    index = torch.tensor(rows, device=device)
    session.select(index)
    return logits[index]


@torch.inference_mode()
def _step(logits: Tensor, seen: Tensor | None, sampling: Sampling, rows: list[Row]) -> tuple[list[int], list[float]]:
    """The next id of every row, forced where its queue says so, and its log-probability."""
    greedy = sampling.temperature == 0
    uniforms = [] if greedy else [uniform(row.key, len(row.ids) - row.start) for row in rows]
    ids, logprobs = choose(logits, seen, sampling, uniforms)
    if any(row.queue for row in rows):
        ids = torch.tensor(
            [row.queue[0] if row.queue else int(i) for row, i in zip(rows, ids, strict=True)],
            device=ids.device,
        )
        wide = logits.to(logprobs.dtype)
        logprobs = wide.gather(1, ids[:, None])[:, 0] - wide.logsumexp(-1)
    return ids.tolist(), logprobs.tolist()


def _seen(rows: list[Row], logits: Tensor) -> Tensor:
    seen = torch.zeros(logits.shape, dtype=torch.bool)
    for index, row in enumerate(rows):
        seen[index, row.ids] = True
    return seen.to(logits.device)


def _call_hooks(hooks: Sequence[Hook], rows: list[Row], vocab_size: int) -> None:
    for hook in hooks:
        for index, ids in (hook([RowView(row.prompt, row.sample, row.ids) for row in rows]) or {}).items():
            if any(not 0 <= i < vocab_size for i in ids):
                raise ValueError(f"hook: forced ids {list(ids)[:8]} are not all between 0 and {vocab_size - 1}")
            rows[index].queue.extend(ids)


def _finished(tokens: list[Token], stop_strings: list[str], decode: Decode | None) -> Generation:
    ids = [token.id for token in tokens]
    ended: Finish = "length" if not tokens or tokens[-1].finish is None else tokens[-1].finish
    text = None
    if decode is not None:
        text = decode(ids)
        cuts = [at for at in (text.find(stop) for stop in stop_strings) if at >= 0]
        text = text[: min(cuts)] if cuts else text
    return Generation(
        ids,
        [token.logprob for token in tokens],
        ended,
        text,
        sum(not token.full for token in tokens),
        [token.forced for token in tokens],
    )


def _check(model: Decoder, prompts: list[list[int]], n: int, ending: Ending) -> None:
    if not model.config.causal:
        raise ValueError("model: predicts in place and generates nothing; call it on whole rows")
    vocab_size, context = model.config.vocab_size, model.config.max_seq_len
    if ending.max_new_tokens < 0:
        raise ValueError(f"max_new_tokens: {ending.max_new_tokens} is negative")
    if n < 1:
        raise ValueError(f"n: {n} is not at least 1")
    if ending.strings and ending.decode is None:
        raise ValueError("stop: strings need decode=, a function from ids to text")
    if any(not text for text in ending.strings):
        raise ValueError("stop: an empty string would stop at once")
    for index, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(f"prompt {index}: is empty; begin with the document separator")
        if len(prompt) >= context:
            raise ValueError(f"prompt {index}: has {len(prompt)} tokens, the context holds {context} with the answer")
        if any(not 0 <= token < vocab_size for token in prompt):
            raise ValueError(f"prompt {index}: has ids outside 0..{vocab_size - 1}")


def _check_speculative(model: Decoder, sampling: Sampling, hooks: Sequence[Hook], selective: Selective | None) -> None:
    if "mtp" not in model.heads:
        raise ValueError("speculative: takes a model with an 'mtp' head, which guesses several tokens")
    if sampling.temperature != 0 or sampling.repetition_penalty != 1.0:
        raise ValueError("speculative: takes the likeliest tokens; set temperature=0 and leave repetition_penalty at 1")
    if hooks:
        raise ValueError("speculative: hooks see one token after another; leave one of the two out")
    if selective is not None:
        raise ValueError("speculative: a pass over guesses decodes all of them; leave selective out")
