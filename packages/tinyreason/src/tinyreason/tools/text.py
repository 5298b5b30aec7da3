"""Tools for anything that continues text, such as a server: it is stopped at a closing tag, answered, and goes on.

A call is what the generator wrote, never what a prompt says: tags in prompts are escaped (`<calc>` becomes `&lt;calc>`), and
tags in results too, since a web page or a file may hold them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tinyreason.completion import Call, Completion, Generator
from tinyreason.tools.toolbox import Toolbox


def escaped(text: str, names: Iterable[str]) -> str:
    """`text` with the tags of `names` and of results made harmless."""
    return _tags([*names, "result"]).sub(lambda tag: "&lt;" + tag[0][1:], text)


@dataclass
class _Row:
    """One answer while it is written."""

    prompt: str
    text: str = ""
    tokens: int = 0
    logprob: float | None = 0.0
    calls: tuple[Call, ...] = ()
    done: Completion | None = None


@dataclass(frozen=True)
class ToolGenerator:
    """A generator whose answers may call tools. trusted: prompts are ours and may show tags, as examples do.

    max_calls: calls of an answer that are answered; the next one gets an error, and one more ends the answer.
    """

    generator: Generator
    toolbox: Toolbox
    max_calls: int = 8
    trusted: bool = False

    def generate(
        self, prompts: list[str], *, n: int, max_tokens: int, temperature: float, stop: Sequence[str], seed: int
    ) -> list[list[Completion]]:
        """As `Generator.generate`; the texts hold calls and results, `Completion.calls` lists them. max_tokens is for what the
        generator writes."""
        names = list(self.toolbox.tools)
        closing = [f"</{name}>" for name in names]
        rows = [_Row(prompt if self.trusted else escaped(prompt, names)) for prompt in prompts for _ in range(n)]
        turn = 0
        while running := [row for row in rows if row.done is None]:
            # rows have different numbers of tokens left; the least is asked for, so that none gets more than its own
            left = min(max_tokens - row.tokens for row in running)
            answers = self.generator.generate(
                [row.prompt + row.text for row in running],
                n=1,
                max_tokens=left,
                temperature=temperature,
                stop=[*stop, *closing],
                seed=seed + turn,
            )
            for row, found in zip(running, answers, strict=True):
                self._continue(row, found[0] if found else Completion("", finish="error"), max_tokens)
            turn += 1
        finished = [row.done for row in rows if row.done is not None]
        return [finished[first : first + n] for first in range(0, len(finished), n)]

    def _continue(self, row: _Row, found: Completion, max_tokens: int) -> None:
        row.text += found.text
        row.tokens += found.tokens
        row.logprob = None if row.logprob is None or found.logprob is None else row.logprob + found.logprob
        opened = list(_tags(self.toolbox.tools).finditer(found.text))
        out_of_tokens = row.tokens >= max_tokens
        if found.finish == "length" and not out_of_tokens and found.tokens:
            return  # another row had fewer tokens left; this one goes on
        if found.finish != "stop" or not opened or opened[-1][0].startswith("</"):
            row.done = Completion(row.text, row.tokens, found.finish, row.logprob, row.calls)
            return
        name = opened[-1][0][1:-1]
        request = found.text[opened[-1].end() :]
        if len(opened) > 1 and not opened[-2][0].startswith("</"):
            call = Call(name, request, "error: a call within a call")
        elif len(row.calls) >= self.max_calls:
            call = Call(name, request, f"error: no more than {self.max_calls} calls an answer")
        else:
            call = self.toolbox.call(name, request)
        call = replace(call, result=escaped(call.result, self.toolbox.tools))
        row.calls += (call,)
        row.text += f"</{name}><result>{call.result}</result>"
        if out_of_tokens or len(row.calls) > self.max_calls + 1:
            row.done = Completion(row.text, row.tokens, "length", row.logprob, row.calls)


def _tags(names: Iterable[str]) -> re.Pattern[str]:
    return re.compile(f"</?(?:{'|'.join(map(re.escape, names))})>")
